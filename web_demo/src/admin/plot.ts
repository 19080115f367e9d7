/** A line over time, drawn as SVG: a small picture whose words say the same. Its elements are made once. */
import { h } from '../shell/dom'

const SVG = 'http://www.w3.org/2000/svg'
const WIDTH = 240
const HEIGHT = 56

export interface Points {
  /** Unix seconds of each point, the oldest first. */
  readonly at: readonly number[]
  /** As many; null where nothing is known. */
  readonly values: readonly (number | null)[]
  /** Seconds between two points. */
  readonly step: number
}

export interface Plot {
  readonly element: HTMLElement
  show(points: Points): void
}

function shape<K extends keyof SVGElementTagNameMap>(tag: K, props: Record<string, string>): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag)
  for (const [key, value] of Object.entries(props)) element.setAttribute(key, value)
  return element
}

/** Round up to one, two or five of a power of ten, or to a power of two for bytes, so that the scale seldom changes. */
function ceiling(value: number, binary: boolean): number {
  if (value <= 0) return 1
  if (binary) return 2 ** Math.ceil(Math.log2(value))
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].find((factor) => factor * power >= value)! * power
}

/** Seconds that are shown. */
const SPAN = 3600

export interface PlotOptions {
  /** Says a value in words. */
  readonly format: (value: number) => string
  /** The smallest top of the scale. */
  readonly least?: number
  /** Bytes: the scale goes by powers of two. */
  readonly binary?: boolean
}

/** Make a plot of the last hour. */
export function makePlot(label: string, { format, least = 0, binary = false }: PlotOptions): Plot {
  const area = shape('path', { class: 'plot-area' })
  const line = shape('path', { class: 'plot-line', 'vector-effect': 'non-scaling-stroke' })
  const rule = shape('path', { class: 'plot-rule', 'vector-effect': 'non-scaling-stroke', visibility: 'hidden' })
  const svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', class: 'plot-picture' })
  svg.append(area, line, rule)
  const now = h('strong', { class: 'plot-now' }, '–')
  const top = h('span', { class: 'plot-top', 'aria-hidden': 'true' })
  const reading = h('span', { class: 'plot-reading', 'aria-hidden': 'true' })
  const element = h('figure', { class: 'plot' }, h('figcaption', { class: 'plot-label' }, h('span', {}, label), now), h('div', { class: 'plot-box' }, svg, top, reading))

  let columns: (number | null)[] = []
  let present: Points | undefined
  let pointer: number | undefined

  /** Say the value below the pointer. */
  function read(): void {
    if (pointer === undefined || !present) {
      rule.setAttribute('visibility', 'hidden')
      if (reading.textContent) reading.textContent = ''
      return
    }
    const column = Math.min(WIDTH - 1, Math.max(0, Math.floor(pointer * WIDTH)))
    const value = columns[column]
    rule.setAttribute('d', `M${column + 0.5} 0V${HEIGHT}`)
    rule.setAttribute('visibility', 'visible')
    const ago = Math.round(((WIDTH - column) / WIDTH) * SPAN)
    const when = ago < 60 ? `${ago} s ago` : `${Math.round(ago / 60)} min ago`
    reading.textContent = `${value == null ? 'no figure' : format(value)}, ${when}`
  }
  svg.addEventListener('pointermove', ({ offsetX }) => {
    pointer = offsetX / (svg.clientWidth || 1)
    read()
  })
  svg.addEventListener('pointerleave', () => {
    pointer = undefined
    read()
  })

  return {
    element,
    show(points) {
      present = points
      // A column is the highest of its points: a peak of a second is seen.
      columns = new Array<number | null>(WIDTH).fill(null)
      const from = (points.at.at(-1) ?? 0) - SPAN
      points.values.forEach((value, place) => {
        if (value === null) return
        const column = Math.min(WIDTH - 1, Math.floor((((points.at[place] ?? 0) - from) / SPAN) * WIDTH))
        if (column < 0) return
        const before = columns[column]
        columns[column] = before == null ? value : Math.max(before, value)
      })
      // Points that lie further apart than columns do leave no holes.
      const reach = Math.ceil((points.step * 1.5 * WIDTH) / SPAN)
      let known = -Infinity
      for (let column = 0; column < WIDTH; column += 1) {
        if (columns[column] != null) known = column
        else if (column - known <= reach) columns[column] = columns[known] ?? null
      }
      const highest = columns.reduce<number>((high, value) => Math.max(high, value ?? 0), 0)
      const scale = ceiling(Math.max(highest, least), binary)
      let path = ''
      let filled = ''
      let open = false
      columns.forEach((value, column) => {
        if (value == null) {
          if (open) filled += `L${column} ${HEIGHT}Z`
          open = false
          return
        }
        const y = (HEIGHT - 1.5 - (value / scale) * (HEIGHT - 4)).toFixed(1)
        path += `${open ? 'L' : 'M'}${column + 0.5} ${y}`
        filled += open ? `L${column + 0.5} ${y}` : `M${column} ${HEIGHT}L${column + 0.5} ${y}`
        open = true
      })
      if (open) filled += `L${WIDTH} ${HEIGHT}Z`
      line.setAttribute('d', path)
      area.setAttribute('d', filled)
      const last = points.values.at(-1)
      const shown = last == null ? '–' : format(last)
      if (now.textContent !== shown) now.textContent = shown
      if (top.textContent !== format(scale)) top.textContent = format(scale)
      svg.setAttribute('aria-label', `${label}, the last hour: now ${shown}, at most ${format(highest)}`)
      read()
    },
  }
}
