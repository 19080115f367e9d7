/**
 * Who is here: names and colours, over the awareness protocol.
 *
 * The awareness field is `user: { name, color, colorLight }`, as y-codemirror.next, Tiptap
 * and the other published bindings read it. What arrives from others is checked before it
 * is shown: a peer may send anything.
 */
import type { Awareness } from 'y-protocols/awareness'

export interface Person {
  readonly clientID: number
  readonly name: string
  /** `#rrggbb`, always. */
  readonly color: string
  readonly self: boolean
}

/**
 * Eight colours that stay apart under the common colour blindnesses (after Okabe and Ito)
 * and carry white text at a contrast of at least 4.5:1.
 */
export const PALETTE = [
  '#0067a8', '#b34700', '#00755a', '#a3357a', '#795900', '#4b3bb0', '#5a6470', '#a82a2a',
] as const

const NAME_LENGTH = 32
const NAME_KEY = 'collab:name'
const ANIMALS = [
  'Badger', 'Beaver', 'Crane', 'Dolphin', 'Finch', 'Fox', 'Gecko', 'Hare', 'Heron', 'Ibex',
  'Koala', 'Lark', 'Lynx', 'Marten', 'Newt', 'Otter', 'Owl', 'Panda', 'Puffin', 'Robin',
  'Seal', 'Stork', 'Swift', 'Tapir', 'Turtle', 'Vole', 'Wombat', 'Wren',
]

/** Make a name fit to show: no control or direction characters, no run of spaces, not too long. */
function cleanName(value: unknown): string {
  if (typeof value !== 'string') return ''
  const text = value.replace(/[\p{Cc}\u202a-\u202e\u2066-\u2069]/gu, ' ').replace(/\s+/g, ' ').trim()
  return [...text].slice(0, NAME_LENGTH).join('')
}

function cleanColor(value: unknown, clientID: number): string {
  if (typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)) return value.toLowerCase()
  return PALETTE[clientID % PALETTE.length]!
}

/** Read one awareness state as a person, whatever it holds. */
export function toPerson(clientID: number, state: Record<string, unknown>, self = false): Person {
  const user = (typeof state['user'] === 'object' && state['user'] !== null ? state['user'] : {}) as Record<string, unknown>
  return { clientID, name: cleanName(user['name']) || 'Somebody', color: cleanColor(user['color'], clientID), self }
}

/** Storage may be switched off in the browser; a name is not worth an error. */
function remember(storage: 'localStorage' | 'sessionStorage', value?: string): string {
  try {
    if (value !== undefined) window[storage].setItem(NAME_KEY, value)
    return cleanName(window[storage].getItem(NAME_KEY))
  } catch {
    return ''
  }
}

/** A chosen name holds for this browser; an invented one for this tab, so that two windows differ. */
function initialName(): string {
  const known = remember('localStorage') || remember('sessionStorage')
  if (known) return known
  const invented = `${ANIMALS[crypto.getRandomValues(new Uint32Array(1))[0]! % ANIMALS.length]}`
  remember('sessionStorage', invented)
  return invented
}

export class Presence {
  readonly #awareness: Awareness
  #name = initialName()
  #color: string

  constructor(awareness: Awareness) {
    this.#awareness = awareness
    this.#color = PALETTE[awareness.clientID % PALETTE.length]!
    this.#publish()
    awareness.on('change', () => this.#avoidSameColor())
  }

  get name(): string {
    return this.#name
  }

  /** Take a new name and keep it for this browser; an empty one is ignored. */
  rename(name: string): void {
    const clean = cleanName(name)
    if (!clean || clean === this.#name) return
    this.#name = clean
    remember('localStorage', clean)
    this.#publish()
  }

  /** Everybody here, oneself first, the others by name. */
  people(): Person[] {
    const me = this.#awareness.clientID
    return [...this.#awareness.getStates()]
      .map(([id, state]) => toPerson(id, state, id === me))
      .sort((a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || a.clientID - b.clientID)
  }

  /** Call `listener` now and whenever somebody comes, goes, or changes name or colour. */
  onChange(listener: (people: Person[]) => void): void {
    let last = ''
    const tell = (): void => {
      const people = this.people()
      // Cursor movements change the awareness many times a second; the list of people not.
      const key = JSON.stringify(people)
      if (key !== last) listener(people)
      last = key
    }
    this.#awareness.on('change', tell)
    tell()
  }

  #publish(): void {
    this.#awareness.setLocalStateField('user', {
      name: this.#name,
      color: this.#color,
      colorLight: `${this.#color}33`,
    })
  }

  /** Of two with one colour, the one with the higher client ID moves to a free colour: so it settles. */
  #avoidSameColor(): void {
    const others = this.people().filter((person) => !person.self)
    if (!others.some((person) => person.color === this.#color && person.clientID < this.#awareness.clientID)) return
    const free = PALETTE.find((color) => !others.some((person) => person.color === color))
    if (free === undefined) return
    this.#color = free
    this.#publish()
  }
}
