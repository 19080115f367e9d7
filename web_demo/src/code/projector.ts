/** The frames of a code's film: what has changed is put into the editor, with a caret that has a name. */
import { StateEffect, StateField } from '@codemirror/state'
import { Decoration, type DecorationSet, EditorView } from '@codemirror/view'
import type * as Y from 'yjs'
import type { Author } from '../history/people'
import type { Projector } from '../history/viewer'
import { Caret } from './cursors'
import { languageName } from './languages'

/** CodeMirror knows one kind of line break, and places must stay what they are. */
export const linesOf = (text: Y.Text): string => text.toString().replaceAll('\r', ' ')

export const languageOf = (doc: Y.Doc): string => languageName(doc.getMap('meta').get('language'))

/** Who is typing where; null: nobody. */
const typing = StateEffect.define<{ author: Author; at: number } | null>()

export const caret = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(shown, { changes, effects }) {
    for (const effect of effects) {
      if (!effect.is(typing)) continue
      if (!effect.value) return Decoration.none
      const { author, at } = effect.value
      return Decoration.set(Decoration.widget({ widget: new Caret(author, String(at)), side: 1 }).range(at))
    }
    return shown.map(changes)
  },
  provide: (field) => EditorView.decorations.from(field),
})

/** The one place in which two texts differ. */
function differenceOf(before: string, after: string): { from: number; to: number; insert: string } {
  const most = Math.min(before.length, after.length)
  let from = 0
  while (from < most && before.charCodeAt(from) === after.charCodeAt(from)) from += 1
  let same = 0
  while (same < most - from && before.charCodeAt(before.length - 1 - same) === after.charCodeAt(after.length - 1 - same)) same += 1
  return { from, to: before.length - same, insert: after.slice(from, after.length - same) }
}

/** A text that goes on: what has changed is put into the editor. */
export class CodeProjector implements Projector {
  readonly #text: Y.Text
  readonly #view: EditorView
  /** Begins the editor anew, in the language of the document. */
  readonly #begin: (text: string) => void
  #shown: string
  #language: string

  constructor(text: Y.Text, view: EditorView, begin: (text: string) => void) {
    this.#text = text
    this.#view = view
    this.#begin = begin
    this.#shown = linesOf(text)
    this.#language = languageOf(text.doc!)
    begin(this.#shown)
  }

  draw(author: Author | undefined): void {
    const text = linesOf(this.#text)
    const language = languageOf(this.#text.doc!)
    if (language !== this.#language) this.#begin(this.#shown)
    this.#language = language
    const changes = differenceOf(this.#shown, text)
    this.#shown = text
    const at = changes.from + changes.insert.length
    this.#view.dispatch({ changes, effects: author ? [typing.of({ author, at }), EditorView.scrollIntoView(at, { y: 'nearest', yMargin: 48 })] : typing.of(null) })
  }

  destroy(): void {
    this.#view.dispatch({ effects: typing.of(null) })
  }
}
