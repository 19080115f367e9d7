/** Markdown to HTML beside the page: a long text takes longer than a key may. */
import { micromark } from 'micromark'
import { gfm, gfmHtml } from 'micromark-extension-gfm'

onmessage = ({ data }: MessageEvent<string>): void => {
  // micromark lets no HTML of the author through, and only harmless addresses.
  postMessage(micromark(data, { extensions: [gfm()], htmlExtensions: [gfmHtml()] }))
}
