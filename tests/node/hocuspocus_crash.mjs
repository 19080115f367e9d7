// Published Hocuspocus providers under load, beside the books of what the server has told them to be saved:
//
//   node hocuspocus_crash.mjs ws://HOST:PORT/hocuspocus '["document", ...]'
//
// One provider of each version is on every document, those of one version on one socket. Each edit puts a token
// that exists nowhere else into an array. The books are kept beside the providers, in their sockets: which tokens
// were in a message that asks for a status, and which status came for it. Lines on standard output:
//
//   {"saved": {"document": ["token", ...]}}    a status 1 came for a message that held these
//   {"made": {"document": 12}}                 how many tokens there are by now
//   {"open": 3}                                how many sockets are open, after each change
//   {"state": {...}}                           the answer to the line "state" on standard input
//
// The line "stop" on standard input ends the editing; the end of it ends the process.

import readline from 'node:readline'
import * as decoding from 'lib0/decoding'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { loadProviders } from './lib/providers.mjs'

const [url, names] = [process.argv[2], JSON.parse(process.argv[3])]

// 2.15 asks the global for the states of a socket.
globalThis.WebSocket ??= WebSocket

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const [SYNC, SYNC_STATUS, STEP1] = [0, 8, 0]
const sockets = new Set()

const tokensOf = (update) => Y.decodeUpdate(update).structs.flatMap((struct) => struct.content?.arr ?? [])

// Keeps, for each address, the messages without a status yet, oldest first.
class Booked extends WebSocket {
  constructor (...args) {
    super(...args)
    this.waiting = new Map()
    this.on('open', () => { sockets.add(this); say({ open: sockets.size }) })
    this.on('close', () => { if (sockets.delete(this)) say({ open: sockets.size }) })
    // Before the listeners of the provider, which is there only when this has returned.
    this.on('message', (data) => {
      const decoder = decoding.createDecoder(new Uint8Array(data))
      const name = decoding.readVarString(decoder)
      if (decoding.readVarUint(decoder) !== SYNC_STATUS) return
      const queue = this.waiting.get(name)
      if (!queue?.length) throw new Error(`a status for ${name}, where nothing was sent`)
      const tokens = queue.shift()
      if (decoding.readVarUint(decoder) !== 1) throw new Error(`refused: ${tokens}`)
      if (tokens.length) say({ saved: { [name]: tokens } })
    })
  }

  send (data, ...rest) {
    const decoder = decoding.createDecoder(new Uint8Array(data))
    const name = decoding.readVarString(decoder)
    if (decoding.readVarUint(decoder) === SYNC && decoding.readVarUint(decoder) !== STEP1) {
      if (!this.waiting.has(name)) this.waiting.set(name, [])
      this.waiting.get(name).push(tokensOf(decoding.readVarUint8Array(decoder)))
    }
    return super.send(data, ...rest)
  }
}

const clients = []
for (const [version, { Provider, Socket }] of Object.entries(await loadProviders())) {
  // Come back fast, as often as the server is killed.
  const socket = new Socket({ url, WebSocketPolyfill: Booked, delay: 50, minDelay: 50, maxDelay: 100, jitter: false })
  for (const name of names) {
    const document = new Y.Doc()
    const provider = new Provider({ name, document, websocketProvider: socket, token: null, broadcast: false, awareness: null })
    provider.attach?.()
    clients.push({ version, name, document, provider, socket })
  }
}

const made = Object.fromEntries(names.map((name) => [name, 0]))

const edit = ({ version, name, document }, number) => {
  const tokens = document.getArray('tokens')
  tokens.insert(Math.floor(Math.random() * (tokens.length + 1)), [`${version}:${number}`])
  made[name]++
}

// About 30 edits a second and client while it is connected; offline a person edits too, but less. Only so many for
// each life of the server: on a slow machine the documents would grow the more the longer everything takes.
const EDITS = 60
const timers = new Set(clients.map((client) => {
  let number = 0
  let end = EDITS
  client.socket.on('open', () => { end = number + EDITS })
  return setInterval(() => {
    if (number < end && (client.socket.status === 'connected' || Math.random() < 0.05)) edit(client, number++)
  }, 33)
}))
timers.add(setInterval(() => say({ made }), 50))

const state = () => ({
  made,
  // The providers' own count is not exact: what they queue offline is counted once more when they come back.
  waiting: [...sockets].flatMap((socket) => [...socket.waiting.values()]).reduce((sum, queue) => sum + queue.length, 0),
  clients: clients.map(({ version, name, document, provider }) => ({
    version,
    name,
    tokens: document.getArray('tokens').toArray(),
    unsynced: provider.hasUnsyncedChanges
  }))
})

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line === 'stop') {
    for (const timer of timers) clearInterval(timer)
    timers.clear()
  } else say({ state: state() })
}
process.exit(0)
