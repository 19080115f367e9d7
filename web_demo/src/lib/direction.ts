/** Which way a text is written, by its first letter, as browsers decide it for `dir="auto"`. */
export type Direction = 'ltr' | 'rtl'

const LETTER = /[\p{L}\u200e\u200f]/u
/** Hebrew, Arabic, Syriac, Thaana, N'Ko, Samaritan, Mandaic, Adlam, Hanifi Rohingya. */
const RIGHT_TO_LEFT = /[\p{sc=Hebr}\p{sc=Arab}\p{sc=Syrc}\p{sc=Thaa}\p{sc=Nkoo}\p{sc=Samr}\p{sc=Mand}\p{sc=Adlm}\p{sc=Rohg}\u200f]/u

/** The direction of `text`; null if nothing in it has one, as in numbers. */
export function directionOf(text: string): Direction | null {
  const letter = LETTER.exec(text)?.[0]
  if (letter === undefined) return null
  return RIGHT_TO_LEFT.test(letter) ? 'rtl' : 'ltr'
}
