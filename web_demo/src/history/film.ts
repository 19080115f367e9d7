/** The life of a document as a film: a bar with a slider, how fast it goes, and who is typing. */
import { h, icon, iconButton } from '../shell/dom'
import { face } from '../shell/people'
import { PAUSE, PLAY } from './icons'
import { dayOf, namesOf, timeOf } from './list'
import type { Author, Authors } from './people'
import { Reel } from './reel'
import type { Shown } from './shown'
import type { OpenViewer, Projector } from './viewer'

/** Times as fast as it was, without the pauses. */
const SPEEDS = [1, 2, 5, 10, 20, 50, 100, 200, 500]
/** How long a film takes at the speed that it begins with, in seconds at most. */
const LENGTH = 45
/** Milliseconds of a frame in which rows are applied; the rest is for drawing. On the way to another place there is more. */
const WORK = 8
const JUMP = 40
/** Seconds of the film for which somebody who has written counts as typing, times the speed. */
const TYPING = 1
const FACES = 4

export interface FilmOptions {
  readonly name: string
  readonly authors: Authors
  readonly viewer: OpenViewer
  readonly onClose: () => void
  /** Called when it cannot be loaded; the error is a sentence. */
  readonly onError: (error: unknown) => void
}

class Film implements Shown {
  readonly element: HTMLElement
  readonly #options: FilmOptions
  readonly #viewer: ReturnType<OpenViewer>
  readonly #play = iconButton(PLAY, 'Play', () => this.#toggle(), { class: 'icon-button play', disabled: true })
  readonly #slider = h('input', { type: 'range', class: 'reel', min: '0', max: '0', value: '0', 'aria-label': 'Place in the film', disabled: true, oninput: () => this.#seek(Number(this.#slider.value)) })
  readonly #speed = h('select', { 'aria-label': 'Speed', title: 'Speed' }, ...SPEEDS.map((speed) => h('option', { value: String(speed) }, `${speed} ×`)))
  readonly #title = h('h2', { class: 'past-title', tabindex: '-1' }, 'Playback')
  readonly #typing = h('div', { class: 'typing' })
  readonly #count = h('span', { class: 'note count' })
  readonly #spoken = h('span', { class: 'spoken', role: 'status' })
  #reel: Reel | undefined
  #projector: Projector | undefined
  #playing = false
  #wanted = 0
  /** Where the film is, in seconds of it. */
  #time = 0
  #last = 0
  #drawn = -1
  #doc: unknown
  #frame: number | undefined
  #gone = false

  constructor(options: FilmOptions) {
    this.#options = options
    const place = h('div', { class: 'past-place' })
    this.#viewer = options.viewer(place)
    const bar = h(
      'div',
      { class: 'past-bar film-bar' },
      iconButton('close', 'Back to the present', options.onClose),
      this.#title,
      this.#typing,
      h('div', { class: 'through' }, this.#play, this.#slider, this.#count, this.#speed),
      this.#spoken,
    )
    this.element = h('section', { class: 'past film', 'aria-label': 'The life of the document', 'aria-busy': 'true', onkeydown: (event: KeyboardEvent) => this.#key(event) }, bar, place)
  }

  /** Load it; it begins by itself where nobody wants less to move. */
  async load(): Promise<void> {
    const reel = await Reel.open(this.#options.name)
    if (this.#gone) return reel.destroy()
    this.#reel = reel
    this.#slider.max = String(reel.total)
    this.#speed.value = '1'
    this.#count.textContent = 'Loading …'
    await reel.load(() => {
      if (!this.#gone) this.#count.textContent = `Loading ${reel.frames.length.toLocaleString()} of ${reel.total.toLocaleString()}`
      return !this.#gone
    })
    if (this.#gone) return
    const seconds = reel.frames.at(-1)?.time ?? 0
    this.#speed.value = String(SPEEDS.find((speed) => seconds / speed <= LENGTH) ?? SPEEDS.at(-1)!)
    this.element.removeAttribute('aria-busy')
    this.#play.disabled = this.#slider.disabled = reel.total === 0
    const { activeElement } = document
    if (!activeElement || activeElement === document.body || activeElement.closest('.views')) this.#play.focus()
    this.#frame = requestAnimationFrame(this.#tick)
    if (!matchMedia('(prefers-reduced-motion: reduce)').matches) this.#toggle()
    else this.#seek(0)
  }

  #key(event: KeyboardEvent): void {
    if (event.key === 'Escape') return this.#options.onClose()
    if (event.key !== ' ' || event.target instanceof HTMLButtonElement || event.target instanceof HTMLSelectElement || this.#play.disabled) return
    event.preventDefault()
    this.#toggle()
  }

  #toggle(): void {
    this.#playing = !this.#playing
    // At the end it begins anew.
    if (this.#playing && this.#wanted >= this.#reel!.total) this.#seek(0)
    this.#last = performance.now()
    this.#play.setAttribute('aria-label', this.#playing ? 'Pause' : 'Play')
    this.#play.title = this.#playing ? 'Pause' : 'Play'
    this.#play.replaceChildren(icon(this.#playing ? PAUSE : PLAY))
    if (!this.#playing) this.#say()
  }

  #seek(place: number): void {
    this.#wanted = place
    this.#time = this.#reel?.frames[place - 1]?.time ?? 0
  }

  readonly #tick = (now: number): void => {
    const reel = this.#reel!
    if (this.#playing) {
      this.#time += (Math.min(now - this.#last, 250) / 1000) * Number(this.#speed.value)
      this.#wanted = Math.max(this.#wanted, reel.placeAt(this.#time))
      if (this.#wanted >= reel.total && reel.place >= reel.total) this.#toggle()
    }
    this.#last = now
    if (this.#wanted !== reel.place || this.#drawn !== reel.place) this.#draw(reel)
    this.#frame = requestAnimationFrame(this.#tick)
  }

  /** Go on by as much as fits into a frame, and draw that. */
  #draw(reel: Reel): void {
    const there = reel.goTowards(this.#wanted, this.#playing ? WORK : JUMP)
    // What lies between two places is not drawn. A slow machine plays slower, and leaves nothing out.
    if (!there && !this.#playing) return
    if (!there) this.#seek(reel.place)
    if (this.#doc !== reel.doc) {
      this.#projector?.destroy()
      this.#projector = this.#viewer.film(reel.doc)
      this.#doc = reel.doc
    }
    this.#drawn = reel.place
    this.#projector!.draw(this.#authorAt(reel, reel.place))
    this.#tell(reel)
  }

  #authorAt(reel: Reel, place: number): Author | undefined {
    const frame = reel.frames[place - 1]
    return frame && this.#options.authors.either(frame.user, reel.clientBefore(place), frame.called)
  }

  /** Those who have written a moment ago. */
  #typists(reel: Reel): Author[] {
    const since = (reel.frames[reel.place - 1]?.time ?? 0) - TYPING * Number(this.#speed.value)
    const found = new Map<string, Author>()
    for (let place = reel.place; place > 0 && place > reel.place - 500 && reel.frames[place - 1]!.time >= since && found.size < FACES; place -= 1) {
      const author = this.#authorAt(reel, place)!
      found.set(`${author.name} ${author.color}`, author)
    }
    return [...found.values()]
  }

  #tell(reel: Reel): void {
    const frame = reel.frames[reel.place - 1]
    const typists = this.#typists(reel)
    const at = frame && new Date(frame.at * 1000)
    this.#slider.value = String(reel.place)
    this.#count.textContent = `${reel.place.toLocaleString()} of ${reel.total.toLocaleString()}`
    this.#title.textContent = at ? `${dayOf(at)} ${timeOf(at)}` : reel.cut ? 'Before the first edit of the film' : 'The beginning'
    this.#typing.replaceChildren(...typists.map(face), h('bdi', { class: 'note' }, typists.length > 0 ? namesOf(typists) : ''))
    // Nobody wants to hear each edit of a film.
    if (!this.#playing) this.#slider.setAttribute('aria-valuetext', this.#words(reel, typists))
  }

  #words(reel: Reel, typists = this.#typists(reel)): string {
    return `Edit ${reel.place} of ${reel.total}, ${this.#title.textContent}${typists.length > 0 ? `, ${namesOf(typists)}` : ''}`
  }

  #say(): void {
    const words = this.#words(this.#reel!)
    this.#slider.setAttribute('aria-valuetext', words)
    this.#spoken.textContent = words
  }

  tellActions(): void {
    // Nothing can be done with it but to look.
  }

  destroy(): void {
    this.#gone = true
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame)
    this.#projector?.destroy()
    this.#viewer.destroy()
    this.#reel?.destroy()
    this.element.remove()
  }
}

/** Show the life of a document. */
export function showFilm(options: FilmOptions): Shown {
  const film = new Film(options)
  void film.load().catch(options.onError)
  return film
}
