/**
 * A connection over a WebSocket, and over plain HTTP for as long as the network lets no WebSocket through.
 *
 * This watches whether the server is heard. What happens when it is not is in `detour.ts`, which few pages ever load.
 */
import type { Connect, Connection, ConnectSocket, Status } from './connection'
import { Signal } from './signal'

/** Milliseconds without a word from the server after which the network is looked at: at first, and at most. */
const SILENCE = [2000, 30_000] as const
/** Milliseconds for an answer of the server over HTTP. */
const PATIENCE = 10_000
/** Milliseconds between two looks at the connection. */
const TICK = 500

/** Use `connect`, and plain HTTP where its WebSocket is blocked. */
export function withFallback(connect: ConnectSocket): Connect {
  return (doc, name) => {
    const socket = connect(doc, name)
    const status = new Signal<Status>(socket.status.value)
    let http: Connection | undefined
    let unplugged = false
    let destroyed = false
    let looking = false
    /** When the server was last heard, or when the last look ended; of the page's clock. */
    let since: number
    let silence: number

    const tell = (): void => status.set((http ?? socket).status.value)
    const beginAnew = (): void => {
      since = performance.now()
      silence = SILENCE[0]
    }
    const use = (over?: Connection): void => {
      http = over
      beginAnew()
      if (http) http.status.subscribe(tell)
      else tell()
    }

    async function look(): Promise<void> {
      looking = true
      try {
        // Some browsers never load again what they could not load once.
        if (!(await fetch(document.baseURI, { method: 'HEAD', cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) })).ok) throw new Error('no server')
        const { goOverHttp } = await import('./detour')
        await goOverHttp(doc, name, socket, () => !destroyed && !unplugged, use)
      } catch {
        // No network, or a server that is down.
      }
      looking = false
      since = performance.now()
      silence = Math.min(2 * silence, SILENCE[1])
    }

    const tick = setInterval(() => {
      if (http || looking || unplugged) return
      if (socket.heard() || socket.status.value.state === 'refused') beginAnew()
      else if (performance.now() - since >= silence && navigator.onLine) void look()
    }, TICK)
    beginAnew()
    socket.status.subscribe(tell)
    addEventListener('online', beginAnew)

    return {
      awareness: socket.awareness,
      status,
      setOnline(online) {
        unplugged = !online
        beginAnew()
        ;(http ?? socket).setOnline(online)
        tell()
      },
      retry() {
        ;(http ?? socket).retry()
      },
      destroy() {
        destroyed = true
        clearInterval(tick)
        removeEventListener('online', beginAnew)
        http?.destroy()
        socket.destroy()
      },
    }
  }
}
