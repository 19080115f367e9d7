/**
 * What the address says: which document, and where its server is.
 *
 * Everything is computed from the page's own address, so one build works at the root of a
 * host, below a path of it, and with or without TLS.
 */

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

/** Make a name that is easy to say and unlikely to be taken, such as `quiet-harbour-4711`. */
export function inventName(): string {
  const number = 1000 + below(9000)
  return `${ADJECTIVES[below(ADJECTIVES.length)]}-${NOUNS[below(NOUNS.length)]}-${number}`
}

/** Read the document's name from `?doc=`; without one, invent a name and put it into the address. */
export function documentName(): string {
  const url = new URL(location.href)
  const asked = url.searchParams.get('doc')
  if (asked) return asked
  const name = inventName()
  url.searchParams.set('doc', name)
  history.replaceState(null, '', url)
  return name
}

/** The address to hand to others: this page, this document, nothing else. */
export function shareUrl(name: string): string {
  const url = new URL(location.href)
  url.search = ''
  url.hash = ''
  url.searchParams.set('doc', name)
  return url.href
}

/** The WebSocket base beside this page: `https://host/sub/?doc=x` gives `wss://host/sub/ws`. */
export function serverUrl(): string {
  const url = new URL('ws', document.baseURI)
  url.protocol = url.protocol.replace('http', 'ws')
  url.search = ''
  return url.href
}

/**
 * Encode a document name for `WebsocketProvider`, which puts it into the path as it is.
 *
 * Slashes stay, as the server takes them; `?`, `#` and `%` would end or change the path.
 */
export function roomName(name: string): string {
  return name.split('/').map(encodeURIComponent).join('/')
}
