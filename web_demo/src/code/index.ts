/** Code: CodeMirror on a Y.Text, in a language that all share, with a preview for Markdown. */
import { withFallback } from '../lib/fallback'
import { connectYWebsocket } from '../lib/ywebsocket'
import { h } from '../shell/dom'
import { openPage } from '../shell/page'
import './code.css'
import { followCursor } from './cursors'
import { lineDirections } from './direction'
import { createEditor } from './editor'
import { languageName, LANGUAGES } from './languages'
import { type Preview, preview } from './preview'

/** The name of the root type is the one that the y-codemirror.next demos use. */
const ROOT = 'codemirror'

export async function openCode(name: string): Promise<void> {
  const page = await openPage(name, withFallback(connectYWebsocket), {
    content: ({ doc }) => doc.getText(ROOT).toString(),
    viewer: async () => {
      const { openCodeViewer } = await import('./past')
      return (place) => openCodeViewer(place, ROOT)
    },
    saving: {
      shows: (doc) => doc.getText(ROOT).toString(),
      file: (doc) => {
        const markdown = languageName(doc.getMap('meta').get('language')) === 'markdown'
        return { ending: markdown ? 'md' : 'txt', type: markdown ? 'text/markdown' : 'text/plain', text: doc.getText(ROOT).toString() }
      },
    },
  })
  const { doc, meta, connection, presence } = page
  const text = doc.getText(ROOT)

  const desk = h('div', { class: 'desk' })
  page.main.append(desk)
  const editor = createEditor(desk, text, connection.awareness, 'Code')
  page.onReset(() => editor.forgetUndo())
  if (page.isNew) editor.view.focus()
  presence.onFollowed((state) => followCursor(editor.view, text, state))

  const select = h(
    'select',
    { id: 'language', 'aria-label': 'Language', onchange: () => meta.set('language', select.value) },
    ...Object.entries(LANGUAGES).map(([value, { label }]) => h('option', { value }, label)),
  )
  const toggle = h('button', { type: 'button', class: 'button quiet small', id: 'preview-toggle', 'aria-pressed': 'false', onclick: () => showPreview(!shownPreview) }, 'Preview')
  // Nobody without a mouse would find it out.
  const wayOut = h('p', { id: 'way-out', class: 'note way-out' }, 'Tab indents. Esc, then Tab leaves the text.')
  page.tools.append(select, toggle, wayOut)
  page.onReadOnly((readOnly) => {
    editor.setReadOnly(readOnly)
    select.disabled = readOnly
  })

  const pane = h('section', { class: 'preview prose', id: 'preview', 'aria-label': 'Preview', tabindex: '0', hidden: true })
  desk.append(pane)
  let shownPreview: Preview | undefined
  text.observe(() => shownPreview?.refresh())

  function showPreview(show: boolean): void {
    pane.hidden = !show
    toggle.setAttribute('aria-pressed', String(show))
    shownPreview?.stop()
    shownPreview = show ? preview(pane, () => text.toString()) : undefined
  }

  let shown: string | undefined
  const showLanguage = async (): Promise<void> => {
    const language = languageName(meta.get('language'))
    if (language === shown) return
    shown = select.value = language
    toggle.hidden = language !== 'markdown'
    if (toggle.hidden) showPreview(false)
    const prose = language === 'markdown' || language === 'plain'
    editor.view.contentDOM.spellcheck = prose
    desk.classList.toggle('prose-like', prose)
    const extension = await LANGUAGES[language]!.load()
    if (language === shown) editor.setLanguage(prose ? [extension, lineDirections] : extension)
  }
  meta.observe(() => void showLanguage())
  await showLanguage()
  // Beside the text where there is room for both.
  if (shown === 'markdown' && matchMedia('(width >= 64rem)').matches && parent === window) showPreview(true)
}
