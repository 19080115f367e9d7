// Records golden byte vectors of the Hocuspocus protocol from the published npm packages:
//
//   node hocuspocus_golden.mjs > ../protocol/data/golden-hocuspocus.json
//
// Each provider is taken through a session with the published server of tests/peers/hocuspocus, over a real
// socket; what each side wrote is kept in its order. What no session brings about is written by the classes of
// those packages alone. Client IDs and random numbers are fixed, so the output is too.

import { createRequire } from 'node:module'
import * as decoding from 'lib0/decoding'
import * as Y from 'yjs'
import WebSocket from 'ws'
import { Awareness } from 'y-protocols/awareness'

const packages = createRequire(import.meta.url)
const peer = createRequire(new URL('../peers/hocuspocus/package.json', import.meta.url))
const { Server, OutgoingMessage } = await import(peer.resolve('@hocuspocus/server'))
const serverVersion = peer(peer.resolve('@hocuspocus/server').replace(/dist\/.*/, 'package.json')).version

// Session IDs of providers come from here; so does the jitter of their retries, hence no sequence.
Math.random = () => 0.8765432109876

// 2.15 uses the browser's WebSocket when it is not told otherwise, and asks the global for its constants.
globalThis.WebSocket ??= WebSocket

const hex = (bytes) => Buffer.from(bytes).toString('hex')

// Each frame with what it means, taken apart by lib0 and not by the code under test.
const describe = (bytes, from) => {
  if (bytes.length === 1) return { type: { 9: 'ping', 10: 'pong' }[bytes[0]] }
  const decoder = decoding.createDecoder(bytes)
  const address = decoding.readVarString(decoder)
  const [type, read] = [
    ['sync', () => ({
      kind: ['step1', 'step2', 'update'][decoding.readVarUint(decoder)],
      payload: hex(decoding.readVarUint8Array(decoder))
    })],
    ['awareness', () => ({ payload: hex(decoding.readVarUint8Array(decoder)) })],
    ['auth', () => {
      const kind = decoding.readVarUint(decoder)
      if (from === 'client') {
        return {
          kind: 'token',
          token: decoding.readVarString(decoder),
          version: decoding.hasContent(decoder) ? decoding.readVarString(decoder) : null
        }
      }
      if (kind === 0) return { kind: 'token request' }
      return kind === 1
        ? { kind: 'permission denied', reason: decoding.readVarString(decoder) }
        : { kind: 'authenticated', scope: decoding.readVarString(decoder) }
    }],
    ['query awareness', () => ({})],
    ['sync reply', () => ({
      kind: ['step1', 'step2', 'update'][decoding.readVarUint(decoder)],
      payload: hex(decoding.readVarUint8Array(decoder))
    })],
    ['stateless', () => ({ payload: decoding.readVarString(decoder) })],
    ['broadcast stateless', () => ({ payload: decoding.readVarString(decoder) })],
    ['close', () => (from === 'client' ? {} : { reason: decoding.readVarString(decoder) })],
    ['sync status', () => ({ saved: decoding.readVarUint(decoder) === 1 })]
  ][decoding.readVarUint(decoder)]
  const described = { address, type, ...read() }
  if (decoding.hasContent(decoder)) throw new Error(`bytes behind a message: ${hex(bytes)}`)
  return described
}

const frames = []
const record = (source, what, from, bytes) =>
  frames.push({ source, what, from, frame: hex(bytes), ...describe(bytes, from) })

const until = async (accept, what) => {
  const deadline = Date.now() + 20000
  while (!accept()) {
    if (Date.now() > deadline) throw new Error(`never came: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

// The connections of the server by document name, for what only a server begins.
const connections = new Map()

const server = new Server({
  address: '127.0.0.1',
  port: 0,
  quiet: true,
  onAuthenticate: async ({ token, connectionConfig }) => {
    if (token === 'denied') throw Object.assign(new Error('denied'), { reason: 'no entry – 入るな' })
    connectionConfig.readOnly = token === 'reader'
  },
  connected: async ({ documentName, connection }) => { connections.set(documentName, connection) },
  onStateless: async ({ document, payload }) => document.broadcastStateless(payload)
})
await server.listen()
const url = `ws://127.0.0.1:${server.address.port}`

// A provider whose socket keeps what passes.
class Recorded {
  constructor (version, name, { token = 'a token', awareness = true, ...more } = {}) {
    const { HocuspocusProvider, HocuspocusProviderWebsocket } = version.package
    this.source = `provider ${version.number}, server ${serverVersion}`
    const sent = this.sent = []
    const received = this.received = []
    class Tapped extends WebSocket {
      constructor (...args) {
        super(...args)
        this.on('message', (data) => received.push(new Uint8Array(data)))
      }

      send (data, ...rest) {
        sent.push(new Uint8Array(data))
        return super.send(data, ...rest)
      }
    }
    this.doc = new Y.Doc()
    this.doc.clientID = 4242
    this.doc.getText('text').insert(0, 'mine')
    this.awareness = awareness ? new Awareness(this.doc) : null
    this.socket = new HocuspocusProviderWebsocket({ url, WebSocketPolyfill: Tapped })
    this.denied = null
    this.stateless = []
    this.provider = new HocuspocusProvider({
      name, document: this.doc, awareness: this.awareness, websocketProvider: this.socket, token, broadcast: false, ...more,
      onAuthenticationFailed: ({ reason }) => { this.denied = reason },
      onStateless: ({ payload }) => { this.stateless.push(payload) }
    })
    if (version.attaches) this.provider.attach()
  }

  // Wait until both sides have sent as many frames as belong to the step, and keep them.
  async step (what, fromClient, fromServer) {
    await until(() => this.sent.length >= fromClient && this.received.length >= fromServer,
      `${this.source}: ${what}: ${this.sent.length} of ${fromClient} and ${this.received.length} of ${fromServer}`)
    for (const bytes of this.sent.splice(0)) record(this.source, what, 'client', bytes)
    for (const bytes of this.received.splice(0)) record(this.source, what, 'server', bytes)
  }

  // Hand the provider what this server never sends by itself.
  receive (bytes) { this.socket.onMessage({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) }) }

  end () {
    this.provider.destroy()
    this.socket.destroy()
    this.awareness?.destroy()
  }
}

const versions = await Promise.all([2, 3, 4].map(async (major) => {
  const name = `hocuspocus-provider-${major}`
  return {
    major,
    number: packages(packages.resolve(name).replace(/dist\/.*/, 'package.json')).version,
    package: await import(name),
    attaches: major > 2
  }
}))

for (const version of versions) {
  const name = `notes/ä 😀 ${version.major}`
  const it = new Recorded(version, name)
  // Token, step 1, awareness, step 2; authenticated, step 1, step 2, status, and the echo of what step 2 brought.
  await it.step('opening', 4, 5)
  it.doc.getText('text').insert(4, ' and ours 😀')
  await it.step('an edit', 1, 2)
  it.doc.getText('text').delete(0, 5)
  await it.step('a deletion', 1, 2)
  it.doc.getText('text').insert(0, 'x'.repeat(200))
  await it.step('a long edit', 1, 2)
  it.provider.setAwarenessField('user', { name: 'Ada' })
  await it.step('an awareness state', 1, 1)
  it.provider.sendStateless('{"saved": "für immer 😀"}')
  await it.step('a stateless message', 1, 1)
  if (it.stateless.length !== 1) throw new Error('the stateless message was not understood')
  it.receive(new OutgoingMessage(name).writeQueryAwareness().toUint8Array())
  await it.step('answer to a query for awareness', 1, 0)
  if (version.major > 2) {
    connections.get(name).requestToken()
    await it.step('a token request', 1, 1)
  }
  it.provider.forceSync()
  await it.step('a forced sync', 2, 3)
  if (version.major > 2) {
    it.provider.detach()
    await it.step('leaving', 1, 1)
  }
  if (version.major > 3) {
    // Last: the published server closes the socket over the answer.
    it.receive(new Uint8Array([9]))
    await it.step('answer to a ping', 1, 0)
  }
  it.end()

  const reader = new Recorded(version, `read ${version.major}`, { token: 'reader', awareness: false })
  await reader.step('opening as a reader', 3, 4)
  reader.doc.getText('text').insert(0, 'not ')
  await reader.step('an edit of a reader', 1, 1)
  if (version.major > 2) {
    connections.get(`read ${version.major}`).close({ code: 4205, reason: 'Reset Connection' })
    await reader.step('a session that the server ends', 0, 1)
  }
  reader.end()

  const stranger = new Recorded(version, `closed ${version.major}`, { token: 'denied', awareness: false })
  await until(() => stranger.denied !== null, 'the denial')
  stranger.sent.length = Math.min(stranger.sent.length, 2)
  await stranger.step('a denial', 2, 1)
  stranger.end()

  const nobody = new Recorded(version, `open ${version.major}`, { token: null, awareness: false })
  // 2.15 shows no token at all, and this server then keeps its messages waiting.
  await (version.major > 2 ? nobody.step('opening without a token', 3, 5) : nobody.step('opening without a token', 1, 0))
  nobody.end()
}

const [aware] = versions.slice(-1)
const shared = new Recorded(aware, 'shared', { sessionAwareness: true })
await shared.step('opening with a session', 4, 5)
shared.doc.getText('text').insert(0, 'x')
await shared.step('an edit with a session', 1, 2)
shared.end()

const own = (what, message) => record(`server ${serverVersion}`, what, 'server', message.toUint8Array())
const document = new Y.Doc()
own('a query for awareness', new OutgoingMessage('d').writeQueryAwareness())
own('a stateless message between servers', new OutgoingMessage('d').writeBroadcastStateless('to all'))
own('a step 1 between servers', new OutgoingMessage('d').createSyncReplyMessage().writeFirstSyncStepFor(document))
own('an empty stateless message', new OutgoingMessage('d').writeStateless(''))
own('a long stateless message', new OutgoingMessage('d').writeStateless('ü'.repeat(8192)))
own('a refused update', new OutgoingMessage('d\0q6j44cqaglq').writeSyncStatus(false))

process.stdout.write(JSON.stringify({ frames }, null, 1) + '\n')
process.exit(0)
