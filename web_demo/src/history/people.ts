/** What authors are called, and their colours: the same for one author wherever the history names him. */
import { PALETTE, type Presence } from '../lib/presence'
import type { Change } from './changes'

export interface Author {
  readonly name: string
  readonly color: string
}

/** Somebody of whom nothing is known but that he was not signed in. */
const UNKNOWN: Author = { name: 'Somebody', color: '#5a6470' }

/** How the user of every link for guests begins; what follows is random. */
const GUEST = 'guest:'

const WORDS = { added: 'Added', removed: 'Deleted', written: 'Written' } as const

function hash(text: string): number {
  let value = 0
  for (const character of text) value = (value * 31 + character.codePointAt(0)!) >>> 0
  return value
}

export class Authors {
  readonly #presence: Presence
  /** The colours of those who are not here, by user name or client ID. */
  readonly #colors = new Map<string | number, string>()
  /** What guests were called, by their user names, as far as the history has said it. */
  readonly #guests = new Map<string, string>()

  constructor(presence: Presence) {
    this.#presence = presence
  }

  /** The author with this user name; null: nobody was signed in. `called` is what the server says that a guest is called. */
  user(user: string | null, called: string | null = null): Author {
    if (!user) return UNKNOWN
    if (called) this.#guests.set(user, called)
    // Whoever is here has the colour of his caret.
    const here = this.#presence.people.value.find(({ name }) => name.toLocaleLowerCase() === user.toLocaleLowerCase())
    // Two links of one person have one name; two colours tell that they are two guests. Older edits have no name.
    const name = this.#guests.get(user) ?? (user.startsWith(GUEST) ? 'Guest' : user)
    return here ?? { name, color: this.#color(user, hash(user)) }
  }

  /** Give somebody a colour that nobody else has, as long as there are any; the first choice follows from `seed`. */
  #color(who: string | number, seed: number): string {
    const known = this.#colors.get(who)
    if (known) return known
    const taken = new Set([...this.#colors.values(), ...this.#presence.people.value.map(({ color }) => color)])
    const inTurn = PALETTE.map((_, at) => PALETTE[(seed + at) % PALETTE.length]!)
    const color = inTurn.find((one) => !taken.has(one)) ?? inTurn[0]!
    this.#colors.set(who, color)
    return color
  }

  /** Who has this user name; without one whoever was seen here under the client ID, or a colour for that ID. */
  either(user: string | null, client: number | undefined, called: string | null = null): Author {
    if (client === undefined) return this.user(user, called)
    // A guest whose window was seen has the colour of his caret.
    if (user?.startsWith(GUEST)) return this.#presence.met(client) ?? this.user(user, called)
    if (user) return this.user(user)
    // What somebody calls himself: the server has not checked it, so it counts only where no user is known.
    return this.#presence.met(client) ?? { name: UNKNOWN.name, color: this.#color(client, client) }
  }

  /** Who has made a change. */
  of({ mark, client }: Change): Author {
    return this.either(mark.on_behalf_of ?? mark.author, client, mark.on_behalf_of === null ? mark.author_name : null)
  }

  /** "Added by Ada, 4 May 2026, 12:04", for a tooltip. */
  describe(change: Change): string {
    const when = new Date(change.mark.last * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
    return `${WORDS[change.kind]} by ${this.of(change).name}, ${when}`
  }
}
