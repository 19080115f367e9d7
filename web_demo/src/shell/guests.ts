/**
 * Links for guests (`api/v1/shares`), for servers whose users need tokens.
 *
 * The plain link gives nobody anything: who follows it needs a token of their own. A guest's link carries one for
 * this document, behind the `#`, which is sent to no server.
 */
import { makeGuestLink } from '../lib/api'
import { pageUrl } from '../lib/address'
import type { OpenDocument } from '../lib/document'
import { copyLink } from './copy'
import { h } from './dom'
import { toast } from './toast'

const HOUR = 3600
const LIVES: readonly [label: string, seconds: number][] = [
  ['for an hour', HOUR],
  ['for a day', 24 * HOUR],
  ['for a week', 7 * 24 * HOUR],
  ['for 30 days', 30 * 24 * HOUR],
]
const USUAL = 7 * 24 * HOUR

/** Make what the menu offers where a link may last `longest` seconds. */
export function choices({ name, doc, meta, title }: OpenDocument, longest: number, plain: () => Promise<void>, close: () => void): HTMLElement[] {
  const lives = LIVES.filter(([, seconds]) => seconds <= longest)
  // A server may allow less than an hour.
  if (lives.length === 0) lives.push([`for ${Math.max(1, Math.round(longest / 60))} minutes`, longest])
  const access = h('select', { name: 'access', 'aria-label': 'What guests may do' }, h('option', { value: 'read' }, 'can only read'), h('option', { value: 'write' }, 'can edit'))
  const life = h(
    'select',
    { name: 'life', 'aria-label': 'For how long' },
    ...lives.map(([label, seconds]) => h('option', { value: String(seconds), selected: seconds === Math.min(USUAL, lives.at(-1)![1]) }, label)),
  )
  const guests = h(
    'form',
    {
      onsubmit: async (event: Event) => {
        event.preventDefault()
        // What nobody has written is not there yet, and a reader could not open it.
        if (doc.store.clients.size === 0) meta.set('title', title.value)
        try {
          const { token, expires } = await makeGuestLink(name, access.value as 'read' | 'write', Number(life.value))
          const until = new Date(expires).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
          await copyLink(`${pageUrl(name)}#token=${token}`, `Link copied. It opens the document until ${until}.`)
          close()
        } catch (error) {
          toast(`No link: ${error instanceof Error ? error.message : String(error)}`)
        }
      },
    },
    h('div', { class: 'choices' }, access, life),
    h('button', { class: 'button' }, 'Copy guest link'),
  )
  return [
    h('h2', { class: 'menu-title' }, 'With people who can sign in'),
    h('button', { type: 'button', class: 'button quiet', onclick: () => void plain().then(close) }, 'Copy link'),
    h('p', { class: 'hint' }, 'It opens what their own sign-in allows.'),
    h('h2', { class: 'menu-title' }, 'With guests'),
    guests,
    h('p', { class: 'hint' }, 'Whoever has this link needs no sign-in. It cannot be taken back before its time.'),
  ]
}
