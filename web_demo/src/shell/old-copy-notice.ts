/** The notice after a reset: each copy from before can be saved as a file, or discarded. */
import type { OpenDocument } from '../lib/document'
import { type OldCopies, type OldCopy, openCopy } from '../lib/resets'
import { h } from './dom'
import type { FileContent, Saving } from './old-copies'
import { toast } from './toast'

function download(name: string, { ending, type, text }: FileContent): void {
  const url = URL.createObjectURL(new Blob([text], { type }))
  // What no system takes in the name of a file, or hides it.
  h('a', { href: url, download: `${name.replace(/[\\/:*?"<>|\p{Cc}]|^\.+/gu, ' ').trim() || 'document'}.${ending}` }).click()
  // The browser has to read it first, and does not tell when it has.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

/** Offer `copies` in `notice`; those that are saved or discarded leave `kept`. */
export function offer(notice: HTMLElement, { title }: OpenDocument, saving: Saving, kept: OldCopies, copies: readonly OldCopy[]): void {
  const done = async (copy: OldCopy): Promise<void> => show(await kept.remove(copy))
  const save = async (copy: OldCopy): Promise<void> => {
    try {
      const old = openCopy(copy)
      // The title of that time; the document may have another one by now.
      const was = old.getMap('meta').get('title')
      const called = typeof was === 'string' && was.trim() ? was.slice(0, 120) : title.value
      download(`${called} (old copy)`, saving.file(old, called))
    } catch (error) {
      return void toast(`That did not work: ${(error as Error).message}`)
    }
    await done(copy)
  }
  const row = (copy: OldCopy): HTMLElement => {
    const when = new Date(copy.at).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })
    return h(
      'div',
      { class: 'old-copy' },
      h(
        'p',
        {},
        h('strong', {}, `This document was reset (${when}). `),
        'This browser still has a copy from before. ',
        copy.strict ? 'Changes that you made while you were offline are only in that copy.' : 'Not all that was in it is in the document now.',
      ),
      h('button', { type: 'button', class: 'button', onclick: () => void save(copy) }, 'Save the old copy'),
      h('button', { type: 'button', class: 'button quiet', onclick: () => void done(copy) }, 'Discard it'),
    )
  }
  const show = (left: readonly OldCopy[]): void => {
    notice.replaceChildren(...left.map(row))
    notice.hidden = left.length === 0
  }
  show(copies)
}
