/**
 * A CodeMirror 6 editor for Markdown, bound to a Y.Text.
 *
 * y-codemirror.next moves the text and gives an undo that takes back one's own changes only;
 * the look is in editor.css, so nothing here knows a colour.
 */
import { defaultKeymap } from '@codemirror/commands'
import { insertNewlineContinueMarkup, deleteMarkupBackward, markdownLanguage } from '@codemirror/lang-markdown'
import { syntaxHighlighting } from '@codemirror/language'
import { Compartment, EditorState, Prec } from '@codemirror/state'
import { EditorView, highlightSpecialChars, keymap, placeholder } from '@codemirror/view'
import { tagHighlighter, tags } from '@lezer/highlight'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { remoteCursors } from './cursors'

const markdownClasses = tagHighlighter([
  { tag: tags.heading1, class: 'md-h md-h1' },
  { tag: tags.heading2, class: 'md-h md-h2' },
  { tag: tags.heading3, class: 'md-h md-h3' },
  { tag: [tags.heading4, tags.heading5, tags.heading6], class: 'md-h' },
  { tag: tags.strong, class: 'md-strong' },
  { tag: tags.emphasis, class: 'md-emphasis' },
  { tag: tags.strikethrough, class: 'md-strike' },
  { tag: tags.link, class: 'md-link' },
  { tag: tags.url, class: 'md-url' },
  { tag: tags.monospace, class: 'md-code' },
  { tag: tags.quote, class: 'md-quote' },
  { tag: [tags.processingInstruction, tags.contentSeparator], class: 'md-mark' },
  { tag: tags.labelName, class: 'md-mark' },
])

export interface Editor {
  readonly view: EditorView
  /** Let the text be read and copied, but not changed. */
  freeze(): void
  /** Replace the words that stand in an empty document. */
  invite(words: string): void
}

/** Put an editor for `text` into `parent`; `label` names it to screen readers. */
export function createEditor(parent: HTMLElement, text: Y.Text, awareness: Awareness, label: string): Editor {
  const access = new Compartment()
  const invitation = new Compartment()
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        yCollab(text, null),
        remoteCursors(text, awareness),
        markdownLanguage,
        syntaxHighlighting(markdownClasses),
        EditorView.lineWrapping,
        highlightSpecialChars(),
        access.of([]),
        invitation.of([]),
        EditorView.contentAttributes.of({
          id: 'editor',
          'aria-label': label,
          spellcheck: 'true',
          autocorrect: 'on',
          autocapitalize: 'sentences',
        }),
        // Tab is left alone on purpose: it must lead out of the editor for those without a mouse.
        Prec.high(
          keymap.of([
            { key: 'Enter', run: insertNewlineContinueMarkup },
            { key: 'Backspace', run: deleteMarkupBackward },
          ]),
        ),
        keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
      ],
    }),
  })
  return {
    view,
    freeze() {
      const extensions = [EditorState.readOnly.of(true), EditorView.editable.of(false)]
      view.dispatch({ effects: access.reconfigure(extensions) })
    },
    invite(words) {
      view.dispatch({ effects: invitation.reconfigure(placeholder(words)) })
    },
  }
}
