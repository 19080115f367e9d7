/** The page: one document, named in the address. Everything of use elsewhere is in the modules. */
import '@fontsource-variable/inter/wght.css'
import './style.css'
import './editor.css'
import { documentName, roomName, serverUrl, shareUrl } from './address'
import { connect } from './connect'
import { createEditor } from './editor'
import { copyOnClick } from './page/copy'
import { byId } from './page/dom'
import { showPeople } from './page/people'
import { showStatus } from './page/status'
import { Presence } from './presence'

const name = documentName()
document.title = `${name} · collab`
byId('title', HTMLElement).textContent = name

const connection = connect(serverUrl(), roomName(name))
const { awareness } = connection.provider
const presence = new Presence(awareness)
// The name of the root type is the one that the y-codemirror.next demos use.
const text = connection.doc.getText('codemirror')
const editor = createEditor(byId('text', HTMLElement), text, awareness, `Text of ${name}`)

showPeople(presence, connection)
showStatus(connection, () => text.toString())
copyOnClick(byId('share', HTMLButtonElement), () => shareUrl(name))
connection.onStatus(({ state }) => {
  if (state === 'connected') editor.invite('Write something. Everybody with the link sees it as you type.')
  if (state === 'refused') editor.freeze()
})
