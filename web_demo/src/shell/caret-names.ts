/** The names at other people's carets, kept apart where they would cover each other. */

/** Where a name may stand: this many rows above its caret, then as many below. */
const ROWS = 8

interface Box {
  readonly left: number
  readonly right: number
  readonly top: number
  readonly bottom: number
}

const apart = (a: Box, b: Box): boolean => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top

/** Watch the carets in `area`; no name is put higher than the foot of `bars`, which lie above it. */
export function spreadNames(area: HTMLElement, bars: HTMLElement): void {
  let frame: number | undefined

  function spread(): void {
    frame = undefined
    const limit = Math.max(area.getBoundingClientRect().top, bars.getBoundingClientRect().bottom)
    // All is measured before anything is moved: else each name would be a layout of its own.
    const names = [...area.querySelectorAll<HTMLElement>('.caret-name')].map((name) => {
      const { height, width } = name.getBoundingClientRect()
      const { left, top, bottom } = name.parentElement!.getBoundingClientRect()
      return { name, height, width, left, top, bottom }
    })
    const placed: Box[] = []
    for (const { name, height, width, left, top, bottom } of names) {
      const box = (at: number): Box => ({ left, right: left + width, top: at, bottom: at + height })
      const above = Array.from({ length: ROWS }, (_, row) => box(top - (row + 1) * height)).filter((one) => one.top >= limit)
      const below = Array.from({ length: ROWS }, (_, row) => box(bottom + row * height))
      const free = [...above, ...below].find((one) => placed.every((other) => apart(one, other))) ?? box(top - height)
      placed.push(free)
      const shift = Math.round(free.top - (top - height))
      name.style.translate = shift === 0 ? '' : `0 ${shift}px`
    }
  }

  spread()
  const holds = (node: Node): boolean => node instanceof Element && (node.matches('.caret') || node.querySelector('.caret') !== null)
  new MutationObserver((records) => {
    if (frame === undefined && records.some(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes].some(holds))) frame = requestAnimationFrame(spread)
  }).observe(area, { childList: true, subtree: true })
}
