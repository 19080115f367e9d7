/** Markdown for CodeMirror: the language, and Enter and Backspace that know its lists. */
import { deleteMarkupBackward, insertNewlineContinueMarkup, markdownLanguage } from '@codemirror/lang-markdown'
import { Prec, type Extension } from '@codemirror/state'
import { keymap } from '@codemirror/view'

export const markdown: Extension = [
  markdownLanguage,
  Prec.high(
    keymap.of([
      { key: 'Enter', run: insertNewlineContinueMarkup },
      { key: 'Backspace', run: deleteMarkupBackward },
    ]),
  ),
]
