/**
 * Sharing: a link to the document, and where the server makes them (`api/shares`), links for guests.
 *
 * The plain link gives nobody anything: who follows it needs a token of their own, where the server asks for one.
 * A guest's link carries one for this document, behind the `#`, which is sent to no server.
 */
import { guestLinkSeconds, makeGuestLink } from '../lib/api'
import { pageUrl } from '../lib/address'
import { isUp } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { getToken } from '../lib/token'
import { copy } from './copy'
import { h, icon } from './dom'
import { toast } from './toast'

const HOUR = 3600
const LIVES: readonly [label: string, seconds: number][] = [
  ['for an hour', HOUR],
  ['for a day', 24 * HOUR],
  ['for a week', 7 * 24 * HOUR],
  ['for 30 days', 30 * 24 * HOUR],
]
const USUAL = 7 * 24 * HOUR

async function hand(link: string, done: string): Promise<void> {
  toast((await copy(link)) ? done : link)
}

/** Make the button, and the menu that it opens where there is something to choose. */
export function shareMenu(opened: OpenDocument): HTMLElement[] {
  const { name, connection } = opened
  const plain = (): Promise<void> => hand(pageUrl(name), 'Link copied')
  // Phones show the icon alone.
  const button = h('button', { type: 'button', class: 'button share', id: 'share', 'aria-label': 'Share' }, icon('share'), h('span', {}, 'Share'))
  button.addEventListener('click', () => {
    if (!button.hasAttribute('popovertarget')) void plain()
  })
  const menu = h('div', { id: 'share-menu', class: 'menu sharing', popover: 'auto', role: 'dialog', 'aria-label': 'Share' })

  let longest: number | undefined
  connection.status.subscribe(async (status) => {
    if (longest === undefined && getToken() && isUp(status)) {
      longest = 0
      try {
        longest = await guestLinkSeconds()
        if (longest) menu.replaceChildren(...choices(opened, longest, plain, () => menu.hidePopover()))
      } catch {
        longest = undefined // cut off meanwhile: asked again when it is back
      }
    }
    // Who may only read can let nobody in.
    button.toggleAttribute('popovertarget', false)
    if (longest && connection.status.value.state !== 'read-only') button.setAttribute('popovertarget', menu.id)
  })
  return [button, menu]
}

function choices({ name, doc, meta, title }: OpenDocument, longest: number, plain: () => Promise<void>, close: () => void): HTMLElement[] {
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
          await hand(`${pageUrl(name)}#token=${token}`, `Link copied. It opens the document until ${until}.`)
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
