// Published Hocuspocus providers under load, beside the books of what the server has told them to be saved:
//
//   node hocuspocus_crash.mjs '{"": "ws://HOST:PORT/hocuspocus"}' '["document", ...]' [EDITS] [presence]
//
// One provider of each version is on every document for each of the lines that the first argument names, those of one
// version and line on one socket. Each edit puts a token that exists nowhere else into an array: the line, the version
// and a number. The books are kept beside the providers, in their sockets: which tokens were in a message that asks
// for a status, and which status came for it. Lines on standard output:
//
//   {"saved": {"document": ["token", ...]}}    a status 1 came for a message that held these
//   {"made": {"document": 12}}                 how many tokens there are by now
//   {"open": 3}                                how many sockets are open, after each change
//   {"state": {...}}                           the answer to the line "state" on standard input
//
// The line "stop" on standard input ends the editing, "more" allows each provider as many edits as in a new life of the
// server, "rest" none until then; {"large": 1000000, "line": "", "pick": 4} lets one provider of a
// line make an edit of so many bytes; "brief" asks for the state without the tokens; the end of standard input ends
// the process. With the word presence each provider shows {"who": line and version}.

import { createHash, randomBytes } from 'node:crypto'
import readline from 'node:readline'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { booked } from './lib/booked.mjs'
import { loadProviders } from './lib/providers.mjs'

const [lines, names] = [JSON.parse(process.argv[2]), JSON.parse(process.argv[3])]
const PRESENCE = process.argv[5] === 'presence'

// 2.15 asks the global for the states of a socket.
globalThis.WebSocket ??= WebSocket

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n')

const sockets = new Set()

const Booked = booked({
  opened: (socket) => { sockets.add(socket); say({ open: sockets.size }) },
  closed: (socket) => { if (sockets.delete(socket)) say({ open: sockets.size }) },
  saved: (name, tokens) => say({ saved: { [name]: tokens } })
})

const clients = []
const providers = Object.entries(await loadProviders())
for (const [line, url] of Object.entries(lines)) {
  for (const [version, { Provider, Socket }] of providers) {
    // Come back fast, as often as the server is killed.
    const socket = new Socket({ url, WebSocketPolyfill: Booked, delay: 50, minDelay: 50, maxDelay: 100, jitter: false })
    for (const name of names) {
      const document = new Y.Doc()
      const provider = new Provider({
        name, document, websocketProvider: socket, token: null, broadcast: false, ...(PRESENCE ? {} : { awareness: null })
      })
      provider.attach?.()
      if (PRESENCE) provider.awareness.setLocalState({ who: line + version })
      clients.push({ line, version, name, document, provider, socket, number: 0 })
    }
  }
}

const made = Object.fromEntries(names.map((name) => [name, 0]))

const edit = (client, bytes = 0) => {
  const { line, version, name, document } = client
  const token = `${line}${version}:${client.number++}${bytes ? ':large' : ''}`
  document.transact(() => {
    const tokens = document.getArray('tokens')
    tokens.insert(Math.floor(Math.random() * (tokens.length + 1)), [token])
    if (bytes) document.getMap('large').set(line, large(token, bytes))
  })
  made[name]++
}

// As tests/crash/load.py makes and reads it. One for each line, so that documents stay small.
const large = (token, bytes) => {
  const body = Buffer.concat([Buffer.from(`${token}\n`), randomBytes(bytes)])
  return new Uint8Array(Buffer.concat([body, createHash('sha256').update(body).digest()]))
}

// About 30 edits a second and client while it is connected; offline a person edits too, but less. Only so many for
// each life of the server: on a slow machine the documents would grow the more the longer everything takes.
const EDITS = Number(process.argv[4] ?? 60)
let resting = false
const more = (client) => { client.end = client.number + EDITS }
const timers = new Set(clients.map((client) => {
  client.end = EDITS
  client.socket.on('open', () => { if (!resting) more(client) })
  return setInterval(() => {
    if (client.number < client.end && (client.socket.status === 'connected' || Math.random() < 0.05)) edit(client)
  }, 33)
}))
timers.add(setInterval(() => say({ made }), 50))

// How much a client has, and whom it sees: equal snapshots are equal documents.
const seen = (document, provider) => ({
  count: document.getArray('tokens').length,
  snapshot: Buffer.from(Y.encodeSnapshot(Y.snapshot(document))).toString('base64'),
  present: [...(provider.awareness?.getStates().values() ?? [])].map((state) => state.who ?? '?').sort()
})

const state = (brief = false) => ({
  made,
  // The providers' own count is not exact: what they queue offline is counted once more when they come back.
  waiting: [...sockets].flatMap((socket) => [...socket.waiting.values()]).reduce((sum, queue) => sum + queue.length, 0),
  clients: clients.map(({ line, version, name, document, provider }) => ({
    version: line + version,
    name,
    ...(brief ? seen(document, provider) : { tokens: document.getArray('tokens').toArray() }),
    unsynced: provider.hasUnsyncedChanges,
    synced: provider.isSynced ?? provider.synced,
    // What a part of an update that never came keeps out of the document, by client and clock.
    pending: document.store.pendingStructs && Object.fromEntries(document.store.pendingStructs.missing)
  }))
})

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line === 'stop') {
    for (const timer of timers) clearInterval(timer)
    timers.clear()
  } else if (line === 'state' || line === 'brief') {
    say({ state: state(line === 'brief') })
  } else if (line === 'more') {
    resting = false
    clients.forEach(more)
  } else if (line === 'rest') {
    resting = true
    clients.forEach((client) => { client.end = client.number })
  } else {
    const { large: bytes, line: wanted, pick } = JSON.parse(line)
    const chosen = clients.filter((client) => client.line === wanted)
    edit(chosen[pick % chosen.length], bytes)
  }
}
process.exit(0)
