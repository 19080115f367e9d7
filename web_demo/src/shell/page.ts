/**
 * The frame around an editor: bar, status, people, title, sharing. A page opens its document with it and
 * puts its editor into `main` and its buttons into `tools`:
 *
 *     const page = await openPage(name, withFallback(connectHocuspocus))
 *     const editor = new Editor({ element: page.main, … page.doc, page.connection.awareness … })
 *     page.onReadOnly((readOnly) => editor.setEditable(!readOnly))
 */
import { pageUrl, takeNewMark } from '../lib/address'
import type { Connect, Status } from '../lib/connection'
import { openDocument, type OpenDocument } from '../lib/document'
import type { OpenViewer } from '../history/viewer'
import { h, icon } from './dom'
import { historyButton } from './history-button'
import { inspectLink } from './inspect-link'
import { oldCopies, type Saving } from './old-copies'
import { followBanner, peopleMenu } from './people'
import { shareMenu } from './share'
import { refusal, statusLine } from './status'
import { themeButton } from './theme'
import { titleField } from './title'
import { placeForToasts } from './toast'

export interface Page extends OpenDocument {
  /** Where the editor goes. */
  readonly main: HTMLElement
  /** Whether the document was made a moment ago, to be written into: its editor takes the focus. */
  readonly isNew: boolean
  /** A row for the editor's own buttons; hidden as long as it is empty. */
  readonly tools: HTMLElement
  /** Call `listener` now and whenever editing is allowed or forbidden. */
  onReadOnly(listener: (readOnly: boolean) => void): void
  /** Call `listener` whenever the document was reset: what the editor could undo must not come back. */
  onReset(listener: () => void): void
}

/** Side by side in `/split`: the frame is the other page's business, and so is the plug. */
const embedded = parent !== window

export interface PageOptions {
  /** The content as text, for who wants to keep it after a refusal. */
  content?: (document: OpenDocument) => string
  /** How a copy from before a reset is saved. */
  saving: Saving
  /** Load what shows a state of the past. */
  viewer: () => Promise<OpenViewer>
}

/** Open the document `name` and build the page around it. */
export async function openPage(name: string, connect: Connect, options: PageOptions): Promise<Page> {
  const as = new URL(location.href).searchParams.get('as') ?? undefined
  const opened = await openDocument(name, connect, as)

  const resets = new Set<() => void>()
  const spoken = h('p', { class: 'spoken', role: 'log', 'aria-live': 'polite', id: 'spoken' })
  const main = h('main', { id: 'main', class: 'main' })
  const tools = h('div', { class: 'tools' })
  const title = titleField(opened)
  const heading = h('h1', { class: 'spoken' })
  opened.title.subscribe((text) => (heading.textContent = text))
  const brand = h('a', { class: 'brand', href: './', 'aria-label': 'All documents', title: 'All documents' }, h('img', { src: './favicon.svg', alt: '', width: '28', height: '28' }))
  const split = h('a', { class: 'icon-button wide-only', href: pageUrl(name, 'split'), 'aria-label': 'Two windows side by side', title: 'Two windows side by side' }, icon('split'))

  document.body.classList.toggle('embedded', embedded)
  document.body.replaceChildren(
    h('a', { class: 'skip', href: '#main' }, 'Skip to the document'),
    h(
      'header',
      { class: 'bar' },
      ...(embedded ? [] : [brand]),
      h('div', { class: 'title-box' }, heading, title),
      statusLine(opened, spoken),
      h('div', { class: 'actions' }, ...peopleMenu(opened, spoken), ...(embedded ? [] : [historyButton(opened, options.viewer), inspectLink(opened), split, themeButton(), ...shareMenu(opened)])),
    ),
    refusal(opened, connect, () => options.content?.(opened) ?? ''),
    oldCopies(opened, options.saving, () => resets.forEach((listener) => listener())),
    tools,
    main,
    followBanner(opened, main),
    placeForToasts(),
    spoken,
  )

  let company = false
  opened.presence.people.subscribe((people) => {
    // Whoever is alone has no names to look at.
    if (company || !people.some(({ self, clients }) => !self || clients.length > 1)) return
    company = true
    // Without a network it is loaded at the next change.
    import('./caret-names').then(({ spreadNames }) => spreadNames(main, tools), () => (company = false))
  })
  if (embedded) {
    addEventListener('message', ({ origin, source, data }) => {
      if (origin === location.origin && source === parent && typeof data?.online === 'boolean') opened.connection.setOnline(data.online)
    })
    // Tells the other page that it is heard, too.
    opened.title.subscribe((title) => parent.postMessage({ title }, location.origin))
  }

  const forbids = ({ state }: Status): boolean => state === 'refused' || state === 'read-only'
  const page: Page = {
    ...opened,
    isNew: takeNewMark(),
    main,
    tools,
    onReset: (listener) => void resets.add(listener),
    onReadOnly(listener) {
      let last: boolean | undefined
      opened.connection.status.subscribe((status) => {
        // A connection that is down says nothing about permission: what held before holds on.
        const next = forbids(status) || (last === true && status.state !== 'saved' && status.state !== 'saving')
        if (next !== last) listener((last = next))
      })
    },
  }
  page.onReadOnly((readOnly) => {
    title.readOnly = readOnly
  })
  return page
}
