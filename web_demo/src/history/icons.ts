/** Icons that the history alone needs; the others are in `shell/dom.ts`. */
import type { Outline } from '../shell/dom'

export const STAR: Outline = 'm12 4 2.5 5.1 5.5.8-4 3.9 1 5.5-5-2.6-5 2.6 1-5.5-4-3.9 5.5-.8z'
export const UP: Outline = 'm6 14 6-6 6 6'
export const DOWN: Outline = 'm6 10 6 6 6-6'
export const COPY: Outline = 'M9 9h11v11H9zM5 15H4V4h11v1'
export const PLAY: Outline = 'M7 4.5v15l12-7.500z'
export const PAUSE: Outline = 'M8 5v14M16 5v14'
