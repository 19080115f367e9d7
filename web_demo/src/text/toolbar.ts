/** The buttons above the text. Each is a command, how to see that it holds, and when it can be used. */
import type { ChainedCommands, Editor } from '@tiptap/core'
import { h, iconButton, type IconName } from '../shell/dom'
import { insertImages } from './image'
import { linkTools } from './links'

type Command = [icon: IconName, label: string, run: (chain: ChainedCommands) => ChainedCommands, active?: string]

const COMMANDS: (Command | null)[] = [
  ['undo', 'Undo (Ctrl+Z)', (chain) => chain.undo()],
  ['redo', 'Redo (Ctrl+Y)', (chain) => chain.redo()],
  null,
  ['bold', 'Bold (Ctrl+B)', (chain) => chain.toggleBold(), 'bold'],
  ['italic', 'Italic (Ctrl+I)', (chain) => chain.toggleItalic(), 'italic'],
  ['underline', 'Underline (Ctrl+U)', (chain) => chain.toggleUnderline(), 'underline'],
  ['strike', 'Strike through (Ctrl+Shift+S)', (chain) => chain.toggleStrike(), 'strike'],
  ['code', 'Code (Ctrl+E)', (chain) => chain.toggleCode(), 'code'],
  null,
  ['bullets', 'Bullet list (Ctrl+Shift+8)', (chain) => chain.toggleBulletList(), 'bulletList'],
  ['numbers', 'Numbered list (Ctrl+Shift+7)', (chain) => chain.toggleOrderedList(), 'orderedList'],
  ['tasks', 'Task list (Ctrl+Shift+9)', (chain) => chain.toggleTaskList(), 'taskList'],
  null,
  ['quote', 'Quote (Ctrl+Shift+B)', (chain) => chain.toggleBlockquote(), 'blockquote'],
  ['codeBlock', 'Code block (Ctrl+Alt+C)', (chain) => chain.toggleCodeBlock(), 'codeBlock'],
  ['table', 'Table', (chain) => chain.insertTable({ rows: 3, cols: 3, withHeaderRow: true })],
  ['line', 'Dividing line', (chain) => chain.setHorizontalRule()],
]

/** What can be done to a table; shown while the caret is in one. */
const TABLE_COMMANDS: [label: string, run: (chain: ChainedCommands) => ChainedCommands][] = [
  ['Row below', (chain) => chain.addRowAfter()],
  ['Column right', (chain) => chain.addColumnAfter()],
  ['Delete row', (chain) => chain.deleteRow()],
  ['Delete column', (chain) => chain.deleteColumn()],
  ['Delete table', (chain) => chain.deleteTable()],
]

/** Make the buttons for `editor`: one stop for Tab, arrows move between them, as toolbars do. */
export function toolbar(editor: Editor): HTMLElement[] {
  const updates: (() => void)[] = []

  const button = ([icon, label, run, active]: Command): HTMLButtonElement => {
    const element = iconButton(icon, label, () => run(editor.chain().focus()).run())
    updates.push(() => {
      if (active) element.setAttribute('aria-pressed', String(editor.isActive(active)))
      // A list turns into another kind of list in two steps, of which a trial sees only the first: hence not asked.
      element.disabled = !editor.isEditable || (!active && !run(editor.can().chain()).run())
    })
    return element
  }

  const block = h(
    'select',
    {
      class: 'block-select',
      'aria-label': 'Kind of paragraph',
      onchange: () => {
        const level = Number(block.value) as 0 | 1 | 2 | 3
        const chain = editor.chain().focus()
        void (level === 0 ? chain.setParagraph() : chain.setHeading({ level })).run()
      },
    },
    ...['Text', 'Heading 1', 'Heading 2', 'Heading 3'].map((label, level) => h('option', { value: String(level) }, label)),
  )
  updates.push(() => {
    block.value = String([1, 2, 3].find((level) => editor.isActive('heading', { level })) ?? 0)
    block.disabled = !editor.isEditable
  })

  const picker = h('input', {
    type: 'file',
    accept: 'image/*',
    hidden: true,
    'aria-label': 'Image file',
    onchange: () => {
      void insertImages(editor, [...(picker.files ?? [])])
      picker.value = ''
    },
  })
  const image = iconButton('image', 'Image', () => picker.click())
  const link = linkTools(editor)
  updates.push(() => {
    image.disabled = link.button.disabled = !editor.isEditable
    link.update()
  })

  const table = h(
    'div',
    { class: 'context-tools', role: 'group', 'aria-label': 'Table' },
    ...TABLE_COMMANDS.map(([label, run]) =>
      h('button', { type: 'button', class: 'button quiet small', onclick: () => run(editor.chain().focus()).run() }, label),
    ),
  )
  updates.push(() => (table.hidden = !editor.isEditable || !editor.isActive('table')))

  const separator = (): HTMLElement => h('span', { class: 'separator', role: 'separator' })
  const [history, rest] = [COMMANDS.slice(0, 3), COMMANDS.slice(3)]
  const make = (commands: (Command | null)[]): HTMLElement[] => commands.map((command) => (command ? button(command) : separator()))
  const bar = h('div', { class: 'toolbar', role: 'toolbar', 'aria-label': 'Formatting' }, ...make(history), block, separator(), ...make(rest), image, link.button, picker)
  roveTabIndex(bar)

  const update = (): void => updates.forEach((one) => one())
  editor.on('transaction', update)
  editor.on('update', update)
  update()
  return [bar, link.form, h('div', { class: 'below' }, link.bar, table)]
}

function roveTabIndex(bar: HTMLElement): void {
  const stops = (): HTMLElement[] => [...bar.querySelectorAll<HTMLElement>('button, select')]
  const focusOn = (target: HTMLElement): void => {
    for (const stop of stops()) stop.tabIndex = stop === target ? 0 : -1
  }
  focusOn(stops()[0]!)
  bar.addEventListener('focusin', ({ target }) => focusOn(target as HTMLElement))
  bar.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    if (!step || !(event.target instanceof HTMLElement)) return
    const usable = stops().filter((stop) => !(stop as HTMLButtonElement).disabled)
    const next = usable.at((usable.indexOf(event.target) + step) % usable.length)
    event.preventDefault()
    next?.focus()
  })
}
