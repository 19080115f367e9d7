/**
 * The pointers and selections of the others, and the view of the one who is followed; over awareness.
 *
 * The fields are those of other Excalidraw bindings: `pointer: { x, y, tool }` and `button` in coordinates of the
 * scene, and `selectedElementIds`; and `view: [left, top, right, bottom]`, what its owner sees. They are drawn
 * in a layer above the canvas: Excalidraw's own way renders its whole interface anew at every move of anybody,
 * and chooses other colours than the people have everywhere else.
 */
import { CaptureUpdateAction, getCommonBounds } from '@excalidraw/excalidraw'
import type { AppState, Collaborator, CollaboratorPointer, ExcalidrawImperativeAPI, SocketId } from '@excalidraw/excalidraw/types'
import type { Awareness } from 'y-protocols/awareness'
import { type AwarenessState, type Person, type Presence, toPerson } from '../lib/presence'
import { h } from '../shell/dom'

/** Milliseconds between two messages about one's own pointer: enough to look smooth. */
const PACE = 40
/** Ids of selected elements that are told; one's state has to stay small, and the frame around them says enough. */
const SELECTED = 50

type Bounds = [left: number, top: number, right: number, bottom: number]
type View = Pick<AppState, 'scrollX' | 'scrollY' | 'zoom' | 'width' | 'height'>

const isNumber = (value: unknown): value is number => typeof value === 'number' && Math.abs(value) < 1e8

/** Read the pointer of a state, whatever it holds. */
function pointerOf(state: AwarenessState): { x: number; y: number; laser: boolean } | null {
  const { x, y, tool } = (state['pointer'] ?? {}) as Record<string, unknown>
  return isNumber(x) && isNumber(y) ? { x, y, laser: tool === 'laser' } : null
}

function selectionOf(state: AwarenessState): string[] {
  const ids: unknown = state['selectedElementIds']
  return typeof ids === 'object' && ids !== null ? Object.keys(ids).slice(0, SELECTED) : []
}

function viewOf(state: AwarenessState): Bounds | null {
  const view = state['view']
  if (!Array.isArray(view) || view.length !== 4 || !view.every(isNumber)) return null
  const [left, top, right, bottom] = view as Bounds
  return right > left && bottom > top ? [left, top, right, bottom] : null
}

export interface Pointers {
  /** Tell where one's own pointer is. */
  pointed(pointer: CollaboratorPointer, button: 'up' | 'down'): void
  /** Tell what of the scene one sees and has selected; call on each change of the scene. */
  sceneChanged(state: AppState): void
  /** Tell that one's pointer is elsewhere. */
  left(): void
}

/** Show the others in `layer`, which lies over the canvas, and tell them about oneself. */
export function bindPointers(awareness: Awareness, presence: Presence, api: ExcalidrawImperativeAPI, layer: HTMLElement): Pointers {
  // -- oneself ------------------------------------------------------------------------------------------------
  let news: Record<string, unknown> = {}
  let timer: number | undefined
  let told = 0
  let before = ''

  function publish(): void {
    timer = undefined
    const state = awareness.getLocalState()
    if (state === null) return
    told = performance.now()
    // All at once: each call sends a message.
    awareness.setLocalState({ ...state, ...news })
    news = {}
  }

  function tell(fields: Record<string, unknown>): void {
    Object.assign(news, fields)
    timer ??= window.setTimeout(publish, Math.max(0, told + PACE - performance.now()))
  }

  // -- the others ---------------------------------------------------------------------------------------------
  const marks = new Map<number, { pointer: HTMLElement; name: HTMLElement; frame: HTMLElement }>()
  let frame: number | undefined
  let lasers = false

  function marksOf(id: number): { pointer: HTMLElement; name: HTMLElement; frame: HTMLElement } {
    let mark = marks.get(id)
    if (!mark) {
      const name = h('bdi', { class: 'pointer-name' })
      mark = { name, pointer: h('div', { class: 'pointer' }, name), frame: h('div', { class: 'picked' }) }
      marks.set(id, mark)
      layer.append(mark.frame, mark.pointer)
    }
    return mark
  }

  function draw(): void {
    frame = undefined
    const view: View = api.getAppState()
    let elements: Map<string, ReturnType<typeof api.getSceneElements>[number]> | undefined
    const pointing = new Map<SocketId, Collaborator>()
    const seen = new Set<number>()
    for (const [id, state] of awareness.getStates()) {
      if (id === awareness.clientID || typeof state['user'] !== 'object') continue
      seen.add(id)
      const person = toPerson(id, state)
      const { pointer, name, frame } = marksOf(id)
      const at = pointerOf(state)
      pointer.hidden = !at || at.laser
      if (at) {
        name.textContent = person.name
        pointer.style.setProperty('--who', person.color)
        pointer.style.transform = `translate(${(at.x + view.scrollX) * view.zoom.value}px, ${(at.y + view.scrollY) * view.zoom.value}px)`
      }
      if (at?.laser) pointing.set(String(id) as SocketId, laser(at, person, state))
      const selection = selectionOf(state)
      if (selection.length > 0) elements ??= new Map(api.getSceneElements().map((element) => [element.id, element]))
      const picked = selection.flatMap((element) => elements?.get(element) ?? [])
      frame.hidden = picked.length === 0
      if (picked.length > 0) {
        const [left, top, right, bottom] = getCommonBounds(picked)
        frame.style.setProperty('--who', person.color)
        frame.style.transform = `translate(${(left + view.scrollX) * view.zoom.value}px, ${(top + view.scrollY) * view.zoom.value}px)`
        frame.style.width = `${(right - left) * view.zoom.value}px`
        frame.style.height = `${(bottom - top) * view.zoom.value}px`
      }
    }
    for (const [id, mark] of marks) {
      if (seen.has(id)) continue
      mark.pointer.remove()
      mark.frame.remove()
      marks.delete(id)
    }
    // Only the laser's trail is Excalidraw's to draw.
    if (pointing.size > 0 || lasers) api.updateScene({ collaborators: pointing })
    lasers = pointing.size > 0
  }

  function laser({ x, y }: { x: number; y: number }, { name, color }: Person, state: AwarenessState): Collaborator {
    return { username: name, button: state['button'] === 'down' ? 'down' : 'up', pointer: { x, y, tool: 'laser', renderCursor: false, laserColor: color } }
  }

  const redraw = (): void => void (frame ??= requestAnimationFrame(draw))
  awareness.on('change', redraw)

  // -- following ----------------------------------------------------------------------------------------------
  presence.onFollowed((state) => {
    const view = viewOf(state)
    if (!view) return
    const [left, top, right, bottom] = view
    const { width, height } = api.getAppState()
    const zoom = Math.min(30, Math.max(0.1, Math.min(width / (right - left), height / (bottom - top)))) as AppState['zoom']['value']
    const appState = { zoom: { value: zoom }, scrollX: (width / zoom - left - right) / 2, scrollY: (height / zoom - top - bottom) / 2 }
    api.updateScene({ appState, captureUpdate: CaptureUpdateAction.NEVER })
  })

  return {
    pointed: ({ x, y, tool }, button) => tell({ pointer: { x: Math.round(x), y: Math.round(y), tool }, button }),
    sceneChanged(state) {
      redraw()
      const { scrollX, scrollY, zoom, width, height, selectedElementIds } = state
      const selected = Object.fromEntries(Object.entries(selectedElementIds).slice(0, SELECTED))
      const view: Bounds = [-scrollX, -scrollY, width / zoom.value - scrollX, height / zoom.value - scrollY]
      // Two who follow each other would chase each other: who follows has no view to show.
      const fields = { selectedElementIds: selected, ...(presence.following.value === null && { view: view.map(Math.round) }) }
      const now = JSON.stringify(fields)
      if (now === before) return
      before = now
      tell(fields)
    },
    left: () => tell({ pointer: null, button: 'up' }),
  }
}
