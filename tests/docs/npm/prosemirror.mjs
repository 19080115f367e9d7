// Two people edit a rich text by y-prosemirror, and what a server says of its history is read by prosemirror-model.
//
// Reads a JSON value a line, and answers each with one line; see tests/history/test_prosemirror.py.
//
//   ["play", seed, steps]  -> [[author, update as hex], ...]
//   ["render", base, update, prevSnapshot, snapshot]  (base64) -> the document as y-prosemirror renders the snapshots
//   ["read", document]  -> the same document, checked by the schema, in the form that "render" gives

import readline from 'node:readline'
import { Fragment, Mark, Schema } from 'prosemirror-model'
import { nodes, marks } from 'prosemirror-schema-basic'
import { updateYFragment } from 'y-prosemirror'
import * as Y from 'yjs'
import { createNodeFromYElement } from './node_modules/y-prosemirror/src/plugins/sync-plugin.js'

const ychange = { ychange: { default: null } }
const changed = Object.fromEntries(
  Object.entries(nodes).map(([name, spec]) => [name, name === 'text' || name === 'doc' ? spec : { ...spec, attrs: { ...spec.attrs, ...ychange } }])
)
const schema = new Schema({
  nodes: changed,
  marks: { ...marks, ychange: { attrs: { type: { default: null }, user: { default: null }, mark: { default: null } }, inclusive: false } }
})

const random = (seed) => () => {
  seed = (seed * 1664525 + 1013904223) >>> 0
  return seed / 2 ** 32
}

const paragraph = (text) => ({ type: 'paragraph', content: text ? [{ type: 'text', text }] : [] })

// Change a document somewhere: type, delete, format, add or remove a node.
const changeSomewhere = (json, next) => {
  const content = json.content
  const at = Math.floor(next() * content.length)
  const what = Math.floor(next() * 6)
  if (what === 0 || content.length === 0) content.splice(at, 0, paragraph(`new ${Math.floor(next() * 100)} 😀`))
  else if (what === 1 && content.length > 2) content.splice(at, 1)
  else if (what === 2) content.splice(at, 0, { type: 'heading', attrs: { level: 1 + Math.floor(next() * 3) }, content: [{ type: 'text', text: 'title' }] })
  else {
    const texts = (content[at].content ??= [])
    if (texts.length === 0 || what === 3) texts.push({ type: 'text', text: ` more ${Math.floor(next() * 100)}` })
    else {
      const one = texts[Math.floor(next() * texts.length)]
      if (what === 4 && one.text.length > 2) one.text = one.text.slice(0, 1) + one.text.slice(2)
      else one.marks = (one.marks ?? []).length ? [] : [{ type: 'strong' }]
    }
  }
  return json
}

const play = (seed, steps) => {
  const next = random(seed)
  const rows = []
  const docs = ['ada', 'bob'].map((author, at) => {
    const doc = new Y.Doc()
    doc.clientID = 100 + at
    doc.on('update', (update, origin) => {
      if (origin === 'own') rows.push([author, Buffer.from(update).toString('hex')])
    })
    return doc
  })
  const write = (doc, json) =>
    doc.transact(() => updateYFragment(doc, doc.getXmlFragment('prosemirror'), schema.nodeFromJSON(json), { mapping: new Map(), isOMark: new Map() }), 'own')
  let last = { type: 'doc', content: [paragraph('first'), paragraph('second')] }
  for (let step = 0; step < steps; step++) {
    const doc = docs[Math.floor(next() * 2)]
    if (step > 0) last = changeSomewhere(shown(doc), next)
    write(doc, last)
    if (next() < 0.7) for (const [from, to] of [[0, 1], [1, 0]]) Y.applyUpdate(docs[to], Y.encodeStateAsUpdate(docs[from]), 'other')
  }
  return rows
}

// What an editor without the plugin would hold; computed without any snapshot.
const shown = (doc) => ({
  type: 'doc',
  content: doc.getXmlFragment('prosemirror').toArray().map((element) => createNodeFromYElement(element, schema, { mapping: new Map(), isOMark: new Map() }).toJSON())
})

const bytes = (text) => Buffer.from(text, 'base64')

const render = (base, update, prevSnapshot, snapshot) => {
  const doc = new Y.Doc({ gc: false })
  Y.applyUpdate(doc, bytes(base))
  Y.applyUpdate(doc, bytes(update))
  const [before, after] = [prevSnapshot, snapshot].map((data) => Y.decodeSnapshot(bytes(data)))
  const elements = Y.typeListToArraySnapshot(doc.getXmlFragment('prosemirror'), new Y.Snapshot(before.ds, after.sv))
  const meta = { mapping: new Map(), isOMark: new Map() }
  const made = elements.map((element) => createNodeFromYElement(element, schema, meta, after, before, (type) => ({ type })))
  return form(schema.node('doc', null, made.filter((node) => node !== null)))
}

// One form for equal documents: who and when left out, texts of the same marks joined, marks in the order of the schema.
const form = (node) => {
  const alike = (one) => {
    if (one.isText) return one.mark(Mark.setFrom(one.marks.map((mark) => (mark.type.name === 'ychange' ? mark.type.create({ type: mark.attrs.type }) : mark))))
    const attrs = one.attrs.ychange ? { ...one.attrs, ychange: { type: one.attrs.ychange.type } } : one.attrs
    const children = []
    one.content.forEach((child) => children.push(alike(child)))
    return one.type.create(attrs, Fragment.fromArray(children))
  }
  return alike(node).toJSON()
}

const read = (json) => {
  const node = schema.nodeFromJSON(json)
  node.check()
  return form(node)
}

const commands = { play, render, read }
for await (const line of readline.createInterface({ input: process.stdin })) {
  const answers = JSON.parse(line).map(([name, ...given]) => commands[name](...given))
  process.stdout.write(JSON.stringify(answers) + '\n')
}
