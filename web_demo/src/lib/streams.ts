/**
 * A document over plain HTTP, for networks that let no WebSocket through: the Durable Streams Yjs protocol.
 *
 * Edits are sent by POST, one at a time, and an answered one is on the server's disk: so "saved" means saved. What
 * others do is fetched by long-polls, as proxies hold back parts of an answer and never a whole one. A browser has six
 * connections to a server over HTTP/1.1, all tabs together, and edits need one of them: so a tab holds one at most for
 * the document, and all tabs together one for presence. A tab that gets none asks every other second.
 *
 * The first read tells what the server has. What this page has beyond it (edits made offline) is sent then, and each
 * later edit until it is answered; the server knows an update that comes twice. An offset that the server does not
 * know any more begins all this anew.
 */
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { applyAwarenessUpdate, type Awareness, encodeAwarenessUpdate } from 'y-protocols/awareness'
import * as Y from 'yjs'
import { encodePath, streamUrl } from './address'
import { mayOnlyRead } from './api'
import { type Connection, Outage, type Status } from './connection'
import { Signal } from './signal'
import { getToken } from './token'

/** Tabs that may hold a connection open, of the six that they share. */
const LIVE = { document: 4, presence: 1 }
/** Milliseconds between two questions of a tab that may not. */
const INTERVAL = 1500
/** Milliseconds for which changes gather before the next long-poll fetches them, or the next presence is sent. */
const GATHER = 100
/** Milliseconds for an answer to begin, and without a byte of it; the server ends a long-poll after some 60 s. */
const PATIENCE = 20_000
const LONG_POLL = 90_000
/** Bytes a millisecond that even a slow line sends; nobody tells how far it is. */
const UPLINK = 5
/** Milliseconds before a failed connection is tried again: at first, and at most. */
const BACKOFF = [500, 5000] as const
/** Bytes of edits that are sent at once, unless a single edit is larger. */
const BATCH = 262_144

export interface StreamConnection extends Connection {
  /** Fetch the presence of all others once more. */
  readPresenceAnew(): void
}

/** What the server has answered in place of what was asked for. */
export class Refusal extends Error {
  readonly status: number
  /** Seconds that it asks to wait. */
  readonly wait: number

  constructor(status: number, message: string, wait: number) {
    super(message)
    this.status = status
    this.wait = wait
  }
}

/** Tell whether the same may be taken later. */
const isLater = ({ status }: Refusal): boolean => status >= 500 || status === 408 || status === 429

interface Answer {
  /** The `offset` that the address has after redirects. */
  readonly offset: string
  readonly next: string
  readonly cursor: string | null
  readonly upToDate: boolean
  readonly body: Uint8Array
}

interface Question {
  readonly method?: 'PUT' | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  readonly params?: Readonly<Record<string, string | null>>
  readonly body?: Uint8Array<ArrayBuffer>
  readonly signal?: AbortSignal
  /** The page is closing: let the request outlive it. */
  readonly keepalive?: boolean
}

/** Ask the server. Throws a `Refusal` if it refuses, another error if what answers is not the server. */
export async function ask(name: string, { method, headers: more, params = {}, body, signal, keepalive = false }: Question): Promise<Answer> {
  const url = streamUrl(name)
  for (const [key, value] of Object.entries(params)) if (value !== null) url.searchParams.set(key, value)
  const headers: Record<string, string> = { ...more, ...(method && { 'Content-Type': 'application/octet-stream' }) }
  if (getToken()) headers['Authorization'] = `Bearer ${getToken()}`
  const own = new AbortController()
  const abort = (): void => own.abort()
  let timer = setTimeout(abort, (params['live'] ? LONG_POLL : PATIENCE) + (body?.length ?? 0) / UPLINK)
  const onProgress = (): void => {
    clearTimeout(timer)
    timer = setTimeout(abort, PATIENCE)
  }
  signal?.addEventListener('abort', abort)
  try {
    signal?.throwIfAborted()
    // Not from the browser's cache, which lets equal questions of several tabs wait for each other.
    const response = await fetch(url, { method: method ?? 'GET', headers, cache: 'no-store', signal: own.signal, keepalive, ...(body && { body }) })
    const bytes = await readBody(response, onProgress)
    const next = response.headers.get('Stream-Next-Offset')
    if (response.ok && next !== null) {
      return {
        offset: new URL(response.url).searchParams.get('offset') ?? '',
        next,
        cursor: response.headers.get('Stream-Cursor'),
        upToDate: response.headers.has('Stream-Up-To-Date'),
        body: bytes,
      }
    }
    const { error } = JSON.parse(new TextDecoder().decode(bytes)) as { error: { message: string } }
    throw new Refusal(response.status, error.message, Number(response.headers.get('Retry-After') ?? 0) || 0)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

async function readBody(response: Response, onProgress: () => void): Promise<Uint8Array> {
  const parts: BlobPart[] = []
  const reader = response.body?.getReader()
  for (let part = await reader?.read(); part?.value; part = await reader?.read()) {
    onProgress()
    parts.push(part.value)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

function frame(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const encoder = encoding.createEncoder()
  for (const part of parts) encoding.writeVarUint8Array(encoder, part)
  return encoding.toUint8Array(encoder) as Uint8Array<ArrayBuffer>
}

function frames(body: Uint8Array): Uint8Array[] {
  const decoder = decoding.createDecoder(body)
  const found: Uint8Array[] = []
  while (decoding.hasContent(decoder)) found.push(decoding.readVarUint8Array(decoder))
  return found
}

/** Give what `doc` has and `known`, an update, has not; undefined if that is nothing. */
function beyond(doc: Y.Doc, known: Uint8Array | undefined): Uint8Array | undefined {
  if (doc.store.clients.size === 0) return undefined
  if (!known) return Y.encodeStateAsUpdate(doc)
  const vector = Y.encodeStateVectorFromUpdate(known)
  const theirs = Y.decodeStateVector(vector)
  const behind = [...Y.decodeStateVector(Y.encodeStateVector(doc))].some(([client, clock]) => (theirs.get(client) ?? 0) < clock)
  // An edit that only deletes is in no state vector.
  if (!behind && Y.equalDeleteSets(Y.decodeUpdate(known).ds, Y.snapshot(doc).ds)) return undefined
  return Y.encodeStateAsUpdate(doc, vector)
}

/** Call `act` with whether one of the `LIVE` connections of all tabs is this one's, for as long as it runs. */
async function withSlot<T>(kind: keyof typeof LIVE, act: (mine: boolean) => Promise<T>, number = 0): Promise<T> {
  // Without TLS there may be no locks: then most likely there are not many tabs.
  if (!navigator.locks) return act(kind === 'document')
  if (number === LIVE[kind]) return act(false)
  return navigator.locks.request(`collab:live:${kind}:${number}`, { ifAvailable: true }, (lock) => (lock ? act(true) : withSlot(kind, act, number + 1))) as Promise<T>
}

/**
 * Open the document `name` over plain HTTP and keep `doc` and `awareness` in step with it. Transactions of the origin
 * `ignored` come from the server by another way.
 */
export function connectStreams(doc: Y.Doc, name: string, awareness: Awareness, ignored: unknown): StreamConnection {
  const status = new Signal<Status>({ state: 'connecting' })
  /** The origin of what comes from the server. */
  const origin = {}
  const me = awareness.clientID
  let refused: Status | undefined
  let unplugged = false
  let destroyed = false
  /** Ends all requests that run. */
  let session = new AbortController()
  let presence = new AbortController()
  let running = false
  /** Ends the pause before the next try. */
  let wake = (): void => {}

  /** Where the next read begins; undefined before the first one. */
  let offset: string | undefined
  /** Whether the document has been seen: one that is not there afterwards was deleted. */
  let seen = false
  let synced = false
  let readOnly = false
  /** Edits that no answer has confirmed, in order. */
  let queue: Uint8Array[] = []
  let sending = false
  /** By these the server knows whose edits they are, and which of them it has taken. */
  const producer = `${encodePath(name)}-${doc.clientID}`
  const epoch = String(Date.now())
  let number = 0
  /** Why the session was ended by what is not the reader. */
  let failure: unknown

  const tell = (): void => status.set(refused ?? present())
  const outage = new Outage(tell, () => restart())

  function present(): Status {
    if (unplugged || !synced) return outage.status
    if (readOnly) return { state: 'read-only', http: true }
    return { state: queue.length > 0 ? 'saving' : 'saved', durable: true, http: true }
  }

  function pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  function restart(): void {
    session.abort()
    wake()
    void run()
  }

  /** Read and write until there is nothing more to try. */
  async function run(): Promise<void> {
    if (running) return
    running = true
    let delay: number = BACKOFF[0]
    while (!destroyed && !unplugged && !refused) {
      session = new AbortController()
      failure = undefined
      try {
        await read(session.signal, () => (delay = BACKOFF[0]))
      } catch (error) {
        const aborted = session.signal.aborted
        session.abort()
        synced = false
        outage.down()
        const wait = aborted && failure === undefined ? 0 : await judge(failure ?? error, delay)
        tell()
        if (wait === 0) continue
        delay = Math.min(2 * delay, BACKOFF[1])
        await pause(wait)
      }
    }
    running = false
    tell()
  }

  /** Decide what an error means; gives the milliseconds to wait. */
  async function judge(error: unknown, delay: number): Promise<number> {
    if (!(error instanceof Refusal)) return delay
    if (isLater(error)) return Math.max(delay, 1000 * error.wait)
    const token = error.status === 401 || error.status === 403
    switch (error.status) {
      case 410:
        // The server has no such offset any more: what it has is read anew, and so what it lacks is found.
        offset = undefined
        return delay
      case 404:
        refused = { state: 'refused', why: 'the document was deleted', token: false, deleted: true }
        return 0
      default:
        // Who could write, and now may only read, is told no more than that.
        if (token && !readOnly && (await learnsToRead())) return delay
        refused = { state: 'refused', why: error.message, token, deleted: false }
        return 0
    }
  }

  /** Ask whether this page may read and no more; a network that is silent says no. */
  const learnsToRead = (): Promise<boolean> => Promise.race([mayOnlyRead(name), pause(PATIENCE).then(() => false)])

  async function read(signal: AbortSignal, works: () => void): Promise<never> {
    readOnly = await learnsToRead()
    let live = false
    let cursor: string | null = null
    const start = (): void => {
      live = true
      works()
      up()
      void followPresence(signal)
      // With the next clock: the others may have been told that we are gone.
      if (awareness.getLocalState() !== null) awareness.setLocalState(awareness.getLocalState())
      void send()
    }
    if (offset === undefined) {
      await begin(signal)
      start()
    }
    for (;;) {
      const at: string = offset!
      const answer: Answer = await withSlot('document', async (mine) => {
        if (live && !mine) await pause(INTERVAL)
        return ask(name, { params: { offset: at, ...(live && mine && { live: 'long-poll', cursor }) }, signal })
      })
      const updates = frames(answer.body)
      apply(updates)
      offset = answer.next
      cursor = answer.cursor
      if (!live && answer.upToDate) start()
      else if (live && updates.length > 0) await pause(GATHER)
    }
  }

  function up(): void {
    synced = true
    outage.up()
    tell()
  }

  /** Read all that the server has, and find what it lacks. */
  async function begin(signal: AbortSignal): Promise<void> {
    const updates: Uint8Array[] = []
    let at = 'snapshot'
    for (let whole = false; !whole; ) {
      let answer: Answer
      try {
        answer = await ask(name, { params: { offset: at }, signal })
      } catch (error) {
        if (!(error instanceof Refusal) || error.status !== 404 || gone(error)) throw error
        await create(signal)
        continue
      }
      seen = true
      if (answer.offset.endsWith('_snapshot')) updates.push(answer.body)
      else updates.push(...frames(answer.body))
      at = answer.next
      whole = answer.upToDate
    }
    // All at once: an editor must not see a part of a change.
    apply(updates)
    const lacking = readOnly ? undefined : beyond(doc, updates.length > 0 ? Y.mergeUpdates(updates) : undefined)
    queue = lacking ? [lacking] : []
    offset = at
  }

  /** Tell a document that was deleted from one that is not there yet: to create the first one anew is nobody's wish. */
  function gone({ message }: Refusal): boolean {
    return seen || /deleted|renamed/.test(message)
  }

  /** Make the document, whose streams are there only then; a reader waits until somebody does. */
  async function create(signal: AbortSignal): Promise<void> {
    try {
      if (!readOnly) return void (await ask(name, { method: 'PUT', signal }))
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 403) throw error
      readOnly = true
    }
    up()
    await pause(2 * INTERVAL)
  }

  function apply(updates: readonly Uint8Array[]): void {
    if (updates.length === 0) return
    Y.transact(doc, () => updates.forEach((update) => Y.applyUpdate(doc, update)), origin, false)
  }

  const onUpdate = (update: Uint8Array, from: unknown): void => {
    if (from === origin || from === ignored || readOnly) return
    queue.push(update)
    tell()
    void send()
  }

  /** Send what is queued; an edit leaves the queue when the server has it on its disk. */
  async function send(): Promise<void> {
    if (sending || !synced || offset === undefined) return
    sending = true
    const { signal } = session
    try {
      while (queue.length > 0 && !signal.aborted) {
        let count = 0
        let bytes = 0
        while (count < queue.length && (count === 0 || bytes + queue[count]!.length <= BATCH)) bytes += queue[count++]!.length
        const sent = queue
        const headers = { 'Producer-Id': producer, 'Producer-Epoch': epoch, 'Producer-Seq': String(number) }
        await ask(name, { method: 'POST', headers, body: frame(...queue.slice(0, count)), signal })
        number += 1
        // Another one, if the server was read anew meanwhile.
        if (queue === sent) queue.splice(0, count)
        tell()
      }
    } catch (error) {
      if (!signal.aborted) {
        failure = error
        session.abort()
      }
    } finally {
      sending = false
    }
  }

  // -- presence ---------------------------------------------------------------------------------------------------

  let announcing = false
  let changed = false
  /** Whether others may see us. */
  let shown = false

  /** Show one's own state to the others; of several changes in a row the last one is sent. */
  async function announce(): Promise<void> {
    changed = true
    if (announcing) return
    announcing = true
    while (changed && synced && seen && awareness.meta.has(me)) {
      changed = false
      shown ||= awareness.getLocalState() !== null
      let wait = GATHER
      try {
        await ask(name, { method: 'POST', params: { awareness: 'default' }, body: frame(encodeAwarenessUpdate(awareness, [me])), signal: session.signal })
      } catch (error) {
        // What is refused for good is asked again with the next state, after 15 s at most.
        changed = !(error instanceof Refusal) || isLater(error)
        wait = Math.max(INTERVAL, error instanceof Refusal ? 1000 * error.wait : 0)
      }
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
    announcing = false
  }

  const onAwareness = ({ added, updated, removed }: { added: number[]; updated: number[]; removed: number[] }, from: unknown): void => {
    // The server has taken us for gone: the library has given our state the next clock.
    if (from === origin ? removed.includes(me) : [...added, ...updated, ...removed].includes(me)) void announce()
  }

  async function followPresence(outer: AbortSignal): Promise<void> {
    presence.abort()
    const own = (presence = new AbortController())
    outer.addEventListener('abort', () => own.abort())
    const { signal } = own
    const wait = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds))
    let at = '-1'
    let cursor: string | null = null
    while (!signal.aborted && !outer.aborted) {
      try {
        if (document.hidden) {
          await wait(INTERVAL)
          at = '-1'
          continue
        }
        const answer: Answer = await withSlot('presence', async (mine) => {
          const live = mine && at !== '-1'
          if (!live && at !== '-1') await wait(INTERVAL)
          return ask(name, { params: { awareness: 'default', offset: at, ...(live && { live: 'long-poll', cursor }) }, signal })
        })
        for (const update of frames(answer.body)) show(update)
        at = answer.next
        cursor = answer.cursor
        await wait(GATHER)
      } catch {
        at = '-1'
        await wait(INTERVAL)
      }
    }
  }

  function show(update: Uint8Array): void {
    // A state that was taken out here, and not by its owner, has the clock that it had: it would be refused.
    const decoder = decoding.createDecoder(update)
    for (let left = decoding.readVarUint(decoder); left > 0; left -= 1) {
      const client = decoding.readVarUint(decoder)
      decoding.readVarUint(decoder)
      decoding.readVarString(decoder)
      if (client !== me && !awareness.states.has(client)) awareness.meta.delete(client)
    }
    applyAwarenessUpdate(awareness, update, origin)
  }

  const leave = (): void => {
    if (!shown) return
    shown = false
    const gone = encodeAwarenessUpdate(awareness, [me], new Map())
    void ask(name, { method: 'POST', params: { awareness: 'default' }, body: frame(gone), keepalive: true }).catch(() => {})
  }

  doc.on('update', onUpdate)
  awareness.on('update', onAwareness)
  addEventListener('pagehide', leave)
  void run()

  return {
    awareness,
    status,
    readPresenceAnew() {
      if (synced && seen) void followPresence(session.signal)
    },
    setOnline(online) {
      unplugged = !online
      outage.unplug(unplugged)
      if (!online) leave()
      restart()
      tell()
    },
    retry() {
      refused = undefined
      offset = undefined
      seen = false
      restart()
      tell()
    },
    destroy() {
      destroyed = true
      doc.off('update', onUpdate)
      awareness.off('update', onAwareness)
      removeEventListener('pagehide', leave)
      outage.destroy()
      session.abort()
      wake()
    },
  }
}
