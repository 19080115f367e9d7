/**
 * What a page had of a document before a reset, and the way to keep that.
 *
 * A reset (`POST /api/v1/reset/…`, or a new document under the name of a deleted one) is an update that deletes all that
 * was there. Yjs frees the content at the end of the transaction that brings it, and the copy in IndexedDB loses it some
 * time later. So the copy is made within that transaction. What was edited offline is in no other place after a `strict`
 * reset, so copies wait in this browser until their user has saved or discarded them.
 *
 * A reset is known by its marker: a client ID of a range of its own, whose last bits say what it is. The server's
 * docs/decisions/0025 has the rules.
 */
import * as idb from 'lib0/indexeddb'
import * as Y from 'yjs'

const RESERVED = 2 ** 53 - 2 ** 24
const MARKER = 1
const STRICT = 3

/** Copies of one document that wait; the oldest goes when one more comes. */
const MOST = 3

export interface OldCopy {
  /** When the reset came, in Unix milliseconds; no other copy of the document has it. */
  readonly at: number
  /** The document as it was, as a Yjs update (v1). */
  readonly update: Uint8Array
  /** Whether edits that the server never had were left out of the document. */
  readonly strict: boolean
}

/** Read an old copy. */
export function openCopy({ update }: OldCopy): Y.Doc {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, update)
  return doc
}

/**
 * Call `listener` with the document as it was, when a reset has come from elsewhere. It is called before editors are
 * told of the change, so it must not edit `doc`.
 */
export function onReset(doc: Y.Doc, listener: (before: OldCopy) => void): void {
  doc.on('beforeObserverCalls', (transaction: Y.Transaction) => {
    const { beforeState, afterState } = transaction
    if (transaction.local || beforeState.size === 0) return
    let strict: boolean | undefined
    for (const client of afterState.keys()) {
      const kind = client % 4
      if (client < RESERVED || (kind !== MARKER && kind !== STRICT) || beforeState.has(client)) continue
      strict = strict === true || kind === STRICT
    }
    if (strict !== undefined) listener({ at: Date.now(), update: stateBefore(doc, transaction), strict })
  })
}

/** Give the document as it was before a transaction that is about to be told to observers. */
function stateBefore(doc: Y.Doc, { beforeState, deleteSet }: Y.Transaction): Uint8Array {
  const deleted = Y.createDeleteSet()
  for (const [client, structs] of doc.store.clients) {
    const ranges = structs.filter((struct) => struct.deleted && struct.id.clock < (beforeState.get(client) ?? 0) && !Y.isDeleted(deleteSet, struct.id))
    if (ranges.length > 0) deleted.clients.set(client, ranges.map(({ id, length }) => ({ clock: id.clock, len: length })))
  }
  // Yjs gives back an old state only where nothing is ever freed; of this transaction nothing is freed yet.
  const { gc } = doc
  doc.gc = false
  try {
    return Y.encodeStateAsUpdate(Y.createDocFromSnapshot(doc, Y.createSnapshot(deleted, beforeState)))
  } finally {
    doc.gc = gc
  }
}

/** The copies of one document that wait in this browser; where it keeps nothing, in this tab alone. */
export class OldCopies {
  readonly #name: string
  #copies: OldCopy[] = []

  constructor(name: string) {
    this.#name = name
  }

  /** Read what waits; newest last. */
  read(): Promise<OldCopy[]> {
    return this.#change((copies) => copies)
  }

  /** Keep one more, if no other tab has kept the same. */
  add(copy: OldCopy): Promise<OldCopy[]> {
    return this.#change((copies) => (copies.some(({ update }) => isEqual(update, copy.update)) ? copies : [...copies, copy].slice(-MOST)))
  }

  remove({ at }: OldCopy): Promise<OldCopy[]> {
    return this.#change((copies) => copies.filter((copy) => copy.at !== at))
  }

  /** Change what is stored, in one transaction, for other tabs do so too. */
  async #change(change: (copies: OldCopy[]) => OldCopy[]): Promise<OldCopy[]> {
    try {
      const db = await idb.openDB('collab:old copies', (db) => idb.createStores(db, [['copies']]))
      try {
        const [store] = idb.transact(db, ['copies'])
        const before = ((await idb.get(store!, this.#name)) ?? []) as unknown as OldCopy[]
        this.#copies = change(before)
        if (this.#copies.length === 0) await idb.del(store!, this.#name)
        else if (this.#copies !== before) await idb.rtop(store!.put(this.#copies, this.#name))
      } finally {
        db.close()
      }
    } catch {
      // No IndexedDB, or none in a private window.
      this.#copies = change(this.#copies)
    }
    return this.#copies
  }
}

function isEqual(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at])
}
