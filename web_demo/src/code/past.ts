/** Code as it was: a CodeMirror of its own that nothing is bound to, for reading. */
import { EditorState, type Extension, RangeSetBuilder } from '@codemirror/state'
import { Decoration, type DecorationSet, EditorView, lineNumbers } from '@codemirror/view'
import type * as Y from 'yjs'
import { textOf } from '../history/changes'
import type { Viewer } from '../history/viewer'
import { colours } from './editor'
import { languageName, LANGUAGES } from './languages'

/** Open a viewer for the text in the root `root`. */
export function openCodeViewer(place: HTMLElement, root: string): Viewer {
  const view = new EditorView({ parent: place })
  let stops: number[] = []
  let drawn = 0

  /** Show `text`, in its language as soon as that is loaded. */
  async function draw(doc: Y.Doc, text: string, marks: DecorationSet): Promise<void> {
    const mine = (drawn += 1)
    const set = (language: Extension): void => {
      const extensions = [
        EditorView.decorations.of(marks),
        lineNumbers(),
        colours,
        EditorView.lineWrapping,
        EditorState.readOnly.of(true),
        EditorView.editable.of(false),
        EditorView.contentAttributes.of({ 'aria-label': 'Code as it was', tabindex: '0' }),
        language,
      ]
      view.setState(EditorState.create({ doc: text, extensions }))
    }
    set([])
    const language = await LANGUAGES[languageName(doc.getMap('meta').get('language'))]!.load()
    if (mine === drawn) set(language)
  }

  return {
    show(doc) {
      void draw(doc, doc.getText(root).toString(), Decoration.none)
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
          const attributes = { style: `--who: ${authors.of(change).color}`, title: authors.describe(change), role: change.kind === 'added' ? 'insertion' : 'deletion' }
          marks.add(text.length, last, Decoration.mark({ class: `change ${change.kind}`, attributes }))
        }
        text += shown
      }
      // CodeMirror knows one kind of line break, and places must stay what they are.
      void draw(changes.doc, text.replaceAll('\r', ' '), marks.finish())
      return stops.length
    },
    goTo(at) {
      const place = stops[at]
      if (place === undefined) return
      view.dispatch({ selection: { anchor: place }, effects: EditorView.scrollIntoView(place, { y: 'center' }) })
    },
    destroy: () => view.destroy(),
  }
}
