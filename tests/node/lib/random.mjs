// Chance that is the same for the same seed: a session that fails is made again from its number.

// Numbers from 0 below 1, each from 32 bits.
export const mulberry32 = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

// Seeds that follow on each other begin far from each other.
export const spread = (seed) => (seed * 2654435761 + 12345) >>> 0

export class Random {
  constructor (seed) { this.next = mulberry32(seed) }
  int (n) { return Math.floor(this.next() * n) }
  chance (p) { return this.next() < p }
  pick (list) { return list[this.int(list.length)] }
}
