/** The history of a document over the HTTP API: what happened, versions, states of the past, changes, and the way back. */
import { apiUrl, encodePath } from '../lib/address'
import { request, requestBytes } from '../lib/api'

export interface EntryVersion {
  id: number
  number: number
  kind: 'named' | 'automatic'
  name: string | null
}

/** One sitting: rows of the log that follow on each other. */
export interface Entry {
  from: number
  to: number
  /** RFC 3339, UTC. */
  started_at: string
  ended_at: string
  /** `user` is null for those who were not signed in, `name` for all but guests. */
  authors: { user: string | null; name: string | null; on_behalf_of: string | null; edits: number }[]
  /** Edits of further authors, who are not listed. */
  other_edits: number
  edits: number
  summary: string
  versions: EntryVersion[]
  marks: ('pruned' | 'reset' | 'restored')[]
}

export interface TimelinePage {
  entries: Entry[]
  /** The cursor of the page behind this one. */
  next: string | null
  /** The newest number of the log. */
  head: number
  /** The lowest number from which on everything can be read. */
  reaches: number
}

export interface Version {
  id: number
  /** Null for one that was imported from another system. */
  number: number | null
  kind: 'named' | 'automatic'
  name: string | null
  author: string | null
  /** What a guest is called. */
  author_name: string | null
  /** RFC 3339, UTC. */
  at: string
}

/** A state of the past: a version, or what the document held after a row of its log. */
export type Which = { version: number } | { number: number }

/** Who has done something; times are unix seconds. A null author is unknown, and guests alone have a name. */
export interface Mark {
  author: string | null
  author_name: string | null
  on_behalf_of: string | null
  label: string | null
  first: number
  last: number
}

/** The ranges of one client, in order: three numbers each, which are a clock, a length, and the place of a mark. */
export type MarkedRanges = [client: number, ranges: number[]]

export interface Ranged {
  marks: Mark[]
  inserted: MarkedRanges[]
  deleted: MarkedRanges[]
}

export interface ChangesAnswer extends Ranged {
  /** The state at the beginning, and what came then: v1 updates in base64. */
  base: string
  update: string
}

/** A row of the log: what one turn of edits has changed. */
export interface Row {
  number: number
  /** Unix seconds. */
  at: number
  author: string | null
  /** What a guest is called. */
  author_name: string | null
  on_behalf_of: string | null
  label: string | null
  /** A v1 update in base64. */
  update: string
}

export interface Rewound {
  changed: boolean
  /** Restore this number to take it back. */
  before: number
  number: number
}

function historyUrl(resource: string, name: string, query: Record<string, string | number | undefined> = {}): URL {
  const url = apiUrl(`v1/${resource}/${encodePath(name)}`)
  for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value))
  return url
}

/** Read a page of what happened, the newest first. */
export async function readTimeline(name: string, cursor?: string): Promise<TimelinePage> {
  return (await request('GET', historyUrl('timeline', name, { cursor }))) as TimelinePage
}

/** Read a page of the named versions, those of the newest states first. */
export async function readNamedVersions(name: string, cursor?: string): Promise<{ versions: Version[]; next: string | null }> {
  return (await request('GET', historyUrl('versions', name, { kind: 'named', cursor }))) as { versions: Version[]; next: string | null }
}

export async function readVersion(name: string, id: number): Promise<Version> {
  return (await request('GET', historyUrl('version', name, { id }))) as Version
}

/** Give the state after a row a name; it is kept until somebody deletes the version. */
export async function makeVersion(name: string, called: string, number: number): Promise<Version> {
  return (await request('POST', historyUrl('versions', name), { name: called, number })) as Version
}

export async function renameVersion(name: string, id: number, called: string): Promise<Version> {
  return (await request('PATCH', historyUrl('version', name, { id }), { name: called })) as Version
}

/** Read a state of the past as a whole Yjs update (v1). */
export async function readState(name: string, which: Which): Promise<Uint8Array> {
  return requestBytes(historyUrl('updates', name, which))
}

/** Read what the rows behind `from`, up to `to`, have changed. */
export async function readChanges(name: string, from: number, to: number): Promise<ChangesAnswer> {
  return (await request('GET', historyUrl('changes', name, { from, to, format: 'update' }))) as ChangesAnswer
}

/** Read who wrote what in the document as it is. */
export async function readAttribution(name: string): Promise<Ranged> {
  return (await request('GET', historyUrl('attribution', name))) as Ranged
}

/** Read the first of the rows behind `from`, up to `to`: at least one, if there is one. */
export async function readRows(name: string, from: number, to: number): Promise<Row[]> {
  const lines = new TextDecoder().decode(await requestBytes(historyUrl('rows', name, { from, to })))
  return lines.split('\n').filter(Boolean).map((line) => JSON.parse(line) as Row)
}

/** Make the document what it was after a row. It is an edit: everybody sees it arrive, and it can be taken back. */
export async function restore(name: string, number: number): Promise<Rewound> {
  return (await request('POST', historyUrl('restore', name), { number })) as Rewound
}

/** Take back what `author` has done since a row, and leave what others have done. */
export async function undoAuthor(name: string, author: string, from: number): Promise<Rewound> {
  return (await request('POST', historyUrl('undo', name), { author, from })) as Rewound
}
