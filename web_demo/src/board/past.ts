/** A board as it was: an Excalidraw of its own that nothing is bound to, for looking at. */
import { CaptureUpdateAction } from '@excalidraw/excalidraw'
import type { ExcalidrawElement, OrderedExcalidrawElement } from '@excalidraw/excalidraw/element/types'
import type { ExcalidrawImperativeAPI } from '@excalidraw/excalidraw/types'
import * as Y from 'yjs'
import { createElement } from 'react'
import { createRoot } from 'react-dom/client'
import type { Change, Changes } from '../history/changes'
import type { Authors } from '../history/people'
import type { Viewer } from '../history/viewer'
import { h } from '../shell/dom'
import { theme } from '../shell/theme'
import { readElements } from './binding'
import { Board } from './Board'
import { readImages } from './images'
import { BoardProjector, frame, type Scene } from './projector'

/** How much of a deleted element shows, in percent. */
const GHOST = 35

interface Difference {
  readonly after: OrderedExcalidrawElement[]
  readonly gone: OrderedExcalidrawElement[]
  /** Who has made what there is now what it is, and has deleted what is gone, by the ids of elements. */
  readonly who: Map<string, Change>
}

/** What has come, changed and gone between the two ends of `changes`: entries are never changed in place. */
function difference(changes: Changes): Difference {
  const [before, after]: [unknown[], unknown[]] = [[], []]
  const [added, removed] = [new Map<string, Change>(), new Map<string, Change>()]
  for (const { item, start, end, change } of changes.runs(changes.doc.getArray('elements'))) {
    if (!(item.content instanceof Y.ContentAny)) continue
    for (const entry of item.content.arr.slice(start, end) as ({ id?: unknown } | null)[]) {
      if (change?.kind !== 'added') before.push(entry)
      if (change?.kind !== 'removed') after.push(entry)
      if (change) (change.kind === 'removed' ? removed : added).set(String(entry?.id), change)
    }
  }
  const now = readElements(after)
  const ids = new Set(now.map(({ id }) => id))
  const gone = readElements(before).filter(({ id }) => !ids.has(id) && removed.has(id))
  const who = new Map([...now.filter(({ id }) => added.has(id)).map(({ id }) => [id, added.get(id)!] as const), ...gone.map(({ id }) => [id, removed.get(id)!] as const)])
  return { after: now, gone, who }
}

export function openBoardViewer(place: HTMLElement): Viewer {
  const canvas = h('div', { class: 'canvas', id: 'past-board' })
  place.replaceChildren(h('div', { class: 'board' }, canvas))
  const root = createRoot(canvas)
  let api: ExcalidrawImperativeAPI | undefined
  let wanted: Scene = { elements: [], files: {} }
  let ready = false
  let seen = false
  let stops: ExcalidrawElement[] = []

  const stable = {
    initialData: () => ({ ...wanted }),
    excalidrawAPI: (given: ExcalidrawImperativeAPI) => {
      api = given
      // For the console, and for tests: a canvas tells them nothing.
      Object.assign(canvas, { excalidraw: api })
    },
    // It reports its first change when the scene it begins with is in place; before, a new one would be overwritten.
    onChange: () => {
      if (ready) return
      ready = true
      draw(wanted)
    },
  }

  function draw(scene: Scene): void {
    wanted = scene
    if (!api || !ready) return
    api.addFiles(Object.values(scene.files))
    api.updateScene({ elements: scene.elements, captureUpdate: CaptureUpdateAction.NEVER })
    if (seen || scene.elements.length === 0) return
    // Once: later states are compared at the place where one looks.
    seen = true
    api.scrollToContent(undefined, { fitToContent: true })
  }

  const stop = theme.subscribe((value) => root.render(createElement(Board, { ...stable, theme: value, viewModeEnabled: true, name: 'history' })))

  return {
    show(doc) {
      stops = []
      draw({ elements: readElements(doc.getArray('elements')), files: readImages(doc.getMap('images')) })
    },
    showChanges(changes, authors: Authors) {
      const { after, gone, who } = difference(changes)
      const ghosts = gone.map((element) => ({ ...element, opacity: GHOST }) as OrderedExcalidrawElement)
      const shown = [...after, ...ghosts]
      stops = shown.filter(({ id }) => who.has(id))
      const frames = stops.map((element) => frame(element, authors.of(who.get(element.id)!).color, ghosts.includes(element as OrderedExcalidrawElement)))
      draw({ elements: [...shown, ...frames], files: readImages(changes.doc.getMap('images')) })
      return stops.length
    },
    goTo(at) {
      const element = stops[at]
      if (element) api?.scrollToContent(element, { animate: true, fitToContent: true })
    },
    film: (doc) =>
      new BoardProjector(doc, (scene, grown) => {
        stops = []
        draw(scene)
        if (grown) api?.scrollToContent(scene.elements, { fitToContent: true })
      }),
    destroy() {
      stop()
      root.unmount()
    },
  }
}
