// What real clients see of documents and edits: yjs, and what the binding of ProseMirror makes of a rich text.
//
// Standard input carries one JSON array of commands a line, standard output one array of their results. Bytes are hex.
// The packages are those of the demo, whose binding and schema are the ones that its pages use: both must be of one
// copy of yjs.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

console.log = console.info = console.warn = console.error = () => {}

const require = createRequire(new URL('../../web_demo/package.json', import.meta.url))
const Y = require('yjs')
const { getSchema } = require('@tiptap/core')
const { default: StarterKit } = require('@tiptap/starter-kit')
const { TaskItem, TaskList } = require('@tiptap/extension-list')
const { TableKit } = require('@tiptap/extension-table')
const { default: Image } = require('@tiptap/extension-image')
const { Schema, Node } = require('prosemirror-model')
const binding = require('@tiptap/y-tiptap')

const tiptap = getSchema([StarterKit.configure({ undoRedo: false }), TaskList, TaskItem.configure({ nested: true }), TableKit, Image])
// A mark that may overlap itself, as comments do.
const overlapping = new Schema({
  nodes: { doc: { content: 'paragraph*' }, paragraph: { content: 'text*', attrs: { note: { default: null } } }, text: {} },
  marks: { comment: { attrs: { id: {}, n: { default: null } }, excludes: '' }, bold: {} }
})
const schemas = { tiptap, overlapping }

const hex = bytes => Buffer.from(bytes).toString('hex')
const bytes = text => new Uint8Array(Buffer.from(text, 'hex'))

const get = {
  text: (doc, name) => doc.getText(name),
  map: (doc, name) => doc.getMap(name),
  array: (doc, name) => doc.getArray(name),
  xml: (doc, name) => doc.getXmlFragment(name)
}

const show = (doc, roots) => Object.fromEntries(Object.entries(roots).map(([name, type]) => {
  const root = get[type](doc, name)
  if (type === 'text') return [name, root.toDelta()]
  if (type === 'xml') return [name, binding.yXmlFragmentToProsemirrorJSON(root)]
  return [name, root.toJSON()]
}))

const load = (updates, clientID) => {
  const doc = new Y.Doc()
  if (clientID !== undefined) doc.clientID = clientID
  for (const update of updates) Y.applyUpdate(doc, bytes(update))
  return doc
}

const texts = type => {
  if (type instanceof Y.Text) return [type]
  return type.toArray().filter(child => child instanceof Y.AbstractType).flatMap(texts)
}

// Type as a client does: into a text root, into the text of a fragment that is the at-th, or a value of a map or array.
const type = (doc, { root, kind, at, text, nth }) => {
  const shared = get[kind](doc, root)
  if (kind === 'map') shared.set(text, at)
  else if (kind === 'array') shared.insert(Math.min(at, shared.length), [text])
  else {
    const found = texts(shared)
    if (found.length === 0) return false
    const one = found[(nth ?? 0) % found.length]
    const string = one.toString()
    let place = at % (one.length + 1)
    // Not into the middle of a pair: no editor does.
    if (kind === 'text' && /[\udc00-\udfff]/.test(string[place] ?? '')) place++
    one.insert(place, text)
  }
  return true
}

const commands = {
  // What a client sees that has applied updates in this order.
  show: (updates, roots) => {
    const doc = load(updates)
    return { roots: show(doc, roots), pending: doc.store.pendingStructs !== null || doc.store.pendingDs !== null }
  },
  // A client that types while an edit is on its way, and one that gets both in the other order.
  concurrent: (base, edit, typing, roots) => {
    const typist = load([base], 4000000001)
    let typed = ''
    typist.once('update', update => { typed = hex(update) })
    type(typist, typing)
    if (edit !== '') Y.applyUpdate(typist, bytes(edit))
    const other = load([base, edit, typed].filter(update => update !== ''))
    // Clients clean up formats that say nothing, each by what it has; they send that, as any edit.
    for (let round = 0; round < 3; round++) {
      Y.applyUpdate(other, Y.encodeStateAsUpdate(typist))
      Y.applyUpdate(typist, Y.encodeStateAsUpdate(other))
    }
    return { one: show(typist, roots), other: show(other, roots), typed, state: hex(Y.encodeStateAsUpdate(other)) }
  },
  // What the binding makes of a fragment, and whether it has changed the document: what does not fit is deleted.
  prosemirror: (updates, name, schema) => {
    const doc = load(updates)
    const before = hex(Y.encodeStateAsUpdate(doc))
    const json = binding.yXmlFragmentToProsemirrorJSON(doc.getXmlFragment(name))
    const root = binding.yXmlFragmentToProseMirrorRootNode(doc.getXmlFragment(name), schemas[schema])
    let valid = true
    try { root.check() } catch (error) { valid = String(error) }
    return { json, root: root.toJSON(), valid, untouched: before === hex(Y.encodeStateAsUpdate(doc)), normal: Node.fromJSON(schemas[schema], json).toJSON() }
  },
  // The document that the binding makes of a document of ProseMirror.
  fromProsemirror: (json, name, schema) => hex(Y.encodeStateAsUpdate(binding.prosemirrorJSONToYDoc(schemas[schema], json, name)))
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(JSON.stringify(JSON.parse(line).map(([name, ...args]) => {
    try { return commands[name](...args) } catch (error) { return { error: String(error.stack) } }
  })) + '\n')
}
