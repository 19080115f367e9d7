/** What this page had before a reset is kept, and offered as a file; what shows that is fetched when there is any. */
import type * as Y from 'yjs'
import type { OpenDocument } from '../lib/document'
import { OldCopies, type OldCopy, onReset, openCopy } from '../lib/resets'
import { h } from './dom'

/** How a page saves a document as a file; its user may have no other place for it. */
export interface Saving {
  /** What the document shows, to compare; empty if it shows nothing. */
  shows: (doc: Y.Doc) => string
  /** The file: the ending of its name, its media type and its text. */
  file: (doc: Y.Doc, title: string) => FileContent
}

export interface FileContent {
  ending: string
  type: string
  text: string
}

/** Make the place of the notice; `reset` is called when a reset has come, after the editors have shown it. */
export function oldCopies(opened: OpenDocument, saving: Saving, reset: () => void): HTMLElement {
  const { name, doc } = opened
  const notice = h('section', { class: 'notice calm', role: 'status', id: 'old-copy', 'aria-label': 'Old copies', hidden: true })
  const kept = new OldCopies(name)
  const show = async (copies: readonly OldCopy[]): Promise<void> => {
    if (copies.length > 0) (await import('./old-copy-notice')).offer(notice, opened, saving, kept, copies)
  }
  onReset(doc, (before) => {
    queueMicrotask(reset)
    const shown = saving.shows(openCopy(before))
    // Of an empty page, and of a reset that takes nothing away here, there is nothing to save. What a strict one takes away
    // besides comes with a later update.
    if (shown && (before.strict || shown !== saving.shows(doc))) void kept.add(before).then(show)
  })
  void kept.read().then(show)
  return notice
}
