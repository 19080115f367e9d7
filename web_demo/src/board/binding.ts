/**
 * Excalidraw on a Yjs document. Lift this file out: it knows Excalidraw and Yjs, and nothing else of this page.
 *
 * The document holds its drawing as a file of Excalidraw does: a `Y.Array` of elements, plain JSON. The rules:
 *
 * - Which entry counts. An edit adds a new entry and removes the one it replaces. Edits of one element at once
 *   leave several entries; the one with the highest `version` counts, among equals the one with the lowest
 *   `versionNonce`, as Excalidraw itself decides. So what shows is a function of the document alone: everybody,
 *   and whoever joins later, sees the same. Who writes next removes the others.
 * - Order: by `index`, the fractional index that Excalidraw keeps, then by `id`. Indices that collide are told
 *   apart by every client for itself, in the same way, and written along with its next edit.
 * - Deletion removes the entry. An edit made meanwhile has added one that the deletion did not know: edits win.
 * - What somebody has in hand (a text being typed, a shape being drawn) is not replaced under the cursor; when
 *   it is written, it gets a version above what it has not seen.
 * - Undo is Excalidraw's own. What comes from others never enters its history, so it takes back only one's own.
 * - Never more than one update a frame, and fewer when they are large (see `BYTES_A_SECOND`).
 *
 * Why an array, with elements by id found in it, and not a map: a `Y.Map` keeps a few bytes for every value it
 * ever had, unless one key is written many times in a row. Twenty shapes dragged for a minute leave 710 kB
 * behind in a map and 7 kB here. For that, entries go in behind the last one of the same client, as Yjs keeps
 * what a client has inserted in a row and deleted again as a single range.
 */
import { bumpVersion, CaptureUpdateAction, isInvisiblySmallElement, newElementWith, restoreElements } from '@excalidraw/excalidraw'
import type { ExcalidrawElement, OrderedExcalidrawElement } from '@excalidraw/excalidraw/element/types'
import type { AppState, ExcalidrawImperativeAPI } from '@excalidraw/excalidraw/types'
import type * as Y from 'yjs'
import { isElement } from './check'

/**
 * What one person's hand may write. One shape fits into it at every frame; twenty at once move some five times
 * a second at the others, and do not fill the server's log with steps that nobody can tell apart.
 */
const BYTES_A_SECOND = 64_000
/** Milliseconds that an edit waits at most, however large the one before. */
const LONGEST_WAIT = 200

type Entry = ExcalidrawElement

/** How an element of the scene and its entry stood when they were last the same. */
interface Known {
  readonly entry: Entry
  nonce: number
}

function outranks(a: Entry, b: Entry): boolean {
  return a.version > b.version || (a.version === b.version && a.versionNonce < b.versionNonce)
}

/** A `Y.Array` of entries, or a plain one. */
type Entries = { forEach(visit: (entry: unknown) => void): void }

/** The entry that counts, of each element that is there. */
function winners(elements: Entries): Map<string, Entry> {
  const found = new Map<string, Entry>()
  elements.forEach((entry) => {
    if (!isElement(entry)) return
    const other = found.get(entry.id)
    if (!other || outranks(entry, other)) found.set(entry.id, entry)
  })
  // An entry that says so of itself is another program's way to delete.
  for (const [id, entry] of found) if (entry.isDeleted) found.delete(id)
  return found
}

/** What has no index yet, as a program may write it, is furthest back. */
const byIndex = ({ index: a, id: one }: Entry, { index: b, id: other }: Entry): number =>
  (a ?? '') < (b ?? '') ? -1 : (a ?? '') > (b ?? '') ? 1 : one < other ? -1 : 1

/** The element of an entry for the scene: a copy, as Excalidraw changes elements in place, with nothing missing. */
export function toElement(entry: ExcalidrawElement): OrderedExcalidrawElement | undefined {
  return restoreElements([structuredClone(entry)], null)[0]
}

/** Give what is drawn, in order, to begin a scene with or to keep; `make` makes an element of an entry. */
export function readElements(elements: Entries, make = toElement): OrderedExcalidrawElement[] {
  return [...winners(elements).values()].sort(byIndex).flatMap((entry) => make(entry) ?? [])
}

/** Nothing to see, and nobody else's business yet. */
function isNothing(element: ExcalidrawElement): boolean {
  return isInvisiblySmallElement(element) || (element.type === 'text' && element.text === '')
}

function inHand(state: AppState): Set<string | undefined> {
  const { editingTextElement, newElement, resizingElement, multiElement, editingLinearElement } = state
  return new Set([editingTextElement?.id, newElement?.id, resizingElement?.id, multiElement?.id, editingLinearElement?.elementId])
}

export interface Binding {
  /** Call on each change of the scene. */
  sceneChanged(): void
  /** While true, nothing of the scene is written. */
  setReadOnly(readOnly: boolean): void
  destroy(): void
}

export interface BindingOptions {
  /** Called inside the transaction that writes, with the elements that count after it. */
  onWrite?: (present: Iterable<ExcalidrawElement>) => void
}

/** Keep the scene of `api` and `elements` in step, until `destroy`. */
export function bindScene(elements: Y.Array<unknown>, api: ExcalidrawImperativeAPI, options: BindingOptions = {}): Binding {
  const doc = elements.doc!
  const known = new Map<string, Known>()
  let current: Map<string, Entry> | undefined
  let last: Entry | undefined
  let readOnly = false
  let toRead = true
  let toWrite = true
  let quietUntil = 0
  let frame: number | undefined

  const isOwnChange = (element: ExcalidrawElement): boolean => element.versionNonce !== known.get(element.id)?.nonce
  const present = (): Map<string, Entry> => (current ??= winners(elements))

  /** What becomes of an element of the scene whose entry is not the one it was taken from. */
  function reconciled(local: OrderedExcalidrawElement, entry: Entry | undefined, held: boolean): OrderedExcalidrawElement | undefined {
    const own = isOwnChange(local)
    if (entry) {
      if (held || (own && !local.isDeleted && outranks(local, entry))) return local
      // One's own deletion goes on to remove the entry that it was made of, and loses against an edit.
      return toElement(entry)
    }
    known.delete(local.id)
    return own || held || local.isDeleted ? local : newElementWith(local, { isDeleted: true })
  }

  function read(): void {
    const entries = present()
    const held = inHand(api.getAppState())
    const scene = new Map<string, OrderedExcalidrawElement>()
    const taken: OrderedExcalidrawElement[] = []
    let changed = false
    for (const local of api.getSceneElementsIncludingDeleted()) {
      const entry = entries.get(local.id)
      const next = entry === known.get(local.id)?.entry ? local : reconciled(local, entry, held.has(local.id))
      scene.set(local.id, next ?? local)
      if (!next || next === local) continue
      changed = true
      if (entry) taken.push(next)
    }
    for (const entry of entries.values()) {
      if (scene.has(entry.id)) continue
      const next = toElement(entry)
      if (!next) continue
      changed = true
      scene.set(next.id, next)
      taken.push(next)
    }
    if (!changed) return

    for (const element of taken) known.set(element.id, { entry: entries.get(element.id)!, nonce: element.versionNonce })
    // By the index that all know, not by the one that was mended here.
    const place = (element: Entry): Entry => (isOwnChange(element) ? element : known.get(element.id)!.entry)
    const ordered = [...scene.values()].sort((a, b) => byIndex(place(a), place(b)))
    const untouched = ordered.filter((element) => !isOwnChange(element))
    api.updateScene({ elements: ordered, captureUpdate: CaptureUpdateAction.NEVER })
    // Mended indices raise versions; that is nobody's edit.
    for (const { id, versionNonce } of untouched) known.get(id)!.nonce = versionNonce
  }

  /** Whether an entry goes: what is written replaces it, or it is one that does not count beside one that does. */
  function isReplaced(entry: unknown, entries: Map<string, Entry>, gone: Set<string>): boolean {
    const { id } = (entry ?? {}) as Entry
    const counts = entries.get(id)
    return counts === entry ? gone.has(id) : (counts !== undefined || gone.has(id)) && isElement(entry)
  }

  function write(): void {
    const entries = present()
    const add: Entry[] = []
    const gone = new Set<string>()
    const mended: OrderedExcalidrawElement[] = []
    for (const local of api.getSceneElementsIncludingDeleted()) {
      const before = known.get(local.id)
      if (before && local.versionNonce === before.nonce) {
        if (local.index !== before.entry.index) mended.push(local)
        continue
      }
      if (local.isDeleted) {
        if (known.delete(local.id)) gone.add(local.id)
      } else if (before || !isNothing(local)) add.push(local)
    }
    if (add.length + gone.size === 0) return

    if (add.length > 0) add.push(...mended)
    for (const local of add) {
      const other = entries.get(local.id)
      if (other && !outranks(local, other)) bumpVersion(local as never, other.version)
    }
    // Excalidraw changes its elements in place, which an entry must never be.
    const json = JSON.stringify(add)
    const copies = JSON.parse(json) as Entry[]
    for (const copy of copies) {
      known.set(copy.id, { entry: copy, nonce: copy.versionNonce })
      gone.add(copy.id)
    }
    quietUntil = performance.now() + Math.min((json.length / BYTES_A_SECOND) * 1000, LONGEST_WAIT)

    doc.transact(() => {
      const dropped: number[] = []
      let at = elements.length
      let number = 0
      elements.forEach((entry) => {
        if (isReplaced(entry, entries, gone)) dropped.push(number)
        number += 1
        if (entry === last) at = number
      })
      if (copies.length > 0) {
        elements.insert(at, copies)
        last = copies.at(-1)
      }
      for (const index of dropped.reverse()) elements.delete(index < at ? index : index + copies.length)
      for (const id of gone) entries.delete(id)
      for (const copy of copies) entries.set(copy.id, copy)
      options.onWrite?.(entries.values())
    }, binding)
  }

  function work(): void {
    frame = undefined
    if (toRead) {
      toRead = false
      read()
    }
    if (!toWrite || readOnly) return
    if (performance.now() < quietUntil && !document.hidden) return schedule()
    toWrite = false
    write()
  }

  function schedule(): void {
    // A hidden tab has no frames, and may not get another moment.
    if (document.hidden && toWrite) work()
    else frame ??= requestAnimationFrame(work)
  }

  const onElements = (_event: unknown, { origin }: Y.Transaction): void => {
    if (origin === binding) return
    current = undefined
    toRead = true
    schedule()
  }
  const onHidden = (): void => {
    if (document.hidden) work()
  }

  const binding: Binding = {
    sceneChanged() {
      toWrite = true
      schedule()
    },
    setReadOnly(value) {
      readOnly = value
      if (!value) schedule()
    },
    destroy() {
      elements.unobserve(onElements)
      removeEventListener('pagehide', work)
      document.removeEventListener('visibilitychange', onHidden)
      if (frame !== undefined) cancelAnimationFrame(frame)
    },
  }
  elements.observe(onElements)
  addEventListener('pagehide', work)
  document.addEventListener('visibilitychange', onHidden)

  // The scene began with `readElements`: what is the same is known. Excalidraw may have mended it; nobody's edit.
  const entries = present()
  for (const { id, versionNonce } of api.getSceneElementsIncludingDeleted()) {
    const entry = entries.get(id)
    if (entry) known.set(id, { entry, nonce: versionNonce })
  }
  schedule()
  return binding
}
