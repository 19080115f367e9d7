/** The HTTP API, as far as these pages use it. */
import { apiUrl, encodePath } from './address'
import { getToken } from './token'

export interface ListedDocument {
  name: string
  title: string | null
  /** What whoever asks may do with it. */
  access: 'read' | 'write' | 'admin'
  /** RFC 3339, UTC. */
  created_at: string
  updated_at: string
  bytes: number
  /** Who is in there now, as the awareness states say; at most a handful. */
  participants: { name: string; color: string }[]
  /** How many connections are in there now. */
  connections: number
}

export class ApiError extends Error {
  readonly status: number
  /** The kind of the problem, such as `document_not_found`; empty where the server has named none. */
  readonly code: string

  constructor(status: number, message: string, code = '') {
    super(message)
    this.status = status
    this.code = code
  }
}

async function answerOf(method: string, url: URL, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {}
  if (getToken()) headers['Authorization'] = `Bearer ${getToken()}`
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  // keepalive: a delete that is sent as the page closes arrives all the same.
  const init: RequestInit = { method, headers, keepalive: method !== 'GET', ...(signal && { signal }) }
  const response = await fetch(url, body === undefined ? init : { ...init, body: JSON.stringify(body) })
  if (response.ok) return response
  const answer = (await jsonOf(response)) as { detail?: string; code?: string } | null
  throw new ApiError(response.status, answer?.detail ?? response.statusText, answer?.code)
}

async function jsonOf(response: Response): Promise<unknown> {
  const text = await response.text()
  return text && response.headers.get('Content-Type')?.includes('json') ? JSON.parse(text) : null
}

/** Call the API with a JSON `body`; gives the JSON of the answer, null if it has none. Throws `ApiError`. */
export async function request(method: string, url: URL, body?: unknown, signal?: AbortSignal): Promise<unknown> {
  return jsonOf(await answerOf(method, url, body, signal))
}

/** Read bytes, such as a Yjs update. Throws `ApiError`. */
export async function requestBytes(url: URL): Promise<Uint8Array> {
  return new Uint8Array(await (await answerOf('GET', url)).arrayBuffer())
}

const documentUrl = (name: string): URL => apiUrl(`v1/documents/${encodePath(name)}`)

/** List documents by name, up to `limit` at once; `cursor` is the `next` of the page before. */
export async function listDocuments(options: { prefix?: string; cursor?: string; limit?: number } = {}): Promise<{ documents: ListedDocument[]; next: string | null }> {
  const url = apiUrl('v1/documents')
  for (const [key, value] of Object.entries(options)) url.searchParams.set(key, String(value))
  return (await request('GET', url)) as { documents: ListedDocument[]; next: string | null }
}

/** Tell whether who is here may read `name` and not change it; not where that cannot be learnt: the server refuses what it does not want. */
export async function mayOnlyRead(name: string): Promise<boolean> {
  if (!getToken()) return false
  try {
    const found = (await listDocuments({ prefix: name, limit: 1 })).documents[0]
    return found?.name === name && found.access === 'read'
  } catch {
    return false
  }
}

/** Set the title that listings show. */
export async function setTitle(name: string, title: string): Promise<void> {
  await request('PATCH', documentUrl(name), { title })
}

/** Tell how long a link for guests to this document may last, in seconds; 0 where the server makes none, or none for whoever asks. */
export async function guestLinkSeconds(name: string): Promise<number> {
  const url = apiUrl('v1/shares')
  url.searchParams.set('name', name)
  return ((await request('GET', url)) as { max_seconds: number }).max_seconds
}

/** Let the server make a token by which whoever has it opens this document; `expires` is RFC 3339, UTC. */
export async function makeGuestLink(name: string, access: 'read' | 'write', seconds: number): Promise<{ token: string; expires: string }> {
  return (await request('POST', apiUrl('v1/shares'), { name, access, seconds })) as { token: string; expires: string }
}

/**
 * Create a document, also in the place of a deleted one, with the content of `update`, a whole Yjs update (v1).
 * One that is there already is an `ApiError` with 409.
 */
export async function createDocument(name: string, title: string, update: Uint8Array): Promise<void> {
  await request('POST', apiUrl('v1/documents'), { name, title, update: base64(update) })
}

/** Make a deleted document live again, as it was; one that is not kept is an `ApiError` with 404, and it needs `admin`. */
export async function restoreDocument(name: string): Promise<void> {
  await request('POST', apiUrl(`v1/trash/${encodePath(name)}`), {})
}

function base64(bytes: Uint8Array): string {
  let text = ''
  // An argument for each byte: some ten thousand at once are too many for a call.
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096))
  return btoa(text)
}

export async function deleteDocument(name: string): Promise<void> {
  await request('DELETE', documentUrl(name))
}
