// Published Hocuspocus providers of three generations under the command of a test. How they are commanded
// stands in lib/agent.mjs. A socket is a client of its own, because many providers may share one:
//
//   {"id": 1, "op": "socket", "key": "s", "version": "4", "url": "ws://..."}
//   {"id": 2, "op": "open", "key": "a", "socket": "s", "name": "notes/a", "token": {"value": "t", "slow": 100}}

import * as Y from 'yjs'
import { Clients, base64, bytes, commonOps, keep, keepOn, newDocument, run, statesOf } from './lib/agent.mjs'
import { show } from './lib/content.mjs'
import { loadProviders } from './lib/providers.mjs'
import { WebSocket } from './lib/stacks.mjs'

const versions = await loadProviders()
const sockets = new Clients()
const clients = new Clients()

// What a provider throws and does not catch: in a page an error on the console, here for a test to ask for.
const thrown = []
const uncaught = (error) => { thrown.push(String(error?.message ?? error)) }
process.on('uncaughtException', uncaught)
process.on('unhandledRejection', uncaught)

// A listener that throws must not keep the socket from delivering the next message: as in browsers.
class PageSocket extends WebSocket {
  #guarded = new Map()

  addEventListener (type, listener, options) {
    const guarded = (event) => { try { listener(event) } catch (error) { uncaught(error) } }
    this.#guarded.set(listener, guarded)
    super.addEventListener(type, guarded, options)
  }

  removeEventListener (type, listener) {
    super.removeEventListener(type, this.#guarded.get(listener) ?? listener)
  }
}

const socketState = (it) => ({
  // Whether the TCP connection with its WebSocket stands, whatever the provider thinks of it.
  open: it.ws?.readyState === WebSocket.OPEN,
  status: it.socket.status,
  opens: it.opens,
  closes: it.closes
})

const state = (it) => ({
  ...show(Y, it.doc),
  clientID: it.doc.clientID,
  states: statesOf(it.awareness),
  synced: it.provider.synced,
  authenticated: it.provider.isAuthenticated,
  scope: it.provider.authorizedScope ?? null,
  unsynced: it.provider.unsyncedChanges,
  unsaved: it.provider.hasUnsyncedChanges,
  events: it.events,
  failures: it.failures,
  stateless: it.stateless,
  asked: it.asked,
  ...socketState(it.over)
})

// A token as the test describes it: {"value": text or null, "slow": ms, "fail": message, "sync": true}. A bare
// text or null is given to the provider as it is; anything else as a function, which looks anew at each call.
const tokenOf = (it) => {
  if (it.token === null || typeof it.token === 'string') return it.token
  return () => {
    it.asked++
    const { value = null, slow = 0, fail = null, sync = false } = it.token
    const finish = () => { if (fail !== null) throw new Error(fail); return value }
    return sync ? finish() : new Promise((resolve) => setTimeout(resolve, slow)).then(finish)
  }
}

await run({
  ...commonOps(Y, clients, state),

  // Come back fast: with the default delays of one second and more each restart would cost a test seconds.
  // headers: of the handshake, as a proxy adds them.
  socket ({ key, version, url, headers = {}, options = {} }) {
    const it = { version, socket: null, ws: null, opens: 0, closes: [], received: [], sent: [] }
    class Observed extends PageSocket {
      constructor (address, protocols) {
        super(address, protocols, { headers })
        it.ws = this
        this.on('open', () => it.opens++)
        this.on('close', (code) => it.closes.push(code))
        this.on('message', (data) => keep(it.received, base64(data)))
      }

      send (data, ...more) {
        keep(it.sent, base64(data))
        super.send(data, ...more)
      }
    }
    it.socket = new versions[version].Socket({
      url, WebSocketPolyfill: Observed, delay: 50, minDelay: 50, maxDelay: 250, ...options
    })
    sockets.set(key, it)
  },

  // awareness: "own" (the provider's default), "null" (the option null: none at all).
  // disk: the one that has its local copy, which is read before it connects; only with Yjs 13.
  async open ({ key, socket, name, token = null, awareness = 'own', clientID = null, content = [], copy = null, disk = null, options = {} }) {
    const over = sockets.get(socket)
    const doc = newDocument(Y, { clientID, content, copy })
    if (disk !== null) await keepOn(doc, disk)
    const it = {
      doc, over, token, awareness: null, provider: null, events: {}, failures: [], stateless: [], asked: 0
    }
    const { Provider } = versions[over.version]
    it.provider = new Provider({
      name,
      document: doc,
      websocketProvider: over.socket,
      token: tokenOf(it),
      ...(awareness === 'null' ? { awareness: null } : {}),
      ...(over.version === '2' ? { broadcast: false } : {}),
      ...options
    })
    it.awareness = it.provider.awareness
    for (const name of ['open', 'connect', 'disconnect', 'close', 'synced', 'authenticated', 'destroy']) {
      it.provider.on(name, () => { it.events[name] = (it.events[name] ?? 0) + 1 })
    }
    it.provider.on('authenticationFailed', ({ reason }) => it.failures.push(reason))
    it.provider.on('stateless', ({ payload }) => it.stateless.push(payload))
    // 3 and 4 leave this to their user when the socket is shared; 2 has done it.
    if (over.version !== '2') it.provider.attach()
    clients.set(key, it)
    return doc.clientID
  },

  socketState: ({ key }) => socketState(sockets.get(key)),

  // The last frames on a socket, oldest first, as base64.
  received: ({ key }) => sockets.get(key).received,
  sent: ({ key }) => sockets.get(key).sent,

  thrown: () => thrown.splice(0),

  // What any frame would do that a provider sends: for what stock providers send only in a race.
  raw ({ key, data }) {
    sockets.get(key).ws.send(bytes(data))
  },

  token ({ key, token }) {
    clients.get(key).token = token
  },

  // As an application does that has been denied: once more on the same socket. 2 has detached itself.
  async retry ({ key }) {
    const { provider, over } = clients.get(key)
    if (over.version === '2') provider.connect()
    else {
      await provider.sendToken()
      provider.startSync()
    }
  },

  // Shows a new token on a live connection.
  async sendToken ({ key }) {
    await clients.get(key).provider.sendToken()
  },

  sendStateless ({ key, payload }) {
    clients.get(key).provider.sendStateless(payload)
  },

  forceSync ({ key }) {
    clients.get(key).provider.forceSync()
  },

  // The recipe of docs/migrating.md for provider 2.
  countAgain ({ key }) {
    const { provider } = clients.get(key)
    provider.on('unsyncedChanges', (count) => { if (count < 0) provider.forceSync() })
  },

  attach ({ key }) {
    clients.get(key).provider.attach()
  },

  detach ({ key }) {
    clients.get(key).provider.detach()
  },

  // All that goes over a socket goes offline and comes back.
  connect ({ key }) {
    sockets.get(key).socket.connect()
  },

  disconnect ({ key }) {
    sockets.get(key).socket.disconnect()
  },

  // The network goes away without a word; the provider comes back by itself.
  cut ({ key }) {
    sockets.get(key).ws?.terminate()
  },

  destroy ({ key }) {
    const it = clients.get(key)
    it.provider.destroy()
    it.doc.destroy()
    clients.delete(key)
  },

  destroySocket ({ key }) {
    sockets.get(key).socket.destroy()
    sockets.delete(key)
  }
})
