/**
 * Who is here: names, colours, who types, and whose view one follows; over the awareness protocol.
 *
 * The awareness field is `user: { name, color, colorLight, id }`, as y-codemirror.next, Tiptap and the other
 * published bindings read it, and `typing: true` while somebody edits. What arrives from others is checked
 * before it is shown: a peer may send anything.
 *
 * Each window is a client of its own. Those with one `id` and one name are one person: a browser invents an `id` for
 * each document, so that nobody is known again in another one.
 */
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { Signal } from './signal'

export interface Person {
  /** Of several windows the one with the lowest. */
  readonly clientID: number
  /** The client IDs of all windows of this person, in order. */
  readonly clients: readonly number[]
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
/** Client IDs whose people are remembered after they have left. */
const MET = 1000
const NAME_KEY = 'collab:name'
const ID = /^[0-9a-f]{32}$/
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
    clients: [clientID],
    name: cleanName(user['name']) || 'Somebody',
    color: cleanColor(user['color'], clientID),
    typing: state['typing'] === true,
    self,
  }
}

/** What tells two people apart: windows of whom this is the same are one person's. */
function identity(clientID: number, state: Record<string, unknown>): string {
  const { id } = (state['user'] ?? {}) as { id?: unknown }
  return typeof id === 'string' && ID.test(id) ? `${id} ${toPerson(clientID, state).name}` : `client ${clientID}`
}

/** What this browser keeps under `key`, if that is `fit`; else what `invent` gives, kept from now on. */
function kept(key: string, fit: (value: string | null) => string, invent: () => string): string {
  try {
    const known = fit(localStorage.getItem(key))
    if (known) return known
    const invented = invent()
    localStorage.setItem(key, invented)
    return invented
  } catch {
    // Storage may be switched off in the browser; a name is not worth an error.
    return invent()
  }
}

const inventName = (): string => ANIMALS[crypto.getRandomValues(new Uint32Array(1))[0]! % ANIMALS.length]!
const inventID = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')

/** By which all windows of this browser are one person in the document `name`. */
export function browserID(name: string): string {
  return kept(`collab:me:${name}`, (value) => (value && ID.test(value) ? value : ''), inventID)
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

  readonly #met = new Map<number, Person>()
  readonly #id: string | undefined
  /** For each client a number that is higher the later it has moved. */
  readonly #moves = new Map<number, number>()
  #moved = 0

  /**
   * Tell the others who one is; `name` stands in for the one that this browser remembers, `named` makes it stay, `id` is
   * the same in all windows of one person.
   */
  constructor(awareness: Awareness, options: { name?: string | undefined; named?: boolean; id?: string | undefined } = {}) {
    const { name, named = false, id } = options
    this.#awareness = awareness
    this.named = named
    this.#id = id
    this.#name = cleanName(name) || kept(NAME_KEY, cleanName, inventName)
    this.#color = PALETTE[(id ? Number.parseInt(id.slice(0, 8), 16) : awareness.clientID) % PALETTE.length]!
    this.#publish()
    if (!cleanName(name)) {
      // Renamed in another window of this browser.
      addEventListener('storage', ({ key, newValue }) => key === NAME_KEY && this.#take(newValue))
    }
    awareness.on('change', (changes: { added: number[]; updated: number[]; removed: number[] }) => this.#changed(changes))
    this.#changed()
  }

  get self(): Person {
    return toPerson(this.#awareness.clientID, this.#awareness.getLocalState() ?? {}, true)
  }

  /** Take a new name and keep it for this browser; an empty one is ignored. */
  rename(name: string): void {
    const clean = this.#take(name)
    try {
      if (clean) localStorage.setItem(NAME_KEY, clean)
    } catch {
      // It holds for this window.
    }
  }

  #take(name: unknown): string {
    const clean = cleanName(name)
    if (!clean || clean === this.#name) return ''
    this.#name = clean
    this.#publish()
    return clean
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

  /** Whoever has this client ID, in any window. */
  person(clientID: number | null): Person | undefined {
    return this.people.value.find(({ clients }) => clientID !== null && clients.includes(clientID))
  }

  /** Whoever has or had this client ID while this window was open; those that left longest ago are forgotten. */
  met(clientID: number): Person | undefined {
    return this.#met.get(clientID)
  }

  /** Call `show` with the state of the followed one, now and whenever it changes: in the window that moved last. */
  onFollowed(show: (state: AwarenessState) => void): void {
    const tell = (): void => {
      const clients = this.person(this.following.value)?.clients ?? []
      const last = [...clients].sort((a, b) => (this.#moves.get(b) ?? 0) - (this.#moves.get(a) ?? 0))[0]
      const state = last === undefined ? undefined : this.#awareness.getStates().get(last)
      if (state) show(state)
    }
    this.#awareness.on('change', ({ added, updated }: { added: number[]; updated: number[] }) => {
      const clients = this.person(this.following.value)?.clients ?? []
      if ([...added, ...updated].some((id) => clients.includes(id))) tell()
    })
    this.following.subscribe(tell)
  }

  #changed({ added, updated, removed }: { added: number[]; updated: number[]; removed: number[] } = { added: [], updated: [], removed: [] }): void {
    for (const id of [...added, ...updated]) this.#moves.set(id, (this.#moved += 1))
    for (const id of removed) this.#moves.delete(id)
    this.#settleColor()
    const followed = this.person(this.following.value)
    const me = this.#awareness.clientID
    const people = new Map<string, Person>()
    // Whoever only looks on, or is a program, need not have a `user`: such states are nobody to show.
    for (const [id, state] of [...this.#awareness.getStates()].filter(([id, state]) => id === me || typeof state['user'] === 'object').sort(([a], [b]) => a - b)) {
      const window = toPerson(id, state, id === me)
      const key = identity(id, state)
      const person = people.get(key)
      people.set(key, person ? { ...person, clients: [...person.clients, id], typing: person.typing || window.typing, self: person.self || window.self } : window)
    }
    this.people.set([...people.values()].sort((a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || a.clientID - b.clientID))
    for (const person of this.people.value) {
      for (const id of person.clients) {
        this.#met.delete(id)
        this.#met.set(id, person)
      }
    }
    for (const id of this.#met.keys()) if (this.#met.size > MET) this.#met.delete(id)
    if (followed) this.follow(followed.clients.map((id) => this.person(id)?.clientID).find((id) => id !== undefined) ?? null)
  }

  #publish(): void {
    // Destroyed, or told to stay silent: no state, nothing to publish.
    if (this.#awareness.getLocalState() === null) return
    this.#awareness.setLocalStateField('user', this.user)
  }

  /** The `user` field, for bindings that want to set it themselves. */
  get user(): { name: string; color: string; colorLight: string; id?: string } {
    return { name: this.#name, color: this.#color, colorLight: `${this.#color}33`, ...(this.#id && { id: this.#id }) }
  }

  /**
   * Of two people with one colour, the one with the higher client ID moves to a free colour: so it settles. All windows
   * of one person have the colour of the one with the lowest client ID.
   */
  #settleColor(): void {
    const me = this.#awareness.clientID
    const mine = identity(me, this.#awareness.getLocalState() ?? {})
    const states = [...this.#awareness.getStates()].sort(([a], [b]) => a - b)
    const [lowest, state] = states.find(([id, state]) => identity(id, state) === mine) ?? [me, {}]
    const others = states.filter(([id, state]) => identity(id, state) !== mine).map(([id, state]) => toPerson(id, state))
    let color: string | undefined = this.#color
    if (lowest !== me) color = toPerson(lowest, state).color
    else if (others.some((person) => person.color === this.#color && person.clientID < me)) color = PALETTE.find((color) => !others.some((person) => person.color === color))
    if (color === undefined || color === this.#color) return
    this.#color = color
    this.#publish()
  }
}
