/**
 * The way to the inside of the document, on the admin page. It is for developers: on a server that asks nobody who he
 * is, everybody is an admin.
 */
import { pageUrl } from '../lib/address'
import { listDocuments } from '../lib/api'
import { isUp } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { getToken } from '../lib/token'
import { h, icon } from './dom'

/** Milliseconds for which the page has better things to do than to ask. */
const LATER = 3000

export function inspectLink({ name, connection }: OpenDocument): HTMLAnchorElement {
  const link = h('a', { class: 'icon-button wide-only', id: 'inspect', href: pageUrl(name, 'admin'), 'aria-label': 'Inspect', title: 'Inspect', hidden: true }, icon('inspect'))
  let stop = (): void => undefined
  let asking = false
  async function ask(): Promise<void> {
    asking = false
    try {
      const found = (await listDocuments({ prefix: name, limit: 1 })).documents[0]
      // One that nobody has written in is not there yet: it is asked again after the next change of the status.
      if (found?.name !== name) return
      link.hidden = found.access !== 'admin'
      stop()
    } catch {
      // Without an answer there is no link.
    }
  }
  stop = connection.status.subscribe((status) => {
    if (asking || !isUp(status) || getToken()) return
    asking = true
    setTimeout(() => void ask(), LATER)
  })
  return link
}
