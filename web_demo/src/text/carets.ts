/** Other people's carets and selections in Tiptap, and following one of them. */
import type { Editor } from '@tiptap/core'
import CollaborationCaret from '@tiptap/extension-collaboration-caret'
import { relativePositionToAbsolutePosition, ySyncPluginKey } from '@tiptap/y-tiptap'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { type AwarenessState, type Presence, toPerson } from '../lib/presence'

/** Draw a caret with its name. */
function caret({ name, color }: Record<string, string>): HTMLElement {
  const element = document.createElement('span')
  element.className = 'caret'
  element.style.setProperty('--who', color!)
  element.setAttribute('aria-hidden', 'true')
  const label = document.createElement('bdi')
  label.className = 'caret-name'
  label.textContent = name!
  // Word joiners keep the caret on the line of the character it stands at.
  element.append('\u2060', label, '\u2060')
  return element
}

function means(position: unknown, doc: Y.Doc): boolean {
  try {
    return Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(position), doc) !== null
  } catch {
    return false
  }
}

/**
 * The awareness as the caret plugin may see it: it takes states at their word, and would throw on a position,
 * or complain about a colour, that a peer has made up.
 */
function checked(awareness: Awareness): Awareness {
  const getStates = (): Map<number, AwarenessState> => {
    const states = new Map<number, AwarenessState>()
    for (const [id, state] of awareness.getStates()) {
      const cursor = state['cursor'] as { anchor?: unknown; head?: unknown } | null | undefined
      if (cursor && means(cursor.anchor, awareness.doc) && means(cursor.head, awareness.doc)) states.set(id, { user: toPerson(id, state), cursor })
    }
    return states
  }
  return Object.create(awareness, { getStates: { value: getStates } }) as Awareness
}

export const carets = (awareness: Awareness, presence: Presence) =>
  CollaborationCaret.configure({
    provider: { awareness: checked(awareness) },
    user: presence.user,
    render: caret,
    selectionRender: ({ color }: Record<string, string>) => ({ class: 'selected', style: `--who: ${color}` }),
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
