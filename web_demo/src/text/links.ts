/**
 * Links: a form to set one (Ctrl+K), and two ways to follow one while the text can be edited: Ctrl+click, and a bar
 * with the address while the caret is in it, which needs neither a mouse nor a Ctrl key. Who only reads just clicks.
 */
import type { Editor } from '@tiptap/core'
import { h, iconButton } from '../shell/dom'

const SCHEMES = ['http:', 'https:', 'mailto:', 'tel:']

/** The address that `href` leads to; null if it is none to follow, as a peer may write anything. */
function followable(href: unknown): URL | null {
  if (typeof href !== 'string' || !href || !URL.canParse(href, document.baseURI)) return null
  const url = new URL(href, document.baseURI)
  return SCHEMES.includes(url.protocol) ? url : null
}

/** What people call the address. */
const spell = (url: URL): string => url.href.replace(/^(https?:\/\/|mailto:|tel:)/, '').replace(/\/$/, '')

const onMac = /Mac|iPhone|iPad/.test(navigator.platform)
const withCommand = (event: MouseEvent | KeyboardEvent): boolean => (onMac ? event.metaKey : event.ctrlKey)

export interface LinkTools {
  /** Opens the form. */
  readonly button: HTMLButtonElement
  readonly form: HTMLElement
  /** Shown while the caret is in a link. */
  readonly bar: HTMLElement
  /** Show what holds at the caret now. */
  update(): void
}

export function linkTools(editor: Editor): LinkTools {
  const field = h('input', { type: 'text', inputmode: 'url', placeholder: 'https://', 'aria-label': 'Address of the link' })
  const form = h(
    'form',
    {
      class: 'link-form menu',
      popover: 'auto',
      id: 'link-form',
      onsubmit: (event: Event) => {
        event.preventDefault()
        set(editor, field.value.trim())
        form.hidePopover()
      },
    },
    field,
    h('button', { class: 'button' }, 'Set link'),
  )
  form.addEventListener('toggle', () => {
    if (!form.matches(':popover-open')) return
    field.value = String(editor.getAttributes('link')['href'] ?? '')
    field.focus()
    field.select()
  })
  const button = iconButton('link', 'Link (Ctrl+K)', () => undefined, { popovertarget: form.id })

  const address = h('a', { class: 'button quiet small link-address', target: '_blank', rel: 'noopener noreferrer' })
  const small = (label: string, onclick: () => void): HTMLElement => h('button', { type: 'button', class: 'button quiet small', onclick }, label)
  const bar = h(
    'div',
    { class: 'context-tools', role: 'group', 'aria-label': 'Link at the caret', hidden: true },
    address,
    small('Change', () => form.showPopover()),
    small('Remove', () => editor.chain().focus().extendMarkRange('link').unsetLink().run()),
  )

  editor.view.dom.addEventListener('keydown', (event) => {
    if (!withCommand(event) || event.altKey || event.shiftKey || event.key.toLowerCase() !== 'k' || !editor.isEditable) return
    event.preventDefault()
    form.showPopover()
  })
  editor.view.dom.addEventListener('click', (event) => {
    // Where nothing can be edited the browser follows links by itself.
    if (!withCommand(event) || !editor.isEditable || !(event.target instanceof Element)) return
    const url = followable(event.target.closest('a')?.getAttribute('href'))
    if (!url) return
    event.preventDefault()
    open(url, '_blank', 'noopener,noreferrer')
  })

  return {
    button,
    form,
    bar,
    update() {
      const active = editor.isActive('link')
      button.setAttribute('aria-pressed', String(active))
      const url = active ? followable(editor.getAttributes('link')['href']) : null
      bar.hidden = !editor.isEditable || !active
      address.hidden = url === null
      if (url === null) return
      address.href = url.href
      address.textContent = spell(url)
      address.title = `Open ${url.href} in a new tab`
    },
  }
}

/** Make what is selected, or the link at the caret, lead to `href`; an empty address takes the link away. */
function set(editor: Editor, href: string): void {
  const chain = editor.chain().focus().extendMarkRange('link')
  if (!href) return void chain.unsetLink().run()
  const target = /^[a-z][a-z+.-]*:|^[/#]/i.test(href) ? href : `https://${href}`
  if (editor.state.selection.empty && !editor.isActive('link')) chain.insertContent({ type: 'text', text: href, marks: [{ type: 'link', attrs: { href: target } }] }).run()
  else chain.setLink({ href: target }).run()
}
