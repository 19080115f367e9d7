// The stock client of the Durable Streams Yjs protocol under the command of a test. How it is commanded stands in
// lib/agent.mjs.
//
//   {"id": 1, "op": "open", "key": "a", "url": "http://.../streams", "name": "notes/a", "liveMode": "long-poll"}
//
// With "others", the addresses of more servers, each request goes to the next one, as a proxy may send it.

import { YjsProvider } from '@durable-streams/y-durable-streams'
import { Awareness } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { Clients, commonOps, newDocument, run, statesOf } from './lib/agent.mjs'
import { show } from './lib/content.mjs'

const clients = new Clients()

// Every request of a client, by what it was and how it ended: its token tells whose it is.
const requests = new Map()
const spread = new Map()
const realFetch = globalThis.fetch
globalThis.fetch = async (url, options) => {
  const key = options?.headers?.['x-client']
  const kind = `${options?.method ?? 'GET'}${String(url).includes('awareness=') ? ' presence' : ''}`
  const count = (what) => {
    const of = requests.get(key)
    if (of) of[what] = (of[what] ?? 0) + 1
  }
  const servers = spread.get(key) ?? []
  if (servers.length) {
    servers.push(servers.shift())
    url = String(url).replace(servers.find((server) => String(url).startsWith(server)), servers[0])
  }
  try {
    const response = await realFetch(url, options)
    count(`${kind} ${response.status}`)
    return response
  } catch (error) {
    count(`${kind} failed`)
    throw error
  }
}

// It writes each failed presence into the console.
console.error = () => {}

const state = (it) => ({
  ...show(Y, it.doc),
  clientID: it.doc.clientID,
  synced: it.provider.synced,
  connected: it.provider.connected,
  states: statesOf(it.awareness),
  errors: it.errors,
  requests: requests.get(it.key)
})

await run({
  ...commonOps(Y, clients, state),

  open ({ key, url, others = [], name, token = '', liveMode = 'sse', presence = false, clientID = null, content = [] }) {
    const doc = newDocument(Y, { clientID, content })
    const awareness = presence ? new Awareness(doc) : null
    const it = { key, doc, awareness, errors: [], provider: null }
    requests.set(key, {})
    if (others.length) spread.set(key, [url, ...others])
    it.provider = new YjsProvider({
      doc, baseUrl: url, docId: name, liveMode, connect: false, ...(presence ? { awareness } : {}),
      headers: { 'x-client': key, ...(token ? { authorization: `Bearer ${token}` } : {}) }
    })
    it.provider.on('error', (error) => it.errors.push(String(error)))
    clients.set(key, it)
    it.provider.connect()
    return doc.clientID
  },

  flush: ({ key }) => clients.get(key).provider.flush(),

  connect: ({ key }) => clients.get(key).provider.connect(),

  disconnect: ({ key }) => clients.get(key).provider.disconnect(),

  close ({ key }) {
    const it = clients.get(key)
    it.provider.destroy()
    it.awareness?.destroy()
    clients.delete(key)
  }
})
