/**
 * A document over the published `@hocuspocus/provider`.
 *
 * This server answers each update with SyncStatus after the transaction that holds it has committed, and the
 * provider counts what is unanswered: so "saved" means saved.
 */
import { HocuspocusProvider, HocuspocusProviderWebsocket, WebSocketStatus } from '@hocuspocus/provider'
import { socketUrl } from './address'
import { type ConnectSocket, Outage, type Status } from './connection'
import { Signal } from './signal'
import { getToken } from './token'

/** The close code of a token that ran out while it was in use, or a moment ago. */
const TOKEN_RAN_OUT = 4501

/** The protocol gives a sentence and no code. These are the server's own; an application may say anything else. */
const NOT_FOR_WANT_OF_A_TOKEN = /was deleted|document name|too large|refuses/

export const connectHocuspocus: ConnectSocket = (doc, name) => {
  const status = new Signal<Status>({ state: 'connecting' })
  let refused: Status | undefined
  let heard = false

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

  // Edits made offline wait in this queue, and the sync that begins carries them as well. Sent twice they
  // would be answered twice, while the provider counts one: it would call the document saved too early. It would
  // also grow for as long as the page is offline.
  const forgetQueue = (): void => {
    if (socket.status !== WebSocketStatus.Connected) Reflect.set(socket, 'messageQueue', [])
  }
  doc.on('update', forgetQueue)
  provider.awareness!.on('update', forgetQueue)
  provider.on('connect', () => Reflect.set(socket, 'messageQueue', []))
  socket.on('message', () => (heard = true))
  socket.on('disconnect', () => (heard = false))
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
    origin: provider,
    heard: () => heard,
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
      doc.off('update', forgetQueue)
      outage.destroy()
      provider.destroy()
      socket.destroy()
    },
  }
}
