/** The addresses for administrators, see docs/api.md. */
import { apiUrl, encodePath } from '../lib/address'
import { ApiError, type ListedDocument, request } from '../lib/api'

type Query = Readonly<Record<string, string | number | undefined>>

function url(path: string, query: Query = {}): URL {
  const found = apiUrl(`v1/${path}`)
  for (const [key, value] of Object.entries(query)) if (value !== undefined && value !== '') found.searchParams.set(key, String(value))
  return found
}

const get = async <T>(path: string, query: Query, signal: AbortSignal): Promise<T> => (await request('GET', url(path, query), undefined, signal)) as T

const post = async <T>(path: string, body?: unknown): Promise<T> => (await request('POST', url(path), body)) as T

/** A part of a list; `silent` are nodes that live and have not answered. */
interface Page {
  /** The cursor of the page behind this one. */
  next: string | null
  silent: string[]
}

// Nodes

export interface Quantiles {
  /** Seconds; null where nothing was measured. */
  p50: number | null
  p99: number | null
}

export interface Reason {
  reason: string
  total: number
  /** In the last hour. */
  hour: number
}

export interface ServerNode {
  name: string
  address: string
  version: string
  started_at: string
  at: string
  ready: boolean
  degraded: boolean
  reasons: string[]
  checks: Record<string, string>
  connections: Record<string, number>
  rooms: number
  sessions: number
  slow_members: number
  /** A second; `cpu` is a share of one core. Null at first. */
  rates: Record<string, number | null>
  acknowledgement: Quantiles
  propagation: Quantiles
  loop_lag: Quantiles
  loop_stalls: number
  memory: { used: number; mark: number; limit: number; past: number; parts: Record<string, number> }
  journal: { entries: number; bytes: number; failing: boolean; stalled_seconds: number; retries: number }
  bus: { kind: string; trouble: string | null; others: number; lost: Record<string, number>; reconnects: number }
  sandbox: { under_way: number; stays: number; stay_bytes: number; failed: number }
  webhooks: { delivering: boolean; pending: number; oldest_seconds: number; disabled: number }
  refusals: Reason[]
  limits: Reason[]
  documents: { damaged: number; troubled: number; closed: number }
  store_bytes: number | null
}

export interface Heartbeat {
  name: string
  address: string
  version: string
  bus: string
  alive: boolean
  since: string
  silent_seconds: number
  documents: number
  connections: number
}

export interface Nodes {
  asked: string
  at: string
  nodes: ServerNode[]
  silent: string[]
  heartbeats: Heartbeat[]
}

export const readNodes = (signal: AbortSignal): Promise<Nodes> => get('nodes', {}, signal)

export interface NodeHistory {
  /** Seconds between two samples. */
  seconds: number
  /** `at` are unix seconds; each series is as long. */
  nodes: { name: string; at: number[]; series: Record<string, (number | null)[]> }[]
  silent: string[]
}

/** Read the samples behind `since`, in unix seconds. */
export const readHistory = (since: number | undefined, signal: AbortSignal): Promise<NodeHistory> => get('nodes/history', { since }, signal)

// Documents

export interface Room {
  name: string
  number: number | null
  bytes: number
  sessions: number
  readers: number
  edits_per_second: number | null
  stored_bytes_per_second: number | null
  rows_per_second: number | null
  waiting_bytes: number
  slow_members: number
  uncommitted: number
  pending_updates: number
  nodes: string[]
}

export interface RoomPage extends Page {
  rooms: Room[]
  total: number
}

export type RoomOrder = 'edits' | 'stored' | 'size' | 'sessions' | 'waiting' | 'name'

export const readRooms = (query: { order: RoomOrder; search?: string; limit?: number; cursor?: string | undefined }, signal: AbortSignal): Promise<RoomPage> => get('rooms', query, signal)

export const readDocuments = (query: { prefix: string; order: string; cursor?: string | undefined; limit?: number }, signal: AbortSignal): Promise<{ documents: ListedDocument[]; next: string | null }> => get('documents', query, signal)

export interface TrashedDocument {
  id: number
  name: string
  title: string | null
  created_at: string
  updated_at: string
  deleted_at: string
  bytes: number
}

export const readTrash = (query: { prefix: string; cursor?: string | undefined }, signal: AbortSignal): Promise<{ documents: TrashedDocument[]; next: string | null }> => get('trash', query, signal)

export const restoreTrashed = (name: string, id: number, as?: string): Promise<unknown> => post(`trash/${encodePath(name)}`, { id, ...(as === undefined ? {} : { name: as }) })

export const eraseTrashed = (name: string, id: number): Promise<unknown> => request('DELETE', url(`trash/${encodePath(name)}`, { id }))

// One document

export interface Decoded {
  structs: Record<string, { count: number; length: number }>
  clients: { client: number; from: number; to: number; structs: number }[]
  clients_count?: number
  roots: string[]
  deletes: { clients: number; ranges: number; length: number }
  text: string
}

export interface LogRow {
  number: number
  at: string
  author: string | null
  on_behalf_of: string | null
  label: string | null
  bytes: number
  damaged: boolean
  decoded: Decoded | null
}

export interface PendingUpdate {
  number: number
  at: string
  author: string | null
  bytes: number
  decoded: Decoded | null
}

export interface NodeRoom {
  node: string
  open: boolean
  closed_seconds: number
  closed_by: 'operator' | 'failures' | null
  troubled: boolean
  damaged: string | null
  number?: number | null
  bytes?: number
  clients?: number
  sessions?: number
  readers?: number
  agents?: number
  visitors?: number
  slow_members?: number
  uncommitted?: number
  pending_updates?: number
  pending_bytes?: number
  waiting_rows?: number
  tail_rows?: number
  tail_bytes?: number
  snapshot_number?: number | null
  compacting?: boolean
  idle_seconds?: number | null
}

export interface Inspection {
  name: string
  id: number
  title: string | null
  metadata: Record<string, unknown>
  gc: boolean
  created_at: string
  updated_at: string
  number: number
  rows: number | null
  first_row: number | null
  tail_rows: number | null
  tail_bytes: number | null
  snapshots: { number: number; bytes: number; at: string }[] | null
  pending: PendingUpdate[] | null
  pending_count: number | null
  damage_noted: boolean | null
  nodes: NodeRoom[]
  silent: string[]
}

export const inspect = (name: string, signal: AbortSignal): Promise<Inspection> => get(`inspect/${encodePath(name)}`, {}, signal)

export const readLog = (name: string, before: number | undefined, signal: AbortSignal): Promise<{ rows: LogRow[]; next: number | null }> => get(`log/${encodePath(name)}`, { before, limit: 20 }, signal)

export interface Participant {
  name: string | null
  color: string | null
  clients: number[]
  protocol: string
  access: string
  since: string
  agent: string | null
  user: string | null
  connection: string | null
  node: string | null
}

export interface Presence {
  sessions: number
  participants: Participant[]
  states: { client: number; clock: number; state: unknown; bytes: number }[]
  complete: boolean
  silent: string[]
}

export const readPresence = (name: string, signal: AbortSignal): Promise<Presence> => get(`presence/${encodePath(name)}`, {}, signal)

export interface KeptVersion {
  id: number
  number: number | null
  kind: 'named' | 'automatic'
  reason: string
  name: string | null
  author: string | null
  at: string
}

export const readVersions = (name: string, cursor: string | undefined, signal: AbortSignal): Promise<{ versions: KeptVersion[]; next: string | null }> => get(`versions/${encodePath(name)}`, { cursor, limit: 20 }, signal)

export const restoreVersion = (name: string, version: number): Promise<{ changed: boolean; before: number; number: number }> => post(`restore/${encodePath(name)}`, { version })

export interface Compaction {
  made: boolean
  number: number
  bytes: number
  was_number: number | null
  node: string
  reason?: string | null
}

export const compact = (name: string): Promise<Compaction> => post(`compact/${encodePath(name)}`)

export interface Verification {
  name: string
  whole: boolean
  rows: number
  snapshots: number
  pending: number
  bytes: number
  troubles: string[]
  seconds: number
  node: string
}

export const verify = (name: string): Promise<Verification> => post(`verify/${encodePath(name)}`)

export interface Repair {
  steps: string[]
  done: boolean
  kept: string[]
  node: string
  report: Verification
  reloaded: Outcome | null
}

export const repair = (name: string, dryRun: boolean): Promise<Repair> => post(`repair/${encodePath(name)}`, { dry_run: dryRun })

export const deleteForGood = (name: string): Promise<unknown> => request('DELETE', url(`documents/${encodePath(name)}`, { erase: 'true' }))

// What all nodes are told

export interface Outcome {
  nodes: { node: string; ended: number; changed: number; undecided: number; done: boolean }[]
  silent: string[]
}

export interface Command {
  action: 'kick' | 'check' | 'reload' | 'quarantine' | 'release'
  document?: string
  user?: string
  connection?: string
  seconds?: number
}

export const control = (command: Command): Promise<Outcome> => post('control', command)

// Connections

export interface Connected {
  id: string
  node: string
  users: string[]
  address: string | null
  protocol: string
  since: string
  documents: { name: string; access: string; lagging: boolean }[]
  open: number
  waiting_bytes: number
  received_bytes?: number
  received_bytes_per_second?: number | null
}

export const readConnections = (query: { order?: string; search?: string; document?: string; limit?: number; cursor?: string | undefined }, signal: AbortSignal): Promise<Page & { connections: Connected[] }> => get('connections', query, signal)

// Webhooks

export interface Receiver {
  name: string
  events: string[]
  prefix: string
  state: 'working' | 'failing' | 'disabled'
  since: string | null
  pending: number
  oldest: string | null
  delivered: number
  failed: number
  dropped: number
}

export const readReceivers = async (signal: AbortSignal): Promise<Receiver[]> => (await get<{ receivers: Receiver[] }>('webhooks', {}, signal)).receivers

export interface Delivery {
  id: number
  receiver: string
  type: string
  document: string
  at: string
  state: 'pending' | 'delivered' | 'failed'
  failures: number
  next_at: string | null
  done_at: string | null
  status: number | null
  error: string | null
}

export const readDeliveries = (query: { receiver: string; state: string; cursor: string | undefined }, signal: AbortSignal): Promise<{ deliveries: Delivery[]; next: string | null }> => get('webhooks/deliveries', query, signal)

export const resend = async (which: { id: number } | { receiver: string }): Promise<number> => (await post<{ resent: number }>('webhooks/resend', which)).resent

export const enableReceiver = async (receiver: string): Promise<void> => void (await post('webhooks/enable', { receiver }))

// The audit log

export interface AuditEntry {
  at: string
  kind: string
  /** Unknown: its sender has gone before it was known. */
  outcome: 'success' | 'failure' | 'unknown'
  detail: string
  user: string | null
  on_behalf_of: string | null
  /** The user to whom it was done. */
  target: string | null
  address: string | null
  document: string | null
  protocol: string | null
  connection: string | null
  node: string
  trace: string | null
  /** Entries like this one that were left out before it. */
  left_out: number
}

export const readAudit = (query: { kind: string; user: string; document: string; cursor: string | undefined }, signal: AbortSignal): Promise<Page & { entries: AuditEntry[] }> => get('audit', query, signal)

// Tenants

export interface Tenant {
  tenant: string
  state: 'ok' | 'over' | 'stopped'
  over: string[]
  usage: Record<string, number>
  quota: Record<string, number | null>
  own_quota: Record<string, number | null> | null
  measured_at: string | null
}

export const readTenants = (query: { month: string; cursor: string | undefined }, signal: AbortSignal): Promise<{ tenants: Tenant[]; next: string | null; month: string }> => get('tenants', { ...query, limit: 50 }, signal)

export const setQuota = (tenant: string, quota: Record<string, number | null>): Promise<unknown> => request('PUT', url(`quotas/${encodeURIComponent(tenant)}`), quota)

/** Whether this server has such a thing: an older one, or one where it is switched off, does not. */
export async function offered(path: string): Promise<boolean> {
  try {
    await request('GET', url(path, { limit: path === 'webhooks' ? undefined : 1 }))
    return true
  } catch (error) {
    if (error instanceof ApiError && (error.status === 404 || error.code === 'not_offered')) return false
    throw error
  }
}
