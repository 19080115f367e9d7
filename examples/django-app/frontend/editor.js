// The editor of a note: CodeMirror on a Yjs text, over the provider of Hocuspocus.
// There is no token: the browser sends Django's session cookie along.
import { HocuspocusProvider } from '@hocuspocus/provider'
import { Compartment, EditorState } from '@codemirror/state'
import { EditorView, keymap } from '@codemirror/view'
import { defaultKeymap } from '@codemirror/commands'
import { yCollab, yUndoManagerKeymap } from 'y-codemirror.next'
import * as Y from 'yjs'

const page = JSON.parse(document.getElementById('page').textContent)
const status = document.getElementById('status')
const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
const ydoc = new Y.Doc()
const text = ydoc.getText('text')
const mayWrite = new Compartment()
let scope = 'readonly'
let refused = ''

const provider = new HocuspocusProvider({
  url: `${scheme}://${location.hostname}:${page.port}/hocuspocus`,
  name: page.document,
  document: ydoc,
  onAuthenticated: event => { scope = event.scope; refused = ''; show() },
  onAuthenticationFailed: ({ reason }) => { scope = 'readonly'; refused = reason; show() },
  onStatus: () => show(),
  onSynced: () => show(),
  onUnsyncedChanges: () => show()
})
provider.setAwarenessField('user', page.user)

const view = new EditorView({
  parent: document.getElementById('editor'),
  state: EditorState.create({
    doc: text.toString(),
    extensions: [
      EditorView.lineWrapping,
      keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
      yCollab(text, provider.awareness),
      mayWrite.of(EditorView.editable.of(false))
    ]
  })
})

function show () {
  const writes = scope === 'read-write'
  if (view.contentDOM.isContentEditable !== writes) {
    view.dispatch({ effects: mayWrite.reconfigure(EditorView.editable.of(writes)) })
  }
  status.textContent = refused || (!provider.synced ? 'Connecting' : !writes ? 'You may read' : provider.hasUnsyncedChanges ? 'Saving' : 'Saved')
}
