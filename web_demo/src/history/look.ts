/**
 * The document as it was: above it a bar that says when that was, what can be done with it, and the way through what has
 * changed. The live document stays as it is, out of sight.
 */
import * as Y from 'yjs'
import { h, iconButton } from '../shell/dom'
import { readChanges, readState } from './api'
import { Changes } from './changes'
import { DOWN, UP } from './icons'
import { dayOf, type Moment, namesOf, timeOf } from './list'
import type { Authors } from './people'
import type { Shown } from './shown'
import type { OpenViewer, Viewer } from './viewer'

export interface Look extends Shown {
  /** Show a moment; rejects with a sentence if it cannot be read. */
  show(moment: Moment): Promise<void>
}

export interface LookOptions {
  readonly name: string
  readonly authors: Authors
  readonly viewer: OpenViewer
  /** What can be done with a moment, as buttons. */
  readonly actions: (moment: Moment) => HTMLElement[]
  readonly onClose: () => void
}

/** Show what a state holds, without what has changed. */
async function showState(name: string, { which }: Moment, viewer: Viewer, still: () => boolean): Promise<void> {
  const update = await readState(name, which)
  if (!still()) return
  const doc = new Y.Doc()
  Y.applyUpdate(doc, update)
  viewer.show(doc)
  doc.destroy()
}

export function makeLook({ name, authors, viewer: openViewer, actions, onClose }: LookOptions): Look {
  const place = h('div', { class: 'past-place' })
  const viewer = openViewer(place)
  const title = h('h2', { class: 'past-title', tabindex: '-1' })
  const doing = h('div', { class: 'past-actions' })
  const count = h('span', { class: 'note', role: 'status' })
  const marked = h('input', { type: 'checkbox', checked: true, onchange: () => current && void show(current) })
  const step = (by: number): void => {
    at = (at + by + places) % places
    viewer.goTo(at)
    count.textContent = `${at + 1} of ${places}`
  }
  const before = iconButton(UP, 'Previous change', () => step(-1))
  const next = iconButton(DOWN, 'Next change', () => step(1))
  const through = h('div', { class: 'through' }, h('label', { class: 'check' }, marked, 'Show changes'), before, next, count)
  // An open menu takes the key for itself.
  const leave = (event: KeyboardEvent): void => void (event.key === 'Escape' && !element.querySelector(':popover-open') && onClose())
  const bar = h('div', { class: 'past-bar' }, iconButton('close', 'Back to the present', onClose), title, doing, through)
  const element = h('section', { class: 'past', 'aria-label': 'The document as it was', onkeydown: leave }, bar, place)

  let current: Moment | undefined
  let places = 0
  let at = -1
  let turn = 0

  const tellActions = (): void => doing.replaceChildren(...(current ? actions(current) : []))

  function tellPlaces(words: string): void {
    at = -1
    count.textContent = words
    before.disabled = next.disabled = places === 0
  }

  async function showMarked(moment: Moment, still: () => boolean): Promise<void> {
    const answer = await readChanges(name, moment.before!, moment.number!)
    if (!still()) return
    const changes = Changes.between(answer)
    places = viewer.showChanges(changes, authors)
    changes.destroy()
    tellPlaces(places === 0 ? 'Nothing to see' : `${places} ${places === 1 ? 'change' : 'changes'}`)
    if (places > 0) step(1)
  }

  async function show(moment: Moment): Promise<void> {
    const mine = (turn += 1)
    const still = (): boolean => mine === turn
    current = moment
    title.replaceChildren(...(moment.name === null ? [] : [h('bdi', {}, moment.name), ', ']), `${dayOf(moment.at)} ${timeOf(moment.at)}`, h('span', { class: 'note' }, namesOf(moment.authors)))
    tellActions()
    places = 0
    const comparable = moment.before !== null && moment.number !== null
    through.hidden = !comparable
    tellPlaces('')
    element.setAttribute('aria-busy', 'true')
    try {
      if (!comparable || !marked.checked) await showState(name, moment, viewer, still)
      else await showMarked(moment, still)
    } finally {
      if (still()) element.removeAttribute('aria-busy')
    }
  }

  return {
    element,
    show,
    tellActions,
    destroy() {
      turn += 1
      viewer.destroy()
      element.remove()
    },
  }
}
