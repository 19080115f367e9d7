/**
 * What is in a document: its types and values as Yjs keeps them, which follow each change.
 *
 * It reads the items themselves, as a root that no editor here has opened has no class. Of what is folded nothing is
 * drawn, of long lists the beginning, and lines stay the elements they are, so that a line that changes can be seen.
 */
import * as Y from 'yjs'
import { h } from '../shell/dom'
import { count, plain, some } from './format'
import { setText } from './table'

type Type = Y.AbstractType<any>

/** Lines of one type that are drawn at first, and how many more at a time; characters of a line. */
const SHOWN = 100
const LONGEST = 400
/** Levels that are open at first. */
const OPEN = 3
/** Items of one type that are looked at for each drawing. */
const MOST_ITEMS = 200_000

interface Line {
  /** Stays the same as long as it is the same thing. */
  readonly id: string
  readonly key: string
  readonly value: string
  readonly note: string
  readonly type?: Type
}

const reduced = matchMedia('(prefers-reduced-motion: reduce)')

/** A value as JSON, cut to a length before it is made where it is long. */
function preview(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(cut(value))
  if (value instanceof Uint8Array) return some(value.length, 'byte')
  if (value === undefined) return 'undefined'
  try {
    return cut(JSON.stringify(value) ?? String(value))
  } catch {
    return String(value)
  }
}

const cut = (text: string): string => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text)

/** Say of which kind a type is; a root that nobody has opened shows it by what it holds. */
function kindOf(type: Type): string {
  if (type instanceof Y.XmlElement) return `<${plain(type.nodeName)}>`
  if (type instanceof Y.XmlText) return 'XmlText'
  if (type instanceof Y.XmlHook) return 'XmlHook'
  if (type instanceof Y.XmlFragment) return 'XmlFragment'
  if (type instanceof Y.Text) return 'Text'
  if (type instanceof Y.Array) return 'Array'
  if (type instanceof Y.Map) return 'Map'
  for (let item = type._start; item; item = item.right) {
    const { content } = item
    if (content instanceof Y.ContentString || content instanceof Y.ContentFormat || content instanceof Y.ContentEmbed) return 'Text'
    if (content instanceof Y.ContentType) return content.type instanceof Y.XmlElement || content.type instanceof Y.XmlText ? 'XmlFragment' : 'Array'
    if (!(content instanceof Y.ContentDeleted)) return 'Array'
  }
  return type._map.size > 0 ? 'Map' : 'empty'
}

function measure(type: Type): string {
  const parts = []
  if (type._map.size > 0) parts.push(some([...type._map.values()].filter((item) => !item.deleted).length, 'key'))
  if (type._length > 0) parts.push(`length ${count(type._length)}`)
  return parts.join(', ')
}

function lineOf(id: string, key: string, content: Y.Item['content'], at: number): Line {
  if (content instanceof Y.ContentType) return { id, key, value: kindOf(content.type), note: measure(content.type), type: content.type }
  if (content instanceof Y.ContentEmbed) return { id, key, value: preview(content.embed), note: 'embed' }
  if (content instanceof Y.ContentBinary) return { id, key, value: preview(content.content), note: 'binary' }
  if (content instanceof Y.ContentDoc) return { id, key, value: preview(content.doc.guid), note: 'document' }
  return { id, key, value: preview(content.getContent()[at]), note: '' }
}

/** Give the first lines of a type, and how many there are beside them. */
function linesOf(type: Type, limit: number): { lines: Line[]; more: number } {
  const lines: Line[] = []
  let more = 0
  const add = (make: () => Line): void => {
    if (lines.length < limit) lines.push(make())
    else more += 1
  }
  for (const [key, item] of type._map) {
    if (!item.deleted) add(() => lineOf(`.${key}`, plain(key), item.content, item.length - 1))
  }
  const format = new Map<string, unknown>()
  let index = 0
  let looked = 0
  /** Text of one format: its beginning and its end, for a document may be one long run. */
  let run: { id: string; at: number; head: string; tail: string; note: string } | undefined
  const endRun = (): void => {
    const ended = run
    run = undefined
    if (!ended) return
    const { id, at, head, tail, note } = ended
    const length = index - at
    add(() =>
      length <= LONGEST
        ? { id, key: String(at), value: JSON.stringify(head), note }
        : { id, key: String(at), value: `${JSON.stringify(head.slice(0, LONGEST / 2))} … ${JSON.stringify(tail)}`, note: [`${count(length)} characters`, note].filter(Boolean).join(', ') },
    )
  }
  for (let item = type._start; item && looked < MOST_ITEMS; item = item.right, looked += 1) {
    if (item.deleted) continue
    const { content } = item
    const id = `${item.id.client}:${item.id.clock}`
    if (content instanceof Y.ContentFormat) {
      endRun()
      if (content.value === null) format.delete(content.key)
      else format.set(content.key, content.value)
      continue
    }
    if (content instanceof Y.ContentString) {
      run ??= { id, at: index, head: '', tail: '', note: format.size > 0 ? preview(Object.fromEntries(format)) : '' }
      if (run.head.length <= LONGEST) run.head += content.str.slice(0, LONGEST)
      run.tail = (run.tail + content.str.slice(-LONGEST / 2)).slice(-LONGEST / 2)
      index += item.length
      continue
    }
    endRun()
    const first = index
    for (let at = 0; at < item.length; at += 1) {
      const place = at
      add(() => lineOf(item.length > 1 ? `${id}+${place}` : id, String(first + place), content, place))
    }
    index += item.length
  }
  endRun()
  return { lines, more }
}

/** The lines of one type. */
class List {
  readonly element = h('ul', { class: 'tree-list' })
  readonly #depth: number
  readonly #rows = new Map<string, Row>()
  #limit = SHOWN
  #type: Type | undefined
  readonly #more = h('button', { type: 'button', class: 'link-button', onclick: () => {
    this.#limit += SHOWN
    if (this.#type) this.show(this.#type)
  } })
  readonly #foot = h('li', { hidden: true }, this.#more)

  constructor(depth: number) {
    this.#depth = depth
    this.element.append(this.#foot)
  }

  show(type: Type): void {
    this.#type = type
    const { lines, more } = linesOf(type, this.#limit)
    this.showLines(lines)
    this.#foot.hidden = more === 0
    if (more > 0) setText(this.#more, `${count(more)} more`)
  }

  showLines(lines: readonly Line[]): void {
    const first = this.#rows.size === 0
    const present = new Set(lines.map(({ id }) => id))
    for (const [id, row] of this.#rows) {
      if (present.has(id)) continue
      row.element.remove()
      this.#rows.delete(id)
    }
    lines.forEach((line, at) => {
      let row = this.#rows.get(line.id)
      if (!row) this.#rows.set(line.id, (row = new Row(this.#depth, !first)))
      row.show(line)
      if (this.element.children[at] !== row.element) this.element.insertBefore(row.element, this.element.children[at] ?? null)
    })
  }
}

class Row {
  readonly element = h('li', {})
  readonly #key = h('span', { class: 'tree-key' })
  readonly #value = h('span', { class: 'tree-value' })
  readonly #note = h('span', { class: 'tree-note' })
  readonly #line = h('span', { class: 'tree-line' }, this.#key, this.#value, this.#note)
  readonly #depth: number
  #fold: HTMLDetailsElement | undefined
  #list: List | undefined
  #type: Type | undefined
  #shown = ''

  constructor(depth: number, isNew: boolean) {
    this.#depth = depth
    this.element.append(this.#line)
    if (isNew) this.#shown = '\u0000'
  }

  show({ key, value, note, type }: Line): void {
    setText(this.#key, key)
    // The index of a line moves with each letter before it, which is no change of the line.
    const words = `${value}\u0000${note}`
    if (words !== this.#shown) {
      setText(this.#value, plain(value))
      setText(this.#note, plain(note))
      if (this.#shown && !reduced.matches) this.#line.animate([{ background: 'var(--flash)' }, { background: 'transparent' }], 1500)
      this.#shown = words
    }
    this.#value.classList.toggle('is-type', type !== undefined)
    this.#type = type
    if (!type) return
    if (!this.#fold) {
      const inside = h('div', {})
      this.#fold = h('details', { open: this.#depth < OPEN, ontoggle: () => this.#unfold() }, h('summary', {}, this.#line), inside)
      this.element.replaceChildren(this.#fold)
    }
    this.#unfold()
  }

  #unfold(): void {
    const inside = this.#fold!.lastElementChild!
    if (this.#fold!.open && this.#type) {
      if (!this.#list) inside.replaceChildren((this.#list = new List(this.#depth + 1)).element)
      this.#list.show(this.#type)
    } else if (this.#list) {
      // What nobody sees costs nothing.
      inside.replaceChildren()
      this.#list = undefined
    }
  }
}

export interface Tree {
  readonly element: HTMLElement
  /** Show the document as it is now. */
  show(): void
}

export function makeTree(doc: Y.Doc): Tree {
  const list = new List(0)
  const nothing = h('p', { class: 'hint', hidden: true }, 'The document is empty.')
  return {
    element: h('div', { class: 'tree' }, list.element, nothing),
    show() {
      const roots = [...doc.share].sort(([a], [b]) => (a < b ? -1 : 1))
      list.showLines(roots.map(([name, type]) => ({ id: name, key: plain(name) || '""', value: kindOf(type), note: measure(type), type })))
      nothing.hidden = roots.length > 0
    },
  }
}
