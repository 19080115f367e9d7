/** Code as it was: a CodeMirror of its own that nothing is bound to, for reading. */
import { EditorState, type Extension, RangeSetBuilder } from '@codemirror/state'
import { Decoration, type DecorationSet, EditorView, lineNumbers } from '@codemirror/view'
import type * as Y from 'yjs'
import { ROLES, textOf } from '../history/changes'
import type { Viewer } from '../history/viewer'
import { colours } from './editor'
import { LANGUAGES } from './languages'
import { caret, CodeProjector, languageOf, linesOf } from './projector'

/** Open a viewer for the text in the root `root`. */
export function openCodeViewer(place: HTMLElement, root: string): Viewer {
  const view = new EditorView({ parent: place })
  let stops: number[] = []
  let drawn = 0

  /** Show `text`, in its language as soon as that is loaded. */
  async function draw(doc: Y.Doc, text: string, marks: DecorationSet): Promise<void> {
    const mine = (drawn += 1)
    const set = (language: Extension, shown: string): void => {
      const extensions = [
        EditorView.decorations.of(marks),
        caret,
        lineNumbers(),
        colours,
        EditorView.lineWrapping,
        EditorState.readOnly.of(true),
        EditorView.editable.of(false),
        EditorView.contentAttributes.of({ 'aria-label': 'Code as it was', tabindex: '0' }),
        language,
      ]
      view.setState(EditorState.create({ doc: shown, extensions }))
    }
    set([], text)
    const language = await LANGUAGES[languageOf(doc)]!.load()
    // A film may have gone on meanwhile.
    if (mine === drawn) set(language, view.state.doc.toString())
  }

  return {
    show(doc) {
      void draw(doc, linesOf(doc.getText(root)), Decoration.none)
    },
    showChanges(changes, authors) {
      let text = ''
      let last = -1
      stops = []
      const marks = new RangeSetBuilder<Decoration>()
      for (const run of changes.runs(changes.doc.getText(root))) {
        const shown = textOf(run)
        if (!shown) continue
        const { change } = run
        if (change) {
          // What touches is one place.
          if (text.length !== last) stops.push(text.length)
          last = text.length + shown.length
          const attributes = { style: `--who: ${authors.of(change).color}`, title: authors.describe(change), ...(ROLES[change.kind] && { role: ROLES[change.kind]! }) }
          marks.add(text.length, last, Decoration.mark({ class: `change ${change.kind}`, attributes }))
        }
        text += shown
      }
      void draw(changes.doc, text.replaceAll('\r', ' '), marks.finish())
      return stops.length
    },
    goTo(at) {
      const place = stops[at]
      if (place === undefined) return
      view.dispatch({ selection: { anchor: place }, effects: EditorView.scrollIntoView(place, { y: 'center' }) })
    },
    film(doc) {
      return new CodeProjector(doc.getText(root), view, (text) => void draw(doc, text, Decoration.none))
    },
    destroy: () => view.destroy(),
  }
}
