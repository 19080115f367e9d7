/** The line that says how it stands, and the notice under the bar when the server has refused. */
import { type Connect, isUp, meaning, type Status, way, words } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { getToken, setToken } from '../lib/token'
import { copy } from './copy'
import { h } from './dom'
import { toast } from './toast'

/** Milliseconds for which "saving" stays at least, so that the line does not flicker with every key. */
const CALM = 350

/** Make the status line. It may say "saving" a little too long, and never "saved" too early. */
export function statusLine({ connection, kept }: OpenDocument, spoken: HTMLElement): HTMLElement {
  const label = h('button', { type: 'button', class: 'words', popovertarget: 'meaning' })
  const explained = h('span', { class: 'menu meaning', id: 'meaning', popover: 'auto' })
  const line = h('p', { class: 'status', id: 'status' }, h('span', { class: 'mark', 'aria-hidden': 'true' }), label, explained)
  let timer: number | undefined
  let wasUp: boolean | undefined
  let lastWay = ''

  const show = (status: Status): void => {
    line.dataset['state'] = status.state
    line.dataset['kept'] = kept.value
    label.textContent = status.state === 'refused' && !status.deleted ? 'Refused' : words(status, kept.value)
    const by = way(status)
    if (by) label.append(' ', h('span', { class: 'way' }, by))
    label.title = explained.textContent = meaning(status, kept.value)
    // Each key saved is not worth a word to who listens; a lost connection, a new one and another way are.
    const up = isUp(status)
    if (!up || wasUp === false || by !== lastWay) spoken.textContent = `${words(status, kept.value)} ${by}`.trim()
    if (up) lastWay = by
    if (status.state !== 'connecting') wasUp = up
  }
  connection.status.subscribe((status) => {
    clearTimeout(timer)
    if (status.state === 'saved' && line.dataset['state'] === 'saving') timer = window.setTimeout(show, CALM, status)
    else show(status)
  })
  kept.subscribe((value) => {
    line.dataset['kept'] = value
  })

  addEventListener('beforeunload', (event) => {
    const { state } = connection.status.value
    if (state !== 'saved' && state !== 'read-only' && kept.value !== 'yes' && edited) event.preventDefault()
  })
  let edited = false
  connection.awareness.doc.on('afterTransaction', ({ local, changed }) => {
    if (local && changed.size > 0) edited = true
  })
  return line
}

function headline({ why, token, deleted }: Status & { state: 'refused' }): string {
  if (deleted) return 'This document was deleted. '
  if (token && !getToken()) return 'This document needs a token. '
  if (token && /expired/.test(why)) return 'Your access has run out. Show a new token to go on: what you have written is still here. '
  return 'The server has refused this document. '
}

/** Make the notice for a refusal: why, a field for a token if that may help, and ways to keep the content. */
export function refusal(opened: OpenDocument, connect: Connect, content: () => string): HTMLElement {
  const { connection } = opened
  const notice = h('section', { class: 'notice', role: 'alert', id: 'refused', hidden: true })
  connection.status.subscribe((status) => {
    notice.hidden = status.state !== 'refused'
    if (status.state !== 'refused') return notice.replaceChildren()
    const field = h('input', { name: 'token', required: true, autocomplete: 'off', spellcheck: 'false', 'aria-label': 'Token', placeholder: 'Paste a token' })
    const form = h(
      'form',
      {
        onsubmit: (event: Event) => {
          event.preventDefault()
          setToken(field.value.trim())
          connection.retry()
        },
      },
      field,
      h('button', { class: 'button' }, 'Open'),
    )
    // Few will ever need them.
    const waysOn = h('div', { class: 'ways-on' })
    if (status.deleted) void import('./deleted').then((ways) => waysOn.replaceChildren(...ways.waysOn(opened, connect)))
    const text = content()
    const rescue = h(
      'button',
      {
        type: 'button',
        class: 'button quiet',
        id: 'rescue',
        onclick: async () => void toast((await copy(text)) ? 'Copied' : 'This browser does not allow copying'),
      },
      'Copy the content',
    )
    notice.replaceChildren(
      h(
        'p',
        {},
        h('strong', {}, headline(status)),
        status.deleted ? 'What you see is the copy in this browser.' : `The answer was: ${status.why}.`,
      ),
      ...(status.deleted ? [waysOn] : []),
      ...(status.token ? [form] : []),
      ...(text ? [rescue] : []),
    )
  })
  return notice
}
