/**
 * One Yjs document over the published y-websocket client, and how its connection fares.
 *
 * y-websocket has no acknowledgement, so nothing here says "saved": it says whether the
 * document is in step with the server, kept in this tab only, or refused for good.
 */
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

export type Status =
  | { state: 'connecting' }
  /** The server's state has arrived; edits travel both ways. */
  | { state: 'connected' }
  /** Cut off; the client tries again by itself. `why` is a sentence. */
  | { state: 'offline'; why: string }
  /** The server decided against it (close code 44xx); trying again would not help. */
  | { state: 'refused'; why: string; code: number }

export interface Connection {
  readonly doc: Y.Doc
  readonly provider: WebsocketProvider
  readonly status: Status
  /** True while the connection is down and this tab holds edits that the server may lack. */
  readonly unsent: boolean
  /** Call `listener` with the present status now and with every later one. */
  onStatus(listener: (status: Status) => void): void
  destroy(): void
}

/** Say why the connection ended, by the close codes of RFC 6455 and of the server. */
function whyOffline(event: CloseEvent | null): string {
  switch (event?.code) {
    case 1008:
    case 1007:
      return 'The server did not accept a message from this page.'
    case 1009:
      return 'A change is larger than the server takes.'
    case 1012:
      return 'The server is restarting.'
    case 1013:
      return 'The server cannot take changes at the moment.'
    case 1011:
    case 4500:
      return 'The server had an error.'
    default:
      return 'The server cannot be reached.'
  }
}

function whyRefused(code: number, reason: string): string {
  switch (code) {
    case 4400:
      return 'This name cannot be used for a document.'
    case 4404:
      return 'This document was deleted.'
    case 4413:
      return 'This document has grown larger than the server takes.'
    default:
      return reason ? `The server refused this document: ${reason}.` : 'The server refused this document.'
  }
}

/**
 * Open the document `room` (percent-encoded) at `url` and keep it in step until `destroy`.
 *
 * Set the local awareness state on `connection.provider.awareness`; the first message to
 * the server leaves in a later turn of the event loop, so doing it at once is early enough.
 */
export function connect(url: string, room: string): Connection {
  const doc = new Y.Doc()
  const provider = new WebsocketProvider(url, room, doc)
  const listeners = new Set<(status: Status) => void>()
  let status: Status = { state: 'connecting' }
  let edited = false

  const become = (next: Status): void => {
    if (JSON.stringify(next) === JSON.stringify(status)) return
    status = next
    for (const listener of listeners) listener(status)
  }

  doc.on('update', (_update: Uint8Array, origin: unknown) => {
    if (origin !== provider) edited = true
  })
  provider.on('sync', (synced: boolean) => {
    if (!synced) return
    // The server asks for what it lacks before it sends its own state, so by now everything
    // this tab holds is on its way. An edit that follows may still be lost with the connection,
    // and only the next sync tells: so it counts as unsent as soon as the connection is down.
    edited = false
    become({ state: 'connected' })
  })
  provider.on('connection-close', (event: CloseEvent | null) => {
    become({ state: 'offline', why: whyOffline(event) })
  })
  provider.on('closed', ({ code, reason }: { code: number; reason: string }) => {
    become({ state: 'refused', why: whyRefused(code, reason), code })
  })

  return {
    doc,
    provider,
    get status() {
      return status
    },
    get unsent() {
      return edited && !provider.synced
    },
    onStatus(listener) {
      listeners.add(listener)
      listener(status)
    },
    destroy() {
      listeners.clear()
      provider.destroy()
      doc.destroy()
    },
  }
}
