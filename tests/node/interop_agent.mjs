// Published y-websocket clients under the command of a test: `node interop_agent.mjs yjs13|yjs14`.
// How they are commanded stands in lib/agent.mjs.
//
//   {"id": 1, "op": "open", "key": "a", "version": "3.1", "url": "ws://...", "name": "notes/a"}

import { Clients, commonOps, keep, keepOn, newDocument, run, statesOf } from './lib/agent.mjs'
import { show } from './lib/content.mjs'
import { loadStack, WebSocket } from './lib/stacks.mjs'

const { Y, awareness: awarenessProtocol, providers } = await loadStack(process.argv[2])

const clients = new Clients()

const state = (it) => ({
  ...show(Y, it.doc),
  clientID: it.doc.clientID,
  subdocuments: [...it.doc.getSubdocs()].map((doc) => doc.guid).sort(),
  synced: it.provider?.synced ?? false,
  connected: it.provider?.wsconnected ?? false,
  shouldConnect: it.provider?.shouldConnect ?? false,
  states: statesOf(it.awareness),
  opens: it.opens,
  closes: it.closes,
  closed: it.closed,
  asked: it.asked ?? 0,
  frames: it.frames
})

await run({
  ...commonOps(Y, clients, state),

  // awareness: "own" (the provider's default) or "null": a client that shows nothing of itself.
  // headers: of the handshake, as a proxy adds them.
  // disk: the one that has its local copy, which is read before it connects; only with Yjs 13.
  async open ({ key, version, url, name, awareness = 'own', clientID = null, content = [], copy = null, disk = null, params = {}, headers = {} }) {
    const doc = newDocument(Y, { clientID, content, copy })
    if (disk !== null) await keepOn(doc, disk)
    const it = { doc, awareness: null, provider: null, opens: 0, closes: [], closed: null, received: [], frames: 0 }
    if (version !== undefined) {
      it.awareness = new awarenessProtocol.Awareness(doc)
      if (awareness === 'null') it.awareness.setLocalState(null)
      const Provider = providers[version]
      class Observed extends WebSocket {
        constructor (address, protocols) {
          super(address, protocols, { headers })
          this.on('message', (data) => {
            it.frames++
            keep(it.received, Buffer.from(data).toString('base64'))
          })
        }
      }
      it.provider = new Provider(url, name, doc, {
        WebSocketPolyfill: Observed, disableBc: true, awareness: it.awareness, params
      })
      it.provider.on('status', ({ status }) => { if (status === 'connected') it.opens++ })
      it.provider.on('connection-close', (event) => it.closes.push(event === null ? null : event.code))
      it.provider.on('connection-error', () => {})
      it.provider.on('closed', ({ code, reason }) => { it.closed = { code, reason } })
    }
    clients.set(key, it)
    return doc.clientID
  },

  connect ({ key }) {
    clients.get(key).provider.connect()
  },

  disconnect ({ key }) {
    clients.get(key).provider.disconnect()
  },

  // The provider reads them anew each time it connects: that is how a token is renewed.
  params ({ key, params }) {
    clients.get(key).provider.params = params
  },

  // The recipe of docs/security.md. The route gives these tokens one after the other, null stands for a failure.
  renews ({ key, tokens, slow }) {
    const it = clients.get(key)
    const { provider } = it
    it.asked = 0
    async function fetchToken () {
      for (;;) {
        it.asked++
        await new Promise((resolve) => setTimeout(resolve, slow))
        const token = tokens.shift()
        if (token) return token
      }
    }
    if (it.renews) provider.off('connection-close', it.renews)
    it.renews = async (event) => {
      if (event?.code !== 4401 && event?.code !== 4501) return
      provider.shouldConnect = false
      provider.params = { token: await fetchToken() }
      provider.connect()
    }
    provider.on('connection-close', it.renews)
  },

  // The process behind a client dies: the socket is cut, nothing is said.
  vanish ({ key }) {
    const { provider } = clients.get(key)
    provider.shouldConnect = false
    provider.ws?.terminate()
  },

  close ({ key }) {
    const it = clients.get(key)
    it.provider?.destroy()
    it.awareness?.destroy()
    it.doc.destroy()
    clients.delete(key)
  }
})
