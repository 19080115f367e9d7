/** A rich text as it was: drawn by the schema of the editor, without an editor. */
import { Extension, getSchema, Mark, type JSONContent } from '@tiptap/core'
import { DOMSerializer, Node } from '@tiptap/pm/model'
import { yXmlFragmentToProseMirrorRootNode } from '@tiptap/y-tiptap'
import * as Y from 'yjs'
import { type Change, type Changes, type Run, textOf } from '../history/changes'
import type { Authors } from '../history/people'
import type { Viewer } from '../history/viewer'
import { h } from '../shell/dom'
import { nodes, ROOT } from './extensions'

/** The mark of a text, and the attribute of a node, that has come or gone: the place of its change in a list. */
const CHANGE = 'change'

const ChangeMark = Mark.create({
  name: CHANGE,
  // Inside of all others, so that a link stays whole.
  priority: 1,
  addAttributes: () => ({ at: { renderHTML: ({ at }: { at: number }) => ({ 'data-change': String(at) }) } }),
  renderHTML: ({ HTMLAttributes }) => ['span', HTMLAttributes, 0],
})

const schema = (() => {
  const plain = nodes()
  const types = Object.keys(getSchema(plain).nodes).filter((name) => name !== 'text' && name !== 'doc')
  const changed = Extension.create({
    name: 'changedNodes',
    addGlobalAttributes: () => [
      { types, attributes: { [CHANGE]: { default: null, renderHTML: (attributes) => (attributes[CHANGE] === null ? {} : { 'data-change': String(attributes[CHANGE]) }) } } },
    ],
  })
  return getSchema([...plain, ChangeMark, changed])
})()

/** Put a changed document together as ProseMirror JSON; what the schema does not know is left out. */
function contentOf(fragment: Y.XmlFragment, changes: Changes, seen: Change[]): JSONContent[] {
  const found: JSONContent[] = []
  const number = ({ change }: Run): number | null => (change ? seen.push(change) - 1 : null)
  for (const run of changes.runs(fragment)) {
    const { type } = run.item.content as Partial<Y.ContentType>
    if (type instanceof Y.XmlText) found.push(...textNodes(type, changes, number))
    else if (type instanceof Y.XmlElement && schema.nodes[type.nodeName]) {
      found.push({ type: type.nodeName, attrs: { ...type.getAttributes(), [CHANGE]: number(run) }, content: contentOf(type, changes, seen) })
    }
  }
  return found
}

function* textNodes(text: Y.XmlText, changes: Changes, number: (run: Run) => number | null): Generator<JSONContent> {
  const formats = new Map<string, unknown>()
  for (const run of changes.runs(text)) {
    const { content } = run.item
    if (content instanceof Y.ContentFormat && !run.item.deleted) {
      if (content.value === null) formats.delete(content.key)
      else formats.set(content.key, content.value)
    }
    const shown = textOf(run)
    if (!shown) continue
    const at = number(run)
    // The names of marks that may be there twice end with a hash: "link--a1b2".
    const marks = [...formats].map(([name, attrs]) => ({ type: name.split('--')[0]!, attrs: attrs as Record<string, unknown> })).filter(({ type }) => schema.marks[type])
    yield { type: 'text', text: shown, marks: at === null ? marks : [...marks, { type: CHANGE, attrs: { at } }] }
  }
}

/** The changed element of the block around which a place is counted: neighbours are one place. */
function places(changed: readonly HTMLElement[]): HTMLElement[] {
  return changed.filter((element, at) => {
    const before = changed[at - 1]
    return !before || !(before.contains(element) || before.nextSibling === element || before.parentElement?.nextSibling === element.parentElement)
  })
}

export function openTextViewer(place: HTMLElement): Viewer {
  const paper = h('article', { class: 'tiptap paper prose', 'aria-label': 'Text as it was', tabindex: '0' })
  place.replaceChildren(paper)
  let stops: HTMLElement[] = []

  function draw(node: Node): void {
    paper.replaceChildren(DOMSerializer.fromSchema(schema).serializeFragment(node.content))
    for (const box of paper.querySelectorAll('input')) box.disabled = true
    for (const block of paper.querySelectorAll<HTMLElement>('p, h1, h2, h3')) block.dir = 'auto'
    // An empty paragraph has the height of a line, as in the editor.
    for (const block of paper.querySelectorAll('p:empty')) block.append(h('br'))
  }

  return {
    show(doc) {
      draw(yXmlFragmentToProseMirrorRootNode(doc.getXmlFragment(ROOT), schema))
    },
    showChanges(changes, authors: Authors) {
      const seen: Change[] = []
      draw(Node.fromJSON(schema, { type: 'doc', content: contentOf(changes.doc.getXmlFragment(ROOT), changes, seen) }))
      const changed = [...paper.querySelectorAll<HTMLElement>('[data-change]')]
      for (const element of changed) {
        const change = seen[Number(element.dataset['change'])]!
        element.classList.add('change', change.kind)
        element.style.setProperty('--who', authors.of(change).color)
        element.title = authors.describe(change)
        element.role = change.kind === 'added' ? 'insertion' : 'deletion'
      }
      stops = places(changed)
      return stops.length
    },
    goTo(at) {
      for (const element of paper.querySelectorAll('.current')) element.classList.remove('current')
      stops[at]?.classList.add('current')
      stops[at]?.scrollIntoView({ block: 'center', behavior: 'smooth' })
    },
    destroy: () => paper.remove(),
  }
}
