// Published clients of both protocols that type while servers are restarted under them, and measure what they notice:
//
//   node rolling.mjs '{"ws": "ws://HOST:PORT/ws", "hocuspocus": "ws://HOST:PORT/hocuspocus",
//                      "names": ["document", ...], "clients": 300, "pause": 2000}'
//
// The clients are of all packages in turn, each with a socket and a copy of its own, spread over the documents. Each
// types a token that exists nowhere else into an array, every `pause` milliseconds on average, connected or not.
// Lines on standard input, each answered by one line: "ready" (when all are in sync), "state", "stop" (of the typing),
// "tokens" (what each client sees of its document, by a digest and a count).

import { createHash } from 'node:crypto'
import readline from 'node:readline'
import * as Y from 'yjs'
import { booked } from './lib/booked.mjs'
import { loadProviders } from './lib/providers.mjs'
import { loadStack, WebSocket } from './lib/stacks.mjs'

const { ws, hocuspocus, names, clients: count, pause } = JSON.parse(process.argv[2])
const { providers: plain } = await loadStack('yjs13')
const versions = await loadProviders()
const kinds = [['y', '3.1'], ['h', '4'], ['y', '3.0'], ['h', '3'], ['y', '3.1'], ['h', '2']]

const saved = Object.fromEntries(names.map((name) => [name, []]))
const Booked = booked({ saved: (name, tokens) => saved[name].push(...tokens) })

// An interruption begins when a client that was in sync loses its connection, and ends when it is in sync again.
const interrupted = (it, code) => {
  it.closes.push(code)
  if (it.synced && it.lost === null) it.lost = performance.now()
  it.synced = false
}
const inSync = (it) => {
  if (it.lost !== null) it.interruptions.push(performance.now() - it.lost)
  it.lost = null
  it.synced = true
}

const openPlain = (it, version) => {
  it.provider = new plain[version](ws, it.name, it.doc, { WebSocketPolyfill: WebSocket, disableBc: true })
  it.provider.on('connection-close', (event) => { if (event !== null) interrupted(it, event.code) })
  it.provider.on('connection-error', () => {})
  it.provider.on('sync', (synced) => { if (synced) inSync(it) })
}

const openHocuspocus = (it, version) => {
  const { Provider, Socket } = versions[version]
  const socket = new Socket({ url: hocuspocus, WebSocketPolyfill: Booked })
  socket.on('close', ({ event }) => interrupted(it, event?.code))
  it.provider = new Provider({ name: it.name, document: it.doc, websocketProvider: socket, token: null, broadcast: false })
  it.provider.on('synced', (event) => { if (event?.state !== false) inSync(it) })
  it.provider.attach?.()
}

const clients = Array.from({ length: count }, (_, number) => {
  const [protocol, version] = kinds[number % kinds.length]
  // Every kind is on every document.
  const name = names[Math.floor(number / kinds.length) % names.length]
  const it = {
    key: `${protocol}${version}/${number}`, name, doc: new Y.Doc(), made: 0, synced: false, lost: null, closes: [], interruptions: []
  }
  ;(protocol === 'y' ? openPlain : openHocuspocus)(it, version)
  return it
})

const made = Object.fromEntries(names.map((name) => [name, 0]))
const type = (it) => {
  const tokens = it.doc.getArray('tokens')
  tokens.insert(Math.floor(Math.random() * (tokens.length + 1)), [`${it.key}:${it.made++}`])
  made[it.name]++
}

let typing = true
const typeOn = (it) => setTimeout(() => {
  if (!typing) return
  type(it)
  typeOn(it)
}, pause * 2 * Math.random())

const answers = {
  ready: async () => {
    while (!clients.every((it) => it.synced)) await new Promise((resolve) => setTimeout(resolve, 20))
    if (typing) clients.forEach(typeOn)
    return clients.length
  },
  state: () => ({
    made,
    saved,
    clients: clients.map(({ key, name, synced, closes, interruptions }) => ({ key, name, synced, closes, interruptions }))
  }),
  stop: () => { typing = false },
  tokens: () => clients.map(({ key, name, doc, provider }) => {
    const tokens = doc.getArray('tokens').toArray()
    const digest = createHash('sha256').update(JSON.stringify(tokens)).digest('hex')
    return { key, name, count: tokens.length, distinct: new Set(tokens).size, digest, unsaved: provider.hasUnsyncedChanges ?? false }
  })
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify((await answers[line]()) ?? null) + '\n')
}
process.exit(0)
