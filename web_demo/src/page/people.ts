/** The list of who is here, the row of faces for narrow screens, and the spoken comings and goings. */
import type { Connection } from '../connect'
import type { Person, Presence } from '../presence'
import { byId } from './dom'

const FACES = 5

function initials(name: string): string {
  const words = name.split(' ')
  const letters = [words[0], words.length > 1 ? words.at(-1) : undefined]
  return letters.map((word) => (word ? [...word][0] : '')).join('').toLocaleUpperCase()
}

function face(person: Person): HTMLElement {
  const element = document.createElement('span')
  element.className = 'face'
  element.style.setProperty('--who', person.color)
  element.setAttribute('aria-hidden', 'true')
  element.textContent = initials(person.name)
  return element
}

/** One's own row: the name is a field, kept when it is left or Enter is pressed. */
function ownRow(presence: Presence): { row: HTMLLIElement; show: (me: Person) => void } {
  const row = document.createElement('li')
  row.className = 'person self'
  const input = document.createElement('input')
  input.id = 'name'
  input.maxLength = 32
  input.autocomplete = 'off'
  input.spellcheck = false
  input.setAttribute('aria-label', 'Your name, as others see it')
  input.addEventListener('change', () => {
    presence.rename(input.value)
    input.value = presence.name
  })
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter') input.blur()
    if (event.key === 'Escape') {
      input.value = presence.name
      input.blur()
    }
  })
  const you = document.createElement('span')
  you.className = 'you'
  you.textContent = 'you'
  row.append(input, you)
  let shown: HTMLElement | undefined
  return {
    row,
    show(me) {
      shown?.remove()
      shown = face(me)
      row.prepend(shown)
      if (document.activeElement !== input) input.value = me.name
    },
  }
}

function otherRow(person: Person): HTMLLIElement {
  const row = document.createElement('li')
  row.className = 'person'
  row.dataset['client'] = String(person.clientID)
  const name = document.createElement('bdi')
  name.className = 'name'
  name.textContent = person.name
  row.append(face(person), name)
  return row
}

/** Say who came and who went since the last list. */
function announcement(before: Map<number, string>, people: Person[]): string {
  const now = new Map(people.map((person) => [person.clientID, person.name]))
  const came = [...now].filter(([id]) => !before.has(id)).map(([, name]) => `${name} is here.`)
  const went = [...before].filter(([id]) => !now.has(id)).map(([, name]) => `${name} has left.`)
  return [...came, ...went].join(' ')
}

/** The heading of the list; without a connection nobody can know who else is there. */
function heading(connected: boolean, number: number): string {
  if (!connected) return 'Others show once connected'
  return number === 1 ? 'Just you' : `${number} people here`
}

export function showPeople(presence: Presence, connection: Connection): void {
  const details = byId('people', HTMLDetailsElement)
  const list = byId('list', HTMLUListElement)
  const faces = byId('faces', HTMLElement)
  const count = byId('count', HTMLElement)
  const alone = byId('alone', HTMLElement)
  const spoken = byId('spoken', HTMLElement)
  const own = ownRow(presence)
  list.append(own.row)

  // Beside the text the list is always open; above it, on a phone, only when asked for.
  const beside = matchMedia('(min-width: 60rem)')
  const follow = (): void => {
    details.open = beside.matches
  }
  beside.addEventListener('change', follow)
  follow()

  const describe = (): void => {
    const connected = connection.status.state === 'connected'
    const number = presence.people().length
    count.textContent = heading(connected, number)
    alone.hidden = !connected || number > 1
  }
  connection.onStatus(describe)

  let before: Map<number, string> | undefined
  presence.onChange((people) => {
    const me = people.find((person) => person.self)
    const others = people.filter((person) => !person.self)
    if (me) own.show(me)
    list.replaceChildren(own.row, ...others.map(otherRow))
    faces.replaceChildren(...people.slice(0, FACES).map(face))
    if (people.length > FACES) faces.append(`+${people.length - FACES}`)
    describe()
    if (before) spoken.textContent = announcement(before, others)
    before = new Map(others.map((person) => [person.clientID, person.name]))
  })
}
