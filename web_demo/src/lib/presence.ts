/**
 * Who is here: names, colours, who types, and whose view one follows; over the awareness protocol.
 *
 * The awareness field is `user: { name, color, colorLight }`, as y-codemirror.next, Tiptap and the other
 * published bindings read it, and `typing: true` while somebody edits. What arrives from others is checked
 * before it is shown: a peer may send anything.
 */
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { Signal } from './signal'

export interface Person {
  readonly clientID: number
  readonly name: string
  /** `#rrggbb`, always. */
  readonly color: string
  readonly typing: boolean
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
/** Milliseconds after the last edit for which somebody counts as typing. */
const TYPING = 1500
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
  return {
    clientID,
    name: cleanName(user['name']) || 'Somebody',
    color: cleanColor(user['color'], clientID),
    typing: state['typing'] === true,
    self,
  }
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

export type AwarenessState = Record<string, unknown>

export class Presence {
  /** Everybody here, oneself first, the others by name. */
  readonly people = new Signal<Person[]>([])
  /** The client ID of the one whose view is followed. */
  readonly following = new Signal<number | null>(null)
  /** Whether one's name is the server's to say. */
  readonly named: boolean
  readonly #awareness: Awareness
  #name: string
  #color: string

  /** Tell the others who one is; `name` stands in for the one that this browser remembers, `named` makes it stay. */
  constructor(awareness: Awareness, name?: string, named = false) {
    this.#awareness = awareness
    this.named = named
    this.#name = cleanName(name) || initialName()
    this.#color = PALETTE[awareness.clientID % PALETTE.length]!
    this.#publish()
    awareness.on('change', () => this.#changed())
    this.#changed()
  }

  get self(): Person {
    return toPerson(this.#awareness.clientID, this.#awareness.getLocalState() ?? {}, true)
  }

  /** Take a new name and keep it for this browser; an empty one is ignored. */
  rename(name: string): void {
    const clean = cleanName(name)
    if (!clean || clean === this.#name) return
    this.#name = clean
    remember('localStorage', clean)
    this.#publish()
  }

  /** Show one's own edits of `doc` as typing. */
  tellTyping(doc: Y.Doc): void {
    let timer: number | undefined
    doc.on('afterTransaction', ({ local, changed }) => {
      if (!local || changed.size === 0) return
      if (timer === undefined) this.#awareness.setLocalStateField('typing', true)
      clearTimeout(timer)
      timer = window.setTimeout(() => {
        timer = undefined
        this.#awareness.setLocalStateField('typing', false)
      }, TYPING)
    })
  }

  follow(clientID: number | null): void {
    this.following.set(clientID)
  }

  /** Call `show` with the state of the followed one, now and whenever it changes. */
  onFollowed(show: (state: AwarenessState) => void): void {
    const tell = (): void => {
      const state = this.following.value === null ? undefined : this.#awareness.getStates().get(this.following.value)
      if (state) show(state)
    }
    this.#awareness.on('change', ({ added, updated }: { added: number[]; updated: number[] }) => {
      if ([...added, ...updated].includes(this.following.value ?? -1)) tell()
    })
    this.following.subscribe(tell)
  }

  #changed(): void {
    const me = this.#awareness.clientID
    this.#avoidSameColor()
    if (this.following.value !== null && !this.#awareness.getStates().has(this.following.value)) this.follow(null)
    // Whoever only looks on, or is a program, need not have a `user`: such states are nobody to show.
    this.people.set(
      [...this.#awareness.getStates()]
        .filter(([id, state]) => id === me || typeof state['user'] === 'object')
        .map(([id, state]) => toPerson(id, state, id === me))
        .sort((a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || a.clientID - b.clientID),
    )
  }

  #publish(): void {
    // Destroyed, or told to stay silent: no state, nothing to publish.
    if (this.#awareness.getLocalState() === null) return
    this.#awareness.setLocalStateField('user', this.user)
  }

  /** The `user` field, for bindings that want to set it themselves. */
  get user(): { name: string; color: string; colorLight: string } {
    return { name: this.#name, color: this.#color, colorLight: `${this.#color}33` }
  }

  /** Of two with one colour, the one with the higher client ID moves to a free colour: so it settles. */
  #avoidSameColor(): void {
    const me = this.#awareness.clientID
    const others = [...this.#awareness.getStates()].filter(([id]) => id !== me).map(([id, state]) => toPerson(id, state))
    if (!others.some((person) => person.color === this.#color && person.clientID < me)) return
    const free = PALETTE.find((color) => !others.some((person) => person.color === color))
    if (free === undefined) return
    this.#color = free
    this.#publish()
  }
}
