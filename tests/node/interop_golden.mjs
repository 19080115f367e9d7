// Records golden byte vectors from the published npm packages:
//
//   node interop_golden.mjs yjs13 > ../protocol/data/golden-yjs13.json
//   node interop_golden.mjs yjs14 > ../protocol/data/golden-yjs14.json
//
// `frames` are whole frames as the providers put them on the wire, caught in a WebSocket that is none;
// `awareness` are the updates of y-protocols alone. Client IDs are fixed, so the output is too.

import { readFileSync } from 'node:fs'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { loadStack } from './lib/stacks.mjs'

const generation = process.argv[2]
const { Y, awareness: awarenessProtocol, providers } = await loadStack(generation)
const protocols = generation === 'yjs13' ? 'y-protocols' : '@y/protocols'
const sync = await import(`${protocols}/sync`)
const auth = await import(`${protocols}/auth`)

const hex = (bytes) => Buffer.from(bytes).toString('hex')
const build = (write) => {
  const encoder = encoding.createEncoder()
  write(encoder)
  return encoding.toUint8Array(encoder)
}

const document = (clientID, edit) => {
  const doc = new Y.Doc()
  doc.clientID = clientID
  edit(doc)
  return doc
}

// Each frame with what it means, taken apart by lib0 and not by the code under test.
const describe = (bytes) => {
  const decoder = decoding.createDecoder(bytes)
  const type = decoding.readVarUint(decoder)
  if (type === 0) {
    const kind = ['step1', 'step2', 'update'][decoding.readVarUint(decoder)]
    return { type: 'sync', kind, payload: hex(decoding.readVarUint8Array(decoder)) }
  }
  if (type === 1) return { type: 'awareness', payload: hex(decoding.readVarUint8Array(decoder)) }
  if (type === 2) {
    decoding.readVarUint(decoder)
    return { type: 'auth', reason: decoding.readVarString(decoder) }
  }
  return { type: 'query awareness' }
}

const frames = []
const record = (source, what, bytes) => frames.push({ source, what, frame: hex(bytes), ...describe(bytes) })

const documents = {
  'an empty document': document(1, () => {}),
  'a text': document(2 ** 32 - 1, (doc) => doc.getText('text').insert(0, 'Grüße 😀')),
  'a long text': document(123456789, (doc) => doc.getText('text').insert(0, 'x'.repeat(16384))),
  'a map, with a deletion': document(200, (doc) => {
    doc.getMap('map').set('key', { list: [1, -2, 3.5, null, true], bytes: new Uint8Array([0, 255]) })
    doc.getMap('map').delete('key')
  })
}

const version = JSON.parse(readFileSync(new URL(`node_modules/${protocols}/package.json`, import.meta.url))).version
const source = `${protocols} ${version}`
for (const [what, doc] of Object.entries(documents)) {
  const frame = (write) => build((encoder) => { encoding.writeVarUint(encoder, 0); write(encoder) })
  record(source, `${what} as an update`, frame((encoder) => sync.writeUpdate(encoder, Y.encodeStateAsUpdate(doc))))
  // A length of three bytes is worth having once.
  if (what === 'a long text') continue
  record(source, `step 1 of ${what}`, frame((encoder) => sync.writeSyncStep1(encoder, doc)))
  record(source, `step 2 of ${what}`, frame((encoder) => sync.writeSyncStep2(encoder, doc, new Uint8Array([0]))))
  record(source, `step 2 of ${what} to one who has it`, frame((encoder) => sync.writeSyncStep2(encoder, doc, Y.encodeStateVector(doc))))
}
record(source, 'permission denied', build((encoder) => {
  encoding.writeVarUint(encoder, 2)
  auth.writePermissionDenied(encoder, 'no entry – 入るな')
}))

const awareness = []
const states = (what, entries) => {
  const shared = new awarenessProtocol.Awareness(document(1, () => {}))
  shared.setLocalState(null)
  for (const [client, clock, state] of entries) {
    if (state === null) shared.states.delete(client)
    else shared.states.set(client, state)
    shared.meta.set(client, { clock, lastUpdated: 0 })
  }
  const payload = awarenessProtocol.encodeAwarenessUpdate(shared, entries.map(([client]) => client))
  shared.destroy()
  awareness.push({
    source, what, payload: hex(payload), entries: entries.map(([client, clock, state]) => [client, clock, JSON.stringify(state)])
  })
}
states('nobody', [])
states('one with an empty state', [[7, 0, {}]])
states('one who leaves', [[7, 129, null]])
states('two with content', [[2 ** 32 - 1, 1, { user: { name: 'Jürgen 😀', color: '#30bced' } }], [1, 2 ** 31, { cursor: { anchor: 3, head: 300 } }]])
states('the largest ids and clocks', [[2 ** 53 - 1, 2 ** 53 - 1, { n: [1.5, -1, null] }]])
states('a long state', [[128, 127, { text: 'ü'.repeat(200) }]])

// A socket that is none: it opens when told and keeps what is sent.
class Caught {
  static OPEN = 1
  OPEN = 1
  static last = null

  constructor (url) {
    this.url = url
    this.readyState = 0
    this.sent = []
    Caught.last = this
  }

  send (data) { this.sent.push(new Uint8Array(data)) }

  close () { this.readyState = 3 }
}

for (const [version, Provider] of Object.entries(providers)) {
  const doc = document(4242, (doc) => doc.getText('text').insert(0, 'mine'))
  const shared = new awarenessProtocol.Awareness(doc)
  const provider = new Provider('ws://host/ws/', 'room', doc, { WebSocketPolyfill: Caught, disableBc: true, awareness: shared })
  const socket = Caught.last
  const caught = (what) => {
    for (const bytes of socket.sent.splice(0)) record(`provider ${version}`, what, bytes)
  }
  const receive = (bytes) => socket.onmessage({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) })
  socket.readyState = 1
  socket.onopen()
  caught('on opening')
  receive(new Uint8Array([0, 0, 1, 0]))
  caught('answer to step 1 with an empty vector')
  receive(new Uint8Array([0, 1, 2, 0, 0]))
  receive(new Uint8Array([1, 1, 0]))
  caught('answer to an empty step 2 and a keepalive')
  doc.getText('text').insert(4, ' and ours 😀')
  caught('an edit')
  doc.getText('text').delete(0, 5)
  caught('a deletion')
  shared.setLocalStateField('user', { name: 'Ada' })
  caught('an awareness state')
  receive(new Uint8Array([3]))
  caught('answer to a query for awareness')
  provider.disconnect()
  caught('on disconnecting')
  provider.destroy()
  shared.destroy()
}

process.stdout.write(JSON.stringify({ frames, awareness }, null, 1) + '\n')
process.exit(0)
