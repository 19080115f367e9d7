/** Home: the documents, who is in them now, and a new one of each kind in one click. */
import { type Kind, kindOf, KINDS, newPageUrl, pageUrl, untitled } from '../lib/address'
import { ApiError, deleteDocument, type ListedDocument, listDocuments } from '../lib/api'
import { getToken, setToken } from '../lib/token'
import { copyLink } from '../shell/copy'
import { h, icon, iconButton } from '../shell/dom'
import { face } from '../shell/people'
import { themeButton } from '../shell/theme'
import { placeForToasts, toast } from '../shell/toast'
import './home.css'
import { renameDocument } from './rename'

/** Milliseconds between looks at the list, and for which a delete can be undone. */
const INTERVAL = 4000
const UNDO = 10_000

const WHAT: Readonly<Record<Kind, { label: string; about: string }>> = {
  text: { label: 'Rich text', about: 'Headings, lists, tables, images' },
  code: { label: 'Code', about: 'Fourteen languages, Markdown with a preview' },
  board: { label: 'Whiteboard', about: 'Draw and arrange together' },
}

export function openHome(): void {
  document.title = 'collab'
  const list = h('ul', { class: 'documents', id: 'documents' })
  const message = h('p', { class: 'hint', id: 'message', role: 'status' }, 'Looking for documents')
  const filter = h('input', { type: 'search', class: 'filter', id: 'filter', placeholder: 'Find', 'aria-label': 'Find a document', oninput: () => show() })
  const token = tokenForm(() => void refresh())

  document.body.replaceChildren(
    h('a', { class: 'skip', href: '#documents' }, 'Skip to the documents'),
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'brand', href: './' }, h('img', { src: './favicon.svg', alt: '', width: '28', height: '28' }), 'collab'),
      h('div', { class: 'actions' }, themeButton()),
    ),
    h(
      'main',
      { class: 'home' },
      h('h1', {}, 'Write, code and draw together'),
      h('p', { class: 'lead' }, 'Start something, send the link, and edit it with whoever opens it. Go offline and come back: nothing is lost.'),
      h('nav', { class: 'new', 'aria-label': 'New document' }, ...KINDS.map(newLink)),
      h('div', { class: 'list-head' }, h('h2', {}, 'Documents'), filter),
      token,
      message,
      list,
    ),
    placeForToasts(),
  )

  let documents: ListedDocument[] = []
  const rows = new Map<string, Row>()
  /** Deleted here, but not yet on the server. */
  const leaving = new Map<string, () => void>()

  function show(): void {
    const wanted = filter.value.trim().toLocaleLowerCase()
    const shown = documents.filter((one) => !leaving.has(one.name) && titleOf(one).toLocaleLowerCase().includes(wanted))
    for (const [name, row] of rows) {
      if (shown.some((one) => one.name === name)) continue
      row.element.remove()
      rows.delete(name)
    }
    // Rows stay the elements they are, so that a look at the list takes the focus from nobody.
    shown.forEach((one, at) => {
      let row = rows.get(one.name)
      if (!row) rows.set(one.name, (row = makeRow(one.name, { remove, renamed: refresh })))
      row.show(one)
      if (list.children[at] !== row.element) list.insertBefore(row.element, list.children[at] ?? null)
    })
    message.hidden = shown.length > 0
    message.textContent = wanted ? 'Nothing is called that' : 'Nothing here yet: start with one of the three above.'
    // A token that is not valid any more sees nothing, too.
    token.hidden = shown.length > 0 || wanted !== '' || getToken() === ''
  }

  async function refresh(): Promise<void> {
    try {
      documents = await everything()
      show()
    } catch (error) {
      message.hidden = false
      token.hidden = !(error instanceof ApiError && (error.status === 401 || error.status === 403))
      if (!token.hidden) message.textContent = 'This server asks who you are.'
      else message.textContent = error instanceof ApiError ? `The documents cannot be listed: ${error.message}.` : 'The server cannot be reached. This page tries again by itself.'
    }
  }

  function remove(one: ListedDocument): void {
    const commit = async (): Promise<void> => {
      clearTimeout(timer)
      removeEventListener('pagehide', commit)
      close()
      try {
        await deleteDocument(one.name)
        documents = documents.filter(({ name }) => name !== one.name)
      } catch (error) {
        toast(`${titleOf(one)} could not be deleted: ${(error as Error).message}`)
      }
      leaving.delete(one.name)
      show()
    }
    const undo = (): void => {
      clearTimeout(timer)
      removeEventListener('pagehide', commit)
      leaving.delete(one.name)
      show()
      rows.get(one.name)?.element.querySelector('a')?.focus()
    }
    const timer = setTimeout(commit, UNDO)
    // Who closes the page has had the time to think.
    addEventListener('pagehide', commit)
    leaving.set(one.name, undo)
    show()
    const close = toast(`Deleted “${titleOf(one)}”`, { action: 'Undo', act: undo, milliseconds: UNDO })
  }

  const look = async (): Promise<void> => {
    if (!document.hidden) await refresh()
    setTimeout(look, INTERVAL)
  }
  document.addEventListener('visibilitychange', () => void (document.hidden || refresh()))
  void look()
}

/** Fetch the whole list, newest edit first. */
async function everything(): Promise<ListedDocument[]> {
  const found: ListedDocument[] = []
  let cursor: string | null = null
  do {
    const page: Awaited<ReturnType<typeof listDocuments>> = await listDocuments({ limit: 500, ...(cursor === null ? {} : { cursor }) })
    found.push(...page.documents)
    cursor = page.next
  } while (cursor !== null)
  return found.sort((a, b) => b.updated_at.localeCompare(a.updated_at))
}

const titleOf = ({ name, title }: ListedDocument): string => title ?? untitled(name)

/** A link to a document that does not exist yet: it comes into being with its first edit. */
function newLink(kind: Kind): HTMLElement {
  const link = h(
    'a',
    { class: 'new-link', href: newPageUrl(kind), id: `new-${kind}` },
    h('span', { class: `badge ${kind}` }, icon(kind)),
    h('span', {}, h('strong', {}, `New ${WHAT[kind].label.toLowerCase()}`), h('span', { class: 'note' }, WHAT[kind].about)),
  )
  // Opened in a new tab, or come back to: the next click is another document.
  const renew = (): void => void setTimeout(() => (link.href = newPageUrl(kind)))
  link.addEventListener('click', renew)
  link.addEventListener('auxclick', renew)
  return link
}

interface Row {
  readonly element: HTMLElement
  show(one: ListedDocument): void
}

function makeRow(name: string, { remove, renamed }: { remove: (one: ListedDocument) => void; renamed: () => void }): Row {
  const kind = kindOf(name)
  let present: ListedDocument
  const link = h('a', { href: pageUrl(name), class: 'document-title' })
  const field = h('input', {
    class: 'rename',
    hidden: true,
    maxlength: '120',
    'aria-label': 'New title',
    onkeydown: ({ key }: KeyboardEvent) => {
      if (key === 'Escape') field.value = titleOf(present)
      if (key === 'Enter' || key === 'Escape') {
        field.blur()
        link.focus()
      }
    },
    onblur: async () => {
      const title = field.value.trim()
      field.hidden = true
      link.hidden = false
      if (!title || title === titleOf(present)) return
      link.textContent = title
      try {
        await renameDocument(name, title)
      } catch (error) {
        toast(`Not renamed: ${(error as Error).message}`)
      }
      renamed()
    },
  })
  const rename = iconButton('pencil', 'Rename', () => {
    field.value = titleOf(present)
    field.hidden = false
    link.hidden = true
    field.select()
  })
  const trash = iconButton('trash', 'Delete', () => remove(present))
  const faces = h('span', { class: 'faces' })
  const edited = h('time', { class: 'note' })
  const element = h(
    'li',
    { class: 'document' },
    h('span', { class: `badge ${kind}`, title: WHAT[kind].label }, icon(kind)),
    h('span', { class: 'document-main' }, link, field, h('span', { class: 'note' }, `${WHAT[kind].label} · `, edited)),
    faces,
    h(
      'span',
      { class: 'row-actions' },
      rename,
      iconButton('share', 'Copy link', () => void copyLink(pageUrl(name), 'Link copied')),
      trash,
    ),
  )
  element.dataset['name'] = name
  return {
    element,
    show(one) {
      present = one
      rename.hidden = one.access === 'read'
      trash.hidden = one.access !== 'admin'
      if (link.textContent !== titleOf(one)) link.textContent = titleOf(one)
      edited.dateTime = one.updated_at
      edited.textContent = ago(new Date(one.updated_at))
      edited.title = new Date(one.updated_at).toLocaleString()
      // Two windows of one person are listed twice; two people with one name hardly have one colour.
      const people = [...new Map(one.participants.map((person) => [`${person.color} ${person.name}`, person])).values()]
      const names = people.map((person) => person.name)
      faces.replaceChildren(...people.slice(0, 3).map(face))
      if (names.length > 3) faces.append(h('span', { class: 'face more', 'aria-hidden': 'true' }, `+${names.length - 3}`))
      if (names.length > 0) faces.append(h('span', { class: 'spoken' }, `${names.join(', ')} ${names.length === 1 ? 'is' : 'are'} in there now`))
      faces.title = names.join(', ')
    },
  }
}

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })

/** Say how long ago `date` was, in the largest unit that fits. */
function ago(date: Date): string {
  const seconds = (Date.now() - date.getTime()) / 1000
  if (seconds < 60) return 'just now'
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), 'minute')
  if (seconds < 86_400) return relative.format(-Math.floor(seconds / 3600), 'hour')
  if (seconds < 14 * 86_400) return relative.format(-Math.floor(seconds / 86_400), 'day')
  return date.toLocaleDateString('en', { dateStyle: 'medium' })
}

function tokenForm(done: () => void): HTMLElement {
  const field = h('input', { required: true, autocomplete: 'off', spellcheck: 'false', 'aria-label': 'Token', placeholder: 'Paste a token', class: 'filter' })
  return h(
    'form',
    {
      class: 'token-form',
      hidden: true,
      onsubmit: (event: Event) => {
        event.preventDefault()
        setToken(field.value.trim())
        done()
      },
    },
    field,
    h('button', { class: 'button' }, 'Go on'),
  )
}
