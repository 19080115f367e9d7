/**
 * The token of who is here, if the server asks for one.
 *
 * It comes with a link, as `?token=` or `#token=` (which servers and their logs never see), and leaves the
 * address bar at once, so that a copied address gives nobody one's own access. It is kept for this tab only.
 */
const KEY = 'collab:token'

let token = ''

/** Take the token out of the address; call once, before anything else reads the address. */
export function takeTokenFromAddress(): void {
  const url = new URL(location.href)
  const fragment = new URLSearchParams(url.hash.slice(1))
  const found = fragment.get('token') ?? url.searchParams.get('token')
  try {
    token = found ?? sessionStorage.getItem(KEY) ?? ''
  } catch {
    token = found ?? ''
  }
  if (found === null) return
  url.searchParams.delete('token')
  fragment.delete('token')
  url.hash = fragment.toString()
  history.replaceState(history.state, '', url)
  setToken(found)
}

export function getToken(): string {
  return token
}

/** The name in a signed token (JWT): where the server writes who one is, others see this one, whatever one says. */
export function nameInToken(): string | undefined {
  try {
    const payload = token.split('.')[1]!.replaceAll('-', '+').replaceAll('_', '/')
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0))
    const { name, sub } = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>
    return typeof name === 'string' ? name : typeof sub === 'string' ? sub : undefined
  } catch {
    // None, or one that only the application understands.
    return undefined
  }
}

export function setToken(value: string): void {
  token = value
  try {
    sessionStorage.setItem(KEY, value)
  } catch {
    // Storage is switched off: the token lasts as long as the page.
  }
}
