/** Everybody who is connected to any of the servers: who, from where, over which protocol, and how fast. */
import { h } from '../shell/dom'
import { kickConnection, kickUser } from './actions'
import { type Connected, readConnections } from './api'
import { byteRate, bytes, plain } from './format'
import { chipColumn, deedsColumn, documentCell, labelled, makePager, nameColumn, searchField, select, silence, whenColumn } from './parts'
import { type Column, figure, makeTable, setText, type Table, text } from './table'
import type { OpenView } from './view'

export const ORDERS = [
  ['node', 'Server'],
  ['received', 'Bytes a second'],
  ['waiting', 'Bytes that wait'],
  ['since', 'Newest first'],
] as const

/** The documents of a connection: the first one, and how many there are beside. */
const documents: Column<Connected> = {
  label: 'Documents',
  cell: () => {
    const first = documentCell<Connected>((row) => row.documents[0]?.name ?? null)
    const rest = h('span', { class: 'note' })
    return {
      content: h('span', { class: 'documents-cell' }, first.content, rest),
      show(row) {
        first.show(row)
        setText(rest, row.open > 1 ? ` and ${row.open - 1} more` : row.open === 0 ? '–' : '')
        rest.title = row.open > 1 ? row.documents.slice(1).map(({ name, access }) => `${plain(name)} (${access})`).join('\n') : ''
      },
    }
  },
}

/** Make a table of connections; `again` is called after one was kicked. */
export function connectionTable(caption: string, empty: string, again: () => void, of?: string): Table<Connected> {
  const here = (row: Connected): Connected['documents'][number] | undefined => (of === undefined ? row.documents[0] : row.documents.find(({ name }) => name === of))
  return makeTable<Connected>(
    caption,
    [
      nameColumn('User', (row) => (row.users.length > 0 ? row.users.join(', ') : null), { heading: true }),
      nameColumn('Address', (row) => row.address),
      text('Protocol', (row) => plain(row.protocol)),
      ...(of === undefined ? [documents] : []),
      chipColumn<Connected>('Access', (row) => {
        const one = here(row)
        return one?.lagging ? ['slow', 'warn', 'It reads too slowly, and is brought level when it has caught up'] : [one?.access ?? '–', '']
      }),
      figure('Sends', (row) => (row.received_bytes_per_second == null ? '–' : byteRate(row.received_bytes_per_second)), { title: (row) => (row.received_bytes === undefined ? '' : `${bytes(row.received_bytes)} since it came`) }),
      figure('Waiting', (row) => bytes(row.waiting_bytes)),
      whenColumn('Since', (row) => row.since),
      nameColumn('Connection', (row) => row.id, { wide: true }),
      deedsColumn<Connected>((row) => `${row.users[0] ?? 'connection'} ${row.id}`, [
        { label: 'Kick', act: (row) => void kickConnection(row).then((done) => done && again()) },
        { label: 'Kick user', offered: (row) => row.users.length > 0, act: (row) => void kickUser(row.users[0]!).then((done) => done && again()) },
      ]),
    ],
    { key: (row) => row.id, empty, mark: (row) => (row.documents.some(({ lagging }) => lagging) ? 'warn' : '') },
  )
}

export const openConnections: OpenView = (admin) => {
  const changed = (): void => {
    admin.remember({ order: order.value, search: search.value.trim() })
    pager.reset()
    poll.again()
  }
  const order = select(ORDERS, changed, admin.query.get('order') ?? 'received')
  const search = searchField('User, address, document, id', changed, admin.query.get('search') ?? '')
  const pager = makePager(() => poll.again())
  const silent = silence()
  const table = connectionTable('Connections', 'Nobody is connected, or nobody whom this search finds.', () => poll.again())
  const poll = admin.poll({
    ask: (signal) => readConnections({ order: order.value, search: search.value.trim(), limit: 100, cursor: pager.cursor }, signal),
    show(page) {
      table.show(page.connections)
      silent.show(page.silent)
      pager.show(page.next)
    },
  })
  return {
    title: 'Connections',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Connections'), h('div', { class: 'filters' }, labelled('Find', search), labelled('Order', order))),
      silent.element,
      table.element,
      pager.element,
    ),
  }
}
