/** Other people's carets and selections in Tiptap, and following one of them. */
import type { Editor } from '@tiptap/core'
import CollaborationCaret from '@tiptap/extension-collaboration-caret'
import { relativePositionToAbsolutePosition, ySyncPluginKey } from '@tiptap/y-tiptap'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { type AwarenessState, type Presence, toPerson } from '../lib/presence'

/** Draw a caret with its name. What a peer calls itself is checked before it is shown. */
function caret(user: Record<string, unknown>): HTMLElement {
  const { name, color } = toPerson(0, { user })
  const element = document.createElement('span')
  element.className = 'caret'
  element.style.setProperty('--who', color)
  element.setAttribute('aria-hidden', 'true')
  const label = document.createElement('bdi')
  label.className = 'caret-name'
  label.textContent = name
  // Word joiners keep the caret on the line of the character it stands at.
  element.append('\u2060', label, '\u2060')
  return element
}

export const carets = (awareness: Awareness, presence: Presence) =>
  CollaborationCaret.configure({
    provider: { awareness },
    user: presence.user,
    render: caret,
    selectionRender: (user: Record<string, unknown>) => ({ class: 'selected', style: `--who: ${toPerson(0, { user }).color}` }),
  })

/** Bring the caret of the followed one into view. */
export function showFollowed(editor: Editor, state: AwarenessState): void {
  const sync = ySyncPluginKey.getState(editor.state)
  const head = (state['cursor'] as { head?: unknown } | null | undefined)?.head
  if (!head || !sync?.binding) return
  try {
    const position = relativePositionToAbsolutePosition(sync.doc, sync.type, Y.createRelativePositionFromJSON(head), sync.binding.mapping)
    if (position === null) return
    const { node } = editor.view.domAtPos(position)
    const element = node instanceof Element ? node : node.parentElement
    element?.scrollIntoView({ block: 'center', behavior: 'smooth' })
  } catch {
    // A position that a peer made up, or one in a node that is just being replaced.
  }
}
