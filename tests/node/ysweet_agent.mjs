// Y-Sweet's published client under the command of a test. How it is commanded stands in lib/agent.mjs.
//
//   {"id": 1, "op": "open", "key": "a", "url": "ws://...", "name": "notes/a", "token": "..."}

import * as Y from 'yjs'
import { createYjsProvider } from '@y-sweet/client'
import { Clients, commonOps, keep, newDocument, run, statesOf } from './lib/agent.mjs'
import { show } from './lib/content.mjs'
import { WebSocket } from './lib/stacks.mjs'

const SYNC_STATUS = 102

const clients = new Clients()

const state = (it) => ({
  ...show(Y, it.doc),
  clientID: it.doc.clientID,
  synced: it.provider.synced,
  status: it.provider.status,
  states: statesOf(it.provider.awareness),
  localChanges: it.provider.hasLocalChanges,
  signs: it.signs,
  opens: it.opens,
  asked: it.asked,
  answered: it.answered
})

await run({
  ...commonOps(Y, clients, state),

  // The application's own endpoint gives what the provider asks for: the address, the document and a token.
  open ({ key, url, name, token = '', content = [], connect = true }) {
    const doc = newDocument(Y, {})
    const it = { doc, signs: [], opens: 0, asked: 0, answered: 0, received: [], provider: null, awareness: null }
    class Observed extends WebSocket {
      constructor (...args) {
        super(...args)
        it.opens++
        this.on('message', (data) => {
          keep(it.received, Buffer.from(data).toString('base64'))
          if (Buffer.from(data)[0] === SYNC_STATUS) it.answered++
        })
      }

      send (data) {
        if (new Uint8Array(data)[0] === SYNC_STATUS) it.asked++
        super.send(data)
      }
    }
    it.provider = createYjsProvider(doc, name, async () => ({ url, docId: name, token }), {
      WebSocketPolyfill: Observed, showDebuggerLink: false, connect
    })
    it.awareness = it.provider.awareness
    it.provider.on('local-changes', (has) => it.signs.push(has))
    clients.set(key, it)
    for (const [edit, args] of content) commonOps(Y, clients, state).edit({ key, edit, args })
    return doc.clientID
  },

  connect ({ key }) {
    clients.get(key).provider.connect()
  },

  close ({ key }) {
    const it = clients.get(key)
    it.provider.disconnect()
    it.provider.destroy()
    clients.delete(key)
  }
})
