// Published npm clients under the command of a test: one JSON object a line on standard input, one
// answer a line on standard output. `node interop_agent.mjs yjs13|yjs14`.
//
//   {"id": 1, "op": "open", "key": "a", "version": "3.1", "url": "ws://...", "name": "notes/a"}
//   {"id": 1, "value": {...}}            or            {"id": 1, "error": "..."}

import readline from 'node:readline'
import { edits, plain, show } from './lib/content.mjs'
import { loadStack, WebSocket } from './lib/stacks.mjs'

const { Y, awareness: awarenessProtocol, providers } = await loadStack(process.argv[2])

const base64 = (bytes) => Buffer.from(bytes).toString('base64')
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))

/** @type {Map<string, any>} */
const clients = new Map()

const updatesOf = (doc, work) => {
  const updates = []
  const collect = (update, origin) => { if (origin !== 'provider') updates.push(base64(update)) }
  doc.on('update', collect)
  work()
  doc.off('update', collect)
  return updates
}

const client = (key) => {
  if (!clients.has(key)) throw new Error(`no client ${key}`)
  return clients.get(key)
}

const state = (it) => ({
  ...show(Y, it.doc),
  clientID: it.doc.clientID,
  subdocuments: [...it.doc.getSubdocs()].map((doc) => doc.guid).sort(),
  synced: it.provider?.synced ?? false,
  connected: it.provider?.wsconnected ?? false,
  shouldConnect: it.provider?.shouldConnect ?? false,
  states: it.awareness === null
    ? {}
    : Object.fromEntries([...it.awareness.getStates()].sort(([a], [b]) => a - b).map(([id, value]) => [id, plain(value)])),
  opens: it.opens,
  closes: it.closes,
  closed: it.closed,
  frames: it.frames
})

const ops = {
  // awareness: "own" (the provider's default) or "null": a client that shows nothing of itself.
  open ({ key, version, url, name, awareness = 'own', clientID = null, content = [], params = {} }) {
    const doc = new Y.Doc()
    if (clientID !== null) doc.clientID = clientID
    for (const [edit, args] of content) edits[edit](Y, doc, args ?? {})
    const it = { doc, awareness: null, provider: null, opens: 0, closes: [], closed: null, received: [], frames: 0 }
    if (version !== undefined) {
      it.awareness = new awarenessProtocol.Awareness(doc)
      if (awareness === 'null') it.awareness.setLocalState(null)
      const Provider = providers[version]
      class Observed extends WebSocket {
        constructor (...args) {
          super(...args)
          this.on('message', (data) => {
            it.frames++
            it.received.push(Buffer.from(data).toString('base64'))
            if (it.received.length > 50) it.received.shift()
          })
        }
      }
      it.provider = new Provider(url, name, doc, {
        WebSocketPolyfill: Observed, disableBc: true, awareness: it.awareness, params
      })
      it.provider.on('status', ({ status }) => { if (status === 'connected') it.opens++ })
      it.provider.on('connection-close', (event) => it.closes.push(event === null ? null : event.code))
      it.provider.on('connection-error', () => {})
      it.provider.on('closed', ({ code, reason }) => { it.closed = { code, reason } })
    }
    clients.set(key, it)
    return doc.clientID
  },

  // Answers with the updates that the edit made, one for each transaction, as a provider would send them.
  edit ({ key, edit, args = {} }) {
    const { doc } = client(key)
    return updatesOf(doc, () => edits[edit](Y, doc, args))
  },

  // What a provider does with what it is sent, for a test that is the provider itself. The answer is not
  // always empty: where formats met, Yjs cleans up behind the update and sends that as an edit of its own.
  apply ({ key, update }) {
    const { doc } = client(key)
    return updatesOf(doc, () => Y.applyUpdate(doc, bytes(update), 'provider'))
  },

  vector: ({ key }) => base64(Y.encodeStateVector(client(key).doc)),

  diff: ({ key, vector }) => base64(Y.encodeStateAsUpdate(client(key).doc, bytes(vector))),

  state: ({ key }) => state(client(key)),

  // The last frames from the server, oldest first.
  received: ({ key }) => client(key).received,

  // Waits until the parts of the state named in `want` are as given.
  async until ({ key, want, seconds = 30 }) {
    const it = client(key)
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
    client(key).awareness.setLocalState(value)
  },

  connect ({ key }) {
    client(key).provider.connect()
  },

  disconnect ({ key }) {
    client(key).provider.disconnect()
  },

  // The process behind a client dies: the socket is cut, nothing is said.
  vanish ({ key }) {
    const { provider } = client(key)
    provider.shouldConnect = false
    provider.ws?.terminate()
  },

  encode: ({ key }) => base64(Y.encodeStateAsUpdate(client(key).doc)),

  // What one yjs shows that is given all these updates at once.
  together ({ updates }) {
    const doc = new Y.Doc()
    for (const update of updates) Y.applyUpdate(doc, bytes(update))
    return show(Y, doc)
  },

  close ({ key }) {
    const it = client(key)
    it.provider?.destroy()
    it.awareness?.destroy()
    it.doc.destroy()
    clients.delete(key)
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, op, ...args } = JSON.parse(line)
  // Not awaited: one client may wait for what another one is told to do next.
  ;(async () => ops[op](args))().then(
    (value) => process.stdout.write(JSON.stringify({ id, value: value ?? null }) + '\n'),
    (error) => process.stdout.write(JSON.stringify({ id, error: String(error?.stack ?? error) }) + '\n')
  )
}
process.exit(0)
