/** One document from inside: what is stored and in memory, who is on it, each update, and its content as it changes. */
import { pageUrl } from '../lib/address'
import { ApiError } from '../lib/api'
import { h } from '../shell/dom'
import { closeDocument, compactDocument, eraseDocument, kickConnection, quarantineDocument, releaseDocument, reloadDocument, removeDocument, repairDocument, restoreState, verdict, verifyDocument } from './actions'
import { type Connected, type Decoded, inspect, type Inspection, type KeptVersion, type LogRow, type NodeRoom, type Participant, type PendingUpdate, type Presence, readConnections, readLog, readPresence, readVersions, type Verification } from './api'
import { follow } from './follow'
import { byteRate, bytes, count, duration, moment, plain, some } from './format'
import { chip, chipColumn, deedsColumn, facts, makePager, nameColumn, section, silence, viewUrl, whenColumn } from './parts'
import { type Column, figure, makeTable, setText, text } from './table'
import type { Admin, View } from './view'

/** Milliseconds between two looks: the server counts for it what it stores. */
const INTERVAL = 2000
/** Milliseconds from a change to the look at the log, in which it is committed. */
const SOON = 400

/** Kinds of structs, for one and for many. */
const KINDS: Readonly<Record<string, readonly [one: string, many: string]>> = {
  string: ['character', 'characters'],
  type: ['type', 'types'],
  any: ['value', 'values'],
  json: ['value', 'values'],
  embed: ['embed', 'embeds'],
  binary: ['binary', 'binaries'],
  format: ['format', 'formats'],
  doc: ['document', 'documents'],
  gc: ['collected', 'collected'],
  deleted: ['deleted before', 'deleted before'],
  skip: ['left out', 'left out'],
}

/** What an update does, in a line. */
function summary({ structs, deletes, roots }: Decoded): string {
  const parts = Object.entries(structs).map(([kind, { count: items, length }]) => `+${some(kind === 'string' || kind === 'any' || kind === 'json' ? length : items, ...(KINDS[kind] ?? [plain(kind), plain(kind)]))}`)
  if (deletes.length > 0) parts.push(`−${count(deletes.length)} deleted`)
  if (roots.length > 0) parts.push(`in ${roots.map(plain).join(', ')}`)
  return parts.join(' · ') || 'nothing'
}

function clients({ clients, clients_count: all = clients.length }: Decoded): string {
  const shown = clients.slice(0, 3).map(({ client, from, to }) => `${client} [${from}–${to})`)
  return `${shown.join(', ')}${all > shown.length ? ` and ${all - shown.length} more` : ''}` || '–'
}

const allClients = ({ clients }: Decoded): string => clients.map(({ client, from, to, structs }) => `${client}: clocks ${from} to ${to}, ${structs} structs`).join('\n')

/** What an update does, and the words that it brings. */
function changeColumn<T extends { decoded: Decoded | null; damaged?: boolean }>(): Column<T> {
  return {
    label: 'Change',
    cell: () => {
      const words = h('span', {})
      const brought = h('q', { class: 'brought' })
      return {
        content: h('span', { class: 'change-cell' }, words, brought),
        show({ decoded, damaged }) {
          setText(words, damaged ? 'damaged' : decoded ? summary(decoded) : 'not decoded: it is large')
          words.title = words.textContent
          const found = decoded?.text ?? ''
          brought.hidden = found === ''
          setText(brought, plain(found))
        },
      }
    },
  }
}

const who = ({ author, on_behalf_of, label }: LogRow): string => [author ?? 'somebody', on_behalf_of && `for ${on_behalf_of}`, label && `(${label})`].filter(Boolean).join(' ')

/** A participant with what its connection says. */
interface Present extends Participant {
  readonly connected: Connected | undefined
  readonly states: Presence['states']
}

/** What a participant shows of itself, folded. */
const stateColumn: Column<Present> = {
  label: 'Shows',
  cell: () => {
    const words = h('summary', {})
    const shown = h('pre', {})
    const fold = h('details', { class: 'state' }, words, shown)
    return {
      content: fold,
      show({ states }) {
        fold.hidden = states.length === 0
        setText(words, bytes(states.reduce((all, one) => all + one.bytes, 0)))
        setText(shown, states.map(({ client, clock, state, bytes: size }) => `${client}, clock ${clock}:\n${state === null ? `${bytes(size)}, too long to be shown` : plain(JSON.stringify(state)).replaceAll(',"', ',\n "')}`).join('\n\n'))
      },
    }
  },
}

function participantTable(again: () => void): ReturnType<typeof makeTable<Present>> {
  return makeTable<Present>(
    'Participants',
    [
      { label: 'Name', heading: true, cell: () => {
        const disc = h('span', { class: 'swatch', 'aria-hidden': 'true' })
        const name = h('bdi', { class: 'name' })
        return {
          content: h('span', { class: 'participant' }, disc, name),
          show: ({ name: shown, color, agent }: Present) => {
            const words = plain(shown ?? (agent === null ? '–' : agent))
            setText(name, words)
            name.title = words
            disc.style.setProperty('--who', color !== null && CSS.supports('color', color) ? color : 'transparent')
          },
        }
      } },
      nameColumn('User', (row) => row.user),
      text('Protocol', (row) => plain(row.agent === null ? row.protocol : 'agent')),
      chipColumn('Access', (row) => (row.connected?.documents.some(({ lagging }) => lagging) ? ['slow', 'warn', 'It reads too slowly'] : [row.access, ''])),
      text('Clients', (row) => row.clients.join(', ') || '–', { class: 'mono' }),
      stateColumn,
      figure('Sends', (row) => (row.connected?.received_bytes_per_second == null ? '–' : byteRate(row.connected.received_bytes_per_second))),
      figure('Waiting', (row) => (row.connected ? bytes(row.connected.waiting_bytes) : '–')),
      whenColumn('Since', (row) => row.since),
      nameColumn('Connection', (row) => row.connection, { wide: true }),
      deedsColumn<Present>((row) => row.name ?? row.user ?? row.connection ?? '', [
        { label: 'Kick', offered: (row) => row.connected !== undefined, act: (row) => void kickConnection(row.connected!).then((done) => done && again()) },
      ]),
    ],
    { key: (row) => row.connection ?? `${row.agent ?? ''} ${row.user ?? ''} ${row.clients.join()}`, empty: 'Nobody is on it.' },
  )
}

const either = (value: number | null | undefined, format: (value: number) => string): string => (value == null ? '–' : format(value))

function nodeTable(): ReturnType<typeof makeTable<NodeRoom>> {
  return makeTable<NodeRoom>(
    'On the servers',
    [
      nameColumn('Server', (row) => row.node, { heading: true }),
      chipColumn('State', (row) => stateOf(row)),
      figure('Row', (row) => either(row.number, count)),
      figure('Size', (row) => either(row.bytes, bytes)),
      figure('Client IDs', (row) => either(row.clients, count)),
      figure('Sessions', (row) => either(row.sessions, count), { title: (row) => `${count(row.readers ?? 0)} readers by streams, ${count(row.agents ?? 0)} agents, ${count(row.visitors ?? 0)} visitors` }),
      figure('Slow', (row) => either(row.slow_members, count)),
      figure('Not saved', (row) => either(row.uncommitted, count)),
      figure('Pending', (row) => (row.pending_updates === undefined ? '–' : `${count(row.pending_updates)}, ${bytes(row.pending_bytes ?? 0)}`)),
      figure('Rows that wait', (row) => either(row.waiting_rows, count), { title: () => 'Rows that follow on rows which the log lacks' }),
      figure('Snapshot', (row) => either(row.snapshot_number, count), { title: (row) => (row.tail_rows === undefined ? '' : `${count(row.tail_rows)} rows behind it, ${bytes(row.tail_bytes ?? 0)}`) }),
      text('Idle', (row) => either(row.idle_seconds, duration)),
    ],
    { key: (row) => row.node, empty: 'No server has answered.', mark: (row) => (row.troubled || row.damaged || row.closed_seconds > 0 ? 'bad' : '') },
  )
}

function stateOf({ open, closed_seconds, closed_by, troubled, damaged, compacting }: NodeRoom): ReturnType<Parameters<typeof chipColumn<NodeRoom>>[1]> {
  if (closed_seconds > 0) return [closed_by === 'operator' ? 'quarantine' : 'closed', 'bad', `${closed_by === 'failures' ? 'It has failed again and again. ' : ''}Nobody can open it for ${duration(closed_seconds)}`]
  if (damaged) return ['damaged', 'bad', plain(damaged)]
  if (troubled) return ['troubled', 'warn', 'It could not be opened, or had to be closed']
  if (compacting) return ['compacting', '']
  return open ? ['in memory', 'good'] : ['not in memory', '']
}

function versionTable(name: string, again: () => void): ReturnType<typeof makeTable<KeptVersion>> {
  return makeTable<KeptVersion>(
    'Versions',
    [
      nameColumn('Version', (row) => row.name ?? `${row.kind}, ${row.reason}`, { heading: true }),
      figure('Row', (row) => either(row.number, count)),
      whenColumn('When', (row) => row.at),
      nameColumn('By', (row) => row.author),
      { label: 'Look', quiet: true, cell: () => {
        const link = h('a', { target: '_blank', rel: 'noopener' }, 'Look')
        return { content: link, show: (row: KeptVersion) => void (link.href = `${pageUrl(name)}&version=${row.id}`) }
      } },
      deedsColumn<KeptVersion>((row) => row.name ?? `version ${row.id}`, [{ label: 'Restore', act: (row) => void restoreState(name, row).then((done) => done && again()) }]),
    ],
    { key: (row) => String(row.id), empty: 'No version is kept.' },
  )
}

/** Inspect the document `name`. */
export function openInspect(admin: Admin, name: string): View {
  const missing = h('p', { class: 'warning', id: 'missing', role: 'status', hidden: true })
  const state = chip()
  const title = h('bdi', { class: 'note' })
  const silent = silence()
  const figures = facts()
  const inside = h('div', { class: 'inside', hidden: true })
  let present: Inspection | undefined

  // Actions

  const result = h('div', { class: 'panel result', id: 'result', role: 'status', hidden: true })
  const showResult = (words: string, troubles: readonly string[], bad: boolean): void => {
    result.hidden = false
    result.dataset['tone'] = bad ? 'bad' : 'good'
    result.replaceChildren(h('p', {}, words), ...(troubles.length > 0 ? [h('ul', {}, ...troubles.map((trouble) => h('li', {}, plain(trouble))))] : []))
  }
  const verified = (found: Verification): void => showResult(verdict(found), found.troubles, !found.whole)
  const again = (): void => {
    inspection.again()
    log.again()
    people.again()
  }
  const act = (label: string, doing: () => Promise<unknown>, danger = false): HTMLButtonElement =>
    h('button', { type: 'button', class: `button quiet small${danger ? ' danger' : ''}`, onclick: () => void doing().then(again) }, label)
  const release = act('Release', () => releaseDocument(name))
  const doings = h(
    'div',
    { class: 'doings', role: 'group', 'aria-label': 'Actions on this document' },
    act('Close', () => closeDocument(name)),
    act('Reload', () => reloadDocument(name)),
    act('Compact', () => compactDocument(name)),
    act('Verify', () => verifyDocument(name, verified)),
    act('Repair', () => repairDocument(name, ({ report, steps, kept, node }) => showResult(`${some(steps.length, 'step was', 'steps were')} done. ${verdict(report)}`, [...report.troubles, ...kept.map((file) => `Damaged bytes are kept on ${node} in ${file}`)], !report.whole)), true),
    act('Quarantine', () => quarantineDocument(name), true),
    release,
    act('Delete', () => removeDocument(name), true),
    act('Erase for good', () => eraseDocument(name), true),
  )

  // What is in it

  let soon = 0
  const content = follow(name, () => {
    soon ||= window.setTimeout(() => {
      soon = 0
      if (logPager.cursor === undefined) log.soon()
    }, SOON)
  })

  const rows = makeTable<LogRow>(
    'Updates, the newest first',
    [
      figure('Row', (row) => count(row.number), { heading: true, numeric: false }),
      whenColumn('When', (row) => row.at),
      nameColumn('Who', (row) => who(row)),
      changeColumn<LogRow>(),
      figure('Bytes', (row) => bytes(row.bytes)),
      text('Client, clocks', (row) => (row.decoded ? clients(row.decoded) : '–'), { class: 'mono', title: (row) => (row.decoded ? allClients(row.decoded) : '') }),
    ],
    { key: (row) => String(row.number), empty: 'No update is kept in the log.', mark: (row) => (row.damaged ? 'bad' : '') },
  )
  const logPager = makePager(() => log.again())
  const gone = (error: unknown): boolean => error instanceof ApiError && (error.status === 404 || error.status === 410)

  const pending = makeTable<PendingUpdate>(
    'Updates that wait',
    [figure('Number', (row) => count(row.number), { heading: true, numeric: false }), whenColumn('When', (row) => row.at), nameColumn('Who', (row) => row.author ?? 'somebody'), changeColumn<PendingUpdate>(), figure('Bytes', (row) => bytes(row.bytes))],
    { key: (row) => String(row.number), empty: 'No update waits for edits which nobody has sent.' },
  )
  const snapshots = makeTable<NonNullable<Inspection['snapshots']>[number]>(
    'Snapshots',
    [figure('Up to row', (row) => count(row.number), { heading: true, numeric: false }), whenColumn('When', (row) => row.at), figure('Size', (row) => bytes(row.bytes))],
    { key: (row) => String(row.number), empty: 'No snapshot is stored: the document opens from its log.' },
  )
  const nodes = nodeTable()
  const participants = participantTable(() => people.again())
  const versions = versionTable(name, again)
  const versionPager = makePager(() => versionPoll.again())

  inside.append(
    section('What there is', figures.element),
    result,
    h(
      'div',
      { class: 'columns content-and-log' },
      section('Content', content.element),
      section('Updates', rows.element, logPager.element),
    ),
    section('Participants', participants.element),
    section('On the servers', nodes.element),
    h('div', { class: 'columns' }, section('Versions', versions.element, versionPager.element), h('div', {}, section('Snapshots', snapshots.element), section('Pending updates', pending.element))),
  )

  function show(found: Inspection): void {
    const moved = present !== undefined && present.number !== found.number
    present = found
    missing.hidden = true
    inside.hidden = doings.hidden = false
    silent.show(found.silent)
    const open = found.nodes.filter((node) => node.open)
    const closed = found.nodes.find((node) => node.closed_seconds > 0)
    release.hidden = closed === undefined
    const trouble = found.nodes.find((node) => node.damaged !== null || node.troubled)
    if (closed || trouble) state.show(...stateOf((closed ?? trouble)!))
    else state.show(open.length > 0 ? `in memory on ${some(open.length, 'server')}` : 'not in memory', open.length > 0 ? 'good' : '')
    setText(title, found.title === null ? '' : plain(found.title))
    const size = open.reduce((most, node) => Math.max(most, node.bytes ?? 0), 0)
    const newest = found.snapshots?.[0]
    figures.show([
      ['Row', count(found.number), 'The newest number of its log'],
      ['Size in memory', size > 0 ? bytes(size) : '–'],
      ['Rows in the log', found.rows === null ? 'not told' : count(found.rows), found.first_row === null ? '' : `from row ${count(found.first_row)} on`],
      ['Behind the snapshot', found.tail_rows === null ? '–' : `${count(found.tail_rows)} rows, ${bytes(found.tail_bytes ?? 0)}`, 'What is read beside the snapshot when it is opened'],
      ['Newest snapshot', newest ? `row ${count(newest.number)}, ${bytes(newest.bytes)}` : 'none'],
      ['Pending updates', either(found.pending_count, count), 'Updates that wait for edits which nobody has sent'],
      ['Sessions', count(open.reduce((all, node) => all + (node.sessions ?? 0), 0)), 'This page has one of its own while it shows the content'],
      ['Edited', moment(found.updated_at)],
      ['Created', moment(found.created_at)],
      ['Damage noted', found.damage_noted === null ? 'not told' : found.damage_noted ? 'yes' : 'no'],
      ['Collects garbage', found.gc ? 'yes' : 'no'],
      ['Number of the document', String(found.id)],
      ...Object.entries(found.metadata).map(([key, value]) => [`${plain(key)} (own key)`, plain(String(value))] as const),
    ])
    nodes.show(found.nodes)
    snapshots.show(found.snapshots ?? [])
    pending.show(found.pending ?? [])
    content.offer(Math.max(size, newest?.bytes ?? 0) + (found.tail_bytes ?? 0))
    if (moved && logPager.cursor === undefined) log.soon()
  }

  const inspection = admin.poll({
    interval: INTERVAL,
    ask: (signal) => inspect(name, signal),
    show,
    failed(error) {
      if (!gone(error)) return false
      inside.hidden = doings.hidden = true
      missing.hidden = false
      state.show('none', 'bad')
      missing.replaceChildren(
        (error as ApiError).status === 410 ? 'This document was deleted. If it is still kept, it is in ' : 'There is no document of this name. If it was deleted, it may be in ',
        h('a', { href: viewUrl('documents', { where: 'trash', search: name }) }, 'the trash'),
        '.',
      )
      return true
    },
  })
  const log = admin.poll({
    interval: INTERVAL * 5,
    ask: (signal) => readLog(name, logPager.cursor === undefined ? undefined : Number(logPager.cursor), signal),
    show(page) {
      rows.show(page.rows)
      logPager.show(page.next === null ? null : String(page.next))
    },
    failed: gone,
  })
  const people = admin.poll({
    interval: INTERVAL,
    ask: async (signal): Promise<[Presence, Connected[]]> => {
      const [presence, { connections }] = await Promise.all([readPresence(name, signal), readConnections({ document: name, limit: 200 }, signal)])
      return [presence, connections]
    },
    show([presence, connections]) {
      const byID = new Map(connections.map((one) => [one.id, one]))
      participants.show(presence.participants.map((one) => ({ ...one, connected: one.connection === null ? undefined : byID.get(one.connection), states: presence.states.filter(({ client }) => one.clients.includes(client)) })))
    },
    failed: gone,
  })
  const versionPoll = admin.poll({
    interval: INTERVAL * 5,
    ask: (signal) => readVersions(name, versionPager.cursor, signal),
    show(page) {
      versions.show(page.versions)
      versionPager.show(page.next)
    },
    failed: gone,
  })

  return {
    title: plain(name),
    element: h(
      'div',
      { class: 'inspect' },
      h('p', { class: 'crumbs' }, h('a', { href: viewUrl('documents') }, 'Documents')),
      h('div', { class: 'view-head inspect-head' }, h('h1', {}, h('bdi', { class: 'name', title: plain(name) }, plain(name))), state.element, title, h('a', { class: 'button quiet small', href: pageUrl(name), target: '_blank', rel: 'noopener' }, 'Open its page')),
      doings,
      missing,
      silent.element,
      inside,
    ),
    close() {
      clearTimeout(soon)
      content.close()
    },
  }
}
