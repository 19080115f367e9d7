/** A document opened for a moment, from outside of its page. */
import type * as Y from 'yjs'
import type { Connect } from './connection'

/**
 * Connect `doc` to the document `name`, change it by `act`, and resolve when the server has that change and all that was
 * in `doc` before: edits travel in order. Rejects with a sentence if it cannot be done.
 */
export async function visit(connect: Connect, doc: Y.Doc, name: string, act: () => void): Promise<void> {
  const connection = connect(doc, name)
  // A visit of a moment is nobody's presence.
  connection.awareness.setLocalState(null)
  try {
    await new Promise<void>((resolve, reject) => {
      let acted = false
      connection.status.subscribe((status) => {
        if (status.state === 'refused') reject(new Error(status.why))
        if (status.state === 'read-only') reject(new Error('the document is read only'))
        if (status.state === 'offline') reject(new Error('the server cannot be reached'))
        if (status.state !== 'saved') return
        if (acted) return resolve()
        acted = true
        act()
      })
    })
  } finally {
    connection.destroy()
    doc.destroy()
  }
}
