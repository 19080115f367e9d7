// Does yjs live with these updates? The rule: apply them, let the document emit, encode it again, delete parts,
// encode again, undo, redo: nothing throws, what is written can be read again, and an edit is still announced.
//
// Once yjs throws while it cleans up after a transaction, its list of transactions is never emptied again: that
// document announces no more edits. So each case ends with an edit that must come out as an update.
//
// Standard input carries one JSON array of commands a line, standard output one array of their results.
// Both yjs 13 and @y/y 14 run in this process.
import { webcrypto } from 'node:crypto'
import { createInterface } from 'node:readline'
import { Random } from './lib/random.mjs'
import { types } from './lib/types.mjs'

// Subdocuments that were integrated before, client ids in use, two libraries in one process: yjs says so on the console.
console.log = console.info = console.warn = console.error = () => {}

// Client ids come from the seed of the case: the same case goes the same way again. And half of the time went into
// random bytes of good quality.
let state = 0
Object.defineProperty(webcrypto, 'getRandomValues', {
  value: array => {
    for (let at = 0; at < array.length; at++) array[at] = state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return array
  }
})
const LIBRARIES = [['yjs 13', await import('yjs')], ['@y/y 14', await import('@y/y')]]

const hex = bytes => Buffer.from(bytes).toString('hex')
const bytes = text => new Uint8Array(Buffer.from(text, 'hex'))

// No random guid is asked for, that is slow.
const newDoc = (Y, gc = true) => new Y.Doc({ gc, guid: 'oracle' })

const declare = doc => { doc.getText('t'); doc.getMap('m'); doc.getArray('a'); doc.getXmlFragment('x') }

// Delete as an application does, some of everything.
const deleteParts = (Y, doc, random, all) => {
  for (const type of types(Y, doc)) {
    if (type._item !== null && type._item.deleted) continue
    if (!all && random.int(2) === 0) continue
    for (const [key, item] of type._map) {
      if (item.deleted || (!all && random.int(2) === 0)) continue
      if (type instanceof Y.Map) type.delete(key)
      else if (type.removeAttribute) type.removeAttribute(key)
      else doc.transact(transaction => item.delete(transaction))
    }
    const length = type._length
    if (length > 0 && type.delete && !(type instanceof Y.Map)) {
      const from = all ? 0 : random.int(length)
      type.delete(from, all ? length : 1 + random.int(length - from))
    } else {
      for (let item = type._start; item !== null; item = item.right) {
        if (!item.deleted && (all || random.int(2) === 0)) doc.transact(transaction => item.delete(transaction))
      }
    }
  }
}

// Read by a fresh client whose own updates are read by one more.
const reread = (Y, update, gc) => {
  const doc = newDoc(Y, gc)
  const last = newDoc(Y)
  doc.on('update', emitted => Y.applyUpdate(last, emitted))
  Y.applyUpdate(doc, update)
  return Y.encodeStateAsUpdate(last)
}

const check = (Y, updates, seed) => {
  const random = new Random(seed)
  state = seed
  let at = 'apply'
  let doc
  try {
    doc = newDoc(Y)
    if (seed & 1) declare(doc)
    let emitted = 0
    const mirror = newDoc(Y)
    const seen = []
    doc.on('update', update => { emitted++; seen.push(update) })
    // Some applications store and send the other format.
    const other = newDoc(Y)
    if (seed & 4) {
      doc.on('updateV2', update => Y.applyUpdateV2(other, update))
      other.on('updateV2', update => Y.applyUpdateV2(newDoc(Y), update))
    }
    doc.on('subdocs', ({ added, removed, loaded }) => { seen.subdocs = [added.size, removed.size, loaded.size] })
    for (const update of updates) Y.applyUpdate(doc, update)
    at = 'take what was emitted'
    for (const update of seen.splice(0)) Y.applyUpdate(mirror, update)
    Y.encodeStateAsUpdate(mirror)
    at = 'encode'
    const whole = Y.encodeStateAsUpdate(doc)
    at = 'read again'
    reread(Y, whole, (seed & 2) === 0)
    if (seed & 4) Y.applyUpdateV2(newDoc(Y), Y.encodeStateAsUpdateV2(doc))
    at = 'declare'
    declare(doc)
    at = 'delete parts'
    const undo = new Y.UndoManager([...doc.share.values()], { captureTimeout: 0, doc })
    deleteParts(Y, doc, random, false)
    at = 'encode after deleting'
    Y.encodeStateAsUpdate(doc)
    at = 'undo'
    while (undo.undo() !== null) if (random.int(4) === 0) break
    at = 'encode after undoing'
    Y.encodeStateAsUpdate(doc)
    at = 'redo'
    while (undo.redo() !== null) if (random.int(4) === 0) break
    at = 'encode after redoing'
    const redone = Y.encodeStateAsUpdate(doc)
    at = 'take what was emitted later'
    for (const update of seen.splice(0)) Y.applyUpdate(mirror, update)
    Y.encodeStateAsUpdate(mirror)
    at = 'read again later'
    reread(Y, redone, true)
    at = 'use subdocuments'
    for (const subdoc of [...doc.subdocs]) {
      subdoc.load()
      const text = subdoc.getText('t')
      text.insert(0, 'abc')
      text.delete(1, 1)
      Y.encodeStateAsUpdate(subdoc)
      if (random.int(2) === 0) subdoc.destroy()
    }
    at = 'delete all'
    undo.clear()
    deleteParts(Y, doc, random, true)
    at = 'encode the rest'
    Y.applyUpdate(mirror, Y.encodeStateAsUpdate(doc))
    for (const update of seen.splice(0)) Y.applyUpdate(mirror, update)
    undo.destroy()
    at = 'announce an edit'
    const before = emitted
    doc.getText('t').insert(0, 'x')
    if (emitted !== before + 1) throw new Error('the edit was not announced')
    if (doc._transactionCleanups.length > 0 || mirror._transactionCleanups.length > 0) throw new Error('a transaction never ended')
    return null
  } catch (error) {
    return { at, error: String(error), stack: String(error.stack).split('\n').slice(1, 4).map(line => line.trim()) }
  } finally {
    if (doc !== undefined) for (const subdoc of doc.subdocs) subdoc._item = null
  }
}

// What a document shows: values with their kinds, and what counts as deleted.
const plain = (Y, value) => {
  if (value === undefined) return 'undefined'
  if (typeof value === 'bigint') return value + 'n'
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  if (typeof value === 'string') return JSON.stringify(value)
  if (value instanceof Uint8Array) return '<' + hex(value) + '>'
  if (value instanceof Y.Doc) return 'doc'
  if (value instanceof Y.AbstractType) return show(Y, value)
  if (Array.isArray(value)) return '[' + value.map(one => plain(Y, one)).join() + ']'
  if (value !== null && typeof value === 'object') return '{' + Object.keys(value).map(key => JSON.stringify(key) + ':' + plain(Y, value[key])).join() + '}'
  return String(value)
}

const show = (Y, type) => {
  const list = []
  for (let item = type._start; item !== null; item = item.right) {
    if (item.deleted) continue
    if (item.content instanceof Y.ContentString) list.push(...item.content.str.split('').map(one => one.charCodeAt(0)))
    else if (item.content instanceof Y.ContentFormat) list.push(JSON.stringify([item.content.key, item.content.value]))
    else list.push(...item.content.getContent().map(one => plain(Y, one)))
  }
  const entries = []
  for (const [key, item] of type._map) if (!item.deleted) entries.push(JSON.stringify(key) + ':' + plain(Y, item.content.getContent()[item.length - 1]))
  return type.constructor.name + '[' + list.join() + ']{' + entries.sort().join() + '}'
}

const view = (Y, update) => {
  const doc = newDoc(Y)
  Y.applyUpdate(doc, update)
  const vector = Y.encodeStateVector(doc)
  const parts = [...doc.share].map(([name, type]) => JSON.stringify(name) + show(Y, type)).sort()
  return JSON.stringify([parts, hex(vector), hex(Y.encodeStateAsUpdate(doc, vector)), doc.store.pendingStructs !== null])
}

const rewritten = (Y, update) => {
  const doc = newDoc(Y)
  Y.applyUpdate(doc, update)
  return Y.encodeStateAsUpdate(doc)
}

const commands = {
  // Give each case, a list of updates, to both libraries: null, or who threw, when and what.
  check (cases) {
    return cases.map(([seed, updates]) => {
      const list = updates.map(bytes)
      for (const [library, Y] of LIBRARIES) {
        const failed = check(Y, list, seed)
        if (failed !== null) return { library, ...failed }
      }
      return null
    })
  },
  // Do both updates of each pair give the same document? null, or the library and both views. Where a document
  // that yjs has written is another one than what it had read, nothing can be asked of others: 'unstable'.
  same (pairs) {
    return pairs.map(([one, other]) => {
      for (const [library, Y] of LIBRARIES) {
        let again
        const [a, b] = [one, other].map(update => { try { return view(Y, bytes(update)) } catch (error) { return String(error) } })
        if (a === b) continue
        try { again = view(Y, rewritten(Y, bytes(one))) } catch (error) { again = String(error) }
        return a === again ? { library, one: a, other: b } : 'unstable'
      }
      return null
    })
  }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify(JSON.parse(line).map(([name, ...args]) => commands[name](...args))) + '\n')
}
