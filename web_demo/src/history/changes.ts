/**
 * What changed between two rows of the log, and who has done it, on a Yjs document that still has what was deleted.
 *
 * The server says who has inserted and deleted which clocks of which client. The items of a Yjs list lie in the order of
 * the text, deleted ones too, so a walk over them gives it in runs of one author each. A run that has both come and gone
 * within the interval is not shown, and neither is one that was gone before it.
 */
import * as Y from 'yjs'
import type { ChangesAnswer, Mark, MarkedRanges, Ranged } from './api'

/** A part of a list that has one author. */
export interface Run {
  readonly item: Y.Item
  /** From where to where in the content of the item: UTF-16 units of a text, elements of an array. */
  readonly start: number
  readonly end: number
  readonly change?: Change
}

export interface Change {
  /** What became of it; or that nothing is said but who has written it. */
  readonly kind: 'added' | 'removed' | 'written'
  readonly mark: Mark
  /** The client ID that has inserted it; of what was removed it is not known which client has done that. */
  readonly client?: number
}

/** What a screen reader says of a change. */
export const ROLES: Record<Change['kind'], string | null> = { added: 'insertion', removed: 'deletion', written: null }

/** What walks a list in runs that are to be shown, in order. */
export interface Walk {
  runs(type: Y.Text | Y.XmlFragment | Y.Array<unknown>): Iterable<Run>
}

/** Walks what is there, and marks nothing. */
export const asItIs: Walk = {
  *runs(type) {
    for (let item: Y.Item | null = type._start; item !== null; item = item.right) {
      if (!item.deleted) yield { item, start: 0, end: item.length }
    }
  },
}

/** Where something is known of clocks, by client, in order. */
class Ranges {
  readonly #ranges: ReadonlyMap<number, number[]>

  constructor(ranges: readonly MarkedRanges[]) {
    this.#ranges = new Map(ranges)
  }

  /** The mark of this clock, if it has one, and the clock behind the last one of which the same is true. */
  at(client: number, clock: number): { mark: number | undefined; end: number } {
    const ranges = this.#ranges.get(client) ?? []
    let low = 0
    let high = ranges.length / 3
    while (low < high) {
      const middle = (low + high) >> 1
      if (ranges[3 * middle]! + ranges[3 * middle + 1]! <= clock) low = middle + 1
      else high = middle
    }
    const [start, length, mark] = ranges.slice(3 * low, 3 * low + 3)
    if (start === undefined) return { mark: undefined, end: Infinity }
    return start <= clock ? { mark: mark!, end: start + length! } : { mark: undefined, end: start }
  }
}

export function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
}

export class Changes implements Walk {
  /** The state at the end, with what was deleted in between. For reading alone. */
  readonly doc = new Y.Doc({ gc: false })
  /** What the walks so far have come upon, once for each author and time. */
  readonly seen = new Map<string, Change>()
  readonly #marks: readonly Mark[]
  readonly #inserted: Ranges
  readonly #deleted: Ranges
  readonly #kind: 'added' | 'written'

  private constructor(updates: readonly Uint8Array[], { marks, inserted, deleted }: Ranged, kind: 'added' | 'written') {
    for (const update of updates) Y.applyUpdate(this.doc, update)
    this.#marks = marks
    this.#inserted = new Ranges(inserted)
    this.#deleted = new Ranges(deleted)
    this.#kind = kind
  }

  /** What came and went in an interval. */
  static between(answer: ChangesAnswer): Changes {
    return new Changes([bytesOf(answer.base), bytesOf(answer.update)], answer, 'added')
  }

  /** Who has written what there is in a state, a whole update. */
  static written(state: Uint8Array, { marks, inserted }: Ranged): Changes {
    return new Changes([state], { marks, inserted, deleted: [] }, 'written')
  }

  /** The runs of a list that are to be shown, in order. */
  *runs(type: Y.Text | Y.XmlFragment | Y.Array<unknown>): Generator<Run> {
    // Y.Array, Y.Text and Y.XmlFragment are linked lists; the bindings walk them by the same field.
    for (let item: Y.Item | null = type._start; item !== null; item = item.right) {
      const { client, clock } = item.id
      let start = 0
      while (start < item.length) {
        const gone = item.deleted ? this.#deleted.at(client, clock + start) : { mark: undefined, end: Infinity }
        const made = this.#inserted.at(client, clock + start)
        const end = Math.min(item.length, gone.end - clock, made.end - clock)
        const shown = item.deleted ? gone.mark !== undefined && made.mark === undefined : true
        if (shown) yield { item, start, end, ...this.#change(client, made.mark, gone.mark) }
        start = end
      }
    }
  }

  #change(client: number, made: number | undefined, gone: number | undefined): { change?: Change } {
    const at = gone ?? made
    if (at === undefined) return {}
    const change: Change = gone === undefined ? { kind: this.#kind, mark: this.#marks[at]!, client } : { kind: 'removed', mark: this.#marks[at]! }
    this.seen.set(`${change.kind} ${at} ${change.client}`, change)
    return { change }
  }

  destroy(): void {
    this.doc.destroy()
  }
}

/** The text of a run; empty if it is none. */
export function textOf({ item, start, end }: Run): string {
  return item.content instanceof Y.ContentString ? item.content.str.slice(start, end) : ''
}
