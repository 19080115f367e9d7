/**
 * A table whose rows stay the elements they are, so that a refresh takes the focus, the selection and the place under
 * the pointer from nobody: while one points at its body, or is in it with the keyboard, rows keep their order, and
 * those that have gone stay, struck through, until one leaves.
 */
import { h } from '../shell/dom'

export interface Cell<T> {
  readonly content: Node | string
  show(row: T): void
}

export interface Column<T> {
  readonly label: string
  /** Make the content of a cell once for each row. */
  cell(): Cell<T>
  /** Figures stand at the right, below each other. */
  readonly numeric?: boolean
  /** Names the row to screen readers. */
  readonly heading?: boolean
  /** Left out where there is little room. */
  readonly wide?: boolean
  /** The head is for screen readers alone. */
  readonly quiet?: boolean
}

/** A column of text. */
export function text<T>(label: string, read: (row: T) => string, options: Partial<Omit<Column<T>, 'label' | 'cell'>> & { title?: (row: T) => string; class?: string } = {}): Column<T> {
  const { title, class: name, ...rest } = options
  return {
    label,
    ...rest,
    cell: () => {
      const content = h('span', name ? { class: name } : {})
      return {
        content,
        show(row) {
          setText(content, read(row))
          if (title) setAttribute(content, 'title', title(row))
        },
      }
    },
  }
}

/** A column of figures; those that say nothing stand back. */
export const figure = <T>(label: string, read: (row: T) => string, options: Parameters<typeof text<T>>[2] = {}): Column<T> => {
  const column = text(label, read, { numeric: true, ...options })
  return {
    ...column,
    cell: () => {
      const { content, show } = column.cell()
      return {
        content,
        show(row) {
          show(row)
          ;(content as HTMLElement).classList.toggle('none', /^(–|0( B|\/s| B\/s)?)$/.test(read(row)))
        },
      }
    },
  }
}

/** Set text, if it is another one. */
export function setText(element: Element, value: string): void {
  if (element.textContent !== value) element.textContent = value
}

export function setAttribute(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value)
}

interface Row<T> {
  readonly element: HTMLTableRowElement
  readonly cells: Cell<T>[]
}

export interface Table<T> {
  readonly element: HTMLElement
  show(rows: readonly T[]): void
}

export interface TableOptions<T> {
  key: (row: T) => string
  /** What stands there when there is no row. */
  empty: string
  /** Mark a row, in `data-mark`; empty for none. */
  mark?: (row: T) => string
}

export function makeTable<T>(caption: string, columns: readonly Column<T>[], { key, empty, mark }: TableOptions<T>): Table<T> {
  const body = h('tbody', {})
  const nothing = h('p', { class: 'hint nothing' }, 'Looking')
  const classes = ({ numeric, wide }: Column<T>): string => `${numeric ? 'numeric' : ''}${wide ? ' wide' : ''}`.trim()
  const head = h(
    'tr',
    {},
    ...columns.map((column) => h('th', { scope: 'col', class: classes(column) }, column.quiet ? h('span', { class: 'spoken' }, column.label) : column.label)),
  )
  const table = h('table', {}, h('caption', { class: 'spoken' }, caption), h('thead', {}, head), body)
  // A region that scrolls can be reached with the keyboard.
  const scroller = h('div', { class: 'scroller', role: 'region', 'aria-label': caption, tabindex: '0' }, table)
  const element = h('div', { class: 'table' }, scroller, nothing)
  table.hidden = true

  const rows = new Map<string, Row<T>>()
  let pointing = false
  let latest: readonly T[] = []
  const held = (): boolean => pointing || body.contains(document.activeElement)

  function makeRow(): Row<T> {
    const cells = columns.map((column) => column.cell())
    const element = h('tr', {})
    cells.forEach((cell, at) => {
      const column = columns[at]!
      element.append(column.heading ? h('th', { scope: 'row', class: classes(column) }, cell.content) : h('td', { class: classes(column) }, cell.content))
    })
    return { element, cells }
  }

  function show(list: readonly T[]): void {
    latest = list
    const still = held()
    const present = new Set<string>()
    list.forEach((one) => {
      const name = key(one)
      if (present.has(name)) return
      present.add(name)
      let row = rows.get(name)
      if (!row) {
        rows.set(name, (row = makeRow()))
        if (still) body.append(row.element)
      }
      row.element.inert = false
      row.element.classList.remove('gone')
      if (mark) row.element.dataset['mark'] = mark(one)
      row.cells.forEach((cell) => cell.show(one))
      const at = present.size - 1
      if (!still && body.children[at] !== row.element) body.insertBefore(row.element, body.children[at] ?? null)
    })
    for (const [name, row] of rows) {
      if (present.has(name)) continue
      if (still) {
        // The focus must not fall to the top of the page.
        if (!row.element.contains(document.activeElement)) row.element.inert = true
        row.element.classList.add('gone')
      } else {
        row.element.remove()
        rows.delete(name)
      }
    }
    table.hidden = rows.size === 0
    scroller.tabIndex = rows.size === 0 ? -1 : 0
    nothing.hidden = rows.size > 0
    setText(nothing, empty)
  }

  const settle = (): void => {
    if (!held()) show(latest)
  }
  body.addEventListener('pointerenter', ({ pointerType }) => (pointing = pointerType === 'mouse'))
  body.addEventListener('pointerleave', () => {
    pointing = false
    settle()
  })
  body.addEventListener('focusout', () => setTimeout(settle))

  return { element, show }
}
