/**
 * The history at the side of a page: what happened, versions with names, the document as it was, and the way back to it.
 *
 * What was is shown in an editor of its own: snapshots that are rendered on the live document can empty it.
 */
import * as Y from 'yjs'
import { inventName, kindOf, pageUrl } from '../lib/address'
import { createDocument } from '../lib/api'
import type { OpenDocument } from '../lib/document'
import { copyLink } from '../shell/copy'
import { h, icon, iconButton, type IconName } from '../shell/dom'
import { face } from '../shell/people'
import { toast } from '../shell/toast'
import { makeVersion, readNamedVersions, readState, readTimeline, readVersion, renameVersion, restore, type TimelinePage, undoAuthor, type Version, type Which } from './api'
import './history.css'
import { dayOf, drawList, type Moment, moveByArrows, timelineMoments, timeOf, versionMoments } from './list'
import { type Look, makeLook } from './look'
import { Authors } from './people'
import type { OpenViewer } from './viewer'

/** Milliseconds of quiet after an edit before the list is read again. */
const CALM = 1500
const NAME_LENGTH = 200
/** How long the way back from a restore is offered, in milliseconds. */
const REGRET = 12_000

const message = (error: unknown): string => `That did not work: ${(error as Error).message}`

/** A link to a state of the past of a document. */
function momentUrl(name: string, which: Which): string {
  const url = new URL(pageUrl(name))
  for (const [key, value] of Object.entries(which)) url.searchParams.set(key, String(value))
  return url.href.replaceAll('%2F', '/')
}

/** The state of the past that the address asks for. */
function askedFor(): Which | undefined {
  const { searchParams } = new URL(location.href)
  const read = (key: string): number => Number(searchParams.get(key) || Number.NaN)
  if (Number.isSafeInteger(read('version'))) return { version: read('version') }
  if (Number.isSafeInteger(read('number'))) return { number: read('number') }
  return undefined
}

class HistoryPanel {
  readonly #opened: OpenDocument
  readonly #loadViewer: () => Promise<OpenViewer>
  readonly #button: HTMLButtonElement
  readonly #authors: Authors
  readonly #list = h('div', { class: 'moments' })
  readonly #named = h('input', { type: 'checkbox', onchange: () => void this.#read() })
  readonly #more = h('button', { type: 'button', class: 'button quiet small', hidden: true, onclick: () => void this.#readMore() }, 'Older')
  readonly #name = h('input', { id: 'version-name', maxlength: String(NAME_LENGTH), placeholder: 'Name this version', 'aria-label': 'Name this version', autocomplete: 'off', dir: 'auto' })
  readonly #form = h('form', { class: 'name-version', onsubmit: (event: Event) => (event.preventDefault(), void this.#keep()) }, this.#name, h('button', { class: 'button', 'aria-label': 'Keep this version under that name' }, 'Keep'))
  readonly #panel: HTMLElement
  #moments: Moment[] = []
  #timeline: TimelinePage | undefined
  #versions: ReadonlyMap<number, Version> = new Map()
  #next: string | null = null
  #look: Look | undefined
  #chosen: Moment | undefined
  /** What the field for a name is for; else for the present. */
  #naming: Moment | undefined
  #mayWrite = false
  #turn = 0
  #timer: number | undefined

  constructor(opened: OpenDocument, loadViewer: () => Promise<OpenViewer>, button: HTMLButtonElement) {
    this.#opened = opened
    this.#loadViewer = loadViewer
    this.#button = button
    this.#authors = new Authors(opened.presence)
    const now = h('button', { type: 'button', class: 'moment', 'data-moment': 'now', onclick: () => this.#backToNow() }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'moment-words' }, h('span', { class: 'moment-name' }, 'Now'), h('span', { class: 'note' }, 'The document as it is')))
    this.#panel = h(
      'aside',
      { class: 'history', id: 'history-panel', 'aria-label': 'History', hidden: true, onkeydown: (event: KeyboardEvent) => event.key === 'Escape' && this.#leave() },
      h('div', { class: 'history-head' }, h('h2', {}, 'History'), iconButton('close', 'Close the history', () => this.close())),
      this.#form,
      h('label', { class: 'check' }, this.#named, 'Only named versions'),
      now,
      this.#list,
      this.#more,
    )
    moveByArrows(this.#panel)
    button.setAttribute('aria-controls', this.#panel.id)
    document.querySelector('#main')!.after(this.#panel)
    opened.doc.on('update', () => this.#readSoon())
    opened.connection.status.subscribe(({ state }) => this.#allow(state === 'saved' || state === 'saving'))
    const asked = askedFor()
    if (asked) void this.#follow(asked)
  }

  toggle(): void {
    if (this.#panel.hidden) this.open()
    else this.close()
  }

  open(): void {
    this.#panel.hidden = false
    document.body.classList.add('with-history')
    this.#button.setAttribute('aria-expanded', 'true')
    this.#panel.querySelector<HTMLElement>('.moment')?.focus()
    void this.#read()
  }

  close(): void {
    this.#backToNow()
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#panel.hidden = true
    document.body.classList.remove('with-history')
    this.#button.setAttribute('aria-expanded', 'false')
    this.#button.focus()
  }

  #leave(): void {
    if (this.#chosen) this.#backToNow()
    else this.close()
  }

  #allow(mayWrite: boolean): void {
    this.#mayWrite = mayWrite
    this.#form.hidden = !mayWrite
    this.#look?.tellActions()
  }

  // -- the list

  #readSoon(): void {
    clearTimeout(this.#timer)
    if (this.#panel.hidden) return
    this.#timer = window.setTimeout(() => void this.#read(), CALM)
  }

  async #read(): Promise<void> {
    const mine = (this.#turn += 1)
    // A document in which nothing was ever written is none yet: the server would say that it knows no such name.
    if (this.#opened.doc.store.clients.size === 0) return this.#draw()
    try {
      const { name } = this.#opened
      const [page, { versions, next }] = await Promise.all([readTimeline(name), readNamedVersions(name)])
      if (mine !== this.#turn) return
      const alone = this.#named.checked
      this.#timeline = page
      this.#versions = new Map(versions.map((version) => [version.id, version]))
      this.#next = alone ? next : page.next
      this.#moments = alone ? versionMoments(versions, next === null, page, this.#authors) : timelineMoments(page, this.#versions, this.#authors)
      this.#draw()
    } catch (error) {
      if (mine === this.#turn) this.#list.replaceChildren(h('p', { class: 'hint' }, message(error)))
    }
  }

  async #readMore(): Promise<void> {
    const [cursor, mine] = [this.#next!, this.#turn]
    try {
      const older = this.#named.checked ? await this.#olderVersions(cursor) : await this.#olderEntries(cursor)
      if (mine !== this.#turn) return
      this.#moments = [...this.#moments, ...older.moments]
      this.#next = older.next
      this.#draw()
    } catch (error) {
      toast(message(error))
    }
  }

  async #olderVersions(cursor: string): Promise<{ moments: Moment[]; next: string | null }> {
    const { versions, next } = await readNamedVersions(this.#opened.name, cursor)
    return { moments: versionMoments(versions, next === null, this.#timeline!, this.#authors), next }
  }

  async #olderEntries(cursor: string): Promise<{ moments: Moment[]; next: string | null }> {
    const page = await readTimeline(this.#opened.name, cursor)
    return { moments: timelineMoments(page, this.#versions, this.#authors), next: page.next }
  }

  #draw(): void {
    drawList(this.#list, this.#moments, this.#chosen?.key, (moment) => void this.#choose(moment))
    if (this.#moments.length === 0) this.#list.append(h('p', { class: 'hint' }, this.#named.checked ? 'No version has a name yet.' : 'Nothing has been written yet.'))
    this.#panel.querySelector('[data-moment="now"]')!.setAttribute('aria-pressed', String(!this.#chosen))
    this.#more.hidden = this.#next === null
  }

  // -- looking back

  async #choose(moment: Moment): Promise<void> {
    this.#chosen = moment
    this.#draw()
    try {
      this.#look ??= makeLook({ name: this.#opened.name, authors: this.#authors, viewer: await this.#loadViewer(), actions: (one) => this.#actions(one), onClose: () => this.#backToNow() })
      if (this.#chosen !== moment) return
      if (!this.#look.element.isConnected) document.querySelector('#main')!.after(this.#look.element)
      document.body.classList.add('looking-back')
      await this.#look.show(moment)
    } catch (error) {
      if (this.#chosen !== moment) return
      toast(message(error))
      this.#backToNow()
    }
  }

  #backToNow(): void {
    if (!this.#chosen) return
    this.#chosen = this.#naming = undefined
    this.#name.value = ''
    this.#look?.destroy()
    this.#look = undefined
    document.body.classList.remove('looking-back')
    this.#draw()
  }

  /** Show what the address asks for: the sitting or the version, if it is on the first page, or else that state alone. */
  async #follow(which: Which): Promise<void> {
    try {
      const version = 'version' in which ? await readVersion(this.#opened.name, which.version) : undefined
      const at = version ? new Date(version.at) : new Date()
      const number = 'number' in which ? which.number : version!.number
      await this.#read()
      const known = this.#moments.find((one) => (version ? one.version === version.id : one.number === number))
      const alone: Moment = { key: 'link', which, number, before: null, at, authors: version ? [this.#authors.user(version.author)] : [], users: [], name: version?.name ?? `State ${number}`, version: version?.id ?? null, edits: null }
      await this.#choose(known ?? alone)
    } catch (error) {
      toast(message(error))
    }
  }

  // -- what can be done

  /** Make a button that is off while it works. */
  #action(sign: IconName, label: string, act: () => Promise<void>, look = 'quiet small'): HTMLButtonElement {
    const button = h(
      'button',
      {
        type: 'button',
        class: `button ${look}`,
        'aria-label': label,
        title: label,
        onclick: async () => {
          button.disabled = true
          try {
            await act()
          } catch (error) {
            toast(message(error))
          }
          button.disabled = false
        },
      },
      icon(sign),
      h('span', {}, label),
    )
    return button
  }

  #actions(moment: Moment): HTMLElement[] {
    const { number, version } = moment
    const found: HTMLElement[] = []
    if (this.#mayWrite && number !== null) {
      found.push(this.#action('undo', 'Restore this version', () => this.#restore(number), 'small'))
      if (version === null) found.push(this.#action('star', 'Name it', async () => this.#nameIt(moment)))
    }
    if (this.#mayWrite && version !== null) found.push(this.#action('pencil', 'Rename it', async () => this.#nameIt(moment)))
    found.push(this.#action('copy', 'Make a copy', () => this.#copy(moment)))
    if (this.#mayWrite && moment.users.length > 0 && moment.before !== null) found.push(...this.#undoMenu(moment))
    found.push(this.#action('link', 'Copy link', () => copyLink(momentUrl(this.#opened.name, moment.which), 'Link to this version copied')))
    return found
  }

  /** Make the button that asks whose edits shall be undone, and its menu. */
  #undoMenu(moment: Moment): HTMLElement[] {
    const since = `${dayOf(moment.at)} ${timeOf(moment.at)}`
    const menu = h(
      'div',
      { id: 'undo-menu', class: 'menu undo-menu', popover: 'auto' },
      h('p', { class: 'hint' }, `Takes back what one person has done in this entry and later (${since}). What others have done stays.`),
      ...moment.users.map((user) => {
        const button = this.#action('undo', `Undo ${this.#authors.user(user).name}’s edits`, () => this.#undo(user, moment))
        button.prepend(face(this.#authors.user(user)))
        return button
      }),
    )
    const label = 'Undo one person’s edits'
    return [h('button', { type: 'button', class: 'button quiet small', popovertarget: menu.id, 'aria-label': label, title: label }, icon('people'), h('span', {}, 'Undo edits of …')), menu]
  }

  async #restore(number: number): Promise<void> {
    const { name } = this.#opened
    const { changed, before } = await restore(name, number)
    this.#backToNow()
    if (!changed) return void toast('The document is like that already')
    toast('Restored, for everybody', { action: 'Undo', act: () => void restore(name, before).catch((error) => toast(message(error))), milliseconds: REGRET })
  }

  async #undo(user: string, { before, number }: Moment): Promise<void> {
    const { name } = this.#opened
    const done = await undoAuthor(name, user, before ?? number!)
    this.#backToNow()
    if (!done.changed) return void toast('There is nothing left to undo')
    toast(`What ${this.#authors.user(user).name} has done since is undone`, { action: 'Undo', act: () => void restore(name, done.before).catch((error) => toast(message(error))), milliseconds: REGRET })
  }

  async #copy(moment: Moment): Promise<void> {
    const { name, title } = this.#opened
    const copy = new Y.Doc()
    Y.applyUpdate(copy, await readState(name, moment.which))
    const called = `Copy of ${title.value}`.slice(0, 120)
    copy.getMap('meta').set('title', called)
    const target = inventName(kindOf(name))
    await createDocument(target, called, Y.encodeStateAsUpdate(copy))
    copy.destroy()
    toast('A copy was made', { action: 'Open it', act: () => (location.href = pageUrl(target)), milliseconds: REGRET })
  }

  /** Ask for a name of `moment`, in the field that else names the present. */
  #nameIt(moment: Moment): void {
    this.#naming = moment
    this.#name.value = moment.name ?? ''
    this.#name.select()
    this.#name.focus()
  }

  /** Give what is looked at a name, or what the document holds now. */
  async #keep(): Promise<void> {
    const called = this.#name.value.trim()
    if (!called) return this.#name.focus()
    const { name } = this.#opened
    try {
      const chosen = this.#naming
      if (chosen?.version) await renameVersion(name, chosen.version, called)
      else await makeVersion(name, called, chosen?.number ?? (await readTimeline(name)).head)
      this.#naming = undefined
      this.#name.value = ''
      toast(`Kept as “${called}”`)
      await this.#read()
    } catch (error) {
      toast(message(error))
    }
  }
}

/** Make the panel; gives what opens and closes it. */
export function makeHistory(opened: OpenDocument, viewer: () => Promise<OpenViewer>, button: HTMLButtonElement): () => void {
  const panel = new HistoryPanel(opened, viewer, button)
  return () => panel.toggle()
}
