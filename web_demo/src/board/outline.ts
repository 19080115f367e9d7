/** What stands on the board, in words, for those who do not see it. */
import type * as Y from 'yjs'
import { h } from '../shell/dom'
import { isElement } from './check'

/** Milliseconds of quiet after which the words follow the drawing. */
const CALM = 500
const TEXTS = 200

/** Make a list of the texts on the board, top to bottom, and a count of the shapes. */
export function outline(elements: Y.Array<unknown>): HTMLElement {
  const count = h('p', {})
  const list = h('ul', {})
  const section = h('section', { class: 'spoken', 'aria-label': 'What is on the board' }, count, list)
  let timer: number | undefined

  const show = (): void => {
    const shapes = [...new Map(elements.toArray().filter(isElement).map((element) => [element.id, element])).values()].filter(({ isDeleted }) => !isDeleted)
    const texts = shapes.flatMap((element) => (element.type === 'text' ? [element] : [])).sort((a, b) => a.y - b.y || a.x - b.x)
    count.textContent = `${shapes.length} ${shapes.length === 1 ? 'element' : 'elements'}, of which ${texts.length} with text`
    list.replaceChildren(...texts.slice(0, TEXTS).map(({ text }) => h('li', {}, text)))
  }
  elements.observe(() => {
    clearTimeout(timer)
    timer = window.setTimeout(show, CALM)
  })
  show()
  return section
}
