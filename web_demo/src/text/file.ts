/** A rich text as a file that every browser opens, and from which all of it can be copied back: headings, tables, images. */
import { getHTMLFromFragment } from '@tiptap/core'
import type { Schema } from '@tiptap/pm/model'
import { yXmlFragmentToProseMirrorRootNode } from '@tiptap/y-tiptap'
import type * as Y from 'yjs'
import type { FileContent } from '../shell/old-copies'
import { ROOT } from './extensions'

export function htmlFile(doc: Y.Doc, title: string, schema: Schema): FileContent {
  const page = document.implementation.createHTMLDocument(title)
  page.head.insertAdjacentHTML('afterbegin', '<meta charset="utf-8">')
  page.body.innerHTML = getHTMLFromFragment(yXmlFragmentToProseMirrorRootNode(doc.getXmlFragment(ROOT), schema).content, schema)
  return { ending: 'html', type: 'text/html', text: `<!doctype html>\n${page.documentElement.outerHTML}\n` }
}
