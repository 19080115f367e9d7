/**
 * A document over the published `@hocuspocus/provider`.
 *
 * This server answers each update with SyncStatus after the transaction that holds it has committed, and the
 * provider counts what is unanswered: so "saved" means saved.
 */
import { HocuspocusProvider, HocuspocusProviderWebsocket, WebSocketStatus } from '@hocuspocus/provider'
import { socketUrl } from './address'
import { type Connect, Outage, type Status } from './connection'
import { Signal } from './signal'
import { getToken } from './token'

/** The close code of a token that ran out while it was in use, or a moment ago. */
const TOKEN_RAN_OUT = 4501

/** The protocol gives a sentence and no code. These are the server's own; an application may say anything else. */
const NOT_FOR_WANT_OF_A_TOKEN = /was deleted|document name|too large|refuses/

export const connectHocuspocus: Connect = (doc, name) => {
  const status = new Signal<Status>({ state: 'connecting' })
  let refused: Status | undefined

  const tell = (): void => status.set(refused ?? present())
  const connect = (): void => void socket.connect()
  const outage = new Outage(tell, () => {
    if (socket.status === WebSocketStatus.Connected) socket.onClose({ event: new CloseEvent('close', { code: 4408, reason: 'another network' }) })
    else connect()
  })
  const socket = new HocuspocusProviderWebsocket({ url: socketUrl('hocuspocus'), delay: 500, minDelay: 500, maxDelay: 5000 })
  const provider = new HocuspocusProvider({ websocketProvider: socket, name, document: doc, token: getToken })

  function present(): Status {
    if (!provider.isSynced || !provider.isAuthenticated) return outage.status
    if (provider.authorizedScope === 'readonly') return { state: 'read-only' }
    return { state: provider.hasUnsyncedChanges ? 'saving' : 'saved', durable: true }
  }

  provider.on('connect', () => {
    // Edits made offline wait in this queue, and the sync that has begun carries them as well. Sent twice they
    // would be answered twice, while the provider counts one: it would call the document saved too early.
    Reflect.set(socket, 'messageQueue', [])
  })
  provider.on('synced', () => {
    outage.up()
    tell()
  })
  provider.on('authenticated', () => {
    refused = undefined
    tell()
  })
  provider.on('unsyncedChanges', tell)
  provider.on('close', ({ event }: { event?: { code?: number; reason?: string } }) => {
    outage.down()
    // The provider comes back with the same token until somebody shows another one.
    if (event?.code === TOKEN_RAN_OUT) refused = { state: 'refused', why: event.reason || 'the token has expired', token: true, deleted: false }
    tell()
  })
  provider.on('authenticationFailed', ({ reason }: { reason: string }) => {
    const why = reason.replaceAll('-', ' ')
    refused = { state: 'refused', why, token: !NOT_FOR_WANT_OF_A_TOKEN.test(why), deleted: /was deleted/.test(why) }
    tell()
  })
  provider.attach()

  return {
    awareness: provider.awareness!,
    status,
    setOnline(online) {
      outage.unplug(!online)
      if (online) connect()
      else socket.disconnect()
      tell()
    },
    retry() {
      refused = undefined
      tell()
      void provider.sendToken().then(() => provider.startSync())
    },
    destroy() {
      outage.destroy()
      provider.destroy()
      socket.destroy()
    },
  }
}
