/**
 * A CodeMirror 6 editor bound to a Y.Text.
 *
 * y-codemirror.next moves the text and gives an undo that takes back one's own changes only; the look is in
 * code.css, so nothing here knows a colour.
 */
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from '@codemirror/autocomplete'
import { defaultKeymap, indentLess, indentMore } from '@codemirror/commands'
import { bracketMatching, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting } from '@codemirror/language'
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search'
import { Compartment, EditorState, type Extension } from '@codemirror/state'
import { type Command, dropCursor, EditorView, highlightActiveLine, highlightSpecialChars, type KeyBinding, keymap, lineNumbers, placeholder } from '@codemirror/view'
import { tagHighlighter, tags } from '@lezer/highlight'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import type { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { remoteCursors } from './cursors'

const classes = tagHighlighter([
  { tag: tags.heading1, class: 'tok-heading tok-heading1' },
  { tag: tags.heading2, class: 'tok-heading tok-heading2' },
  { tag: [tags.heading3, tags.heading4, tags.heading5, tags.heading6], class: 'tok-heading' },
  { tag: tags.strong, class: 'tok-strong' },
  { tag: tags.emphasis, class: 'tok-emphasis' },
  { tag: tags.strikethrough, class: 'tok-strike' },
  { tag: [tags.link, tags.url], class: 'tok-link' },
  { tag: tags.monospace, class: 'tok-code' },
  { tag: tags.quote, class: 'tok-quote' },
  { tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName, tags.meta], class: 'tok-mark' },
  { tag: tags.comment, class: 'tok-comment' },
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword], class: 'tok-keyword' },
  { tag: [tags.string, tags.regexp, tags.special(tags.string)], class: 'tok-string' },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], class: 'tok-number' },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName)], class: 'tok-function' },
  { tag: [tags.typeName, tags.className, tags.tagName, tags.namespace], class: 'tok-type' },
  { tag: [tags.propertyName, tags.attributeName], class: 'tok-property' },
])

/** Code in colours; which they are stands in code.css. */
export const colours = syntaxHighlighting(classes)

export interface CodeEditor {
  readonly view: EditorView
  setReadOnly(readOnly: boolean): void
  setLanguage(language: Extension): void
  /** Forget all that undo could bring back. */
  forgetUndo(): void
}

/**
 * Let Tab indent, and lead out of the editor when it follows Escape: there must be a way without a mouse. CodeMirror has
 * that by itself for two seconds, unless Escape only took back a selection; here there is no hurry.
 */
function tabIndents(): { keys: KeyBinding[]; extension: Extension } {
  let leaving = false
  const unless = (command: Command): Command => (view) => !leaving && command(view)
  return {
    keys: [
      { key: 'Escape', run: () => ((leaving = true), false) },
      { key: 'Tab', run: unless(indentMore), shift: unless(indentLess) },
    ],
    extension: EditorView.domEventObservers({
      keydown: ({ key }) => void (leaving &&= ['Escape', 'Shift', 'Tab'].includes(key)),
      mousedown: () => void (leaving = false),
      blur: () => void (leaving = false),
    }),
  }
}

/**
 * Put an editor for `text` into `parent`; `label` names it to screen readers. The page must say in an element with the
 * ID `way-out` how to leave it by the keyboard.
 */
export function createEditor(parent: HTMLElement, text: Y.Text, awareness: Awareness, label: string): CodeEditor {
  const access = new Compartment()
  const language = new Compartment()
  const tab = tabIndents()
  const undoManager = new Y.UndoManager(text)
  const view = new EditorView({
    parent,
    state: EditorState.create({
      doc: text.toString(),
      extensions: [
        yCollab(text, null, { undoManager }),
        remoteCursors(text, awareness),
        language.of([]),
        access.of([]),
        lineNumbers(),
        foldGutter(),
        highlightActiveLine(),
        highlightSpecialChars(),
        highlightSelectionMatches(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        autocompletion(),
        dropCursor(),
        colours,
        EditorView.lineWrapping,
        placeholder('Write something. Everybody with the link sees it as you type.'),
        EditorView.contentAttributes.of({ id: 'editor', 'aria-label': label, 'aria-describedby': 'way-out' }),
        tab.extension,
        keymap.of([...yUndoManagerKeymap, ...closeBracketsKeymap, ...completionKeymap, ...searchKeymap, ...foldKeymap, ...tab.keys, ...defaultKeymap]),
      ],
    }),
  })
  return {
    view,
    setReadOnly(readOnly) {
      view.dispatch({ effects: access.reconfigure(readOnly ? [EditorState.readOnly.of(true), EditorView.editable.of(false)] : []) })
    },
    forgetUndo: () => undoManager.clear(),
    setLanguage(extension) {
      view.dispatch({ effects: language.reconfigure(extension) })
    },
  }
}
