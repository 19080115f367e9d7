/** What each kind of page gives the history: a place that shows a state of the past, in an editor of its own. */
import type * as Y from 'yjs'
import type { Changes } from './changes'
import type { Author, Authors } from './people'

export interface Viewer {
  /** Show what `doc` holds. It is read at once, and not kept. */
  show(doc: Y.Doc): void
  /** Show what has changed, in the colours of the authors; gives how many places there are. */
  showChanges(changes: Changes, authors: Authors): number
  /** Bring a place into view, by its number from 0. */
  goTo(place: number): void
  /** Show a document that goes on. It is kept until the projector is destroyed. */
  film(doc: Y.Doc): Projector
  destroy(): void
}

/** Draws the frames of a film. */
export interface Projector {
  /** Draw the document as it is now; `author` has made the last of its changes, and is shown where that was. */
  draw(author: Author | undefined): void
  destroy(): void
}

/** Make a viewer in `place`. */
export type OpenViewer = (place: HTMLElement) => Viewer
