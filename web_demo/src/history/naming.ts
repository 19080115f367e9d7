/** The field that gives the present, or the moment that is looked at, a name. */
import { h } from '../shell/dom'
import { toast } from '../shell/toast'
import { makeVersion, readTimeline, renameVersion } from './api'
import { failure } from './doings'
import type { Moment } from './list'

const NAME_LENGTH = 200

export class NameForm {
  readonly element: HTMLFormElement
  readonly #document: string
  readonly #onKept: () => Promise<void>
  readonly #name = h('input', { id: 'version-name', maxlength: String(NAME_LENGTH), placeholder: 'Name this version', 'aria-label': 'Name this version', autocomplete: 'off', dir: 'auto' })
  /** What the field is for; else for the present. */
  #naming: Moment | undefined

  constructor(name: string, onKept: () => Promise<void>) {
    this.#document = name
    this.#onKept = onKept
    const keep = h('button', { class: 'button', 'aria-label': 'Keep this version under that name' }, 'Keep')
    this.element = h('form', { class: 'name-version', onsubmit: (event: Event) => (event.preventDefault(), void this.#keep()) }, this.#name, keep)
  }

  /** Ask for a name of `moment`. */
  ask(moment: Moment): void {
    this.#naming = moment
    this.#name.value = moment.name ?? ''
    this.#name.select()
    this.#name.focus()
  }

  /** Be for the present again. */
  reset(): void {
    this.#naming = undefined
    this.#name.value = ''
  }

  async #keep(): Promise<void> {
    const called = this.#name.value.trim()
    if (!called) return this.#name.focus()
    try {
      const chosen = this.#naming
      if (chosen?.version) await renameVersion(this.#document, chosen.version, called)
      else await makeVersion(this.#document, called, chosen?.number ?? (await readTimeline(this.#document)).head)
      this.reset()
      toast(`Kept as “${called}”`)
      await this.#onKept()
    } catch (error) {
      toast(failure(error))
    }
  }
}
