/** Rename a document from outside: the title lies in the document, so this opens it for a moment. */
import * as Y from 'yjs'
import { setTitle } from '../lib/api'
import { visit } from '../lib/visit'
import { withFallback } from '../lib/fallback'
import { connectYWebsocket } from '../lib/ywebsocket'

/** Set the title of the document `name`, in it and in the listing; reject with a sentence if it cannot be done. */
export async function renameDocument(name: string, title: string): Promise<void> {
  const doc = new Y.Doc()
  await visit(withFallback(connectYWebsocket), doc, name, () => doc.getMap('meta').set('title', title))
  await setTitle(name, title)
}
