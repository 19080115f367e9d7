/** Rename a document from outside: the title lies in the document, so this opens it for a moment. */
import * as Y from 'yjs'
import { setTitle } from '../lib/api'
import { connectYWebsocket } from '../lib/ywebsocket'

/** Set the title of the document `name`, in it and in the listing; reject with a sentence if it cannot be done. */
export async function renameDocument(name: string, title: string): Promise<void> {
  const doc = new Y.Doc()
  const connection = connectYWebsocket(doc, name)
  // A visit of a moment is nobody's presence.
  connection.awareness.setLocalState(null)
  try {
    await new Promise<void>((resolve, reject) => {
      let renamed = false
      connection.status.subscribe((status) => {
        if (status.state === 'refused') reject(new Error(status.why))
        if (status.state === 'read-only') reject(new Error('the document is read only'))
        if (status.state === 'offline') reject(new Error('the server cannot be reached'))
        if (status.state !== 'saved') return
        if (renamed) return resolve()
        renamed = true
        doc.getMap('meta').set('title', title)
      })
    })
    await setTitle(name, title)
  } finally {
    connection.destroy()
    doc.destroy()
  }
}
