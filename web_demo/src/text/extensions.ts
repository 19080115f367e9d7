/** What a rich text may hold: the schema is the agreement of all who edit, so every client has the same. */
import type { Extensions } from '@tiptap/core'
import Collaboration from '@tiptap/extension-collaboration'
import { TaskItem, TaskList } from '@tiptap/extension-list'
import { TableKit } from '@tiptap/extension-table'
import { Placeholder } from '@tiptap/extensions'
import StarterKit from '@tiptap/starter-kit'
import type * as Y from 'yjs'
import { TextDirections } from './direction'
import { BoundedImage } from './image'

/** The root type, Tiptap's usual one. */
export const ROOT = 'default'

/** What there may be in a text: paragraphs, lists, tables, images, and how words look. */
export function nodes(): Extensions {
  return [
    StarterKit.configure({
      // Undo is Yjs's: it takes back one's own changes only.
      undoRedo: false,
      // Everybody who opens the document would add the paragraph.
      trailingNode: false,
      // The arrow keys lead out of a block of code, and Tab goes on from there.
      codeBlock: { enableTabIndentation: true, tabSize: 2 },
      link: { openOnClick: false, defaultProtocol: 'https', HTMLAttributes: { rel: 'noopener noreferrer', target: '_blank' } },
    }),
    TaskList,
    TaskItem.configure({ nested: true }),
    TableKit.configure({ table: { resizable: false } }),
    BoundedImage,
  ]
}

/** The extensions for a text that lives in `doc`, in `ROOT`. */
export function richText(doc: Y.Doc): Extensions {
  return [
    ...nodes(),
    TextDirections,
    Placeholder.configure({ placeholder: 'Write something. Everybody with the link sees it as you type.' }),
    Collaboration.configure({ document: doc, field: ROOT }),
  ]
}
