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
import { Presence } from './presence'
import { Signal } from './signal'

export interface OpenDocument {
  readonly name: string
  readonly doc: Y.Doc
  /** What is true of the document beside its content: `title`, and for code `language`. Shared as all else. */
  readonly meta: Y.Map<unknown>
  readonly title: Signal<string>
  readonly connection: Connection
  readonly presence: Presence
  /** Whether edits are kept in this browser when the tab is closed. */
  readonly kept: boolean
}

/** Milliseconds that a slow disk may hold up the connection. */
const PATIENCE = 1500
const TITLE_LENGTH = 120

/** Read the copy in this browser into `doc`, and keep it up to date; tell whether that works here. */
function keepLocally(name: string, doc: Y.Doc): Promise<boolean> {
  return new Promise((resolve) => {
    // A browser may have no IndexedDB, or refuse to open it in a private window; y-indexeddb would throw in the void.
    let probe: IDBOpenDBRequest
    try {
      probe = indexedDB.open('collab:probe')
    } catch {
      return resolve(false)
    }
    probe.onerror = () => resolve(false)
    probe.onsuccess = () => {
      probe.result.close()
      new IndexeddbPersistence(`collab:${name}`, doc).once('synced', () => resolve(true))
    }
    setTimeout(resolve, PATIENCE, false)
  })
}

/** Open the document `name` by way of `connect`; `as` is the name one goes by, if not the remembered one. */
export async function openDocument(name: string, connect: Connect, as?: string): Promise<OpenDocument> {
  const doc = new Y.Doc()
  const kept = await keepLocally(name, doc)
  const connection = connect(doc, name)
  const presence = new Presence(connection.awareness, as)
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
