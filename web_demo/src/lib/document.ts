/**
 * One open document: the Yjs document, the copy of it in this browser, its connection, and who is in it.
 *
 * The copy (IndexedDB) is read before the connection is made, so that what was edited offline goes out as
 * the answer to the server's first question, and so that an offline page shows what it last had.
 */
import { IndexeddbPersistence } from 'y-indexeddb'
import * as Y from 'yjs'
import { untitled } from './address'
import type { Connect, Connection } from './connection'
import { browserID, Presence } from './presence'
import { Signal } from './signal'
import { nameInToken } from './token'

export interface OpenDocument {
  readonly name: string
  readonly doc: Y.Doc
  /** What is true of the document beside its content: `title`, and for code `language`. Shared as all else. */
  readonly meta: Y.Map<unknown>
  readonly title: Signal<string>
  readonly connection: Connection
  readonly presence: Presence
  /** Whether the edits made here outlive this tab. */
  readonly kept: Signal<Kept>
}

/** In this browser's storage; on the way there; or in this tab alone, as the browser keeps nothing. */
export type Kept = 'yes' | 'soon' | 'no'

/** Milliseconds that a slow disk may hold up the connection. */
const PATIENCE = 1500
const TITLE_LENGTH = 120

/** Read the copy in this browser into `doc`, and keep it up to date; `kept` tells whether that works here. */
function keepLocally(name: string, doc: Y.Doc, kept: Signal<Kept>): Promise<void> {
  return new Promise((resolve) => {
    // A browser may have no IndexedDB, or refuse to open it in a private window; y-indexeddb would throw in the void.
    let probe: IDBOpenDBRequest
    try {
      probe = indexedDB.open('collab:probe')
    } catch {
      return resolve()
    }
    probe.onerror = () => resolve()
    probe.onsuccess = () => {
      probe.result.close()
      const persistence = new IndexeddbPersistence(`collab:${name}`, doc)
      persistence.once('synced', () => {
        kept.set('yes')
        // "Soon" until what has been written so far is on disk: transactions end in order, so one more tells.
        let writes = 0
        doc.on('update', () => {
          const mine = (writes += 1)
          kept.set('soon')
          const transaction = persistence.db!.transaction('updates')
          transaction.objectStore('updates').getKey(-1)
          transaction.oncomplete = () => {
            if (mine === writes) kept.set('yes')
          }
        })
        resolve()
      })
    }
    setTimeout(resolve, PATIENCE)
  })
}

/** Open the document `name` by way of `connect`; `as` is the name of somebody who is in this window alone, if not the remembered one. */
export async function openDocument(name: string, connect: Connect, as?: string): Promise<OpenDocument> {
  const doc = new Y.Doc()
  const kept = new Signal<Kept>('no')
  await keepLocally(name, doc, kept)
  const connection = connect(doc, name)
  const signedIn = nameInToken()
  const presence = new Presence(connection.awareness, { name: signedIn ?? as, named: signedIn !== undefined, id: as === undefined ? browserID(name) : undefined })
  presence.tellTyping(doc)

  const meta = doc.getMap<unknown>('meta')
  const readTitle = (): string => {
    const title = meta.get('title')
    return typeof title === 'string' && title.trim() ? title.slice(0, TITLE_LENGTH) : untitled(name)
  }
  const title = new Signal(readTitle())
  meta.observe(() => title.set(readTitle()))
  return { name, doc, meta, title, connection, presence, kept }
}
