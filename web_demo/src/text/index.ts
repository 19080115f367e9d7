/** Rich text: Tiptap on the Yjs document, with everybody's carets. */
import { Editor, Extension, getSchema, Mark } from '@tiptap/core'
import { DOMSerializer, Node } from '@tiptap/pm/model'
import { yUndoPluginKey } from '@tiptap/y-tiptap'
import { withFallback } from '../lib/fallback'
import { connectHocuspocus } from '../lib/hocuspocus'
import { openPage } from '../shell/page'
import { carets, showFollowed } from './carets'
import { nodes, richText, ROOT } from './extensions'
import { htmlFile } from './file'
import './text.css'
import { toolbar } from './toolbar'

export async function openText(name: string): Promise<void> {
  const page = await openPage(name, withFallback(connectHocuspocus), {
    content: () => editor.getText(),
    viewer: async () => {
      const { openTextViewer } = await import('./past')
      const tools = { Extension, getSchema, Mark, DOMSerializer, Node, nodes: nodes(), root: ROOT }
      return (place) => openTextViewer(place, tools)
    },
    saving: {
      // Empty paragraphs are nothing to see.
      shows: (doc) => doc.getXmlFragment(ROOT).toString().replaceAll(/<paragraph[^>]*><\/paragraph>/g, ''),
      file: (doc, title) => htmlFile(doc, title, editor.schema),
    },
  })
  const { doc, connection, presence } = page

  const editor = new Editor({
    element: page.main,
    extensions: [...richText(doc), carets(connection.awareness, presence)],
    editorProps: { attributes: { id: 'editor', class: 'paper prose', 'aria-label': 'Text', role: 'textbox', 'aria-multiline': 'true' } },
  })

  page.tools.append(...toolbar(editor))
  page.onReadOnly((readOnly) => {
    editor.setEditable(!readOnly)
    // A row of buttons that do nothing is in the way.
    page.tools.hidden = readOnly
  })
  page.onReset(() => yUndoPluginKey.getState(editor.state)?.undoManager.clear())
  if (page.isNew) editor.view.focus()
  presence.onFollowed((state) => showFollowed(editor, state))
}
