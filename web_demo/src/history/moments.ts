/** The moments of a document as they are read from the server, page by page. */
import { readNamedVersions, readTimeline, readVersion, type TimelinePage, type Version, type Which } from './api'
import { type Moment, timelineMoments, versionMoments } from './list'
import type { Authors } from './people'

export class Moments {
  /** What has been read, the newest first. */
  list: Moment[] = []
  /** Whether there is more behind it. */
  more = false
  readonly #name: string
  readonly #authors: Authors
  #named = false
  #timeline: TimelinePage | undefined
  #versions: ReadonlyMap<number, Version> = new Map()
  #next: string | null = null
  #turn = 0

  constructor(name: string, authors: Authors) {
    this.#name = name
    this.#authors = authors
  }

  /** Read the first page; `named` leaves out all but named versions. Gives whether it is what was asked for last. */
  async read(named: boolean): Promise<boolean> {
    const mine = (this.#turn += 1)
    try {
      const [page, { versions, next }] = await Promise.all([readTimeline(this.#name), readNamedVersions(this.#name)])
      if (mine !== this.#turn) return false
      this.#named = named
      this.#timeline = page
      this.#versions = new Map(versions.map((version) => [version.id, version]))
      this.#keep(named ? versionMoments(versions, next === null, page, this.#authors) : timelineMoments(page, this.#versions, this.#authors), named ? next : page.next)
      return true
    } catch (error) {
      if (mine !== this.#turn) return false
      throw error
    }
  }

  /** Read the page behind those that are there. Gives whether it still belongs to them. */
  async readMore(): Promise<boolean> {
    const [cursor, mine] = [this.#next!, this.#turn]
    const older = this.#named ? await this.#olderVersions(cursor) : await this.#olderEntries(cursor)
    if (mine !== this.#turn) return false
    this.#keep([...this.list, ...older.moments], older.next)
    return true
  }

  /** Find the moment of a version or a number, on what was read or as one that stands alone. */
  async find(which: Which): Promise<Moment> {
    const version = 'version' in which ? await readVersion(this.#name, which.version) : undefined
    const number = 'number' in which ? which.number : version!.number
    const known = this.list.find((one) => (version ? one.version === version.id : one.number === number))
    if (known) return known
    const authors = version ? [this.#authors.user(version.author, version.author_name)] : []
    const at = version ? new Date(version.at) : new Date()
    return { key: 'link', which, number, before: null, at, authors, users: [], name: version?.name ?? `State ${number}`, version: version?.id ?? null, edits: null }
  }

  #keep(moments: Moment[], next: string | null): void {
    this.list = moments
    this.#next = next
    this.more = next !== null
  }

  async #olderVersions(cursor: string): Promise<{ moments: Moment[]; next: string | null }> {
    const { versions, next } = await readNamedVersions(this.#name, cursor)
    return { moments: versionMoments(versions, next === null, this.#timeline!, this.#authors), next }
  }

  async #olderEntries(cursor: string): Promise<{ moments: Moment[]; next: string | null }> {
    const page = await readTimeline(this.#name, cursor)
    return { moments: timelineMoments(page, this.#versions, this.#authors), next: page.next }
  }
}
