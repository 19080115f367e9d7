/**
 * Markdown shown as it reads. micromark lets no HTML of the author through and only harmless addresses;
 * images of other servers become links, so that opening a document tells nobody else about it.
 */
import { micromark } from 'micromark'
import { gfm, gfmHtml } from 'micromark-extension-gfm'

/** Milliseconds from an edit to its preview; a long text is not put together with every key. */
const DELAY = 120

function render(markdown: string): Node[] {
  const html = micromark(markdown, { extensions: [gfm()], htmlExtensions: [gfmHtml()] })
  // A parsed document fetches nothing: what must not be shown goes before it is.
  const { body } = new DOMParser().parseFromString(html, 'text/html')
  for (const image of body.querySelectorAll('img')) {
    const link = document.createElement('a')
    link.href = image.src
    link.textContent = image.alt || image.src
    image.replaceWith(link)
  }
  for (const link of body.querySelectorAll('a')) {
    link.target = '_blank'
    link.rel = 'noopener noreferrer'
  }
  for (const box of body.querySelectorAll('input')) box.setAttribute('aria-label', box.checked ? 'Done' : 'To do')
  return [...body.childNodes]
}

/** Keep `element` in step with what `text` gives; call the result after each change. */
export function preview(element: HTMLElement, text: () => string): () => void {
  let timer: number | undefined
  const show = (): void => {
    timer = undefined
    element.replaceChildren(...render(text()))
  }
  show()
  return () => {
    timer ??= window.setTimeout(show, DELAY)
  }
}
