// An agent: clients in a Node process under the command of a test. One JSON object a line on standard
// input, one answer a line on standard output.
//
//   {"id": 1, "op": "open", "key": "a", ...}
//   {"id": 1, "value": {...}}            or            {"id": 1, "error": "..."}

import { createHash } from 'node:crypto'
import readline from 'node:readline'
import { edits, plain, show } from './content.mjs'

export const base64 = (bytes) => Buffer.from(bytes).toString('base64')
export const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))

// How many of the last frames a client keeps for a test to look at.
const KEPT = 1000

/** Keeps the last ones of what is pushed. */
export const keep = (list, item) => {
  list.push(item)
  if (list.length > KEPT) list.shift()
}

/** Bytes that no compression makes smaller. */
const noise = (size, seed) => {
  const words = new Uint32Array(Math.ceil(size / 4))
  let x = seed | 1
  for (let at = 0; at < words.length; at++) {
    x ^= x << 13; x ^= x >>> 17; x ^= x << 5
    words[at] = x
  }
  return new Uint8Array(words.buffer, 0, size)
}

const digest = (value) => value instanceof Uint8Array ? createHash('sha256').update(value).digest('hex') : null

/** The clients of this process by the key that the test gave them; asking for an unknown one is an error. */
export class Clients extends Map {
  get (key) {
    if (!this.has(key)) throw new Error(`no client ${key}`)
    return super.get(key)
  }
}

/** A new document, with what is read from a local copy, and edits made before anybody connects it. */
export const newDocument = (Y, { clientID = null, content = [], copy = null }) => {
  const doc = new Y.Doc()
  if (clientID !== null) doc.clientID = clientID
  if (copy !== null) Y.applyUpdate(doc, bytes(copy), 'disk')
  for (const [edit, args] of content) edits[edit](Y, doc, args ?? {})
  return doc
}

/** Keep a document on a disk of this process, by the name of the disk, as y-indexeddb does in a browser. */
export const keepOn = async (doc, disk) => {
  await import('fake-indexeddb/auto')
  const { IndexeddbPersistence } = await import('y-indexeddb')
  await new IndexeddbPersistence(disk, doc).whenSynced
}

export const statesOf = (awareness) => awareness === null
  ? {}
  : Object.fromEntries([...awareness.getStates()].sort(([a], [b]) => a - b).map(([id, value]) => [id, plain(value)]))

const updatesOf = (doc, work) => {
  const updates = []
  const collect = (update, origin) => { if (origin !== 'provider') updates.push(base64(update)) }
  doc.on('update', collect)
  work()
  doc.off('update', collect)
  return updates
}

/** What every agent can do with the documents of its clients; `state` shows one client whole. */
export const commonOps = (Y, clients, state) => ({
  // Answers with the updates that the edit made, one for each transaction, as a provider would send them.
  edit ({ key, edit, args = {} }) {
    const { doc } = clients.get(key)
    return updatesOf(doc, () => edits[edit](Y, doc, args))
  },

  // What a provider does with what it is sent, for a test that is the provider itself. The answer is not
  // always empty: where formats met, Yjs cleans up behind the update and sends that as an edit of its own.
  apply ({ key, update }) {
    const { doc } = clients.get(key)
    return updatesOf(doc, () => Y.applyUpdate(doc, bytes(update), 'provider'))
  },

  // Reads the copy that a disk has, and keeps the document there from now on.
  async keepOn ({ key, disk }) {
    await keepOn(clients.get(key).doc, disk)
  },

  // One large value, for which `state` would be too slow: what is shown of it is its digest.
  large ({ key, name, size, seed = 1 }) {
    const value = noise(size, seed)
    clients.get(key).doc.getMap('large').set(name, value)
    return digest(value)
  },

  async untilLarge ({ key, name, want, seconds = 50 }) {
    const map = clients.get(key).doc.getMap('large')
    const deadline = Date.now() + seconds * 1000
    for (;;) {
      const value = map.get(name)
      if (value !== undefined && digest(value) === want) return
      if (Date.now() > deadline) throw new Error(`${key} waited ${seconds} s for ${name}: ${value?.length} bytes`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  },

  vector: ({ key }) => base64(Y.encodeStateVector(clients.get(key).doc)),

  diff: ({ key, vector }) => base64(Y.encodeStateAsUpdate(clients.get(key).doc, bytes(vector))),

  encode: ({ key }) => base64(Y.encodeStateAsUpdate(clients.get(key).doc)),

  state: ({ key }) => state(clients.get(key)),

  // What a test may ask often of a large document: no content goes over the pipe.
  progress ({ key }) {
    const it = clients.get(key)
    const socket = it.over ?? it
    return { length: it.doc.getText('text').length, synced: it.provider.synced, opens: socket.opens }
  },

  // The last frames from the server, oldest first.
  received: ({ key }) => clients.get(key).received,

  // Waits until the parts of the state named in `want` are as given.
  async until ({ key, want, seconds = 30 }) {
    const it = clients.get(key)
    const wanted = Object.entries(want).map(([part, value]) => [part, JSON.stringify(value)])
    const deadline = Date.now() + seconds * 1000
    for (;;) {
      const now = state(it)
      if (wanted.every(([part, value]) => JSON.stringify(now[part]) === value)) return now
      if (Date.now() > deadline) throw new Error(`${key} waited ${seconds} s for ${JSON.stringify(want)}: ${JSON.stringify(now)}`)
      await new Promise((resolve) => setTimeout(resolve, 15))
    }
  },

  present ({ key, value }) {
    clients.get(key).awareness.setLocalState(value)
  },

  // What one yjs shows that is given all these updates at once.
  together ({ updates }) {
    const doc = new Y.Doc()
    for (const update of updates) Y.applyUpdate(doc, bytes(update))
    return show(Y, doc)
  }
})

/** Do what the lines on standard input say, until they end; then end the process. */
export const run = async (ops) => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { id, op, ...args } = JSON.parse(line)
    // Not awaited: one client may wait for what another one is told to do next.
    ;(async () => ops[op](args))().then(
      (value) => process.stdout.write(JSON.stringify({ id, value: value ?? null }) + '\n'),
      (error) => process.stdout.write(JSON.stringify({ id, error: String(error?.stack ?? error) }) + '\n')
    )
  }
  process.exit(0)
}
