/** Who is here: faces in the bar, the list behind them with one's own name, and the spoken comings and goings. */
import { isUp } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import type { Person, Presence } from '../lib/presence'
import { h, icon } from './dom'

const FACES = 4

function initials(name: string): string {
  const parts = name.split(' ')
  const letters = [parts[0], parts.length > 1 ? parts.at(-1) : undefined]
  return letters.map((part) => (part ? [...part][0] : '')).join('').toLocaleUpperCase()
}

/** A coloured disc with initials; for the eye alone, the name stands beside it or on what it is in. */
export function face({ name, color }: { name: string; color: string }): HTMLElement {
  const element = h('span', { class: 'face', 'aria-hidden': 'true' }, initials(name))
  element.style.setProperty('--who', color)
  return element
}

/** Say who came and who went since the last list: another window of somebody is nobody new. */
function announcement(before: readonly Person[], now: readonly Person[]): string {
  const missing = (from: readonly Person[], { clients }: Person): boolean => !from.some((one) => one.clients.some((id) => clients.includes(id)))
  const came = now.filter((person) => missing(before, person)).map(({ name }) => `${name} is here.`)
  const went = before.filter((person) => missing(now, person)).map(({ name }) => `${name} has left.`)
  return [...came, ...went].join(' ')
}

const windows = ({ clients }: Person): string => (clients.length > 1 ? `${clients.length} windows` : '')

/** One's own row: the name is a field, kept when it is left or Enter is pressed. */
function ownRow(presence: Presence): { row: HTMLLIElement; show: (me: Person) => void } {
  const input = h('input', {
    id: 'name',
    maxlength: '32',
    autocomplete: 'off',
    spellcheck: 'false',
    'aria-label': 'Your name, as others see it',
    readonly: presence.named,
    title: presence.named ? 'Your sign-in says so' : '',
    onchange: () => {
      presence.rename(input.value)
      input.value = presence.user.name
    },
    onkeydown: (event: KeyboardEvent) => {
      if (event.key === 'Escape') input.value = presence.user.name
      if (event.key === 'Enter') input.blur()
    },
  })
  const note = h('span', { class: 'note' })
  const row = h('li', { class: 'person self' }, input, note)
  let shown: HTMLElement | undefined
  return {
    row,
    show(me) {
      shown?.remove()
      row.prepend((shown = face(me)))
      note.textContent = ['you', windows(me)].filter(Boolean).join(', ')
      if (document.activeElement !== input) input.value = me.name
    },
  }
}

function otherRow(person: Person, followed: boolean, presence: Presence): HTMLLIElement {
  const follow = h(
    'button',
    {
      type: 'button',
      class: 'button quiet small',
      'aria-pressed': String(followed),
      'aria-label': `${followed ? 'Stop following' : 'Follow'} ${person.name}`,
      onclick: () => presence.follow(followed ? null : person.clientID),
    },
    followed ? 'Following' : 'Follow',
  )
  const row = h('li', { class: 'person' }, face(person), h('bdi', { class: 'name' }, person.name))
  if (windows(person)) row.append(h('span', { class: 'note' }, windows(person)))
  if (person.typing) row.append(h('span', { class: 'note typing' }, 'typing'))
  row.append(follow)
  row.dataset['client'] = String(person.clientID)
  return row
}

/** Make the button with the faces, and the list that it opens. */
export function peopleMenu({ presence, connection }: OpenDocument, spoken: HTMLElement): HTMLElement[] {
  const faces = h('span', { class: 'faces', 'aria-hidden': 'true' })
  const count = h('span', { class: 'spoken', id: 'count' })
  const heading = h('h2', { class: 'menu-title' })
  const list = h('ul', { id: 'list', 'aria-label': 'People in this document' })
  const hint = h('p', { class: 'hint' }, 'Nobody else is here yet. Send the link, or open it in another browser and edit in both.')
  const own = ownRow(presence)
  const button = h('button', { type: 'button', class: 'people-button', id: 'people', popovertarget: 'people-list', title: 'Who is here' }, faces, count)
  const menu = h('div', { id: 'people-list', class: 'menu people', popover: 'auto' }, heading, list, hint)

  let before: Person[] | undefined
  const show = (): void => {
    const people = presence.people.value
    const up = isUp(connection.status.value)
    const others = people.filter((person) => !person.self)
    const me = people.find((person) => person.self)
    if (me) own.show(me)

    // Whoever tabs through the list must not lose the place because somebody has started to type.
    const focused = (document.activeElement?.closest('.person') as HTMLElement | null)?.dataset['client']
    list.replaceChildren(own.row, ...others.map((person) => otherRow(person, presence.following.value === person.clientID, presence)))
    if (focused) list.querySelector<HTMLElement>(`[data-client="${focused}"] button`)?.focus()

    faces.replaceChildren(...people.slice(0, people.length > FACES + 1 ? FACES : FACES + 1).map((person) => {
      const disc = face(person)
      disc.classList.toggle('is-typing', person.typing && !person.self)
      return disc
    }))
    if (people.length > FACES + 1) faces.append(h('span', { class: 'face more' }, `+${people.length - FACES}`))
    count.textContent = heading.textContent = !up ? 'Others show once connected' : others.length === 0 ? 'Just you' : `${people.length} people here`
    hint.hidden = !up || others.length > 0

    const news = announcement(before ?? others, others)
    if (news) spoken.textContent = news
    before = others
  }
  presence.people.subscribe(show)
  presence.following.subscribe(show)
  connection.status.subscribe(show)
  return [button, menu]
}

/** Show whose view is followed, with the way out; moving on one's own in `area` is a way out too. */
export function followBanner({ presence }: OpenDocument, area: HTMLElement): HTMLElement {
  const name = h('bdi', {})
  const banner = h(
    'div',
    { class: 'following', hidden: true },
    icon('eye'),
    h('span', {}, 'Following ', name),
    h('button', { type: 'button', class: 'link-button', onclick: () => presence.follow(null) }, 'Stop'),
  )
  const show = (): void => {
    const person = presence.person(presence.following.value)
    banner.hidden = !person
    if (!person) return
    name.textContent = person.name
    banner.style.setProperty('--who', person.color)
  }
  presence.following.subscribe(show)
  presence.people.subscribe(show)
  for (const type of ['wheel', 'pointerdown', 'keydown'])
    area.addEventListener(type, () => presence.follow(null), { capture: true, passive: true })
  return banner
}
