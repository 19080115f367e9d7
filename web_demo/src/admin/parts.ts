/** What several views are made of. */
import { pageUrl } from '../lib/address'
import { h } from '../shell/dom'
import { age, moment, plain } from './format'
import { type Cell, type Column, setAttribute, setText } from './table'

/** The address of a view of this page. */
export function viewUrl(view: string, query: Readonly<Record<string, string>> = {}): string {
  const url = new URL('admin', document.baseURI)
  url.searchParams.set('view', view)
  for (const [key, value] of Object.entries(query)) if (value) url.searchParams.set(key, value)
  return url.href
}

/** The address where a document is inspected. */
export const inspectUrl = (name: string): string => pageUrl(name, 'admin')

/** A name as it is, without direction marks and the like, cut where there is no room; the whole of it is its tooltip. */
export function nameCell<T>(read: (row: T) => string | null, none = '–'): Cell<T> {
  const content = h('bdi', { class: 'name' })
  return {
    content,
    show(row) {
      const name = read(row)
      setText(content, name === null ? none : plain(name))
      content.classList.toggle('none', name === null)
      if (name === null) content.removeAttribute('title')
      else setAttribute(content, 'title', plain(name))
    },
  }
}

/** A link to the inside of a document. */
export function documentCell<T>(read: (row: T) => string | null): Cell<T> {
  const link = h('a', { class: 'name document-link' })
  const words = h('bdi', {})
  link.append(words)
  return {
    content: link,
    show(row) {
      const name = read(row)
      link.hidden = name === null
      if (name === null) return
      setText(words, plain(name))
      setAttribute(link, 'title', plain(name))
      setAttribute(link, 'href', inspectUrl(name))
    },
  }
}

export const nameColumn = <T>(label: string, read: (row: T) => string | null, options: Partial<Column<T>> = {}): Column<T> => ({ label, ...options, cell: () => nameCell(read) })

export const documentColumn = <T>(label: string, read: (row: T) => string | null, options: Partial<Column<T>> = {}): Column<T> => ({ label, ...options, cell: () => documentCell(read) })

/** When something was, as time of the day; its tooltip says how long ago. */
export function whenColumn<T>(label: string, read: (row: T) => string | number | null, options: Partial<Column<T>> & { relative?: boolean } = {}): Column<T> {
  const { relative = false, ...rest } = options
  return {
    label,
    ...rest,
    cell: () => {
      const content = h('time', { class: 'when' })
      return {
        content,
        show(row) {
          const at = read(row)
          if (at === null) return setText(content, '–')
          setText(content, relative ? age(at) : moment(at))
          setAttribute(content, 'title', relative ? moment(at) : `${age(at)} ago`)
        },
      }
    },
  }
}

/** A word with a colour and a shape: "good", "warn", "bad" or "" for none. */
export type Tone = '' | 'good' | 'warn' | 'bad'

export function chip(): { element: HTMLElement; show(word: string, tone: Tone, title?: string): void } {
  const element = h('span', { class: 'chip' })
  return {
    element,
    show(word, tone, title = '') {
      setText(element, word)
      element.dataset['tone'] = tone
      if (title) setAttribute(element, 'title', title)
      else element.removeAttribute('title')
    },
  }
}

export function chipColumn<T>(label: string, read: (row: T) => [word: string, tone: Tone, title?: string], options: Partial<Column<T>> = {}): Column<T> {
  return {
    label,
    ...options,
    cell: () => {
      const { element, show } = chip()
      return { content: element, show: (row) => show(...read(row)) }
    },
  }
}

export interface Deed<T> {
  readonly label: string
  readonly danger?: boolean
  /** Whether it is offered for this row. */
  readonly offered?: (row: T) => boolean
  act(row: T): void
}

/** Buttons at the end of each row. They act on what the row shows when they are pressed. */
export function deedsColumn<T>(name: (row: T) => string, deeds: readonly Deed<T>[]): Column<T> {
  return {
    label: 'Actions',
    quiet: true,
    cell: () => {
      let present: T
      const buttons = deeds.map((deed) => h('button', { type: 'button', class: `button quiet small${deed.danger ? ' danger' : ''}`, onclick: () => deed.act(present) }, deed.label))
      return {
        content: h('span', { class: 'deeds' }, ...buttons),
        show(row) {
          present = row
          deeds.forEach((deed, at) => {
            const button = buttons[at]!
            button.hidden = deed.offered ? !deed.offered(row) : false
            setAttribute(button, 'aria-label', `${deed.label} ${plain(name(row))}`)
          })
        },
      }
    },
  }
}

/** A part of a view with a heading of its own. */
export function section(title: string, ...children: Parameters<typeof h>[2][]): HTMLElement {
  return h('section', { class: 'panel' }, h('h2', {}, title), ...children)
}

/** Pairs of a name and a value that changes. */
export function facts(): { element: HTMLElement; show(pairs: readonly (readonly [label: string, value: string, title?: string])[]): void } {
  const element = h('dl', { class: 'facts' })
  const known = new Map<string, { pair: HTMLElement; value: HTMLElement }>()
  return {
    element,
    show(pairs) {
      const present = new Set<string>()
      for (const [label, value, title] of pairs) {
        present.add(label)
        let one = known.get(label)
        if (!one) {
          const shown = h('dd', {})
          known.set(label, (one = { pair: h('div', {}, h('dt', {}, label), shown), value: shown }))
          element.append(one.pair)
        }
        one.pair.hidden = false
        setText(one.value, value)
        if (title) setAttribute(one.value, 'title', title)
      }
      for (const [label, one] of known) if (!present.has(label)) one.pair.hidden = true
    },
  }
}

/** A field with its label. */
export function labelled(label: string, field: HTMLElement): HTMLElement {
  return h('label', { class: 'labelled' }, h('span', {}, label), field)
}

export function select(options: readonly (readonly [value: string, label: string])[], onchange: () => void, value = ''): HTMLSelectElement {
  const element = h('select', { class: 'field', onchange }, ...options.map(([name, label]) => h('option', { value: name }, label)))
  element.value = value
  return element
}

/** Call `listener` when somebody has stopped typing for a moment, or presses Enter. */
export function searchField(placeholder: string, listener: () => void, value = ''): HTMLInputElement {
  let timer = 0
  const now = (): void => {
    clearTimeout(timer)
    listener()
  }
  const field = h('input', {
    type: 'search',
    class: 'field',
    placeholder,
    spellcheck: 'false',
    autocapitalize: 'off',
    oninput: () => {
      clearTimeout(timer)
      timer = window.setTimeout(listener, 250)
    },
    onkeydown: ({ key }: KeyboardEvent) => key === 'Enter' && now(),
  })
  field.value = value
  return field
}

export interface Pager {
  readonly element: HTMLElement
  /** Where the page that is shown begins; undefined for the first one. */
  readonly cursor: string | undefined
  /** Take the cursor of the page behind this one. */
  show(next: string | null): void
  /** Go back to the first page. */
  reset(): void
}

/** Go through a list page by page: one page is held at a time, however long the list is. */
export function makePager(changed: () => void): Pager {
  const before: string[] = []
  let next: string | null = null
  const back = h('button', { type: 'button', class: 'button quiet small', onclick: () => move(() => void before.pop()) }, 'Previous')
  const on = h('button', { type: 'button', class: 'button quiet small', onclick: () => move(() => void (next !== null && before.push(next))) }, 'Next')
  const where = h('span', { class: 'note' })
  const element = h('nav', { class: 'pager', 'aria-label': 'Pages', hidden: true }, back, where, on)

  function move(how: () => void): void {
    how()
    next = null
    draw()
    changed()
  }
  function draw(): void {
    element.hidden = before.length === 0 && next === null
    back.disabled = before.length === 0
    on.disabled = next === null
    setText(where, `Page ${before.length + 1}`)
  }
  return {
    element,
    get cursor() {
      return before.at(-1)
    },
    show(cursor) {
      next = cursor
      draw()
    },
    reset() {
      before.length = 0
      next = null
      draw()
    },
  }
}

/** Says which nodes have not answered, so that nobody takes a part for the whole. */
export function silence(): { element: HTMLElement; show(silent: readonly string[]): void } {
  const element = h('p', { class: 'warning', hidden: true })
  return {
    element,
    show(silent) {
      element.hidden = silent.length === 0
      if (silent.length > 0) setText(element, `Not answered within a second: ${silent.map(plain).join(', ')}. What they know is missing here.`)
    },
  }
}
