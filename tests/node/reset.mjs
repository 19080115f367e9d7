// Clients of a document that is reset: they edit, go offline, come back. The test plays the server.
//
// Standard input carries one JSON array of commands a line, standard output one array of their results. A session is
// made from its seed alone. Each edit writes words with the tag that the test gives, so it can ask later what returned.
import { createInterface } from 'node:readline'
import { Random, spread } from './lib/random.mjs'

const Y = await import(process.argv[2] ?? 'yjs')
console.warn = console.error = console.log = () => {}

const hex = bytes => Buffer.from(bytes).toString('hex')
const bytes = text => new Uint8Array(Buffer.from(text, 'hex'))

const FORMATS = ['bold', 'italic', 'link']
const KEYS = ['k1', 'k2', 'k3', 'k4']
const roots = doc => ({ text: doc.getText('text'), map: doc.getMap('map'), array: doc.getArray('array'), xml: doc.getXmlFragment('xml') })

const editText = (random, text, word) => {
  const at = random.int(text.length + 1)
  const length = Math.min(text.length - at, 1 + random.int(6))
  const kind = random.int(10)
  if (kind < 4) text.insert(at, word)
  else if (kind < 5) text.insert(at, word, { [random.pick(FORMATS)]: true })
  else if (kind < 7) { if (length > 0) text.delete(at, length) }
  else if (kind < 9) { if (length > 0) text.format(at, length, { [random.pick(FORMATS)]: random.pick([true, null]) }) }
  else text.insertEmbed(at, { image: word })
}

const nested = (random, word) => random.pick([
  () => new Y.Text(word),
  () => new Y.Map([['in', word], ['deep', new Y.Map([['er', word]])]]),
  () => Y.Array.from([word, { v: word }])
])()

const editMap = (random, map, word) => {
  const key = random.pick(KEYS)
  const kind = random.int(10)
  const old = map.get(key)
  if (kind < 4) map.set(key, word)
  else if (kind < 6) map.set(key, nested(random, word))
  else if (kind < 7) map.delete(key)
  else if (old instanceof Y.Text) editText(random, old, word)
  else if (old instanceof Y.Map) editMap(random, old, word)
  else if (old instanceof Y.Array) editArray(random, old, word)
}

const editArray = (random, array, word) => {
  const at = random.int(array.length + 1)
  const kind = random.int(10)
  if (kind < 4) array.insert(at, [word, { v: word }])
  else if (kind < 6) array.insert(at, [nested(random, word)])
  else if (at < array.length) array.delete(at, Math.min(array.length - at, 1 + random.int(3)))
}

// As Tiptap writes it: blocks with a text in them, and attributes.
const editXml = (random, xml, word) => {
  const at = random.int(xml.length + 1)
  const kind = random.int(10)
  const there = at < xml.length ? xml.get(at) : null
  if (kind < 3 || there === null) {
    const block = new Y.XmlElement(random.pick(['paragraph', 'heading']))
    block.insert(0, [new Y.XmlText(word)])
    if (random.int(2)) block.setAttribute('level', word)
    xml.insert(at, [block])
  } else if (kind < 7) {
    const text = there.firstChild
    if (text instanceof Y.XmlText) editText(random, text, word)
  } else if (kind < 8) there.setAttribute('level', word)
  else xml.delete(at, 1)
}

const edit = (random, doc, word) => {
  const { text, map, array, xml } = roots(doc)
  random.pick([() => editText(random, text, word), () => editMap(random, map, word), () => editArray(random, array, word), () => editXml(random, xml, word)])()
}

const plain = value => value instanceof Y.AbstractType ? show(value) : value
const show = type => {
  if (type instanceof Y.Text) return ['text', type.toDelta(), type.getAttributes()]
  if (type instanceof Y.Map) return ['map', [...type.entries()].sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => [key, plain(value)])]
  if (type instanceof Y.XmlElement) return [type.nodeName, type.getAttributes(), type.toArray().map(plain)]
  return ['list', type.toArray().map(plain)]
}

const sessions = new Map()

const withUpdates = (it, work) => {
  it.sent = []
  work()
  const sent = it.sent
  it.sent = null
  return sent
}

const commands = {
  // Clients draw IDs as yjs does, or above 2^32 as yrs does.
  open (key, seed, count, wide) {
    const random = new Random(spread(seed))
    const session = { random, clients: [], words: 0 }
    sessions.set(key, session)
    for (let n = 0; n < count; n++) commands.client(key, wide)
  },
  client (key, wide = false) {
    const session = sessions.get(key)
    const doc = new Y.Doc()
    doc.clientID = wide ? Math.floor(session.random.next() * (2 ** 53 - 2 ** 24)) : Math.floor(session.random.next() * 2 ** 32)
    const it = { doc, sent: null }
    const undo = new Y.UndoManager(Object.values(roots(doc)), { captureTimeout: 0 })
    it.undo = undo
    doc.on('update', (update, origin) => { if (origin !== 'server' && it.sent !== null) it.sent.push(hex(update)) })
    session.clients.push(it)
    return session.clients.length - 1
  },
  close (key) { sessions.delete(key) },
  edit (key, client, count, tag) {
    const session = sessions.get(key)
    const it = session.clients[client]
    return withUpdates(it, () => { for (let n = 0; n < count; n++) edit(session.random, it.doc, `${tag}${session.words++}.`) })
  },
  // One insertion, at the end of the root text, as somebody types.
  type (key, client, word) {
    const it = sessions.get(key).clients[client]
    return withUpdates(it, () => { const text = it.doc.getText('text'); text.insert(text.length, word) })
  },
  run (key, client, code) {
    const it = sessions.get(key).clients[client]
    return withUpdates(it, () => new Function('Y', 'doc', code)(Y, it.doc)) // eslint-disable-line no-new-func
  },
  undo (key, client) {
    const it = sessions.get(key).clients[client]
    return withUpdates(it, () => it.undo.undo())
  },
  receive (key, client, updates) {
    const it = sessions.get(key).clients[client]
    return withUpdates(it, () => { for (const update of updates) Y.applyUpdate(it.doc, bytes(update), 'server') })
  },
  vector (key, client) { return hex(Y.encodeStateVector(sessions.get(key).clients[client].doc)) },
  diff (key, client, vector) { return hex(Y.encodeStateAsUpdate(sessions.get(key).clients[client].doc, bytes(vector))) },
  view (key, client) {
    const { doc } = sessions.get(key).clients[client]
    const all = roots(doc)
    const vector = Y.encodeStateVector(doc)
    return {
      content: JSON.stringify(Object.values(all).map(show)),
      vector: hex(vector),
      deletes: hex(Y.encodeStateAsUpdate(doc, vector)),
      pending: doc.store.pendingStructs !== null || doc.store.pendingDs !== null
    }
  },
  // A document that was never edited here: what a reset is given as its new content.
  content (seed, count, tag, clients = 1) {
    const random = new Random(spread(seed))
    const docs = Array.from({ length: clients }, () => { const doc = new Y.Doc(); doc.clientID = Math.floor(random.next() * 2 ** 32); roots(doc); return doc })
    for (let n = 0; n < count; n++) {
      const doc = random.pick(docs)
      edit(random, doc, `${tag}${n}.`)
      for (const other of docs) if (other !== doc && random.int(3) === 0) Y.applyUpdate(other, Y.encodeStateAsUpdate(doc))
    }
    for (const doc of docs) Y.applyUpdate(docs[0], Y.encodeStateAsUpdate(doc))
    return { update: hex(Y.encodeStateAsUpdate(docs[0])), content: JSON.stringify(Object.values(roots(docs[0])).map(show)) }
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify(JSON.parse(line).map(([name, ...args]) => commands[name](...args) ?? null)) + '\n')
}
