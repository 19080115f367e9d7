/** The frames of a rich text's film: what has changed is drawn anew, and a caret with a name stands where that was. */
import * as Y from 'yjs'
import type { Author } from '../history/people'
import type { Projector } from '../history/viewer'
import { h } from '../shell/dom'

/** How many characters of a text stand before the end of what an event has changed in it. */
function endOf({ delta }: Y.YEvent<Y.XmlText>): number {
  let [at, end] = [0, 0]
  for (const { retain, insert } of delta) {
    at += retain ?? (typeof insert === 'string' ? insert.length : insert === undefined ? 0 : 1)
    if (retain === undefined) end = at
  }
  return end
}

/** The texts below a block, in order. */
function* textsOf(type: unknown): Generator<Y.XmlText> {
  if (type instanceof Y.XmlText) yield type
  else if (type instanceof Y.XmlElement) for (const child of type.toArray()) yield* textsOf(child)
}

/** A text that goes on: blocks that have not changed keep their elements. */
export class TextProjector implements Projector {
  readonly #fragment: Y.XmlFragment
  readonly #paper: HTMLElement
  readonly #draw: (type: unknown) => Node[]
  readonly #blocks = new WeakMap<object, Node[]>()
  readonly #caret = h('span', { class: 'caret film-caret', 'aria-hidden': 'true', hidden: true }, h('bdi', { class: 'caret-name' }))
  readonly #onEvents = (events: Y.YEvent<Y.AbstractType<unknown>>[]): void => events.forEach((event) => this.#changed(event))
  #last: { block: object; text: Y.XmlText; at: number } | undefined

  constructor(fragment: Y.XmlFragment, paper: HTMLElement, draw: (type: unknown) => Node[]) {
    this.#fragment = fragment
    this.#paper = paper
    this.#draw = draw
    fragment.observeDeep(this.#onEvents as never)
    paper.replaceChildren(this.#caret)
  }

  #changed(event: Y.YEvent<Y.AbstractType<unknown>>): void {
    let block: Y.AbstractType<unknown> = event.target
    while (block.parent && block.parent !== (this.#fragment as unknown)) block = block.parent
    this.#blocks.delete(block)
    if (event.target instanceof Y.XmlText) this.#last = { block, text: event.target, at: endOf(event as never) }
  }

  draw(author: Author | undefined): void {
    const next = this.#fragment.toArray().flatMap((type) => {
      const known = this.#blocks.get(type) ?? this.#draw(type)
      this.#blocks.set(type, known)
      return known
    })
    const staying = new Set<Node>(next)
    for (const child of [...this.#paper.childNodes]) if (!staying.has(child) && child !== this.#caret) child.remove()
    let place: ChildNode | null = this.#paper.firstChild
    for (const element of next) {
      if (place === element) place = place.nextSibling
      else this.#paper.insertBefore(element, place)
    }
    this.#placeCaret(author)
  }

  /** Put the caret of the author where something has changed last, and keep it in sight. */
  #placeCaret(author: Author | undefined): void {
    const box = author && this.#boxOfLast()
    this.#caret.hidden = !box
    if (!box) return
    const paper = this.#paper.getBoundingClientRect()
    this.#caret.style.setProperty('--who', author.color)
    this.#caret.lastElementChild!.textContent = author.name
    this.#caret.style.left = `${box.right - paper.left + this.#paper.scrollLeft - this.#paper.clientLeft}px`
    this.#caret.style.top = `${box.top - paper.top + this.#paper.scrollTop - this.#paper.clientTop}px`
    this.#caret.style.height = `${box.height || 20}px`
    this.#caret.scrollIntoView({ block: 'nearest' })
  }

  #boxOfLast(): DOMRect | undefined {
    const elements = this.#last && this.#blocks.get(this.#last.block)
    if (!this.#last || !elements) return undefined
    let left = this.#last.at
    for (const text of textsOf(this.#last.block)) {
      if (text === this.#last.text) break
      left += text.length
    }
    for (const element of elements) {
      const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT)
      for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const { length } = node as Text
        if (left <= length) return boxAt(node as Text, left)
        left -= length
      }
    }
    return elements[0] instanceof Element ? new DOMRect(elements[0].getBoundingClientRect().left, elements[0].getBoundingClientRect().top, 0, 0) : undefined
  }

  destroy(): void {
    this.#fragment.unobserveDeep(this.#onEvents as never)
  }
}

/** The box of the character before a place in a text. */
function boxAt(text: Text, at: number): DOMRect {
  const range = document.createRange()
  range.setStart(text, Math.max(0, at - 1))
  range.setEnd(text, at)
  return range.getBoundingClientRect()
}
