// What the clients do to a document and how they show it. Roots: text, map, array, xml.
import { mulberry32 } from './random.mjs'

export const plain = (value) => {
  if (value instanceof Uint8Array) return { bytes: Buffer.from(value).toString('hex') }
  if (typeof value === 'bigint') return { bigint: value.toString() }
  if (value === undefined) return { undefined: true }
  if (typeof value === 'number' && !Number.isFinite(value)) return { number: String(value) }
  if (Object.is(value, -0)) return { number: '-0' }
  if (Array.isArray(value)) return value.map(plain)
  if (value !== null && typeof value === 'object') {
    if (typeof value.guid === 'string' && typeof value.getText === 'function') {
      return { subdocument: value.guid, meta: plain(value.meta) }
    }
    if (typeof value.toJSON === 'function') return plain(value.toJSON())
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, plain(value[key])]))
  }
  return value
}

// A text as the runs of equal formats that it is made of; Yjs 14 names and nests them differently.
const runs = (text) =>
  typeof text.toDelta === 'function'
    ? text.toDelta()
    : text.getContent().toJSON().children?.flatMap(({ insert, format }) =>
      (typeof insert === 'string' ? [insert] : insert).map((one) =>
        format === undefined ? { insert: one } : { insert: one, attributes: format })) ?? []

// A hook has no text form of its own.
const xml = (Y, node) => {
  if (node instanceof Y.XmlHook) return `[hook ${node.hookName}]`
  if (node instanceof Y.XmlText || node instanceof Y.XmlElement) return node.toString()
  return node.toArray().map((child) => xml(Y, child)).join('')
}

// Everything a user sees, and `snapshot`: state vector and delete set in their canonical bytes, so
// equal snapshots mean that both saw every edit and every deletion.
export const show = (Y, doc) => ({
  text: plain(runs(doc.getText('text'))),
  map: plain(doc.getMap('map').toJSON()),
  array: plain(doc.getArray('array').toJSON()),
  xml: xml(Y, doc.getXmlFragment('xml')),
  snapshot: Buffer.from(Y.encodeSnapshot(Y.snapshot(doc))).toString('base64')
})

const words = ['sync', 'ü', '日本', '😀', '👩‍👩‍👧', 'e\u0301', 'tab\t', '"quoted"', 'العربية', '🇩🇪']

export const edits = {
  type (Y, doc, { text, at = null, attributes = {} }) {
    const root = doc.getText('text')
    root.insert(at === null ? root.length : at, text, attributes)
  },

  erase (Y, doc, { at, length }) {
    doc.getText('text').delete(at, length)
  },

  set (Y, doc, { key, value }) {
    doc.getMap('map').set(key, value)
  },

  push (Y, doc, { values }) {
    doc.getArray('array').push(values)
  },

  // One keystroke a transaction, as an editor does.
  keystrokes (Y, doc, { text }) {
    const root = doc.getText('text')
    for (const letter of text) root.insert(root.length, letter)
  },

  formats (Y, doc) {
    const text = doc.getText('text')
    text.insert(0, 'bold and italic ', { bold: true })
    text.format(9, 6, { italic: true, link: { href: 'https://example.org/ä?q=😀' } })
    text.format(0, 4, { bold: null })
    text.insertEmbed(4, { image: 'cat.png', size: [1, 2] })
    text.delete(2, 2)
    text.insert(2, '😀', { color: '#f00' })
  },

  // What a naive code-unit diff does to emoji: both halves of the pair end in different edits.
  splitPairs (Y, doc) {
    const text = doc.getText('text')
    text.insert(0, 'a😀b👍c')
    text.delete(2, 1)
    text.insert(2, 'X')
    text.format(5, 1, { bold: true })
  },

  maps (Y, doc) {
    const map = doc.getMap('map')
    doc.transact(() => {
      map.set('string', 'ü😀')
      map.set('integer', 42)
      map.set('negative', -7)
      map.set('float', 0.1)
      map.set('big', 9007199254740991)
      map.set('zero', -0)
      map.set('truth', true)
      map.set('nothing', null)
      map.set('undefined', undefined)
      map.set('object', { deep: [1, { er: 'x' }], empty: {} })
      map.set('bytes', new Uint8Array([0, 1, 254, 255]))
      map.set('bigint', 12345678901234567890n - 12345678900000000000n)
    })
    map.set('integer', 43)
    map.delete('negative')
    const nested = new Y.Map()
    map.set('nested', nested)
    nested.set('text', new Y.Text('inside'))
    nested.get('text').insert(6, ' a map', { bold: true })
    nested.set('list', Y.Array.from([1, 'two', { three: 3 }]))
    nested.get('list').delete(1, 1)
    map.set('gone', new Y.Map())
    map.get('gone').set('x', new Y.Text('deleted with its parent'))
    map.delete('gone')
  },

  arrays (Y, doc) {
    const array = doc.getArray('array')
    array.push([1, 2, 3, 'four', null, [5], { six: 6 }])
    array.insert(2, [new Y.Map([['k', 'v']]), new Uint8Array([9, 8])])
    array.delete(0, 2)
    array.unshift(['first'])
    array.push([Y.Array.from(['inner'])])
  },

  xml (Y, doc) {
    const xml = doc.getXmlFragment('xml')
    const paragraph = new Y.XmlElement('paragraph')
    const text = new Y.XmlText()
    xml.insert(0, [paragraph, new Y.XmlElement('rule')])
    paragraph.insert(0, [text])
    text.insert(0, 'styled 😀 text')
    text.format(0, 6, { strong: {} })
    paragraph.setAttribute('align', 'center')
    paragraph.setAttribute('level', '2')
    paragraph.removeAttribute('align')
    const list = new Y.XmlElement('list')
    const item = new Y.XmlElement('item')
    item.insert(0, [new Y.XmlText('one')])
    list.insert(0, [item, new Y.XmlElement('item')])
    xml.insert(1, [list])
    list.delete(1, 1)
  },

  hook (Y, doc) {
    doc.getXmlFragment('xml').insert(0, [new Y.XmlHook('calendar')])
  },

  undo (Y, doc) {
    const text = doc.getText('text')
    const undo = new Y.UndoManager(text, { captureTimeout: 0 })
    text.insert(0, 'kept ')
    text.insert(0, 'undone ')
    undo.undo()
    text.insert(0, 'redone ')
    undo.undo()
    undo.redo()
    undo.destroy()
  },

  subdocument (Y, doc, { key, guid, meta = null }) {
    const subdocument = new Y.Doc({ guid, meta, autoLoad: true })
    doc.getMap('map').set(key, subdocument)
  },

  // A word in every kind of place, so that a test can ask later where it is still to be seen.
  tagged (Y, doc, { word }) {
    const text = doc.getText('text')
    text.insert(Math.floor(text.length / 2), `${word} `, { bold: true })
    text.insert(text.length, ` ${word}`)
    const map = doc.getMap('map')
    map.set('key', word)
    map.set(word, word)
    map.set('nested', new Y.Map([['in', word], ['text', new Y.Text(word)]]))
    const array = doc.getArray('array')
    array.insert(Math.floor(array.length / 2), [word, { v: word }, Y.Array.from([word])])
    const xml = doc.getXmlFragment('xml')
    const paragraph = new Y.XmlElement('paragraph')
    paragraph.insert(0, [new Y.XmlText(word)])
    paragraph.setAttribute('class', word)
    xml.insert(Math.floor(xml.length / 2), [paragraph])
    const first = xml.get(0)
    if (first.length > 0 && first.get(0) instanceof Y.XmlText) first.get(0).insert(0, word)
  },

  // Random edits of every kind, the same for the same seed and document. No split pairs: two that
  // split the same pair at once differ in Yjs itself.
  fuzz (Y, doc, { seed, count }) {
    const random = mulberry32(seed)
    const below = (n) => Math.floor(random() * n)
    const pick = (list) => list[below(list.length)]
    const value = () =>
      pick([below(1000), -below(1000), random(), pick(words), true, null, { k: [pick(words)] }, new Uint8Array([below(256)])])
    const actions = [
      () => { const t = doc.getText('text'); t.insert(boundary(t, below(t.length + 1)), pick(words)) },
      () => { const t = doc.getText('text'); t.insert(boundary(t, below(t.length + 1)), pick(words), { bold: true }) },
      () => {
        const t = doc.getText('text')
        const from = boundary(t, below(t.length + 1))
        const to = boundary(t, Math.min(t.length, from + below(6)))
        if (to > from) t.delete(from, to - from)
      },
      () => {
        const t = doc.getText('text')
        const from = boundary(t, below(t.length + 1))
        const to = boundary(t, Math.min(t.length, from + below(6)))
        if (to > from) t.format(from, to - from, pick([{ bold: true }, { bold: null }, { color: pick(words) }]))
      },
      () => { doc.getMap('map').set('k' + below(5), value()) },
      () => { doc.getMap('map').delete('k' + below(5)) },
      () => {
        const map = doc.getMap('map')
        const nested = map.get('n')
        if (nested instanceof Y.Map && random() < 0.8) nested.set('x' + below(3), value())
        else map.set('n', new Y.Map())
      },
      () => { const a = doc.getArray('array'); a.insert(below(a.length + 1), [value(), value()]) },
      () => { const a = doc.getArray('array'); if (a.length > 0) a.delete(below(a.length), 1) },
      () => {
        const xml = doc.getXmlFragment('xml')
        const element = new Y.XmlElement(pick(['p', 'li', 'h1']))
        xml.insert(below(xml.length + 1), [element])
        element.insert(0, [new Y.XmlText(pick(words))])
        element.setAttribute('n', String(below(9)))
      },
      () => { const x = doc.getXmlFragment('xml'); if (x.length > 1) x.delete(below(x.length), 1) }
    ]
    for (let i = 0; i < count; i++) pick(actions)()
  }
}

// An index of a text that does not lie inside a surrogate pair. Embeds count as one unit.
const boundary = (text, index) => {
  let at = 0
  for (const { insert } of runs(text)) {
    const length = typeof insert === 'string' ? insert.length : 1
    if (index < at + length && typeof insert === 'string') {
      const unit = insert.charCodeAt(index - at)
      return unit >= 0xdc00 && unit < 0xe000 && index > at ? index - 1 : index
    }
    at += length
  }
  return index
}
