/**
 * Each paragraph, list and table is set in the direction of its own text. It is drawn and not stored: a document that
 * other clients edit has no attribute that they do not know.
 *
 * `dir="auto"` on every element would not do: of an element it does not look into those that have a `dir` themselves,
 * so a list whose paragraphs have one would always be left-to-right.
 */
import { Extension } from '@tiptap/core'
import type { Node } from '@tiptap/pm/model'
import { Plugin } from '@tiptap/pm/state'
import { Decoration, DecorationSet } from '@tiptap/pm/view'
import { type Direction, directionOf } from '../lib/direction'

interface Findings {
  /** Of the first text that has one. */
  readonly own: Direction | null
  /** Whether anything in it is right-to-left. */
  readonly mixed: boolean
}

/** Nodes that an edit leaves alone stay the objects they are, so they are looked at once. */
const known = new WeakMap<Node, Findings>()

function look(node: Node): Findings {
  let found = known.get(node)
  if (found) return found
  if (node.type.spec.code) found = { own: 'ltr', mixed: false }
  else if (node.isTextblock) {
    const own = directionOf(node.textContent)
    found = { own, mixed: own === 'rtl' }
  } else {
    const children = node.children.map(look)
    found = { own: children.find(({ own }) => own !== null)?.own ?? null, mixed: children.some(({ mixed }) => mixed) }
  }
  known.set(node, found)
  return found
}

function draw(parent: Node, start: number, inherited: Direction, into: Decoration[]): void {
  parent.forEach((node, offset) => {
    if (node.isInline || (inherited === 'ltr' && !look(node).mixed)) return
    const at = start + offset
    const own = look(node).own ?? inherited
    if (own !== inherited) into.push(Decoration.node(at, at + node.nodeSize, { dir: own }))
    draw(node, at + 1, own, into)
  })
}

function decorate(doc: Node): DecorationSet {
  const drawn: Decoration[] = []
  draw(doc, 0, 'ltr', drawn)
  return drawn.length > 0 ? DecorationSet.create(doc, drawn) : DecorationSet.empty
}

export const TextDirections = Extension.create({
  name: 'textDirections',
  addProseMirrorPlugins() {
    return [
      new Plugin<DecorationSet>({
        state: {
          init: (_config, { doc }) => decorate(doc),
          apply: (transaction, drawn) => (transaction.docChanged ? decorate(transaction.doc) : drawn),
        },
        props: {
          decorations(state) {
            return this.getState(state)
          },
        },
      }),
    ]
  },
})
