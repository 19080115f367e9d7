/** Short messages at the foot of the page, spoken too; one may carry an action. */
import { h } from './dom'

const SHOWN = 4000

let region: HTMLElement | undefined

/** Make the place for messages; before the first one, or screen readers do not hear it. */
export function placeForToasts(): HTMLElement {
  region ??= h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite' })
  return region
}

/** Show `message` for `milliseconds`; returns the way to take it back. */
export function toast(message: string, options: { action?: string; act?: () => void; milliseconds?: number } = {}): () => void {
  const { action, act, milliseconds = SHOWN } = options
  const close = (): void => {
    clearTimeout(timer)
    element.remove()
  }
  const element = h('div', { class: 'toast' }, h('span', {}, message))
  if (action) {
    element.append(
      h('button', { type: 'button', class: 'link-button', onclick: () => (close(), act?.()) }, action),
    )
  }
  placeForToasts().append(element)
  const timer = setTimeout(close, milliseconds)
  return close
}
