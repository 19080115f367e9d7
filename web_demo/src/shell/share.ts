/** Sharing: a link to the document and, where the server makes them, links for guests (`guests.ts`). */
import { guestLinkSeconds } from '../lib/api'
import { pageUrl } from '../lib/address'
import { isUp } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { getToken } from '../lib/token'
import { copyLink } from './copy'
import { h, icon } from './dom'

/** Make the button, and the menu that it opens where there is something to choose. */
export function shareMenu(opened: OpenDocument): HTMLElement[] {
  const plain = (): Promise<void> => copyLink(pageUrl(opened.name), 'Link copied')
  // Phones show the icon alone.
  const button = h('button', { type: 'button', class: 'button share', id: 'share', 'aria-label': 'Share' }, icon('share'), h('span', {}, 'Share'))
  button.addEventListener('click', () => {
    if (!button.hasAttribute('popovertarget')) void plain()
  })
  const menu = h('div', { id: 'share-menu', class: 'menu sharing', popover: 'auto', role: 'dialog', 'aria-label': 'Share' })

  let longest: number | undefined
  opened.connection.status.subscribe(async (status) => {
    if (longest === undefined && getToken() && isUp(status)) {
      longest = 0
      try {
        const seconds = await guestLinkSeconds(opened.name)
        if (seconds) {
          const { choices } = await import('./guests')
          menu.replaceChildren(...choices(opened, seconds, plain, () => menu.hidePopover()))
        }
        // A reader is asked about again if he becomes a writer.
        longest = seconds || status.state !== 'read-only' ? seconds : undefined
      } catch {
        longest = undefined // cut off meanwhile: asked again when it is back
      }
    }
    // Who may only read can let nobody in.
    if (longest && opened.connection.status.value.state !== 'read-only') button.setAttribute('popovertarget', menu.id)
    else button.removeAttribute('popovertarget')
  })
  return [button, menu]
}
