/** Each line of prose is set in the direction of its own text; code is left-to-right whatever stands in it. */
import { type Extension, RangeSetBuilder } from '@codemirror/state'
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate } from '@codemirror/view'
import { directionOf } from '../lib/direction'

const rightToLeft = Decoration.line({ attributes: { dir: 'rtl' } })

function draw({ state, visibleRanges }: EditorView): DecorationSet {
  const lines = new RangeSetBuilder<Decoration>()
  for (const { from, to } of visibleRanges) {
    for (let at = from; at <= to; ) {
      const line = state.doc.lineAt(at)
      if (directionOf(line.text) === 'rtl') lines.add(line.from, line.from, rightToLeft)
      at = line.to + 1
    }
  }
  return lines.finish()
}

export const lineDirections: Extension = [
  EditorView.perLineTextDirection.of(true),
  ViewPlugin.define(
    (view) => ({
      lines: draw(view),
      update({ docChanged, viewportChanged, view }: ViewUpdate) {
        if (docChanged || viewportChanged) this.lines = draw(view)
      },
    }),
    { decorations: ({ lines }) => lines },
  ),
]
