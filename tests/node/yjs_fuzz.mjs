// Random sessions of several yjs clients around a server that the test plays.
//
// Standard input carries one JSON array of commands a line, standard output one array of their
// results. A session is made from its seed alone: client ids, edits and values come from one generator,
// so a failing seed gives the same session again. Frames are [type, hex]: 0 sync step 1, 1 sync
// step 2, 2 update; a client sends and answers exactly as y-websocket and y-protocols do.
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import * as Y from 'yjs'
import { Random, spread } from './lib/random.mjs'
import { types } from './lib/types.mjs'

const hex = bytes => Buffer.from(bytes).toString('hex')
const bytes = text => new Uint8Array(Buffer.from(text, 'hex'))

// ---- values -----------------------------------------------------------------------------------

const WORDS = ['a', 'b', 'xyz', ' ', 'hello ', '\n', 'ß', 'é', '日本', '😀', '👨‍👩‍👧', 'z😀', '😀y', '\u0000', '"\\', 'p'.repeat(70), '𝒳𝒴']
const FORMATS = [{ b: true }, { b: null }, { i: true }, { i: null }, { c: '#f00' }, { c: 'ü😀' }, { l: { href: 'x', n: [1, null] } }]
const KEYS = ['k', 'key2', 'ключ', '', '__proto__', '😀', 'n']

const clientId = (random, used) => {
  for (;;) {
    const id = random.pick([
      () => 1 + random.int(120), () => 128 + random.int(9000),
      () => Math.floor(random.next() * 2 ** 32), () => Math.floor(random.next() * 2 ** 53)
    ])()
    if (id > 0 && !used.has(id)) { used.add(id); return id }
  }
}

// What nearly every application writes: no BigInts, no -0, no undefined.
const ordinaryValue = (random, depth) => random.pick([
  () => null, () => random.chance(0.5), () => random.int(200) - 100, () => random.int(9) / 4, () => random.pick(WORDS),
  () => new Uint8Array([1, 2, 255].slice(0, random.int(4))),
  () => depth > 2 ? 1 : Array.from({ length: random.int(4) }, () => ordinaryValue(random, depth + 1)),
  () => depth > 2 ? 2 : { k: ordinaryValue(random, depth + 1), id: random.int(5) }
])()

const anyValue = (random, depth = 0) => {
  if (random.ordinary) return ordinaryValue(random, depth)
  const kinds = 13 + (depth < 3 ? 4 : 0)
  switch (random.int(kinds)) {
    case 0: return null
    case 1: return undefined
    case 2: return true
    case 3: return false
    case 4: return random.int(200) - 100
    case 5: return random.int(2 ** 31) * 1024 + 7
    case 6: return -0
    case 7: return NaN
    case 8: return random.pick([0.5, -1e300, Infinity, -Infinity, 1 / 3, 2 ** 53 - 1, -(2 ** 53 - 1), 2 ** 60])
    case 9: return random.pick([5n, -(2n ** 62n), 2n ** 63n - 1n])
    case 10: return random.pick(WORDS)
    case 11: return ''
    case 12: return new Uint8Array([1, 2, 255].slice(0, random.int(4)))
    case 13: case 14: return Array.from({ length: random.int(4) }, () => anyValue(random, depth + 1))
    default: {
      const object = {}
      for (let n = random.int(4); n > 0; n--) object[random.pick(['k', 'ü', 'x y'])] = anyValue(random, depth + 1)
      return object
    }
  }
}

// ---- edits ------------------------------------------------------------------------------------

// What an array takes as an element: undefined and BigInts only inside of something.
const element = random => {
  const value = anyValue(random)
  return value === undefined || typeof value === 'bigint' ? [value] : value
}

const nested = (random, session) => random.pick([
  () => { const t = new Y.Text(); if (random.chance(0.7)) t.insert(0, random.pick(WORDS)); return t },
  () => { const m = new Y.Map(); if (random.chance(0.6)) m.set(random.pick(KEYS), anyValue(random)); return m },
  () => { const a = new Y.Array(); if (random.chance(0.6)) a.push([element(random), element(random)]); return a },
  () => new Y.XmlFragment(),
  () => random.ordinary ? new Y.Map() : xmlNode(random),
  () => random.ordinary ? new Y.Text('in') : new Y.Doc({
    guid: 'guid-' + (session.guids++),
    ...(random.chance(0.5) ? { meta: { title: random.pick(WORDS), v: anyValue(random) } } : {}),
    ...(random.chance(0.3) ? { autoLoad: true } : {}),
    ...(random.chance(0.3) ? { gc: false } : {})
  })
])()

const xmlNode = random => random.pick([
  () => { const e = new Y.XmlElement(random.pick(['p', 'div', 'ü'])); if (random.chance(0.6)) e.setAttribute('class', random.pick(WORDS)); return e },
  () => { const e = new Y.XmlElement('p'); e.insert(0, [new Y.XmlText(random.pick(WORDS))]); return e },
  () => new Y.XmlText(random.pick(WORDS)),
  () => { if (random.ordinary) return new Y.XmlElement('div'); const h = new Y.XmlHook('hook-ü'); if (random.chance(0.5)) h.set('k', anyValue(random)); return h }
])()

// The positions of a text at which an edit may begin: all, or those outside of surrogate pairs.
const positions = (text, split) => {
  const found = [0]
  let at = 0
  for (let item = text._start; item !== null; item = item.right) {
    if (item.deleted || !item.countable) continue
    const string = item.content instanceof Y.ContentString ? item.content.str : null
    for (let i = 1; i <= item.length; i++) {
      if (split || string === null || i === item.length || !/[\ud800-\udbff]/.test(string[i - 1])) found.push(at + i)
    }
    at += item.length
  }
  return found
}

const editText = (random, text, session) => {
  const places = positions(text, session.split)
  const a = random.int(places.length)
  const b = Math.min(places.length - 1, a + random.int(5))
  const from = places[a]
  const length = places[b] - from
  const kind = random.int(12)
  if (kind < 5) text.insert(from, random.pick(WORDS))
  else if (kind < 6) text.insert(from, random.pick(WORDS), random.pick(FORMATS))
  else if (kind < 9) { if (length > 0) text.delete(from, length) }
  else if (kind < 11) { if (length > 0) text.format(from, length, random.pick(FORMATS)) }
  else if (random.chance(0.7)) text.insertEmbed(from, random.pick([{ image: 'ü' }, { n: [1, 2, { deep: null }] }, 'text', 5]))
  else text.insertEmbed(from, random.chance(0.5) ? new Y.Map() : new Y.Text('in'), random.chance(0.3) ? { b: true } : {})
}

const editMap = (random, map, session) => {
  const key = random.pick(KEYS)
  const kind = random.int(10)
  if (kind < 5) map.set(key, anyValue(random))
  else if (kind < 8) map.set(key, nested(random, session))
  else map.delete(key)
}

const editArray = (random, array, session) => {
  const at = random.int(array.length + 1)
  const kind = random.int(10)
  if (kind < 4) array.insert(at, Array.from({ length: 1 + random.int(4) }, () => element(random)))
  else if (kind < 7) array.insert(at, [nested(random, session)])
  else if (at < array.length) array.delete(at, Math.min(array.length - at, 1 + random.int(3)))
}

const editXml = (random, xml) => {
  const at = random.int(xml.length + 1)
  const kind = random.int(10)
  if (kind < 5) xml.insert(at, [xmlNode(random)])
  else if (kind < 8 && xml instanceof Y.XmlElement) {
    if (random.chance(0.3)) xml.removeAttribute('class')
    else xml.setAttribute(random.pick(['class', 'id', 'ü']), random.pick(['v', '😀', 7, { o: 1 }, null]))
  } else if (at < xml.length) xml.delete(at, 1 + random.int(Math.min(2, xml.length - at)))
}

const edit = (random, doc, session) => {
  const roots = [...doc.share.values()]
  const all = random.chance(0.5) ? roots : types(Y, doc)
  const type = random.pick(all)
  if (type instanceof Y.XmlHook || type instanceof Y.Map) editMap(random, type, session)
  else if (type instanceof Y.Text) editText(random, type, session)
  else if (type instanceof Y.Array) editArray(random, type, session)
  else editXml(random, type)
}

// ---- what a document shows --------------------------------------------------------------------

const plain = value => {
  if (value === undefined) return 'undefined'
  if (typeof value === 'bigint') return value + 'n'
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  if (value instanceof Uint8Array) return '<' + hex(value) + '>'
  if (value instanceof Y.Doc) return `doc(${value.guid},${plain(value.meta)},${value.autoLoad},${value.gc})`
  if (value instanceof Y.AbstractType) return show(value)
  if (Array.isArray(value)) return '[' + value.map(plain).join() + ']'
  if (value !== null && typeof value === 'object') {
    return '{' + Object.keys(value).sort().map(k => JSON.stringify(k) + ':' + plain(value[k])).join() + '}'
  }
  return String(value)
}

const entries = map => {
  const found = []
  for (const [key, item] of map) if (!item.deleted) found.push(JSON.stringify(key) + ':' + plain(item.content.getContent()[item.length - 1]))
  return '{' + found.sort().join() + '}'
}

const show = type => {
  let text
  // An XmlText is a Text, an XmlHook a Map, an XmlElement an XmlFragment.
  if (type instanceof Y.Text) text = plain(type.toDelta()) + entries(type._map)
  else if (type instanceof Y.Map) text = (type.hookName ?? '') + entries(type._map)
  else text = (type.nodeName ?? '') + '[' + type.toArray().map(plain).join() + ']' + entries(type._map)
  return type.constructor.name + text
}

const declare = doc => {
  doc.getText('text'); doc.getText('ü'); doc.getMap('map'); doc.getArray('array'); doc.getXmlFragment('xml')
  return doc
}

const view = doc => {
  const vector = Y.encodeStateVector(doc)
  const content = [...doc.share.entries()].map(([name, type]) => name + '=' + show(type)).join('\n')
  return {
    content,
    digest: createHash('sha1').update(content).digest('hex'),
    vector: hex(vector),
    // No structs and the whole delete set, written by yjs.
    deletes: hex(Y.encodeStateAsUpdate(doc, vector)),
    pending: doc.store.pendingStructs !== null || doc.store.pendingDs !== null
  }
}

// Every item with its content, deleted ones too: what gc=off promises to keep.
const dump = doc => {
  const lines = []
  for (const client of [...doc.store.clients.keys()].sort((a, b) => a - b)) {
    let line = ''
    for (const struct of doc.store.clients.get(client)) {
      if (struct instanceof Y.Item) {
        // One entry a clock, so that joined and single items give the same.
        const values = struct.content instanceof Y.ContentString ? [...Array(struct.length).keys()].map(i => struct.content.str.charCodeAt(i))
          : struct.content.getContent().length === struct.length ? struct.content.getContent().map(v => v instanceof Y.AbstractType ? v.constructor.name : plain(v)) : Array(struct.length).fill(struct.content.constructor.name)
        line += values.map(v => `${struct.deleted ? '-' : '+'}${v};`).join('')
      } else line += 'gc;'.repeat(struct.length)
    }
    lines.push(client + ':' + line)
  }
  return lines.join('\n')
}

// ---- clients ----------------------------------------------------------------------------------

const REMOTE = { name: 'provider' }
const SIDE = { name: 'side channel' }

class Client {
  constructor (session, gc, state = null) {
    this.session = session
    this.doc = declare(new Y.Doc({ gc }))
    this.doc.clientID = clientId(session.random, session.ids)
    this.online = false
    this.out = []
    this.made = [] // updates that others may get by a side channel
    if (state !== null) Y.applyUpdate(this.doc, state, SIDE)
    this.undo = new Y.UndoManager([...this.doc.share.values()], { captureTimeout: 0, doc: this.doc })
    this.doc.on('update', (update, origin) => {
      if (origin === REMOTE || origin === SIDE) return
      this.made.push(update)
      session.truth.push(update)
      // y-websocket drops what is made offline; the next exchange of steps brings it.
      if (this.online) this.out.push([2, hex(update)])
    })
  }

  take () { const frames = this.out; this.out = []; return frames }

  edit (count) {
    const { session, doc } = this
    for (; count > 0; count--) {
      const kind = session.random.int(20)
      if (kind === 0) this.undo.undo()
      else if (kind === 1) this.undo.redo()
      else if (kind < 4) doc.transact(() => { for (let n = 0; n < 3; n++) edit(session.random, doc, session) })
      else edit(session.random, doc, session)
    }
    return this.take()
  }

  receive (frames) {
    for (const [type, data] of frames) {
      if (type === 0) this.out.push([1, hex(Y.encodeStateAsUpdate(this.doc, bytes(data)))])
      else Y.applyUpdate(this.doc, bytes(data), REMOTE)
    }
    return this.take()
  }

  connect () {
    this.online = true
    return [[0, hex(Y.encodeStateVector(this.doc))], ...this.take()]
  }

  drop () { this.online = false; this.out = []; return null }
}

// ---- commands ---------------------------------------------------------------------------------

const sessions = new Map()

const follow = updates => {
  const doc = declare(new Y.Doc({ gc: false }))
  const deleted = []
  doc.on('afterTransaction', transaction => {
    for (const [client, items] of transaction.deleteSet.clients) {
      for (const { clock, len } of items) deleted.at(-1).push([client, clock, len])
    }
  })
  // Else yjs cleans up formats behind each remote transaction, in one of its own.
  doc.on('beforeObserverCalls', transaction => { transaction.local = true })
  for (const update of updates) {
    deleted.push([])
    Y.applyUpdate(doc, bytes(update))
  }
  return { doc, deleted }
}

const commands = {
  open (id, seed, split, ordinary = false) {
    const random = new Random(spread(seed))
    random.ordinary = ordinary
    sessions.set(id, { random, ids: new Set(), guids: 0, split, clients: [], truth: [] })
    return null
  },
  // A new client: empty, or with the state that another had when `copy` was called.
  client (id, gc, state) {
    const session = sessions.get(id)
    session.clients.push(new Client(session, gc, state === null ? null : bytes(state)))
    return session.clients.length - 1
  },
  copy: (id, c) => hex(Y.encodeStateAsUpdate(sessions.get(id).clients[c].doc)),
  edit: (id, c, count) => sessions.get(id).clients[c].edit(count),
  receive: (id, c, frames) => sessions.get(id).clients[c].receive(frames),
  connect: (id, c) => sessions.get(id).clients[c].connect(),
  drop: (id, c) => sessions.get(id).clients[c].drop(),
  // Past the server: all that the one has, or only its latest update (which the other may have to keep pending).
  side (id, from, to, latest) {
    const [a, b] = [sessions.get(id).clients[from], sessions.get(id).clients[to]]
    const update = latest ? a.made.at(-1) : Y.encodeStateAsUpdate(a.doc, Y.encodeStateVector(b.doc))
    if (update) Y.applyUpdate(b.doc, update, SIDE)
    return b.take()
  },
  view (id, c, full) {
    const seen = view(sessions.get(id).clients[c].doc)
    if (!full) delete seen.content
    return seen
  },
  // A document that got all updates as their authors made them.
  truth (id, full) {
    const doc = declare(new Y.Doc())
    // In one transaction: after each remote one yjs deletes formats that are redundant at that moment,
    // and a document in which they only were so in between would differ from all others.
    doc.transact(() => { for (const update of sessions.get(id).truth) Y.applyUpdate(doc, update) }, REMOTE)
    const seen = view(doc)
    if (!full) delete seen.content
    return seen
  },
  // A fresh document that gets these updates one by one: are they all whole?
  steps (updates) {
    const doc = declare(new Y.Doc())
    for (const [at, update] of updates.entries()) {
      Y.applyUpdate(doc, bytes(update))
      if (doc.store.pendingStructs !== null || doc.store.pendingDs !== null) return { pending: at }
    }
    return { vector: hex(Y.encodeStateVector(doc)) }
  },
  // A fresh document that gets these updates in one transaction.
  reader (updates, gc, full, all) {
    const doc = declare(new Y.Doc({ gc }))
    doc.transact(() => { for (const update of updates) Y.applyUpdate(doc, bytes(update)) }, REMOTE)
    const seen = view(doc)
    if (all) { seen.dump = dump(doc); seen.size = Y.encodeStateAsUpdate(doc).length }
    if (!full) delete seen.content
    return seen
  },
  ids: id => sessions.get(id).clients.map(client => client.doc.clientID),
  // The rows of a log, one by one, in a document that collects nothing: what each deletes, and then the items of each
  // root in their order.
  history (updates) {
    const { doc, deleted } = follow(updates)
    const order = {}
    for (const name of ['text', 'ü', 'array', 'xml']) {
      order[name] = []
      for (let item = doc.get(name)._start; item !== null; item = item.right) {
        order[name].push([item.id.client, item.id.clock, item.length, item.deleted])
      }
    }
    return { deleted, order, snapshot: hex(Y.encodeSnapshot(Y.snapshot(doc))), content: view(doc).content }
  },
  // What changed between two states, as a page shows it: by the snapshots, in a document of its own.
  changes (base, update, before, after) {
    const { doc } = follow([base, update])
    const [prev, snapshot] = [before, after].map(each => Y.decodeSnapshot(bytes(each)))
    const mark = (kind, id) => ({ kind, id: [id.client, id.clock] })
    const show = (to, from) => ['text', 'ü'].map(name => plain(doc.getText(name).toDelta(to, from, mark)))
    return {
      content: view(doc).content, changes: show(snapshot, prev), before: show(prev), after: show(snapshot),
      snapshot: hex(Y.encodeSnapshot(Y.snapshot(doc)))
    }
  },
  // What the undo manager of yjs makes of the rows of a log, and what was inserted and deleted, as snapshots say it.
  undone (updates, inserted, deleted) {
    const { doc } = follow(updates)
    const undo = new Y.UndoManager([...doc.share.values()], { doc })
    const [insertions, deletions] = [inserted, deleted].map(each => Y.decodeSnapshot(bytes(each)).ds)
    undo.undoStack.push({ insertions, deletions, meta: new Map() })
    undo.undo()
    return view(doc).content
  },
  close: id => { sessions.delete(id); return null },
  // What one client makes of `characters` random single-character edits, for figures and limits.
  typing (seed, characters, keep) {
    const random = new Random(spread(seed))
    const doc = declare(new Y.Doc())
    doc.clientID = 1 + random.int(2 ** 32 - 1)
    const text = doc.getText('text')
    const updates = []
    doc.on('update', update => updates.push(update))
    let cursor = 0
    for (let n = 0; n < characters; n++) {
      if (random.chance(0.02)) cursor = random.int(text.length + 1)
      if (random.chance(keep) || cursor === 0) text.insert(cursor++, 'abcdefghij '[random.int(11)])
      else text.delete(--cursor, 1)
    }
    return { updates: updates.map(hex), text: text.toString() }
  }
}

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity })
for await (const line of lines) {
  const results = []
  for (const [name, ...args] of JSON.parse(line)) {
    try {
      results.push(commands[name](...args))
    } catch (error) {
      error.message = `${name}(${JSON.stringify(args).slice(0, 2000)}): ${error.message}`
      throw error
    }
  }
  process.stdout.write(JSON.stringify(results) + '\n')
}
