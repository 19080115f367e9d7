/** The whiteboard: Excalidraw on the Yjs document, with everybody's pointers. */
import { MIME_TYPES, serializeAsJSON } from '@excalidraw/excalidraw'
import type { ExcalidrawImperativeAPI } from '@excalidraw/excalidraw/types'
import { createElement } from 'react'
import { createRoot } from 'react-dom/client'
import { withFallback } from '../lib/fallback'
import { connectHocuspocus } from '../lib/hocuspocus'
import { h } from '../shell/dom'
import { openPage } from '../shell/page'
import { theme } from '../shell/theme'
import { toast } from '../shell/toast'
import { type Binding, bindScene, readElements } from './binding'
import { Board, type BoardProps } from './Board'
import './board.css'
import { bindImages, readImages } from './images'
import { nameThings } from './names'
import { outline } from './outline'
import { bindPointers, type Pointers } from './pointers'

const NO_ROOM = 'This image is too large for the board: others do not see it'

// Several renderings within one frame become one; with thousands of elements each takes its time.
Object.assign(window, { EXCALIDRAW_THROTTLE_RENDER: true })
// In a build the fonts are assets (see vite.excalidraw.ts).
if (import.meta.env.DEV) Object.assign(window, { EXCALIDRAW_ASSET_PATH: '/node_modules/@excalidraw/excalidraw/dist/dev/' })

export async function openBoard(name: string): Promise<void> {
  const page = await openPage(name, withFallback(connectHocuspocus), {
    // What Excalidraw, here or elsewhere, takes from the clipboard.
    viewer: async () => (await import('./past')).openBoardViewer,
    saving: {
      shows: (doc) => JSON.stringify(readElements(doc.getArray('elements')).map(({ id, version, versionNonce }) => [id, version, versionNonce])).replace(/^\[\]$/, ''),
      file: (doc) => ({
        ending: 'excalidraw',
        type: MIME_TYPES.excalidraw,
        text: serializeAsJSON(readElements(doc.getArray('elements')), {}, readImages(doc.getMap('images')), 'local'),
      }),
    },
    content: () => JSON.stringify({ type: 'excalidraw/clipboard', elements: readElements(elements), files: readImages(images) }),
  })
  const { doc, connection, presence, title } = page
  const elements = doc.getArray<unknown>('elements')
  const images = doc.getMap<unknown>('images')

  const canvas = h('div', { class: 'canvas', id: 'board' })
  const layer = h('div', { class: 'pointers', 'aria-hidden': 'true' })
  page.main.append(h('div', { class: 'board' }, canvas, layer), outline(elements))

  let api: ExcalidrawImperativeAPI | undefined
  let binding: Binding | undefined
  let pointers: Pointers | undefined
  let readOnly = false

  /** Excalidraw reports its first change when the scene it begins with is in place; before, it would be overwritten. */
  function begin(api: ExcalidrawImperativeAPI): void {
    const { keep } = bindImages(images, api, () => toast(NO_ROOM))
    binding = bindScene(elements, api, { onWrite: keep })
    binding.setReadOnly(readOnly)
    pointers = bindPointers(connection.awareness, presence, api, layer)
    if (api.getSceneElements().length > 0) api.scrollToContent(undefined, { fitToContent: true })
    // For the console, and for tests: a canvas tells them nothing.
    Object.assign(canvas, { excalidraw: api })
  }

  const stable: BoardProps = {
    autoFocus: parent === window,
    initialData: () => ({ elements: readElements(elements), files: readImages(images), appState: { showWelcomeScreen: true } }),
    excalidrawAPI: (given) => (api = given),
    onChange(_elements, state) {
      if (!api) return
      if (!binding) begin(api)
      binding!.sceneChanged()
      pointers!.sceneChanged(state)
    },
    onPointerUpdate: ({ pointer, button }) => pointers?.pointed(pointer, button),
  }
  page.onReset(() => api?.history.clear())
  nameThings()
  const root = createRoot(canvas)
  const render = (): void => root.render(createElement(Board, { ...stable, theme: theme.value, name: title.value, viewModeEnabled: readOnly }))

  page.onReadOnly((value) => {
    readOnly = value
    binding?.setReadOnly(value)
    render()
  })
  theme.subscribe(render)
  title.subscribe(render)
  canvas.addEventListener('pointerleave', () => pointers?.left())
}
