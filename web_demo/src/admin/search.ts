/** One search for all: documents by name, connections by user, address or identifier. */
import { h } from '../shell/dom'
import { readConnections, readDocuments, readRooms } from './api'
import { connectionTable } from './connections'
import { roomTable, storedTable } from './documents'
import { plain } from './format'
import { inspectUrl, section, silence, viewUrl } from './parts'
import type { OpenView } from './view'

const INTERVAL = 2000
const MOST = 50

export const openSearch: OpenView = (admin) => {
  const wanted = admin.query.get('q') ?? ''
  const rooms = roomTable('Documents in memory that were found', 'No document in memory has this in its name.')
  const stored = storedTable(() => storedPoll.again())
  const people = connectionTable('Connections that were found', 'No user, address, document or identifier of a connection has this in it.', () => peoplePoll.again())
  const silent = silence()
  admin.poll({
    interval: INTERVAL,
    ask: (signal) => readRooms({ order: 'sessions', search: wanted, limit: MOST }, signal),
    show: (page) => {
      rooms.show(page.rooms)
      silent.show(page.silent)
    },
  })
  const storedPoll = admin.poll({ interval: INTERVAL, ask: (signal) => readDocuments({ prefix: wanted, order: 'name', limit: MOST }, signal), show: (page) => stored.show(page.documents) })
  const peoplePoll = admin.poll({ interval: INTERVAL, ask: (signal) => readConnections({ order: 'received', search: wanted, limit: MOST }, signal), show: (page) => people.show(page.connections) })
  return {
    title: `Search for ${plain(wanted)}`,
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Found for ', h('bdi', {}, `“${plain(wanted)}”`))),
      silent.element,
      section('Connections', people.element, h('p', { class: 'hint' }, h('a', { href: viewUrl('connections', { search: wanted }) }, 'All of them'))),
      section('Documents in memory', rooms.element),
      section('Stored documents whose names begin so', stored.element, h('p', { class: 'hint' }, h('a', { href: inspectUrl(wanted) }, 'Inspect the document of exactly this name'))),
    ),
  }
}
