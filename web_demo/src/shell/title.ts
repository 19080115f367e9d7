/** The title, which is a field: a rename is an edit of the document, seen by everybody at once. */
import { setTitle } from '../lib/api'
import { untitled } from '../lib/address'
import type { OpenDocument } from '../lib/document'
import { h } from './dom'

const LENGTH = 120

export function titleField({ name, meta, title, connection }: OpenDocument): HTMLInputElement {
  const commit = (): void => {
    const chosen = field.value.replace(/\s+/g, ' ').trim()
    if (chosen && chosen !== title.value) meta.set('title', chosen)
    field.value = title.value
  }
  const field = h('input', {
    id: 'title',
    class: 'title',
    maxlength: String(LENGTH),
    autocomplete: 'off',
    spellcheck: 'false',
    dir: 'auto',
    'aria-label': 'Title of this document',
    onchange: commit,
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Escape') field.value = title.value
      if (event.key === 'Enter' || event.key === 'Escape') field.blur()
    },
  })
  title.subscribe((value) => {
    if (document.activeElement !== field) field.value = value
    field.placeholder = untitled(name)
    document.title = `${value} · collab`
  })

  // Listings show a copy, as the server reads no documents. It is written by who renames, and once by
  // whoever opens the document, which heals a copy that an interrupted rename has left behind.
  let told: string | undefined
  const tell = async (): Promise<void> => {
    const chosen = meta.get('title')
    if (connection.status.value.state !== 'saved' || typeof chosen !== 'string' || chosen === told) return
    const before = told
    told = chosen
    try {
      await setTitle(name, title.value)
    } catch {
      // The next one who opens the document writes it; nothing is lost but a name in a list.
      told = before
    }
  }
  meta.observe((_event, { local }) => {
    const chosen = meta.get('title')
    if (!local && told !== undefined && typeof chosen === 'string') told = chosen
  })
  connection.status.subscribe(() => void tell())

  return field
}
