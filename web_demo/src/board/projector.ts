/** The frames of a board's film, and the frames around elements that say whose they are. */
import { getCommonBounds, restoreElements } from '@excalidraw/excalidraw'
import type { ExcalidrawElement, OrderedExcalidrawElement } from '@excalidraw/excalidraw/element/types'
import type { BinaryFileData } from '@excalidraw/excalidraw/types'
import type * as Y from 'yjs'
import type { Author } from '../history/people'
import type { Projector } from '../history/viewer'
import { readElements, toElement } from './binding'
import { readImages } from './images'

/** Units of the board between an element and the frame that marks it. */
const MARGIN = 8

export interface Scene {
  readonly elements: readonly OrderedExcalidrawElement[]
  readonly files: Record<string, BinaryFileData>
}

/** A frame around a changed element, in the colour of who has changed it; broken around one that is gone. */
export function frame(element: ExcalidrawElement, color: string, gone: boolean): OrderedExcalidrawElement {
  const [left, top, right, bottom] = getCommonBounds([element])
  const size = { x: left - MARGIN, y: top - MARGIN, width: right - left + 2 * MARGIN, height: bottom - top + 2 * MARGIN }
  const look = { strokeColor: color, backgroundColor: 'transparent', strokeWidth: 2, roughness: 0, strokeStyle: gone ? 'dashed' : 'solid' } as const
  return restoreElements([{ type: 'rectangle', id: `frame of ${element.id}`, ...size, ...look } as ExcalidrawElement], null)[0]!
}

/** A board that goes on: an entry is made an element once, and what is new has a frame. */
export class BoardProjector implements Projector {
  readonly #doc: Y.Doc
  readonly #draw: (scene: Scene, grown: boolean) => void
  readonly #made = new WeakMap<ExcalidrawElement, OrderedExcalidrawElement | undefined>()
  #shown: ReadonlySet<ExcalidrawElement> = new Set()
  /** What has been in sight so far: left, top, right, bottom. */
  #reach: readonly number[] = [Infinity, Infinity, -Infinity, -Infinity]

  constructor(doc: Y.Doc, draw: (scene: Scene, grown: boolean) => void) {
    this.#doc = doc
    this.#draw = draw
  }

  #make = (entry: ExcalidrawElement): OrderedExcalidrawElement | undefined => {
    if (!this.#made.has(entry)) this.#made.set(entry, toElement(entry))
    return this.#made.get(entry)
  }

  #grows(elements: readonly OrderedExcalidrawElement[]): boolean {
    if (elements.length === 0) return false
    const bounds = getCommonBounds(elements)
    const past = this.#reach
    const grown = bounds[0] < past[0]! || bounds[1] < past[1]! || bounds[2] > past[2]! || bounds[3] > past[3]!
    if (grown) this.#reach = [Math.min(bounds[0], past[0]!), Math.min(bounds[1], past[1]!), Math.max(bounds[2], past[2]!), Math.max(bounds[3], past[3]!)]
    return grown
  }

  draw(author: Author | undefined): void {
    const elements = readElements(this.#doc.getArray('elements'), this.#make)
    const fresh = author ? elements.filter((element) => !this.#shown.has(element)) : []
    this.#shown = new Set(elements)
    const frames = fresh.map((element) => frame(element, author!.color, false))
    this.#draw({ elements: [...elements, ...frames], files: readImages(this.#doc.getMap('images')) }, this.#grows(elements))
  }

  destroy(): void {
    this.#shown = new Set()
  }
}
