/** Who wrote what: the document as it is, in the colours of its authors, and the names and times of what is selected. */
import * as Y from 'yjs'
import { kindOf } from '../lib/address'
import type { OpenDocument } from '../lib/document'
import { h, iconButton } from '../shell/dom'
import { face } from '../shell/people'
import { readAttribution } from './api'
import { Changes } from './changes'
import type { Author, Authors } from './people'
import type { Shown } from './shown'
import type { OpenViewer } from './viewer'

const HINT = 'Select a part to read who wrote it, and when.'
/** On a board nothing can be selected. */
const BOARD_HINT = 'Each frame has the colour of who was the last to change what is in it.'
/** Authors and times that are told of a selection. */
const TOLD = 6

export interface WhoOptions {
  readonly opened: OpenDocument
  readonly authors: Authors
  readonly viewer: OpenViewer
  readonly onClose: () => void
  readonly onError: (error: unknown) => void
}

/** The authors of all that was shown, each once. */
function authorsOf(changes: Changes, authors: Authors): Author[] {
  const found = [...changes.seen.values()].map((change) => authors.of(change))
  return [...new Map(found.map((author) => [`${author.name} ${author.color}`, author])).values()]
}

/** What the tooltips in a selection say: of the innermost elements, as a paragraph is written by somebody as well. */
function selectedWords(place: HTMLElement): string[] {
  const selection = getSelection()
  if (!selection || selection.rangeCount === 0 || selection.isCollapsed || !place.contains(selection.anchorNode)) return []
  const range = selection.getRangeAt(0)
  const marked = [...place.querySelectorAll<HTMLElement>('.change')].filter((element) => !element.querySelector('.change') && range.intersectsNode(element))
  return [...new Set(marked.map(({ title }) => title))]
}

export function showWho({ opened, authors, viewer: openViewer, onClose, onError }: WhoOptions): Shown {
  const place = h('div', { class: 'past-place' })
  const viewer = openViewer(place)
  const legend = h('ul', { class: 'legend', 'aria-label': 'Authors' })
  const said = h('p', { class: 'note said', role: 'status' }, 'Loading …')
  const bar = h('div', { class: 'past-bar' }, iconButton('close', 'Back to the present', onClose), h('h2', { class: 'past-title', tabindex: '-1' }, 'Who wrote what'), legend, said)
  const leave = (event: KeyboardEvent): void => void (event.key === 'Escape' && onClose())
  const element = h('section', { class: 'past who', 'aria-label': 'Who wrote what', 'aria-busy': 'true', onkeydown: leave }, bar, place)
  const hint = kindOf(opened.name) === 'board' ? BOARD_HINT : HINT
  let gone = false

  const onSelection = (): void => {
    const words = selectedWords(place)
    said.textContent = words.length === 0 ? hint : words.slice(0, TOLD).join('; ') + (words.length > TOLD ? `; and ${words.length - TOLD} more` : '')
  }

  async function load(): Promise<void> {
    const answer = await readAttribution(opened.name)
    if (gone) return
    const changes = Changes.written(Y.encodeStateAsUpdate(opened.doc), answer)
    const count = viewer.showChanges(changes, authors)
    legend.replaceChildren(...authorsOf(changes, authors).map((author) => h('li', {}, face(author), h('bdi', {}, author.name))))
    changes.destroy()
    element.removeAttribute('aria-busy')
    said.textContent = count > 0 ? hint : 'Nothing has been written yet.'
    document.addEventListener('selectionchange', onSelection)
  }

  void load().catch(onError)
  return {
    element,
    tellActions: () => undefined,
    destroy() {
      gone = true
      document.removeEventListener('selectionchange', onSelection)
      viewer.destroy()
      element.remove()
    },
  }
}
