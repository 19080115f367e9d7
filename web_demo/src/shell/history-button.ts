/** The button that opens the history; all else of it is loaded then. */
import type { OpenViewer } from '../history/viewer'
import type { OpenDocument } from '../lib/document'
import { h, icon } from './dom'
import { toast } from './toast'

/** Whether the address is that of a state of the past, as "Copy link" makes it. */
const asksForPast = (): boolean => ['version', 'number'].some((key) => new URL(location.href).searchParams.has(key))

export function historyButton(opened: OpenDocument, viewer: () => Promise<OpenViewer>): HTMLButtonElement {
  let toggle: (() => void) | undefined
  const open = async (): Promise<void> => {
    if (toggle) return toggle()
    try {
      const { makeHistory } = await import('../history/panel')
      toggle ??= makeHistory(opened, viewer, button)
      toggle()
    } catch {
      // Without a network it is loaded when it is asked for again.
      toast('The history cannot be loaded now')
    }
  }
  const button = h('button', { type: 'button', class: 'icon-button', id: 'history', 'aria-label': 'History', title: 'History', 'aria-expanded': 'false', onclick: () => void open() }, icon('history'))
  if (asksForPast()) void open()
  return button
}
