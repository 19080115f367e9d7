/** Addresses of states of the past: `&version=ID`, or `&number=N` for a number of the log. */
import { pageUrl } from '../lib/address'
import type { Which } from './api'

/** A link to a state of the past of a document. */
export function momentUrl(name: string, which: Which): string {
  const url = new URL(pageUrl(name))
  for (const [key, value] of Object.entries(which)) url.searchParams.set(key, String(value))
  return url.href.replaceAll('%2F', '/')
}

/** The state of the past that the address of this page asks for. */
export function askedFor(): Which | undefined {
  const { searchParams } = new URL(location.href)
  const read = (key: string): number => Number(searchParams.get(key) || Number.NaN)
  if (Number.isSafeInteger(read('version'))) return { version: read('version') }
  if (Number.isSafeInteger(read('number'))) return { number: read('number') }
  return undefined
}
