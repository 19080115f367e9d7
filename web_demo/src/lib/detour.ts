/**
 * The way over plain HTTP, where a WebSocket is blocked, and the way back.
 *
 * Blocked is what is shown to be blocked: the server answers over HTTP, and a WebSocket that is opened after that hears
 * nothing. A page without network and a server that is down are therefore never taken for it; the socket's own client
 * goes on trying there. Over HTTP a WebSocket is tried again from time to time, and when the browser tells of another
 * network. HTTP ends only when the socket has synced: until then both apply the same updates to one document,
 * and an update that comes twice changes nothing.
 */
import type * as Y from 'yjs'
import { encodePath, socketUrl } from './address'
import { type Connection, isUp, type SocketConnection } from './connection'
import { ask, connectStreams, Refusal } from './streams'
import { getToken } from './token'

/** Milliseconds that a WebSocket has to bring the first message. */
const PATIENCE = 4000
/** Milliseconds between two tries to come back to a WebSocket. */
const RETRY = 60_000
/** Milliseconds between two looks at a socket that has opened. */
const TICK = 500

/**
 * Look at the network, and call `use` with a connection over HTTP if it blocks the WebSocket of `socket`; `wanted` tells
 * whether one is wanted still. When the socket has taken over, `use` is called with nothing, and the connection has ended.
 */
export async function goOverHttp(doc: Y.Doc, name: string, socket: SocketConnection, wanted: () => boolean, use: (http?: Connection) => void): Promise<void> {
  if (!(await answersOverHttp(name)) || (await hearsOverSocket(name))) return
  const refused = (): boolean => socket.status.value.state === 'refused'
  if (!wanted() || socket.heard() || refused()) return
  const http = connectStreams(doc, name, socket.awareness, socket.origin)
  let ended = false
  let trying = false
  let unplugged = false

  const on = (): boolean => !ended && !unplugged
  /** Use the WebSocket again if it works now. */
  async function comeBack(): Promise<void> {
    if (trying || !on() || document.hidden) return
    trying = true
    if ((await hearsOverSocket(name)) && on()) {
      socket.setOnline(true)
      const deadline = performance.now() + PATIENCE
      while (on() && (socket.heard() || performance.now() < deadline)) await new Promise((resolve) => setTimeout(resolve, TICK))
      if (on()) {
        socket.setOnline(false)
        // The socket's client has taken the others out of the presence.
        http.readPresenceAnew()
      }
    }
    trying = false
  }

  const timer = setInterval(comeBack, RETRY)
  addEventListener('online', comeBack)
  document.addEventListener('visibilitychange', comeBack)
  const unsubscribe = socket.status.subscribe((status) => {
    // A socket that is up, or that the server refuses, has had its answer.
    if (!on() || !(isUp(status) || refused())) return
    end()
    use()
  })

  function end(): void {
    ended = true
    clearInterval(timer)
    removeEventListener('online', comeBack)
    document.removeEventListener('visibilitychange', comeBack)
    unsubscribe()
    http.destroy()
  }

  use({
    ...http,
    setOnline(online) {
      unplugged = !online
      // A try to come back may be under way.
      if (unplugged) socket.setOnline(false)
      http.setOnline(online)
    },
    destroy: end,
  })
  // Its further tries would take the presence of others away each time.
  socket.setOnline(false)
}

/** Tell whether the server answers over HTTP, be it with a refusal. */
async function answersOverHttp(name: string): Promise<boolean> {
  try {
    await ask(name, { params: { offset: 'now' } })
    return true
  } catch (error) {
    return error instanceof Refusal && error.status < 500
  }
}

/**
 * Tell whether the network lets the server's words through a WebSocket: its first message, or its own close code.
 * That it opens says nothing, as a proxy may open it and pass nothing on.
 */
function hearsOverSocket(name: string): Promise<boolean> {
  return new Promise((resolve) => {
    const token = getToken()
    const probe = new WebSocket(`${socketUrl('ws')}/${encodePath(name)}${token && `?token=${encodeURIComponent(token)}`}`)
    const end = (heard: boolean): void => {
      clearTimeout(timer)
      probe.onmessage = probe.onclose = null
      probe.close()
      resolve(heard)
    }
    const timer = setTimeout(end, PATIENCE, false)
    probe.onmessage = () => end(true)
    probe.onclose = ({ code }) => end(code >= 4000)
  })
}
