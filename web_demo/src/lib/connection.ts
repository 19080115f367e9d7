/**
 * What the page wants of a connection, whichever protocol is below, and words for how it fares.
 *
 * `saved` is said by the one transport whose server acknowledges after the commit; the other says `synced`:
 * the server has the edit, and nobody has told us that it is on disk.
 */
import type { Awareness } from 'y-protocols/awareness'
import type * as Y from 'yjs'
import { Signal } from './signal'

/** `http`: over plain HTTP, as the network lets no WebSocket through. */
export type Status =
  /** Nothing has come from the server yet. */
  | { state: 'connecting' }
  /** Edits are on their way. `durable` tells what their arrival will mean. */
  | { state: 'saving'; durable: boolean; http?: true }
  /** Every edit of this page has arrived: on the server's disk if `durable`, else with the server. */
  | { state: 'saved'; durable: boolean; http?: true }
  /** Everything is seen live, nothing may be changed. */
  | { state: 'read-only'; http?: true }
  /** Cut off a moment ago; the client tries again by itself. */
  | { state: 'reconnecting' }
  /** Cut off for a while, or on purpose. */
  | { state: 'offline' }
  /** The server decided against it; trying again with the same token would not help. `deleted`: there is no such document any more. */
  | { state: 'refused'; why: string; token: boolean; deleted: boolean }

export interface Connection {
  readonly awareness: Awareness
  readonly status: Signal<Status>
  /** Pull the network plug of this page, or put it back. */
  setOnline(online: boolean): void
  /** Ask again with the token that is known now. */
  retry(): void
  destroy(): void
}

/** Open the document `name` of the server beside this page, and keep `doc` in step with it. */
export type Connect = (doc: Y.Doc, name: string) => Connection

/** A connection over a WebSocket. */
export interface SocketConnection extends Connection {
  /** The origin of the transactions that bring what the server sends. */
  readonly origin: unknown
  /** Whether the server has said anything on the socket that is open now. */
  heard(): boolean
}

export type ConnectSocket = (doc: Y.Doc, name: string) => SocketConnection

export function isUp({ state }: Status): boolean {
  return state === 'saved' || state === 'saving' || state === 'read-only'
}

/** Say how it stands. `kept`: whether edits outlive the closing of this tab. */
export function words(status: Status, kept: 'yes' | 'soon' | 'no'): string {
  switch (status.state) {
    case 'connecting':
      return 'Connecting'
    case 'saving':
      return status.durable ? 'Saving' : 'Syncing'
    case 'saved':
      return status.durable ? 'Saved' : 'Synced'
    case 'read-only':
      return 'Read only'
    case 'reconnecting':
      return 'Reconnecting'
    case 'offline':
      return `Offline, your changes are kept ${kept === 'no' ? 'in this tab' : 'here'}`
    case 'refused':
      return status.deleted ? 'Deleted' : `Refused: ${status.why}`
  }
}

/** Say by which way it goes, if that is not the usual one. */
export function way(status: Status): string {
  return 'http' in status ? '(limited network)' : ''
}

const HTTP = ' This network blocks WebSocket, so the page uses plain HTTP: changes of others may show a moment later. It goes back to a WebSocket by itself.'

/** Say what the words mean. The protocols promise different things, so they are not called the same. */
export function meaning(status: Status, kept: 'yes' | 'soon' | 'no'): string {
  return explain(status, kept) + ('http' in status ? HTTP : '')
}

function explain(status: Status, kept: 'yes' | 'soon' | 'no'): string {
  switch (status.state) {
    case 'saving':
      return 'Changes are on their way to the server.'
    case 'saved':
      return status.durable
        ? 'Every change of this page is on the server’s disk.'
        : 'The server has every change of this page. The protocol here, y-websocket, does not tell when they are on its disk, so this page does not say “Saved”.'
    case 'read-only':
      return 'Changes of others show at once; yours are not allowed.'
    case 'refused':
      return 'The server does not take changes of this page.'
    default:
      return kept === 'no' ? 'The server cannot be reached. Keep this tab open: it alone has your changes.' : 'The server cannot be reached. Your changes are kept in this browser, and sent when it is back.'
  }
}

/** Milliseconds for which a lost connection counts as one that will be back in a moment. */
const MOMENT = 8000

/**
 * How a connection that is down is called: by how long it has been, and by what the browser knows.
 *
 * When the browser tells of another network, or of none, the socket may hang, and nothing else would tell of it for 30 s
 * and more: `reconnect` is called, unless the plug is pulled.
 */
export class Outage {
  #timer: number | undefined
  #been = false
  #long = false
  #unplugged = false
  readonly #changed: () => void
  readonly #network: () => void

  constructor(changed: () => void, reconnect: () => void) {
    this.#changed = changed
    this.#network = () => {
      changed()
      if (!this.#unplugged) reconnect()
    }
    this.down()
    addEventListener('offline', this.#network)
    addEventListener('online', this.#network)
  }

  /** The connection works. */
  up(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#been = true
    this.#long = false
  }

  /** The connection does not work; harmless to say again. */
  down(): void {
    if (this.#timer !== undefined || this.#long) return
    this.#timer = window.setTimeout(() => {
      this.#timer = undefined
      this.#long = true
      this.#changed()
    }, MOMENT)
  }

  unplug(unplugged: boolean): void {
    this.#unplugged = unplugged
  }

  get status(): Status {
    if (this.#unplugged || this.#long || !navigator.onLine) return { state: 'offline' }
    return { state: this.#been ? 'reconnecting' : 'connecting' }
  }

  destroy(): void {
    clearTimeout(this.#timer)
    removeEventListener('offline', this.#network)
    removeEventListener('online', this.#network)
  }
}
