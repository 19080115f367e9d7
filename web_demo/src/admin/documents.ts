/** Documents: those in memory by what they cost now, all that are stored, and those in the trash. */
import { type ListedDocument } from '../lib/api'
import { h } from '../shell/dom'
import { closeDocument, eraseDeleted, removeDocument, restoreDeleted } from './actions'
import { readDocuments, readRooms, readTrash, type Room, type RoomOrder, type TrashedDocument } from './api'
import { bytes, byteRate, count, rate } from './format'
import { deedsColumn, documentColumn, labelled, makePager, nameColumn, searchField, select, silence, whenColumn } from './parts'
import type { Poll } from './poll'
import { figure, makeTable, setText, type Table } from './table'
import type { Admin, OpenView } from './view'

const known = (value: number | null, format: (value: number) => string): string => (value === null ? '–' : format(value))

/** Make a short table of documents in memory. */
export function roomTable(caption: string, empty: string): Table<Room> {
  return makeTable<Room>(
    caption,
    [
      documentColumn('Document', (row) => row.name, { heading: true }),
      figure('Edits', (row) => known(row.edits_per_second, rate)),
      figure('Size', (row) => bytes(row.bytes)),
      figure('Sessions', (row) => count(row.sessions)),
    ],
    { key: (row) => row.name, empty },
  )
}

function fullRoomTable(again: () => void): Table<Room> {
  return makeTable<Room>(
    'Documents in memory',
    [
      documentColumn('Document', (row) => row.name, { heading: true }),
      figure('Edits', (row) => known(row.edits_per_second, rate)),
      figure('Log', (row) => known(row.stored_bytes_per_second, byteRate)),
      figure('Size', (row) => bytes(row.bytes)),
      figure('Sessions', (row) => count(row.sessions), { title: (row) => (row.readers ? `${count(row.readers)} of them by streams` : '') }),
      figure('Waiting', (row) => bytes(row.waiting_bytes), { title: () => 'Bytes that wait for clients that read slowly' }),
      figure('Slow', (row) => count(row.slow_members)),
      figure('Not saved', (row) => count(row.uncommitted), { title: () => 'Edits that are on their way to the disk' }),
      figure('Pending', (row) => count(row.pending_updates), { title: () => 'Updates that wait for edits which nobody has sent' }),
      figure('Row', (row) => known(row.number, count), { wide: true }),
      nameColumn('Servers', (row) => row.nodes.join(', '), { wide: true }),
      deedsColumn<Room>((row) => row.name, [{ label: 'Close', act: (row) => void closeDocument(row.name).then((done) => done && again()) }]),
    ],
    { key: (row) => row.name, empty: 'No such document is in memory.', mark: (row) => (row.slow_members > 0 || row.pending_updates > 0 ? 'warn' : '') },
  )
}

/** Milliseconds for which an order by size is waited for: the server looks at all documents for that. */
export const PATIENT = 300_000

/** Make a short table of stored documents by their size. */
export function largestTable(): Table<ListedDocument> {
  return makeTable<ListedDocument>(
    'Largest documents',
    [
      documentColumn('Document', (row) => row.name, { heading: true }),
      nameColumn('Title', (row) => row.title, { wide: true }),
      whenColumn('Edited', (row) => row.updated_at),
      figure('Size', (row) => bytes(row.bytes), { title: () => 'What is read to open it: its newest snapshot and the edits behind it' }),
    ],
    { key: (row) => row.name, empty: 'No document is stored.' },
  )
}

export function storedTable(again: () => void): Table<ListedDocument> {
  return makeTable<ListedDocument>(
    'Stored documents',
    [
      documentColumn('Document', (row) => row.name, { heading: true }),
      nameColumn('Title', (row) => row.title),
      figure('Size', (row) => bytes(row.bytes)),
      whenColumn('Edited', (row) => row.updated_at),
      whenColumn('Created', (row) => row.created_at, { wide: true }),
      deedsColumn<ListedDocument>((row) => row.name, [{ label: 'Delete', danger: true, act: (row) => void removeDocument(row.name).then((done) => done && again()) }]),
    ],
    { key: (row) => row.name, empty: 'No such document is stored.' },
  )
}

function trashTable(again: () => void): Table<TrashedDocument> {
  return makeTable<TrashedDocument>(
    'Deleted documents',
    [
      nameColumn('Document', (row) => row.name, { heading: true }),
      nameColumn('Title', (row) => row.title),
      figure('Size', (row) => bytes(row.bytes)),
      whenColumn('Deleted', (row) => row.deleted_at),
      whenColumn('Created', (row) => row.created_at, { wide: true }),
      deedsColumn<TrashedDocument>((row) => row.name, [
        { label: 'Restore', act: (row) => void restoreDeleted(row).then((done) => done && again()) },
        { label: 'Erase', danger: true, act: (row) => void eraseDeleted(row).then((done) => done && again()) },
      ]),
    ],
    { key: (row) => String(row.id), empty: 'No such document is in the trash.' },
  )
}

const WHERE = [
  ['memory', 'In memory'],
  ['stored', 'Stored'],
  ['trash', 'Trash'],
] as const
type Where = (typeof WHERE)[number][0]

const ORDERS: Readonly<Record<Where, readonly (readonly [value: string, label: string])[]>> = {
  memory: [['edits', 'Edits a second'], ['stored', 'Log, bytes a second'], ['size', 'Size'], ['sessions', 'Sessions'], ['waiting', 'Bytes that wait'], ['name', 'Name']],
  stored: [['updated', 'Edited last'], ['name', 'Name'], ['size', 'Size']],
  trash: [['deleted', 'Deleted last']],
}

export const openDocuments: OpenView = (admin) => {
  const chosen = admin.query.get('where')
  const where: Where = WHERE.find(([value]) => value === chosen)?.[0] ?? 'memory'
  const changed = (): void => {
    admin.remember({ order: order.value, search: search.value.trim() })
    pager.reset()
    poll.again()
  }
  const order = select(ORDERS[where], changed, admin.query.get('order') ?? ORDERS[where][0]![0])
  if (order.value === '') order.selectedIndex = 0
  // A name begins with spaces if it likes.
  const search = searchField(where === 'memory' ? 'Part of the name' : 'Beginning of the name', changed, admin.query.get('search') ?? '')
  const pager = makePager(() => poll.again())
  const silent = silence()
  const counted = h('p', { class: 'hint' })
  const again = (): void => poll.again()

  const places: Readonly<Record<Where, () => [HTMLElement, Poll<never>]>> = {
    memory: () => list(admin, fullRoomTable(again), (signal) => readRooms({ order: order.value as RoomOrder, search: search.value.trim(), limit: 100, cursor: pager.cursor }, signal), (page) => {
      silent.show(page.silent)
      setText(counted, page.total > page.rooms.length ? `${count(page.rooms.length)} of ${count(page.total)}` : '')
      pager.show(page.next)
      return page.rooms
    }, 1000),
    stored: () => list(admin, storedTable(again), (signal) => readDocuments({ prefix: search.value, order: order.value, limit: 50, cursor: pager.cursor }, signal), (page) => {
      pager.show(page.next)
      return page.documents
    }, 5000, PATIENT),
    trash: () => list(admin, trashTable(again), (signal) => readTrash({ prefix: search.value, cursor: pager.cursor }, signal), (page) => {
      pager.show(page.next)
      return page.documents
    }, 3000),
  }
  const [table, poll] = places[where]()
  const ways = h(
    'nav',
    { class: 'segments', 'aria-label': 'Which documents' },
    ...WHERE.map(([value, label]) => {
      const link = h('a', { href: `${location.pathname}?view=documents&where=${value}` }, label)
      if (value === where) link.setAttribute('aria-current', 'true')
      return link
    }),
  )
  return {
    title: where === 'trash' ? 'Trash' : 'Documents',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Documents'), ways, h('div', { class: 'filters' }, labelled('Find', search), labelled('Order', order))),
      silent.element,
      table,
      counted,
      pager.element,
    ),
  }
}

/** Fill a table with what `ask` gives. */
function list<T, P>(admin: Admin, table: Table<T>, ask: (signal: AbortSignal) => Promise<P>, read: (page: P) => readonly T[], interval: number, patience?: number): [HTMLElement, Poll<never>] {
  const poll = admin.poll({ interval, ...(patience === undefined ? {} : { patience }), ask, show: (page) => table.show(read(page)) })
  return [table.element, poll as unknown as Poll<never>]
}
