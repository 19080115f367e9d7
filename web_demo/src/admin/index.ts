/**
 * The admin page: what the servers do now, what is in a document, and what can be done about it. For admins of all
 * documents alone: anybody else sees a field for a token, and nothing that was shown before stays on the page.
 */
import { documentName } from '../lib/address'
import { ApiError } from '../lib/api'
import { getToken, setToken } from '../lib/token'
import { h, icon, iconButton } from '../shell/dom'
import { themeButton } from '../shell/theme'
import { placeForToasts } from '../shell/toast'
import './admin.css'
import { type Nodes, offered, readNodes } from './api'
import { openAudit } from './audit'
import { openConnections } from './connections'
import { openDocuments } from './documents'
import { moment, plain } from './format'
import { openInspect } from './inspect'
import { openLimits } from './limits'
import { openOverview } from './overview'
import { chip, viewUrl } from './parts'
import { Poll } from './poll'
import { openSearch } from './search'
import { setText } from './table'
import { openTenants } from './tenants'
import type { Admin, Asking, OpenView, View } from './view'
import { openWebhooks } from './webhooks'

interface Tab {
  readonly id: string
  readonly label: string
  readonly open: OpenView
  /** Where a server may have no such thing: it is asked once, and then there is no such tab. */
  readonly path?: string
}

const TABS: readonly Tab[] = [
  { id: 'overview', label: 'Overview', open: openOverview },
  { id: 'documents', label: 'Documents', open: openDocuments },
  { id: 'connections', label: 'Connections', open: openConnections },
  { id: 'webhooks', label: 'Webhooks', open: openWebhooks, path: 'webhooks' },
  { id: 'limits', label: 'Limits', open: openLimits },
  { id: 'audit', label: 'Audit', open: openAudit, path: 'audit' },
  { id: 'tenants', label: 'Tenants', open: openTenants, path: 'tenants' },
]

const PAUSE = 'M9 6v12M15 6v12'
const GO_ON = 'M8 5.500l11 6.500-11 6.500z'
const LEAVE = 'M14 5H6v14h8M10 12h10M17 9l3 3-3 3'

export function openAdmin(): void {
  const main = h('main', { id: 'main', class: 'admin', tabindex: '-1' })
  const spoken = h('p', { class: 'spoken', role: 'status' })
  const words = h('span', { class: 'words' })
  const status = h('p', { class: 'status', id: 'live' }, h('span', { class: 'mark', 'aria-hidden': 'true' }), words)
  const health = chip()
  const healthLink = h('a', { class: 'health', id: 'health', href: viewUrl('overview') }, health.element)
  const pause = iconButton(PAUSE, 'Pause', () => hold(!held), { id: 'pause', 'aria-pressed': 'false' })
  const leave = iconButton(LEAVE, 'Forget the token', () => {
    setToken('')
    gate('The token is forgotten.')
  })
  const field = h('input', { type: 'search', class: 'field', id: 'find', name: 'q', placeholder: 'Name, user or address', 'aria-label': 'Find by name, user or address', spellcheck: 'false', autocapitalize: 'off' })
  const find = h(
    'form',
    {
      class: 'find',
      role: 'search',
      onsubmit: (event: Event) => {
        event.preventDefault()
        if (field.value.trim()) go(viewUrl('search', { q: field.value.trim() }))
      },
    },
    field,
  )
  const tabs = h('nav', { class: 'tabs', 'aria-label': 'Views' })
  const links = new Map<string, HTMLAnchorElement>()
  for (const { id, label, path } of TABS) {
    const link = h('a', { href: viewUrl(id), hidden: path !== undefined }, label)
    links.set(id, link)
    tabs.append(link)
  }
  const tools = [find, healthLink, status, pause, tabs]

  document.body.classList.add('with-admin')
  document.body.replaceChildren(
    h('a', { class: 'skip', href: '#main' }, 'Skip to the content'),
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'brand', href: viewUrl('overview') }, h('img', { src: './favicon.svg', alt: '', width: '28', height: '28' }), 'Admin'),
      find,
      h('div', { class: 'actions' }, healthLink, status, pause, leave, themeButton()),
    ),
    tabs,
    main,
    placeForToasts(),
    spoken,
  )

  let held = false
  let view: View | undefined
  let polls: Poll<never>[] = []
  let listeners: ((nodes: Nodes) => void)[] = []
  let latest: Nodes | undefined
  /** The token that has opened this page; another one has to open it anew. */
  let admitted: string | undefined
  let state = ''

  /** The pulse of the page: nothing is shown before it was answered. */
  const pulse = new Poll<Nodes>({
    ask: readNodes,
    show(nodes) {
      latest = nodes
      if (admitted !== getToken()) admit()
      if (!held) say('saved', `Live ${moment(Date.now() / 1000)}`)
      showHealth(nodes)
      for (const listener of listeners) listener(nodes)
    },
    failed,
  })

  /** Say how it stands; screen readers hear of a change alone, and not of each second. */
  function say(next: 'saved' | 'read-only' | 'offline', text: string, why = ''): void {
    status.dataset['state'] = next
    setText(words, text)
    status.title = why
    if (state !== next) setText(spoken, { saved: state ? 'Live again' : '', 'read-only': 'Paused', offline: `${text}. ${why}` }[next])
    state = next
  }

  function showHealth({ nodes, silent }: Nodes): void {
    const all = nodes.length + silent.length
    const ready = nodes.filter((node) => node.ready).length
    if (ready === all) health.show(all === 1 ? 'Ready' : `${all} ready`, nodes.some((node) => node.degraded) ? 'warn' : 'good', 'All servers are ready')
    else health.show(`${all - ready} of ${all} not ready`, 'bad', 'The overview says why')
  }

  function hold(value: boolean): void {
    held = value
    pause.replaceChildren(icon(held ? GO_ON : PAUSE))
    pause.setAttribute('aria-pressed', String(held))
    if (held) say('read-only', `Paused ${moment(Date.now() / 1000)}`)
    for (const poll of [pulse, ...polls]) poll.held = held
  }

  function close(): void {
    for (const poll of polls) poll.stop()
    polls = []
    listeners = []
    view?.close?.()
    view = undefined
  }

  function admit(): void {
    admitted = getToken()
    leave.hidden = admitted === ''
    for (const element of tools) element.hidden = false
    for (const { id, path } of TABS) {
      if (path === undefined) continue
      const ask = (): Promise<void> => offered(path).then((yes) => void (links.get(id)!.hidden = !yes))
      // Not now, but perhaps in a moment.
      ask().catch(() => setTimeout(() => void ask().catch(() => undefined), 5000))
    }
    route()
  }

  /** Show nothing but a field for a token. */
  function gate(message: string): void {
    pulse.stop()
    close()
    admitted = latest = undefined
    state = ''
    for (const dialog of document.querySelectorAll('dialog')) dialog.close()
    for (const element of [...tools, leave]) element.hidden = true
    document.title = 'Admin · collab'
    const token = h('input', { class: 'field', id: 'token', required: true, autocomplete: 'off', spellcheck: 'false' })
    main.replaceChildren(
      h(
        'form',
        {
          class: 'gate',
          onsubmit: (event: Event) => {
            event.preventDefault()
            setToken(token.value.trim())
            wait()
          },
        },
        h('h1', {}, 'For administrators'),
        h('p', { role: 'alert', id: 'refused' }, message),
        h('p', { class: 'hint' }, 'This page needs a token with “admin” for all documents (*). It is kept for this tab alone.'),
        h('label', { class: 'labelled', for: 'token' }, h('span', {}, 'Token'), token),
        h('button', { class: 'button' }, 'Go on'),
      ),
    )
    token.focus()
  }

  function failed(error: unknown): void {
    if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
      gate(getToken() ? 'The token that was shown does not give access to this page.' : 'This server asks who you are.')
    } else if (admitted === undefined && error instanceof ApiError && error.status === 404) {
      gate('This server has no addresses for administrators: it is older than this page.')
    } else if (error instanceof ApiError) say('offline', 'No answer', plain(error.message))
    else say('offline', 'Not reached', `The server cannot be reached: ${plain((error as Error).message)}. This page tries again by itself.`)
  }

  function wait(): void {
    pulse.stop()
    pulse.start()
  }

  const context = (query: URLSearchParams): Admin => ({
    query,
    poll<T>({ ask, show, interval, patience, failed: own }: Asking<T>): Poll<T> {
      const poll = new Poll<T>({ ask, show, failed: (error) => own?.(error) || failed(error), ...(interval === undefined ? {} : { interval }), ...(patience === undefined ? {} : { patience }) })
      polls.push(poll as unknown as Poll<never>)
      poll.start()
      return poll
    },
    onNodes(listener) {
      listeners.push(listener)
      if (latest) listener(latest)
    },
    offers: (view) => links.get(view)?.hidden === false,
    remember(chosen) {
      const url = new URL(location.href)
      for (const [key, value] of Object.entries(chosen)) {
        if (value) url.searchParams.set(key, value)
        else url.searchParams.delete(key)
      }
      history.replaceState(history.state, '', url)
    },
    go,
  })

  /** Show the view that the address asks for. */
  function route(): void {
    if (admitted === undefined) return
    close()
    if (held) hold(false)
    const query = new URL(location.href).searchParams
    const name = documentName()
    const wanted = query.get('view')
    const tab = TABS.find(({ id }) => id === wanted) ?? TABS[0]!
    const open = wanted === 'search' ? openSearch : tab.open
    for (const [id, link] of links) {
      if (name === null && wanted !== 'search' && id === tab.id) link.setAttribute('aria-current', 'page')
      else link.removeAttribute('aria-current')
    }
    // On a phone there is no room for all of them.
    tabs.querySelector('[aria-current]')?.scrollIntoView({ inline: 'nearest', block: 'nearest' })
    field.value = query.get('q') ?? ''
    view = name === null ? open(context(query)) : openInspect(context(query), name)
    document.title = `${view.title} · Admin · collab`
    main.replaceChildren(view.element)
  }

  function go(url: string): void {
    history.pushState(null, '', url)
    route()
    scrollTo(0, 0)
    main.focus({ preventScroll: true })
  }

  // Links within this page change the view alone.
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    const link = event.target instanceof Element ? event.target.closest('a') : null
    if (!link || link.target || link.origin !== location.origin || link.pathname !== location.pathname || link.hash) return
    event.preventDefault()
    if (link.href !== location.href) go(link.href)
  })
  addEventListener('popstate', route)
  for (const element of [...tools, leave]) element.hidden = true
  main.append(h('p', { class: 'hint' }, 'Asking the server'))
  pulse.start()
}
