/**
 * Markdown shown as it reads, put together in a worker. Images of other servers become links, so that opening
 * a document tells nobody else about it.
 */
import { type Direction, directionOf } from '../lib/direction'
import { h } from '../shell/dom'

/** Characters past which a preview would take seconds. */
const LENGTH = 500_000

const BLOCKS = new Set(['BLOCKQUOTE', 'H1', 'H2', 'H3', 'H4', 'H5', 'H6', 'LI', 'OL', 'P', 'PRE', 'TABLE', 'TBODY', 'TD', 'TH', 'THEAD', 'TR', 'UL'])

/** Set each block in the direction of its own text, where that is another than the one around it. */
function direct(parent: Element, inherited: Direction): void {
  for (const block of parent.children) {
    if (!(block instanceof HTMLElement) || !BLOCKS.has(block.tagName)) continue
    const own = block.tagName === 'PRE' ? 'ltr' : (directionOf(block.textContent ?? '') ?? inherited)
    if (own !== inherited) block.dir = own
    direct(block, own)
  }
}

function parse(html: string): ChildNode[] {
  // A parsed document fetches nothing: what must not be shown goes before it is.
  const { body } = new DOMParser().parseFromString(html, 'text/html')
  for (const image of body.querySelectorAll('img')) image.replaceWith(h('a', { href: image.src }, image.alt || image.src))
  for (const link of body.querySelectorAll('a')) {
    link.target = '_blank'
    link.rel = 'noopener noreferrer'
  }
  for (const box of body.querySelectorAll('input')) box.setAttribute('aria-label', box.checked ? 'Done' : 'To do')
  direct(body, 'ltr')
  return [...body.childNodes]
}

/** Make what is in `element` that of `next`, leaving alone what is the same at both ends, at every depth. */
function show(element: Element, next: readonly ChildNode[]): void {
  const before = [...element.childNodes]
  let start = 0
  while (start < before.length && start < next.length && before[start]!.isEqualNode(next[start]!)) start += 1
  let end = 0
  while (end < before.length - start && end < next.length - start && before.at(-1 - end)!.isEqualNode(next.at(-1 - end)!)) end += 1
  const gone = before.slice(start, before.length - end)
  const come = next.slice(start, next.length - end)
  const [old, one] = [gone[0], come[0]]
  // Of a long list with another word in it, one item is new.
  if (gone.length === 1 && come.length === 1 && old instanceof Element && one instanceof Element && old.cloneNode().isEqualNode(one.cloneNode())) {
    return show(old, [...one.childNodes])
  }
  for (const node of gone) node.remove()
  const anchor = element.childNodes[start] ?? null
  for (const node of come) element.insertBefore(node, anchor)
}

export interface Preview {
  /** Show the text as it is now; calls that come while one is being worked on become one. */
  refresh(): void
  stop(): void
}

/** Show what `text` gives in `element`, now and at each `refresh`. */
export function preview(element: HTMLElement, text: () => string): Preview {
  const worker = new Worker(new URL('./preview.worker.ts', import.meta.url), { type: 'module' })
  let busy = false
  let stale = false
  const refresh = (): void => {
    stale = busy
    if (busy) return
    const markdown = text()
    if (markdown.length > LENGTH) return element.replaceChildren(h('p', { class: 'hint' }, 'This text is too long for a preview.'))
    busy = true
    worker.postMessage(markdown)
  }
  worker.onmessage = ({ data }: MessageEvent<string>) => {
    busy = false
    show(element, parse(data))
    if (stale) refresh()
  }
  refresh()
  return { refresh, stop: () => worker.terminate() }
}
