// What a Yjs document shows while it is sent an update in pieces: `node pieces.mjs yjs13|yjs14`.
//
// Standard input carries one JSON object a line: what the document has, the pieces, and what it is to have in the end
// (all base64 updates). Standard output says what was shown before the last piece, and how the document compares
// with one that got `whole` in one message.
import { createInterface } from 'node:readline'
import { loadStack } from './lib/stacks.mjs'

const { Y } = await loadStack(process.argv[2])
const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'))

class Watched {
  constructor (has) {
    this.doc = new Y.Doc({ gc: true })
    for (const update of has) Y.applyUpdate(this.doc, bytes(update))
    this.events = this.changes = this.observed = 0
    this.doc.on('update', () => this.events++)
    this.doc.on('afterTransaction', (transaction) => { if (transaction.changed.size > 0) this.changes++ })
    const get = (name, type) => this.doc.get.length > 1 ? this.doc.get(name, type) : this.doc.get(name)
    this.roots = [['t', Y.Text], ['m', Y.Map], ['a', Y.Array], ['x', Y.XmlFragment]].map(([name, type]) => get(name, type))
    for (const root of this.roots) root.observeDeep(() => this.observed++)
  }

  get pending () {
    return this.doc.store.pendingStructs !== null || this.doc.store.pendingDs !== null
  }

  state () {
    return JSON.stringify([this.roots.map((root) => root.toJSON()), Buffer.from(Y.encodeStateVector(this.doc)).toString('base64')])
  }

  encoded () {
    return Buffer.from(Y.encodeStateAsUpdate(this.doc)).toString('base64')
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { has, pieces, whole } = JSON.parse(line)
  const one = new Watched(has)
  const other = new Watched(has)
  const state = one.state()
  for (const piece of pieces.slice(0, -1)) Y.applyUpdate(one.doc, bytes(piece))
  const before = {
    events: one.events, changes: one.changes, observed: one.observed, same: one.state() === state, pending: one.pending
  }
  Y.applyUpdate(one.doc, bytes(pieces.at(-1)))
  Y.applyUpdate(other.doc, bytes(whole))
  process.stdout.write(JSON.stringify({
    before,
    after: {
      events: one.events === other.events && one.observed === other.observed && one.changes === other.changes,
      bytes: one.encoded() === other.encoded(),
      state: one.state() === other.state(),
      pending: one.pending,
      told: Buffer.from(Y.encodeStateAsUpdate(one.doc, Y.encodeStateVector(other.doc))).length
    }
  }) + '\n')
}
