/**
 * Other people's carets and selections in a CodeMirror 6 editor.
 *
 * The awareness field is `cursor: { anchor, head }` with Yjs relative positions, the format
 * of y-codemirror.next, so its users and ours see each other. It stands in for the cursor
 * plugin of that package for two reasons: a state that another client made up must neither
 * throw in here nor reach a style attribute unread, and the name should show without a hovering mouse.
 */
import { Annotation, type Extension, type Range, RangeSet } from '@codemirror/state'
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate, WidgetType } from '@codemirror/view'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { type Person, toPerson } from '../lib/presence'

const moved = Annotation.define<true>()

/** A caret with a name; `head` tells places apart. */
export class Caret extends WidgetType {
  readonly person: Pick<Person, 'name' | 'color'>
  readonly key: string

  constructor(person: Pick<Person, 'name' | 'color'>, head: string) {
    super()
    this.person = person
    // The same caret at the same place keeps its element, so that its name does not show anew.
    this.key = JSON.stringify([person, head])
  }

  override eq(other: Caret): boolean {
    return other.key === this.key
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement('span')
    caret.className = 'caret'
    caret.style.setProperty('--who', this.person.color)
    caret.setAttribute('aria-hidden', 'true')
    const name = document.createElement('bdi')
    name.className = 'caret-name'
    name.textContent = this.person.name
    // Word joiners keep the caret on the line of the character it stands at.
    caret.append('\u2060', name, '\u2060')
    return caret
  }

  override get estimatedHeight(): number {
    return -1
  }

  override ignoreEvent(): boolean {
    return true
  }
}

/** Resolve a relative position that a peer sent; null if it means nothing here. */
function resolve(value: unknown, text: Y.Text): number | null {
  try {
    const position = Y.createAbsolutePositionFromRelativePosition(Y.createRelativePositionFromJSON(value), text.doc!)
    return position !== null && position.type === text ? position.index : null
  } catch {
    return null
  }
}

/** Show the others' carets and selections in `text`, and tell them one's own while the editor has the focus. */
export function remoteCursors(text: Y.Text, awareness: Awareness): Extension {
  class RemoteCursors {
    decorations: DecorationSet = RangeSet.empty
    readonly #listener: (changes: { added: number[]; updated: number[]; removed: number[] }) => void

    constructor(view: EditorView) {
      this.#listener = ({ added, updated, removed }) => {
        const others = [...added, ...updated, ...removed].some((id) => id !== awareness.clientID)
        if (others) view.dispatch({ annotations: moved.of(true) })
      }
      awareness.on('change', this.#listener)
    }

    destroy(): void {
      awareness.off('change', this.#listener)
    }

    update(update: ViewUpdate): void {
      this.#tell(update)
      this.decorations = this.#draw(update)
    }

    #tell({ view, state }: ViewUpdate): void {
      if (!view.hasFocus || awareness.getLocalState() === null) return
      const { anchor, head } = state.selection.main
      const cursor = {
        anchor: Y.relativePositionToJSON(Y.createRelativePositionFromTypeIndex(text, anchor)),
        head: Y.relativePositionToJSON(Y.createRelativePositionFromTypeIndex(text, head)),
      }
      const known: unknown = awareness.getLocalState()?.['cursor']
      if (JSON.stringify(known) !== JSON.stringify(cursor)) awareness.setLocalStateField('cursor', cursor)
    }

    #draw({ state }: ViewUpdate): DecorationSet {
      const ranges: Range<Decoration>[] = []
      const length = state.doc.length
      for (const [id, peer] of awareness.getStates()) {
        if (id === awareness.clientID) continue
        const cursor = peer['cursor'] as { anchor?: unknown; head?: unknown } | null | undefined
        if (typeof cursor !== 'object' || cursor === null) continue
        const anchor = resolve(cursor.anchor, text)
        const head = resolve(cursor.head, text)
        if (anchor === null || head === null || Math.max(anchor, head) > length) continue
        const person = toPerson(id, peer)
        const widget = new Caret(person, JSON.stringify(cursor.head))
        // Outside its own selection, and after what the local caret stands at.
        ranges.push(Decoration.widget({ widget, side: head > anchor ? -1 : 1 }).range(head))
        if (anchor !== head) {
          const attributes = { class: 'selected', style: `--who: ${person.color}` }
          ranges.push(Decoration.mark({ attributes }).range(Math.min(anchor, head), Math.max(anchor, head)))
        }
      }
      return Decoration.set(ranges, true)
    }
  }

  return ViewPlugin.fromClass(RemoteCursors, { decorations: (plugin) => plugin.decorations })
}

/** Bring the caret of the followed one into view. */
export function followCursor(view: EditorView, text: Y.Text, state: Record<string, unknown>): void {
  const head = resolve((state['cursor'] as { head?: unknown } | null | undefined)?.head, text)
  if (head !== null && head <= view.state.doc.length) view.dispatch({ effects: EditorView.scrollIntoView(head, { y: 'center' }) })
}
