/**
 * What the address says: which document, and where its server is.
 *
 * Everything is computed from the page's own address, so one build works at the root of a host, below a
 * path of it, and with or without TLS. A document's kind is the beginning of its name: `text/…`, `board/…`,
 * `code/…`; any other name is a text that CodeMirror opens.
 */
export type Kind = 'text' | 'code' | 'board'

export const KINDS: readonly Kind[] = ['text', 'code', 'board']

const ADJECTIVES = [
  'amber', 'bright', 'calm', 'clear', 'early', 'gentle', 'golden', 'green', 'level', 'light',
  'lively', 'mellow', 'open', 'patient', 'quiet', 'silver', 'steady', 'sunny', 'tidy', 'warm',
]
const NOUNS = [
  'bay', 'bridge', 'brook', 'cedar', 'cliff', 'field', 'garden', 'harbour', 'hill', 'island',
  'lake', 'lantern', 'meadow', 'orchard', 'path', 'pine', 'river', 'shore', 'valley', 'willow',
]

function below(limit: number): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]! % limit
}

/** Make a name that is easy to say and unlikely to be taken, such as `text/quiet-harbour-471108`. */
export function inventName(kind: Kind): string {
  const number = 100_000 + below(900_000)
  return `${kind}/${ADJECTIVES[below(ADJECTIVES.length)]}-${NOUNS[below(NOUNS.length)]}-${number}`
}

export function kindOf(name: string): Kind {
  return KINDS.find((kind) => name.startsWith(`${kind}/`)) ?? 'code'
}

/** What a document is called that nobody has given a title: its name, without the kind. */
export function untitled(name: string): string {
  return KINDS.some((kind) => name.startsWith(`${kind}/`)) ? name.slice(name.indexOf('/') + 1) : name
}

/** The document that `?doc=` asks for. */
export function documentName(): string | null {
  return new URL(location.href).searchParams.get('doc') || null
}

/** The address of a document's page, for links and to hand to others: no token, nothing else of this address. */
export function pageUrl(name: string, page = ''): string {
  const url = new URL(page || '.', document.baseURI)
  url.search = ''
  url.hash = ''
  url.searchParams.set('doc', name)
  // Slashes may stand in a query as they are, and read better.
  return url.href.replaceAll('%2F', '/')
}

/** What stands behind the address of a document that was invented a moment ago. */
const NEW = '#new'

/** The address of a document that does not exist yet; its page puts the focus where the first words go. */
export const newPageUrl = (kind: Kind): string => pageUrl(inventName(kind)) + NEW

/** Whether this document was invented a moment ago; takes the mark out of the address, so that a reload is none. */
export function takeNewMark(): boolean {
  if (location.hash !== NEW) return false
  history.replaceState(history.state, '', location.pathname + location.search)
  return true
}

/** The address of an HTTP resource beside this page. */
export function apiUrl(path: string): URL {
  return new URL(`api/${path}`, document.baseURI)
}

/** The address of a document over plain HTTP, beside this page. */
export function streamUrl(name: string): URL {
  return new URL(`streams/docs/${encodePath(name)}`, document.baseURI)
}

/** The address of a WebSocket beside this page: `https://host/sub/?doc=x` gives `wss://host/sub/ws`. */
export function socketUrl(path: string): string {
  const url = new URL(path, document.baseURI)
  url.protocol = url.protocol.replace('http', 'ws')
  url.search = ''
  url.hash = ''
  return url.href
}

/** Encode a document name for a path. Slashes stay, as the server takes them; `?`, `#` and `%` would end or change it. */
export function encodePath(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/')
}
