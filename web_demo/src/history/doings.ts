/** What can be done with a moment of the past: restore it, name it, copy it, link to it, undo what one person did. */
import * as Y from 'yjs'
import { inventName, kindOf, pageUrl } from '../lib/address'
import { createDocument } from '../lib/api'
import type { OpenDocument } from '../lib/document'
import { copyLink } from '../shell/copy'
import { h, icon, type IconName, type Outline } from '../shell/dom'
import { face } from '../shell/people'
import { toast } from '../shell/toast'
import { readState, restore, type Rewound, undoAuthor } from './api'
import { COPY, STAR } from './icons'
import { momentUrl } from './link'
import { dayOf, type Moment, timeOf } from './list'
import type { Authors } from './people'

/** How long the way back from a restore is offered, in milliseconds. */
const REGRET = 12_000
const TITLE_LENGTH = 120

/** What is said of a call that failed. */
export const failure = (error: unknown): string => `That did not work: ${(error as Error).message}`

export interface DoingsOptions {
  readonly opened: OpenDocument
  readonly authors: Authors
  /** Go back to the live document. */
  readonly leave: () => void
  /** Ask for a name. */
  readonly nameIt: (moment: Moment) => void
}

/** Make a button that is off while it works. */
function action(sign: IconName | Outline, label: string, act: () => unknown, look = 'quiet small'): HTMLButtonElement {
  const onclick = async (): Promise<void> => {
    button.disabled = true
    try {
      await act()
    } catch (error) {
      toast(failure(error))
    }
    button.disabled = false
  }
  const button = h('button', { type: 'button', class: `button ${look}`, 'aria-label': label, title: label, onclick }, icon(sign), h('span', {}, label))
  return button
}

export class Doings {
  readonly #options: DoingsOptions

  constructor(options: DoingsOptions) {
    this.#options = options
  }

  /** Make the buttons for a moment. */
  buttons(moment: Moment, mayWrite: boolean): HTMLElement[] {
    const { number, version, which } = moment
    const { opened, nameIt } = this.#options
    const found: HTMLElement[] = []
    if (mayWrite && number !== null) {
      found.push(action('undo', 'Restore this version', () => this.#restore(number), 'small'))
      if (version === null) found.push(action(STAR, 'Name it', () => nameIt(moment)))
    }
    if (mayWrite && version !== null) found.push(action('pencil', 'Rename it', () => nameIt(moment)))
    found.push(action(COPY, 'Make a copy', () => this.#copy(moment)))
    if (mayWrite && moment.users.length > 0 && moment.before !== null) found.push(...this.#undoMenu(moment))
    found.push(action('link', 'Copy link', () => copyLink(momentUrl(opened.name, which), 'Link to this version copied')))
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
        const author = this.#options.authors.user(user)
        const button = action('undo', `Undo ${author.name}’s edits`, () => this.#undo(user, moment))
        button.prepend(face(author))
        return button
      }),
    )
    const label = 'Undo one person’s edits'
    return [h('button', { type: 'button', class: 'button quiet small', popovertarget: menu.id, 'aria-label': label, title: label }, icon('people'), h('span', {}, 'Undo edits of …')), menu]
  }

  /** Go back to the present, say what was done, and offer the way back. */
  #done({ changed, before }: Rewound, words: string, otherwise: string): void {
    const { opened, leave } = this.#options
    leave()
    if (!changed) return void toast(otherwise)
    toast(words, { action: 'Undo', act: () => void restore(opened.name, before).catch((error) => toast(failure(error))), milliseconds: REGRET })
  }

  async #restore(number: number): Promise<void> {
    this.#done(await restore(this.#options.opened.name, number), 'Restored, for everybody', 'The document is like that already')
  }

  async #undo(user: string, { before, number }: Moment): Promise<void> {
    const done = await undoAuthor(this.#options.opened.name, user, before ?? number!)
    this.#done(done, `What ${this.#options.authors.user(user).name} has done since is undone`, 'There is nothing left to undo')
  }

  async #copy(moment: Moment): Promise<void> {
    const { name, title } = this.#options.opened
    const copy = new Y.Doc()
    Y.applyUpdate(copy, await readState(name, moment.which))
    const called = `Copy of ${title.value}`.slice(0, TITLE_LENGTH)
    copy.getMap('meta').set('title', called)
    const target = inventName(kindOf(name))
    await createDocument(target, called, Y.encodeStateAsUpdate(copy))
    copy.destroy()
    toast('A copy was made', { action: 'Open it', act: () => (location.href = pageUrl(target)), milliseconds: REGRET })
  }
}
