/**
 * A rich text as it was: drawn by the schema of the editor, without an editor.
 *
 * What it needs of the editor is handed to it (`Tools`): a file that two others share would be one more to load for
 * everybody who opens a text.
 */
import type * as Tiptap from '@tiptap/core'
import type * as Model from '@tiptap/pm/model'
import * as Y from 'yjs'
import { asItIs, type Change, ROLES, type Run, textOf, type Walk } from '../history/changes'
import type { Authors } from '../history/people'
import type { Viewer } from '../history/viewer'
import { h } from '../shell/dom'
import { TextProjector } from './projector'

/** What the page of the text has loaded already. */
export interface Tools extends Pick<typeof Tiptap, 'Extension' | 'getSchema' | 'Mark'>, Pick<typeof Model, 'DOMSerializer' | 'Node'> {
  readonly nodes: Tiptap.Extensions
  readonly root: string
}

/** The mark of a text, and the attribute of a node, that has come or gone: the place of its change in a list. */
const CHANGE = 'change'

/** The schema of the editor, in which text and nodes can be marked as changed. */
function schemaOf({ Extension, getSchema, Mark, nodes }: Tools): Model.Schema {
  const mark = Mark.create({
    name: CHANGE,
    // Inside of all others, so that a link stays whole.
    priority: 1,
    addAttributes: () => ({ at: { renderHTML: ({ at }: { at: number }) => ({ 'data-change': String(at) }) } }),
    renderHTML: ({ HTMLAttributes }) => ['span', HTMLAttributes, 0],
  })
  const types = Object.keys(getSchema(nodes).nodes).filter((name) => name !== 'text' && name !== 'doc')
  const changed = Extension.create({
    name: 'changedNodes',
    addGlobalAttributes: () => [
      { types, attributes: { [CHANGE]: { default: null, renderHTML: (attributes) => (attributes[CHANGE] === null ? {} : { 'data-change': String(attributes[CHANGE]) }) } } },
    ],
  })
  return getSchema([...nodes, mark, changed])
}

/** Puts a Yjs fragment together as ProseMirror JSON; what the schema does not know is left out. */
class Reader {
  /** What has changed, by the places that the marks name. */
  readonly seen: Change[] = []
  readonly #schema: Model.Schema
  readonly #walk: Walk

  constructor(schema: Model.Schema, walk: Walk) {
    this.#schema = schema
    this.#walk = walk
  }

  content(fragment: Y.XmlFragment): Tiptap.JSONContent[] {
    return [...this.#walk.runs(fragment)].flatMap((run) => this.#nodes(run))
  }

  /** Read an element, or a text that stands beside elements. */
  nodes(type: unknown, change: number | null = null): Tiptap.JSONContent[] {
    if (type instanceof Y.XmlText) return [...this.#text(type)]
    if (!(type instanceof Y.XmlElement) || !this.#schema.nodes[type.nodeName]) return []
    return [{ type: type.nodeName, attrs: { ...type.getAttributes(), [CHANGE]: change }, content: this.content(type) }]
  }

  #nodes(run: Run): Tiptap.JSONContent[] {
    const { type } = run.item.content as Partial<Y.ContentType>
    return this.nodes(type, type instanceof Y.XmlText ? null : this.#number(run))
  }

  #number({ change }: Run): number | null {
    return change ? this.seen.push(change) - 1 : null
  }

  *#text(text: Y.XmlText): Generator<Tiptap.JSONContent> {
    const formats = new Map<string, unknown>()
    for (const run of this.#walk.runs(text)) {
      const { content } = run.item
      if (content instanceof Y.ContentFormat && !run.item.deleted) {
        if (content.value === null) formats.delete(content.key)
        else formats.set(content.key, content.value)
      }
      const shown = textOf(run)
      if (!shown) continue
      const at = this.#number(run)
      // The names of marks that may be there twice end with a hash: "link--a1b2".
      const marks = [...formats].map(([name, attrs]) => ({ type: name.split('--')[0]!, attrs: attrs as Record<string, unknown> })).filter(({ type }) => this.#schema.marks[type])
      yield { type: 'text', text: shown, marks: at === null ? marks : [...marks, { type: CHANGE, attrs: { at } }] }
    }
  }
}

/** The changed element of the block around which a place is counted: neighbours are one place. */
function places(changed: readonly HTMLElement[]): HTMLElement[] {
  return changed.filter((element, at) => {
    const before = changed[at - 1]
    return !before || !(before.contains(element) || before.nextSibling === element || before.parentElement?.nextSibling === element.parentElement)
  })
}

/** Finish what the schema has drawn. */
function dress(blocks: ParentNode): void {
  for (const box of blocks.querySelectorAll('input')) box.disabled = true
  for (const block of blocks.querySelectorAll<HTMLElement>('p, h1, h2, h3')) block.dir = 'auto'
  // An empty paragraph has the height of a line, as in the editor.
  for (const block of blocks.querySelectorAll('p:empty')) block.append(h('br'))
}

export function openTextViewer(place: HTMLElement, tools: Tools): Viewer {
  const schema = schemaOf(tools)
  const serializer = tools.DOMSerializer.fromSchema(schema)
  const paper = h('article', { class: 'tiptap paper prose', 'aria-label': 'Text as it was', tabindex: '0' })
  place.replaceChildren(paper)
  let stops: HTMLElement[] = []

  /** Draw nodes. The schema cannot draw everything: a client of somebody's own can write anything. */
  function drawn(content: readonly Tiptap.JSONContent[]): DocumentFragment {
    const blocks = document.createDocumentFragment()
    for (const one of content) {
      try {
        blocks.append(serializer.serializeNode(tools.Node.fromJSON(schema, one)))
      } catch {
        blocks.append(h('p', { class: 'note' }, 'Something that cannot be shown'))
      }
    }
    dress(blocks)
    return blocks
  }

  return {
    show(doc) {
      paper.replaceChildren(drawn(new Reader(schema, asItIs).content(doc.getXmlFragment(tools.root))))
    },
    showChanges(changes, authors: Authors) {
      const reader = new Reader(schema, changes)
      paper.replaceChildren(drawn(reader.content(changes.doc.getXmlFragment(tools.root))))
      const changed = [...paper.querySelectorAll<HTMLElement>('[data-change]')]
      for (const element of changed) {
        const change = reader.seen[Number(element.dataset['change'])]!
        element.classList.add('change', change.kind)
        element.style.setProperty('--who', authors.of(change).color)
        element.title = authors.describe(change)
        element.role = ROLES[change.kind]
      }
      stops = places(changed)
      return stops.length
    },
    goTo(at) {
      for (const element of paper.querySelectorAll('.current')) element.classList.remove('current')
      stops[at]?.classList.add('current')
      stops[at]?.scrollIntoView({ block: 'center', behavior: 'smooth' })
    },
    film(doc) {
      return new TextProjector(doc.getXmlFragment(tools.root), paper, (type) => [...drawn(new Reader(schema, asItIs).nodes(type)).childNodes])
    },
    destroy: () => paper.remove(),
  }
}
