/** What authors are called, and their colours: the same for one author wherever the history names him. */
import { PALETTE, type Presence } from '../lib/presence'
import type { Change } from './changes'

export interface Author {
  readonly name: string
  readonly color: string
}

/** Somebody of whom nothing is known but that he was not signed in. */
const UNKNOWN: Author = { name: 'Somebody', color: '#5a6470' }

function hash(text: string): number {
  let value = 0
  for (const character of text) value = (value * 31 + character.codePointAt(0)!) >>> 0
  return value
}

export class Authors {
  readonly #presence: Presence

  constructor(presence: Presence) {
    this.#presence = presence
  }

  /** The author with this user name; null: nobody was signed in. */
  user(user: string | null): Author {
    if (!user) return UNKNOWN
    // Whoever is here has the colour of his caret.
    const here = this.#presence.people.value.find(({ name }) => name.toLocaleLowerCase() === user.toLocaleLowerCase())
    return here ?? { name: user, color: PALETTE[hash(user) % PALETTE.length]! }
  }

  /** Who has made a change: without a sign-in, whoever is here under the client ID, or a colour for that ID. */
  of({ mark, client }: Change): Author {
    const user = mark.on_behalf_of ?? mark.author
    if (user || client === undefined) return this.user(user)
    return this.#presence.person(client) ?? { name: UNKNOWN.name, color: PALETTE[client % PALETTE.length]! }
  }

  /** "Ada, 4 May, 12:04", for a tooltip. */
  describe(change: Change): string {
    const when = new Date(change.mark.last * 1000).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
    return `${change.kind === 'added' ? 'Added' : 'Deleted'} by ${this.of(change).name}, ${when}`
  }
}
