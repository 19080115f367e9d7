/** The content of a document as its clients have it: this page joins as a silent client that never writes. */
import * as Y from 'yjs'
import { isUp, type Status } from '../lib/connection'
import { withFallback } from '../lib/fallback'
import { connectYWebsocket } from '../lib/ywebsocket'
import { h } from '../shell/dom'
import { bytes, count, moment, plain } from './format'
import { setText } from './table'
import { makeTree } from './tree'

/** Bytes above which a document is fetched only when somebody asks for it. */
const LARGE = 8 * 1024 * 1024
/** Milliseconds between two drawings. */
const PAUSE = 200

export interface Following {
  readonly element: HTMLElement
  /** Begin, unless the document is so large that somebody has to ask for it. */
  offer(size: number): void
  close(): void
}

function words(status: Status): string {
  if (isUp(status)) return 'Follows each change.'
  if (status.state === 'refused') return `The server does not open it: ${plain(status.why)}.`
  return status.state === 'connecting' ? 'Connecting.' : 'The connection is lost. It comes back by itself.'
}

/** Say who has changed how much, in a transaction that came from the server. */
function describe({ beforeState, afterState, deleteSet, changed }: Y.Transaction): string {
  const clients: string[] = []
  let inserted = 0
  for (const [client, clock] of afterState) {
    const before = beforeState.get(client) ?? 0
    if (clock <= before) continue
    inserted += clock - before
    clients.push(String(client))
  }
  const deleted = [...deleteSet.clients.values()].flat().reduce((all, { len }) => all + len, 0)
  const keys = [...changed.values()].flatMap((parts) => [...parts]).filter((part) => part !== null)
  return `+${count(inserted)} −${count(deleted)}${clients.length > 0 ? ` by client ${clients.slice(0, 3).join(', ')}${clients.length > 3 ? ` and ${clients.length - 3} more` : ''}` : ''}${keys.length > 0 ? `, keys ${cutList(keys)}` : ''}`
}

const cutList = (keys: readonly string[]): string => `${keys.slice(0, 5).map((key) => plain(key.slice(0, 40))).join(', ')}${keys.length > 5 ? ` and ${keys.length - 5} more` : ''}`

/** Follow `name`; `changed` is called when something has come. */
export function follow(name: string, changed: () => void): Following {
  const doc = new Y.Doc()
  const tree = makeTree(doc)
  const state = h('p', { class: 'hint' }, 'Waiting')
  const last = h('p', { class: 'last-change', id: 'last-change', hidden: true })
  const load = h('button', { type: 'button', class: 'button quiet small', hidden: true, onclick: () => begin() }, 'Load it')
  let connection: ReturnType<ReturnType<typeof withFallback>> | undefined
  let timer = 0
  let synced = false

  function draw(): void {
    clearTimeout(timer)
    timer = 0
    if (!document.hidden) tree.show()
  }
  const later = (): void => {
    timer ||= window.setTimeout(draw, PAUSE)
  }

  function begin(): void {
    if (connection) return
    load.hidden = true
    connection = withFallback(connectYWebsocket)(doc, name)
    // Nobody is there to be seen.
    connection.awareness.setLocalState(null)
    doc.on('afterTransaction', (transaction: Y.Transaction) => {
      if (synced) {
        last.hidden = false
        setText(last, `${moment(Date.now() / 1000)}: ${describe(transaction)}`)
        changed()
      }
      later()
    })
    connection.status.subscribe((status) => {
      synced ||= isUp(status)
      setText(state, words(status))
      later()
    })
  }
  document.addEventListener('visibilitychange', later)

  return {
    element: h('div', { class: 'follow', role: 'region', 'aria-label': 'Content', tabindex: '0' }, h('div', { class: 'follow-head' }, state, load), last, tree.element),
    offer(size) {
      const status = connection?.status.value
      // It was deleted, and is there again.
      if (status?.state === 'refused' && status.deleted) connection?.retry()
      if (connection || !load.hidden) return
      if (size <= LARGE) return begin()
      setText(state, `The document has ${bytes(size)}, which this page would load.`)
      load.hidden = false
    },
    close() {
      clearTimeout(timer)
      document.removeEventListener('visibilitychange', later)
      connection?.destroy()
      doc.destroy()
    },
  }
}
