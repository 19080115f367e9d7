/** Figures, times and names as text. Whatever comes from outside passes `plain`, and is set as text, never as markup. */

// Everything that shows nothing, or changes the direction of what stands around it.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu

/** Show characters that cannot be seen as `\u{…}`: two names that look alike are not the same one. */
export function plain(text: string): string {
  return text.replace(UNSEEN, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`)
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

export function bytes(value: number): string {
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

/** A number of things: exact below a million. */
export const count = (value: number): string => (value < 1e6 ? whole : short).format(value)

/** A number with what it counts. */
export const some = (value: number, one: string, many = `${one}s`): string => `${count(value)} ${value === 1 ? one : many}`

/** How often in a second. */
export const rate = (value: number): string => `${value === 0 || value >= 9.95 ? count(value) : value.toFixed(1)}/s`

export const byteRate = (value: number): string => `${bytes(value)}/s`

/** A share of one, such as 0.125. */
export const percent = (value: number): string => `${value > 0 && value < 0.0995 ? (value * 100).toFixed(1) : Math.round(value * 100)} %`

/** A length of time in its largest two units. */
export function duration(seconds: number): string {
  if (seconds === 0) return '0 s'
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`
  if (seconds < 1) return `${seconds < 0.00995 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  if (seconds < 59.5) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return `${hours} h${minutes % 60 ? ` ${minutes % 60} min` : ''}`
  const days = Math.floor(hours / 24)
  return `${days} d${hours % 24 ? ` ${hours % 24} h` : ''}`
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const full = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })

/** Milliseconds since 1970 of an RFC 3339 time, or of unix seconds. */
const milliseconds = (at: string | number): number => (typeof at === 'number' ? at * 1000 : Date.parse(at))

/** The time of the day, with the day where it is not today. */
export function moment(at: string | number): string {
  const date = new Date(milliseconds(at))
  if (Number.isNaN(date.getTime())) return plain(String(at))
  return (date.toDateString() === new Date().toDateString() ? clock : full).format(date)
}

/** How long ago, without "ago". */
export const age = (at: string | number): string => duration(Math.max(0, Math.round((Date.now() - milliseconds(at)) / 1000)))
