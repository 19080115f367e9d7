/**
 * The life of a document, row by row: loaded in portions, and gone through forwards and back.
 *
 * Going back begins at a state that was put aside on the way. The document is one of its own, and collects what is
 * deleted, so it is as small as the live one. Never `Y.mergeUpdates` here: on ten thousand rows it takes minutes.
 */
import * as Y from 'yjs'
import { readRows, readState, readTimeline, type Row } from './api'
import { bytesOf } from './changes'

/** Rows of a film; of a longer life it shows the end. */
const MOST = 50_000
/** States that are put aside, the rows between two of them at least, and how many bytes they may have. */
const STATES = 40
const SPACING = 250
const STATE_BYTES = 64_000_000
/** Seconds of a pause, at most: nobody wants to see how nothing happens. */
const PAUSE = 1

/** A row that is loaded. */
export interface Frame {
  /** Unix seconds. */
  readonly at: number
  /** Seconds from the beginning of the film, with short pauses. */
  readonly time: number
  readonly user: string | null
  /** What the user is called, if it is a guest. */
  readonly called: string | null
  readonly update: Uint8Array
}

export class Reel {
  /** The document at `place`; another one after each step back. */
  doc = new Y.Doc()
  /** How many rows have been applied. */
  place = 0
  /** How many rows there are in all. */
  readonly total: number
  /** Whether there was more before. */
  readonly cut: boolean
  readonly frames: Frame[] = []
  readonly #name: string
  readonly #start: number
  readonly #base: Uint8Array | undefined
  readonly #states = new Map<number, Uint8Array>()
  readonly #clients = new Map<number, number>()
  #stateBytes = 0
  #client: number | undefined

  private constructor(name: string, start: number, head: number, base: Uint8Array | undefined) {
    this.#name = name
    this.#start = start
    this.#base = base
    this.total = head - start
    this.cut = start > 0
    this.#begin(base)
  }

  /** Read where it begins. */
  static async open(name: string): Promise<Reel> {
    const { head, reaches } = await readTimeline(name)
    const start = Math.max(reaches > 1 ? reaches : 0, head - MOST)
    return new Reel(name, start, head, start > 0 ? await readState(name, { number: start }) : undefined)
  }

  /** Load the rows, a portion at a time; `onPortion` says whether to go on. */
  async load(onPortion: () => boolean): Promise<void> {
    while (this.frames.length < this.total) {
      const rows = await readRows(this.#name, this.#start + this.frames.length, this.#start + this.total)
      if (rows.length === 0) throw new Error('a part of the history is not there')
      for (const row of rows) this.#add(row)
      if (!onPortion()) return
    }
  }

  #add({ at, author, author_name, on_behalf_of, update }: Row): void {
    const last = this.frames.at(-1)
    // The clocks of two servers may differ.
    const time = last ? last.time + Math.min(Math.max(at - last.at, 0), PAUSE) : 0
    const called = on_behalf_of === null ? author_name : null
    this.frames.push({ at, time, user: on_behalf_of ?? author, called, update: bytesOf(update) })
  }

  /** The place at a time of the film, among the rows that are loaded. */
  placeAt(time: number): number {
    let [low, high] = [0, this.frames.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.frames[middle]!.time <= time) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The client ID that has inserted something by the row before a place, if that has been applied. */
  clientBefore(place: number): number | undefined {
    return this.#clients.get(place)
  }

  /** Go towards a place for about so many milliseconds; tells whether it is there. */
  goTowards(place: number, milliseconds: number): boolean {
    if (place < this.place) this.#goBack(place)
    const until = performance.now() + milliseconds
    while (this.place < place) {
      this.#apply(this.frames[this.place]!)
      if (performance.now() > until) break
    }
    return this.place === place
  }

  #apply({ update }: Frame): void {
    this.#client = undefined
    Y.applyUpdate(this.doc, update)
    this.place += 1
    if (this.#client !== undefined) this.#clients.set(this.place, this.#client)
    const spacing = Math.max(SPACING, Math.ceil(this.total / STATES))
    if (this.place % spacing > 0 || this.#states.has(this.place) || this.#stateBytes > STATE_BYTES) return
    const state = Y.encodeStateAsUpdate(this.doc)
    this.#stateBytes += state.length
    this.#states.set(this.place, state)
  }

  #goBack(place: number): void {
    const from = Math.max(0, ...[...this.#states.keys()].filter((at) => at <= place))
    this.doc.destroy()
    this.doc = new Y.Doc()
    this.#begin(this.#states.get(from) ?? this.#base)
    this.place = from
  }

  #begin(state: Uint8Array | undefined): void {
    if (state) Y.applyUpdate(this.doc, state)
    this.doc.on('afterTransaction', ({ beforeState, afterState }: Y.Transaction) => {
      for (const [client, clock] of afterState) if (clock > (beforeState.get(client) ?? 0)) this.#client = client
    })
  }

  destroy(): void {
    this.doc.destroy()
  }
}
