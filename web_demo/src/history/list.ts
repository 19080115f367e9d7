/** The list at the side: what happened, by day, the newest first; or the named versions alone. */
import { h, icon } from '../shell/dom'
import { face } from '../shell/people'
import type { Entry, TimelinePage, Version, Which } from './api'
import { STAR } from './icons'
import type { Author, Authors } from './people'

const FACES = 3

/** A state of the past that can be chosen. */
export interface Moment {
  /** The same moment has the same key, also after the list was read again. */
  readonly key: string
  readonly which: Which
  /** Its number in the log; null for what was imported, which cannot be restored and has no changes. */
  readonly number: number | null
  /** The number of the log of the moment before; null where that is not known, or cannot be read any more. */
  readonly before: number | null
  readonly at: Date
  readonly authors: readonly Author[]
  /** Users whose edits can be taken back. */
  readonly users: readonly string[]
  /** What people call it; null: it has no name. */
  readonly name: string | null
  /** The version, if it is one. */
  readonly version: number | null
  readonly edits: number | null
}

const day = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const dayOfOtherYear = new Intl.DateTimeFormat(undefined, { dateStyle: 'long' })
const time = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' })

export const timeOf = (at: Date): string => time.format(at)

/** "Today", "Yesterday", or the date. */
export function dayOf(at: Date, now = new Date()): string {
  const midnight = (of: Date): number => new Date(of.getFullYear(), of.getMonth(), of.getDate()).getTime()
  const days = Math.round((midnight(now) - midnight(at)) / 86_400_000)
  if (days === 0) return 'Today'
  if (days === 1) return 'Yesterday'
  return (at.getFullYear() === now.getFullYear() ? day : dayOfOtherYear).format(at)
}

/** The names of some people, in as few words as will do. */
export function namesOf(authors: readonly Author[]): string {
  const names = [...new Set(authors.map(({ name }) => name))]
  const [first = 'Somebody', second] = names
  if (names.length < 2) return first
  return names.length === 2 ? `${first} and ${second}` : `${first}, ${second} and ${names.length - 2} more`
}

/** The number before `first`, if the changes since then can be read. */
function beforeOf(first: number, { reaches }: TimelinePage): number | null {
  // Before the first row there is nothing, which needs no history.
  const lowest = reaches > 1 ? reaches : 0
  return first - 1 >= lowest ? first - 1 : null
}

/** A part of a sitting, behind `after` and up to `number`, where a version with a name ends it or the sitting does. */
function part(entry: Entry, after: number, number: number, page: TimelinePage, authors: Authors): Moment {
  return {
    key: `up to ${number} of ${entry.from}`,
    which: { number },
    number,
    before: beforeOf(after + 1, page),
    at: new Date(entry.ended_at),
    authors: entry.authors.map(({ user, name, on_behalf_of }) => authors.user(on_behalf_of ?? user, on_behalf_of === null ? name : null)),
    users: [...new Set(entry.authors.flatMap(({ user }) => (user === null ? [] : [user])))],
    name: null,
    version: null,
    edits: number - after,
  }
}

/**
 * The moments of a page of the timeline, the newest first: sittings, cut where somebody has given a state a name. `named`
 * says more of the versions than the timeline does, by their ids.
 */
export function timelineMoments(page: TimelinePage, named: ReadonlyMap<number, Version>, authors: Authors): Moment[] {
  return page.entries.flatMap((entry) => {
    const versions = entry.versions.filter(({ kind }) => kind === 'named').sort((a, b) => b.number - a.number)
    const below = (number: number): number => versions.find((one) => one.number < number)?.number ?? entry.from - 1
    const stars = versions.map(({ id, number, name }) => {
      const { at, author, author_name } = named.get(id) ?? { at: entry.ended_at }
      const moment = part(entry, below(number), number, page, authors)
      return { ...moment, key: `version ${id}`, which: { version: id }, name, version: id, edits: null, at: new Date(at), ...(author !== undefined && { authors: [authors.user(author, author_name)] }) }
    })
    // What is no longer kept can be read as a version alone.
    const open = !entry.marks.includes('pruned') && versions[0]?.number !== entry.to
    return open ? [{ ...part(entry, versions[0]?.number ?? entry.from - 1, entry.to, page, authors), key: `from ${entry.from}` }, ...stars] : stars
  })
}

/** The moments of named versions; what has changed is counted from the named one before. */
export function versionMoments(versions: readonly Version[], last: boolean, page: TimelinePage, authors: Authors): Moment[] {
  return versions.map((version, at) => {
    const older = versions[at + 1]
    const before = older ? older.number : last ? 0 : null
    return {
      key: `version ${version.id}`,
      which: { version: version.id },
      number: version.number,
      before: before === null || version.number === null ? null : beforeOf(before + 1, page),
      at: new Date(version.at),
      authors: [authors.user(version.author, version.author_name)],
      users: [],
      name: version.name,
      version: version.id,
      edits: null,
    }
  })
}

function facesOf(authors: readonly Author[]): HTMLElement {
  const shown = authors.slice(0, FACES).map(face)
  if (authors.length > FACES) shown.push(h('span', { class: 'face more' }, `+${authors.length - FACES}`))
  return h('span', { class: 'faces', 'aria-hidden': 'true' }, ...shown)
}

function wordsOf({ name, authors, at, edits }: Moment): HTMLElement[] {
  const count = edits === null ? '' : `, ${edits} ${edits === 1 ? 'edit' : 'edits'}`
  const note = name === null ? `${timeOf(at)}${count}` : `${timeOf(at)}, ${namesOf(authors)}`
  return [h('bdi', { class: 'moment-name' }, name ?? namesOf(authors)), h('span', { class: 'note' }, note)]
}

function momentRow(moment: Moment, chosen: boolean, choose: (moment: Moment) => void): HTMLElement {
  const sign = moment.version === null ? facesOf(moment.authors) : h('span', { class: 'star', title: 'Named version' }, icon(STAR))
  const button = h(
    'button',
    { type: 'button', class: 'moment', 'aria-pressed': String(chosen), onclick: () => choose(moment) },
    sign,
    h('span', { class: 'moment-words' }, ...wordsOf(moment)),
  )
  button.dataset['moment'] = moment.key
  return h('li', {}, button)
}

/** Draw the list of `moments` into `list`; the chosen one is marked, and the focus stays on its row. */
export function drawList(list: HTMLElement, moments: readonly Moment[], chosen: string | undefined, choose: (moment: Moment) => void): void {
  const focused = (document.activeElement as HTMLElement | null)?.dataset['moment']
  const days = new Map<string, Moment[]>()
  for (const moment of moments) {
    const title = dayOf(moment.at)
    days.set(title, [...(days.get(title) ?? []), moment])
  }
  list.replaceChildren(
    ...[...days].map(([title, ones]) =>
      h('section', { 'aria-label': title }, h('h3', { class: 'menu-title' }, title), h('ul', {}, ...ones.map((moment) => momentRow(moment, moment.key === chosen, choose)))),
    ),
  )
  if (focused) list.querySelector<HTMLElement>(`[data-moment="${focused}"]`)?.focus()
}

/** Let the arrow keys move between the rows. */
export function moveByArrows(list: HTMLElement): void {
  list.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    const rows = [...list.querySelectorAll<HTMLElement>('.moment')]
    const next = step && rows[rows.indexOf(event.target as HTMLElement) + step]
    if (!next) return
    event.preventDefault()
    next.focus()
  })
}
