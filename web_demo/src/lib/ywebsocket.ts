/**
 * A document over the published `y-websocket`.
 *
 * Its protocol has no acknowledgement, but the server sends everybody's updates to everybody, the sender
 * included: an update that has come back has arrived. That is "synced"; nobody says that it is on disk.
 */
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { writeSyncStep1 } from 'y-protocols/sync'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { encodePath, socketUrl } from './address'
import { mayOnlyRead } from './api'
import { type ConnectSocket, Outage, type Status } from './connection'
import { Signal } from './signal'
import { getToken } from './token'

const SYNC = 0
const AUTH = 2
const STEP2 = 1
const UPDATE = 2

/** The close code of a token that ran out while it was in use, or a moment ago. */
const TOKEN_RAN_OUT = 4501

const DELETED = 4404

/** Close codes after which a new token may help. */
const WANT_TOKEN = [4401, 4403]

function whyRefused(code: number, reason: string): string {
  switch (code) {
    case 4400:
      return 'this name cannot be used for a document'
    case 4401:
      return reason || 'a valid token is needed'
    case 4403:
      return 'this token does not open the document'
    case DELETED:
      return 'the document was deleted'
    case 4413:
      return 'the document has grown larger than the server takes'
    default:
      return reason || 'the server gave no reason'
  }
}

/** Tell whether `whole` contains the last change that `part` describes. */
function contains(whole: Uint8Array, part: Uint8Array): boolean {
  const mine = Y.decodeUpdate(part)
  const all = Y.decodeUpdate(whole)
  const last = mine.structs.at(-1)
  if (last) return all.structs.some(({ id, length }) => id.client === last.id.client && id.clock + length >= last.id.clock + last.length)
  return [...mine.ds.clients].every(([client, ranges]) => {
    const { clock } = ranges.at(-1)!
    return all.ds.clients.get(client)?.some((range) => range.clock <= clock && clock < range.clock + range.len)
  })
}

export const connectYWebsocket: ConnectSocket = (doc, name) => {
  const status = new Signal<Status>({ state: 'connecting' })
  let refused: Status | undefined
  let readOnly = false
  let heard = false
  /** Whether it is known what may be done here: else an edit would be let in that the server then refuses. */
  let learned = false
  /** The newest edit that the server has not sent back; edits travel in order, so the newest speaks for all. */
  let unseen: Uint8Array | undefined
  /** The edit that a question to the server will settle, see below. */
  let asked: Uint8Array | undefined

  const provider = new WebsocketProvider(socketUrl('ws'), encodePath(name), doc, {
    connect: false,
    // Tabs of one browser would go on talking to each other with the plug pulled.
    disableBc: true,
    params: getToken() ? { token: getToken() } : {},
  })
  const tell = (): void => status.set(refused ?? present())
  const outage = new Outage(tell, () => {
    if (!provider.shouldConnect) return
    provider.disconnect()
    provider.connect()
  })

  function present(): Status {
    if (!provider.synced || !learned) return outage.status
    if (readOnly) return { state: 'read-only' }
    return { state: unseen ? 'saving' : 'saved', durable: false }
  }

  const handleSync = provider.messageHandlers[SYNC]!
  provider.messageHandlers[SYNC] = (encoder, decoder, ...rest) => {
    heard = true
    const peek = decoding.clone(decoder)
    const type = decoding.readVarUint(peek)
    handleSync(encoder, decoder, ...rest)
    if (unseen && type === UPDATE && contains(decoding.readVarUint8Array(peek), unseen)) unseen = undefined
    if (type === STEP2 && provider.synced) {
      if (asked && asked === unseen) unseen = undefined
      // What was edited offline went out as the answer to the server's question, and what it knew already
      // does not come back. Its answer to one more question says that it has read ours.
      asked = asked ? undefined : unseen
      if (asked) ask()
    }
    tell()
  }
  provider.messageHandlers[AUTH] = () => {
    readOnly = true
    tell()
  }

  function ask(): void {
    const encoder = encoding.createEncoder()
    encoding.writeVarUint(encoder, SYNC)
    writeSyncStep1(encoder, doc)
    provider.ws?.send(encoding.toUint8Array(encoder))
  }

  const onUpdate = (update: Uint8Array, origin: unknown): void => {
    if (origin === provider) return
    unseen = update
    tell()
  }
  doc.on('update', onUpdate)
  provider.on('sync', (synced: boolean) => {
    asked = undefined
    if (synced) void learnAccess()
    else outage.down()
    tell()
  })

  /** The protocol tells a reader only when it refuses an edit, which is late: so this asks. */
  async function learnAccess(): Promise<void> {
    const socket = provider.ws
    const reader = await mayOnlyRead(name)
    if (provider.ws !== socket || !provider.synced) return
    if (reader) readOnly = true
    learned = true
    outage.up()
    tell()
  }
  provider.on('connection-close', (event) => {
    readOnly = learned = heard = false
    outage.down()
    if (event?.code === TOKEN_RAN_OUT) {
      // There is no other one to come back with until somebody shows it: `retry` goes on with that.
      provider.shouldConnect = false
      refused = { state: 'refused', why: event.reason, token: true, deleted: false }
    }
    tell()
  })
  provider.on('closed', ({ code, reason }) => {
    refused = { state: 'refused', why: whyRefused(code, reason), token: WANT_TOKEN.includes(code), deleted: code === DELETED }
    tell()
  })
  provider.connect()

  return {
    awareness: provider.awareness,
    status,
    origin: provider,
    heard: () => heard,
    setOnline(online) {
      outage.unplug(!online)
      if (online) provider.connect()
      else provider.disconnect()
      tell()
    },
    retry() {
      refused = undefined
      provider.params = getToken() ? { token: getToken() } : {}
      provider.connect()
      tell()
    },
    destroy() {
      doc.off('update', onUpdate)
      outage.destroy()
      provider.destroy()
    },
  }
}
