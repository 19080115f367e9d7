/**
 * The history at the side of a page: what happened, versions with names, the document as it was, and the way back to it.
 *
 * What was is shown in an editor of its own: snapshots that are rendered on the live document can empty it.
 */
import type { OpenDocument } from '../lib/document'
import { h, icon, iconButton, type IconName, type Outline } from '../shell/dom'
import { toast } from '../shell/toast'
import type { Which } from './api'
import { Doings, failure } from './doings'
import './history.css'
import { PLAY } from './icons'
import { askedFor } from './link'
import { drawList, type Moment, moveByArrows } from './list'
import { type Look, makeLook } from './look'
import { Moments } from './moments'
import { NameForm } from './naming'
import { Authors } from './people'
import type { Shown } from './shown'
import type { OpenViewer } from './viewer'

/** Milliseconds of quiet after an edit before the list is read again. */
const CALM = 1500

/** What can be seen of a document's whole life. */
type View = 'film' | 'who'

class HistoryPanel {
  readonly #opened: OpenDocument
  readonly #loadViewer: () => Promise<OpenViewer>
  readonly #button: HTMLButtonElement
  readonly #authors: Authors
  readonly #moments: Moments
  readonly #doings: Doings
  readonly #form: NameForm
  readonly #list = h('div', { class: 'moments' })
  readonly #named = h('input', { type: 'checkbox', onchange: () => void this.#read() })
  readonly #more = h('button', { type: 'button', class: 'button quiet small', hidden: true, onclick: () => void this.#readMore() }, 'Older')
  readonly #panel: HTMLElement
  /** What stands in the place of the live document. */
  #shown: Shown | undefined
  #chosen: Moment | undefined
  #view: View | undefined
  #mayWrite = false
  /** Counts what was asked to be shown: only the last of it is. */
  #turn = 0
  #timer: number | undefined

  constructor(opened: OpenDocument, loadViewer: () => Promise<OpenViewer>, button: HTMLButtonElement) {
    this.#opened = opened
    this.#loadViewer = loadViewer
    this.#button = button
    this.#authors = new Authors(opened.presence)
    this.#moments = new Moments(opened.name, this.#authors)
    this.#form = new NameForm(opened.name, () => this.#read())
    this.#doings = new Doings({ opened, authors: this.#authors, leave: () => this.#backToNow(), nameIt: (moment) => this.#form.ask(moment) })
    this.#panel = this.#build()
    button.setAttribute('aria-controls', this.#panel.id)
    document.querySelector('#main')!.after(this.#panel)
    opened.doc.on('update', () => this.#readSoon())
    opened.connection.status.subscribe(({ state }) => this.#allow(state === 'saved' || state === 'saving'))
    const asked = askedFor()
    if (asked) void this.#follow(asked)
  }

  #build(): HTMLElement {
    const now = h('button', { type: 'button', class: 'moment', 'data-moment': 'now', onclick: () => this.#backToNow() }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'moment-words' }, h('span', { class: 'moment-name' }, 'Now'), h('span', { class: 'note' }, 'The document as it is')))
    const view = (name: View, sign: IconName | Outline, label: string, show: () => Promise<void>): HTMLElement =>
      h('button', { type: 'button', class: 'button quiet small', 'data-view': name, 'aria-pressed': 'false', onclick: () => void show() }, icon(sign), h('span', {}, label))
    const panel = h(
      'aside',
      { class: 'history', id: 'history-panel', 'aria-label': 'History', hidden: true, onkeydown: (event: KeyboardEvent) => event.key === 'Escape' && this.#leave() },
      h('div', { class: 'history-head' }, h('h2', {}, 'History'), iconButton('close', 'Close the history', () => this.close())),
      h('div', { class: 'views' }, view('film', PLAY, 'Play back', () => this.#film()), view('who', 'people', 'Who wrote what', () => this.#who())),
      this.#form.element,
      h('label', { class: 'check' }, this.#named, 'Only named versions'),
      now,
      this.#list,
      this.#more,
    )
    moveByArrows(panel)
    return panel
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
    if (this.#shown) this.#backToNow()
    else this.close()
  }

  #allow(mayWrite: boolean): void {
    this.#mayWrite = mayWrite
    this.#form.element.hidden = !mayWrite
    this.#shown?.tellActions()
  }

  // -- the list

  #readSoon(): void {
    clearTimeout(this.#timer)
    if (this.#panel.hidden) return
    this.#timer = window.setTimeout(() => void this.#read(), CALM)
  }

  /** Whether nothing was ever written: then it is no document yet, and the server would say that it knows no such name. */
  get #blank(): boolean {
    return this.#opened.doc.store.clients.size === 0
  }

  async #read(): Promise<void> {
    try {
      if (this.#blank || (await this.#moments.read(this.#named.checked))) this.#draw()
    } catch (error) {
      this.#list.replaceChildren(h('p', { class: 'hint' }, failure(error)))
    }
  }

  async #readMore(): Promise<void> {
    try {
      if (await this.#moments.readMore()) this.#draw()
    } catch (error) {
      toast(failure(error))
    }
  }

  #draw(): void {
    const { list, more } = this.#moments
    drawList(this.#list, list, this.#chosen?.key, (moment) => void this.#choose(moment))
    if (list.length === 0) this.#list.append(h('p', { class: 'hint' }, this.#named.checked ? 'No version has a name yet.' : 'Nothing has been written yet.'))
    this.#panel.querySelector('[data-moment="now"]')!.setAttribute('aria-pressed', String(!this.#view && !this.#chosen))
    for (const button of this.#panel.querySelectorAll<HTMLElement>('[data-view]')) button.setAttribute('aria-pressed', String(button.dataset['view'] === this.#view))
    this.#more.hidden = !more
  }

  // -- looking back

  /** Put something in the place of the live document, when what it needs is loaded; gives it, if it is still wanted. */
  async #show<T extends Shown>(make: (viewer: OpenViewer) => T | Promise<T>): Promise<T | undefined> {
    const mine = (this.#turn += 1)
    this.#shown?.destroy()
    this.#shown = undefined
    try {
      const shown = await make(await this.#loadViewer())
      if (mine !== this.#turn) return void shown.destroy()
      this.#shown = shown
      document.querySelector('#main')!.after(shown.element)
      document.body.classList.add('looking-back')
      this.#draw()
      return shown
    } catch (error) {
      if (mine === this.#turn) this.#fail(error)
      return undefined
    }
  }

  #fail(error: unknown): void {
    toast(failure(error))
    this.#backToNow()
  }

  async #choose(moment: Moment): Promise<void> {
    const look = this.#chosen ? (this.#shown as Look | undefined) : undefined
    this.#chosen = moment
    this.#view = undefined
    this.#draw()
    try {
      const { name } = this.#opened
      const options = { name, authors: this.#authors, actions: (one: Moment) => this.#doings.buttons(one, this.#mayWrite), onClose: () => this.#backToNow() }
      const there = look ?? (await this.#show((viewer) => makeLook({ ...options, viewer })))
      if (this.#chosen === moment) await there?.show(moment)
    } catch (error) {
      if (this.#chosen === moment) this.#fail(error)
    }
  }

  async #film(): Promise<void> {
    if (this.#blank) return toastNothing()
    this.#chosen = undefined
    this.#view = 'film'
    await this.#show(async (viewer) => (await import('./film')).showFilm({ ...this.#usual(), name: this.#opened.name, viewer }))
  }

  async #who(): Promise<void> {
    if (this.#blank) return toastNothing()
    this.#chosen = undefined
    this.#view = 'who'
    await this.#show(async (viewer) => (await import('./who')).showWho({ ...this.#usual(), opened: this.#opened, viewer }))
  }

  #usual(): { authors: Authors; onClose: () => void; onError: (error: unknown) => void } {
    return { authors: this.#authors, onClose: () => this.#backToNow(), onError: (error) => this.#fail(error) }
  }

  #backToNow(): void {
    this.#turn += 1
    if (!this.#shown && !this.#chosen && !this.#view) return
    this.#chosen = this.#view = undefined
    this.#form.reset()
    this.#shown?.destroy()
    this.#shown = undefined
    document.body.classList.remove('looking-back')
    this.#draw()
    if (!document.activeElement || document.activeElement === document.body) this.#panel.querySelector<HTMLElement>('.moment')?.focus()
  }

  /** Show what the address asks for: the sitting or the version, if it is on the first page, or else that state alone. */
  async #follow(which: Which): Promise<void> {
    try {
      await this.#read()
      await this.#choose(await this.#moments.find(which))
    } catch (error) {
      toast(failure(error))
    }
  }
}

function toastNothing(): void {
  toast('Nothing has been written yet')
}

/** Make the panel; gives what opens and closes it. */
export function makeHistory(opened: OpenDocument, viewer: () => Promise<OpenViewer>, button: HTMLButtonElement): () => void {
  const panel = new HistoryPanel(opened, viewer, button)
  return () => panel.toggle()
}
