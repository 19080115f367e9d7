/** Each server with its figures now and in the last hour, ready or why not, and the documents that cost the most. */
import { h } from '../shell/dom'
import { type Heartbeat, type NodeHistory, readDocuments, readHistory, readRooms, type ServerNode } from './api'
import { age, byteRate, bytes, count, duration, moment, percent, plain, rate, some } from './format'
import { chip, facts, section, silence, viewUrl } from './parts'
import { makePlot, type Plot, type PlotOptions } from './plot'
import { largestTable, PATIENT, roomTable } from './documents'
import { setAttribute, setText } from './table'
import type { OpenView } from './view'

/** Samples that are kept of a server: an hour of them. */
const MOST = 360
const HISTORY = 10_000
const RANKED = 6
/** Milliseconds between looks at the sizes of all stored documents. */
const LARGEST = 30_000

interface Figure extends PlotOptions {
  readonly series: string
  readonly label: string
  readonly now: (node: ServerNode) => number | null
}

const sum = (values: Record<string, number>): number => Object.values(values).reduce((all, value) => all + value, 0)

const rated = (name: string) => (node: ServerNode): number | null => node.rates[name] ?? null

const FIGURES: readonly Figure[] = [
  { series: 'connections', label: 'Connections', format: count, now: (node) => sum(node.connections), least: 5 },
  { series: 'edits', label: 'Edits', format: rate, now: rated('edits'), least: 1 },
  { series: 'received_bytes', label: 'Received', format: byteRate, now: rated('received_bytes'), least: 1024, binary: true },
  { series: 'delivered_bytes', label: 'Delivered', format: byteRate, now: rated('delivered_bytes'), least: 1024, binary: true },
  { series: 'acknowledgement_p99', label: 'Saved after (p99)', format: duration, now: (node) => node.acknowledgement.p99, least: 0.01 },
  { series: 'loop_lag_p99', label: 'Loop late (p99)', format: duration, now: (node) => node.loop_lag.p99, least: 0.01 },
  { series: 'cpu', label: 'CPU, one core', format: percent, now: rated('cpu'), least: 0.1 },
  { series: 'memory', label: 'Memory', format: bytes, now: (node) => node.memory.used, binary: true },
]

interface Kept {
  at: number[]
  series: Record<string, (number | null)[]>
}

/** The last hour of each server, as far as it was read. */
class Hour {
  readonly #kept = new Map<string, Kept>()

  /** Up to when the history of all servers is known, in unix seconds. */
  get since(): number | undefined {
    const ends = [...this.#kept.values()].map(({ at }) => at.at(-1) ?? 0)
    return ends.length > 0 ? Math.min(...ends) : undefined
  }

  take({ nodes, silent }: NodeHistory): void {
    for (const { name, at, series } of nodes) {
      const kept: Kept = this.#kept.get(name) ?? { at: [], series: {} }
      this.#kept.set(name, kept)
      const last = kept.at.at(-1) ?? 0
      const first = at.findIndex((time) => time > last)
      if (first < 0) continue
      const before = kept.at.length
      kept.at = [...kept.at, ...at.slice(first)].slice(-MOST)
      for (const [key, values] of Object.entries(series)) {
        const old = kept.series[key] ?? new Array<null>(before).fill(null)
        kept.series[key] = [...old, ...values.slice(first)].slice(-MOST)
      }
    }
    for (const name of this.#kept.keys()) if (!silent.includes(name) && !nodes.some((node) => node.name === name)) this.#kept.delete(name)
  }

  of(name: string): Kept | undefined {
    return this.#kept.get(name)
  }
}

interface Card {
  readonly element: HTMLElement
  show(node: ServerNode): void
}

function makeCard(name: string, hour: Hour): Card {
  const state = chip()
  const about = h('p', { class: 'note about' })
  const reasons = h('ul', { class: 'reasons', hidden: true })
  const plots = FIGURES.map((one): [Figure, Plot] => [one, makePlot(one.label, one)])
  const checks = facts()
  const more = facts()
  const element = h(
    'section',
    { class: 'panel node' },
    h('div', { class: 'panel-head' }, h('h2', {}, h('bdi', { class: 'name', title: plain(name) }, plain(name))), state.element, about),
    reasons,
    h('div', { class: 'plots' }, ...plots.map(([, plot]) => plot.element)),
    h('details', { class: 'more' }, h('summary', {}, 'All figures'), h('h3', {}, 'Checks'), checks.element, h('h3', {}, 'Figures'), more.element),
  )
  return {
    element,
    show(node) {
      state.show(node.ready ? (node.degraded ? 'Ready, degraded' : 'Ready') : 'Not ready', node.ready ? (node.degraded ? 'warn' : 'good') : 'bad')
      setText(about, plain(`${node.address} · version ${node.version} · up ${age(node.started_at)}`))
      setAttribute(about, 'title', `since ${moment(node.started_at)}`)
      reasons.hidden = node.reasons.length === 0
      reasons.dataset['tone'] = node.ready ? 'warn' : 'bad'
      if (reasons.textContent !== node.reasons.map(plain).join('')) reasons.replaceChildren(...node.reasons.map((reason) => h('li', {}, plain(reason))))
      const kept = hour.of(name)
      const now = Date.parse(node.at) / 1000
      for (const [{ series, now: read }, plot] of plots) plot.show({ at: [...(kept?.at ?? []), now], values: [...(kept?.series[series] ?? (kept ? new Array<null>(kept.at.length).fill(null) : [])), read(node)], step: 10 })
      checks.show(Object.entries(node.checks).map(([key, value]) => [capital(key), plain(value)]))
      const { memory, journal, bus, sandbox, webhooks, documents } = node
      more.show([
        ['Documents in memory', count(node.rooms)],
        ['Sessions', count(node.sessions)],
        ['Slow readers', count(node.slow_members)],
        ...Object.entries(node.connections).map(([protocol, open]) => [`Connections, ${plain(protocol)}`, count(open)] as const),
        ...Object.entries(node.rates).filter(([key]) => key !== 'cpu').map(([key, value]) => [capital(key), value === null ? '–' : key.endsWith('bytes') ? byteRate(value) : rate(value)] as const),
        ['Saved after, p50', seconds(node.acknowledgement.p50)],
        ['Written to clients after, p50', seconds(node.propagation.p50)],
        ['Written to clients after, p99', seconds(node.propagation.p99)],
        ['Loop stood still', some(node.loop_stalls, 'time')],
        ['Memory mark', memory.mark ? bytes(memory.mark) : 'none', 'Past it no new documents are opened'],
        ['Memory limit', memory.limit ? bytes(memory.limit) : 'none', 'Past it no new connections are taken'],
        ...Object.entries(memory.parts).map(([part, size]) => [`Memory, ${plain(part)}`, bytes(size)] as const),
        ['Journal waits', `${count(journal.entries)}, ${bytes(journal.bytes)}`],
        ['Journal', journal.failing ? 'fails' : journal.stalled_seconds > 0 ? `stands for ${duration(journal.stalled_seconds)}` : 'works'],
        ['Commits tried again', count(journal.retries)],
        ['Bus', plain(`${bus.kind}${bus.trouble ? `: ${bus.trouble}` : ''}`)],
        ['Other servers on it', count(bus.others)],
        ['Bus messages lost', count(sum(bus.lost))],
        ['Bus reconnects', count(bus.reconnects)],
        ['Sandbox jobs', count(sandbox.under_way)],
        ['Documents in the sandbox', `${count(sandbox.stays)}, ${bytes(sandbox.stay_bytes)}`],
        ['Sandbox jobs failed', count(sandbox.failed)],
        ['Delivers webhooks', webhooks.delivering ? 'yes' : 'no'],
        ['Webhooks wait', `${count(webhooks.pending)}${webhooks.pending ? `, the oldest for ${duration(webhooks.oldest_seconds)}` : ''}`],
        ['Receivers disabled', count(webhooks.disabled)],
        ['Documents damaged', count(documents.damaged)],
        ['Documents troubled', count(documents.troubled)],
        ['Documents closed', count(documents.closed)],
        ['Database', node.store_bytes === null ? '–' : bytes(node.store_bytes)],
      ])
    },
  }
}

/** The name of a figure as words. */
const capital = (key: string): string => plain(key.charAt(0).toUpperCase() + key.slice(1).replaceAll('_', ' '))

const seconds = (value: number | null): string => (value === null ? '–' : duration(value))

/** A server that lives, or lived, and does not answer: what its last heartbeat has said. */
function makeSilentCard(name: string): { element: HTMLElement; show(last: Heartbeat | undefined): void } {
  const state = chip()
  const about = h('p', { class: 'note about' })
  const words = h('p', {})
  return {
    element: h('section', { class: 'panel node' }, h('div', { class: 'panel-head' }, h('h2', {}, h('bdi', { class: 'name', title: plain(name) }, plain(name))), state.element, about), words),
    show(last) {
      state.show(last && !last.alive ? 'Gone' : 'Silent', 'bad')
      setText(about, last ? plain(`${last.address} · version ${last.version}`) : '')
      setText(words, last ? `Its last heartbeat was ${duration(Math.round(last.silent_seconds))} ago, with ${some(last.documents, 'document')} and ${some(last.connections, 'connection')}.` : 'It has not answered within a second.')
    },
  }
}

/** The sums over all servers. */
const TILES: readonly (readonly [label: string, read: (nodes: readonly ServerNode[]) => string])[] = [
  ['Connections', (nodes) => count(total(nodes, (node) => sum(node.connections)))],
  ['Documents in memory', (nodes) => count(total(nodes, (node) => node.rooms))],
  ['Sessions', (nodes) => count(total(nodes, (node) => node.sessions))],
  ['Edits', (nodes) => rate(total(nodes, (node) => node.rates['edits'] ?? 0))],
  ['Slow readers', (nodes) => count(total(nodes, (node) => node.slow_members))],
  ['Limits hit, last hour', (nodes) => count(total(nodes, (node) => node.limits.reduce((all, { hour }) => all + hour, 0)))],
  ['Refusals, last hour', (nodes) => count(total(nodes, (node) => node.refusals.reduce((all, { hour }) => all + hour, 0)))],
  ['Webhooks that wait', (nodes) => count(total(nodes, (node) => node.webhooks.pending))],
]

const total = (nodes: readonly ServerNode[], read: (node: ServerNode) => number): number => nodes.reduce((all, node) => all + read(node), 0)

export const openOverview: OpenView = (admin) => {
  const hour = new Hour()
  const cards = new Map<string, Card>()
  const silentCards = new Map<string, ReturnType<typeof makeSilentCard>>()
  const place = h('div', { class: 'nodes', id: 'nodes' })
  const silent = silence()
  const tiles = facts()
  tiles.element.classList.add('tiles')

  function keep<T extends { element: HTMLElement }>(known: Map<string, T>, names: readonly string[], make: (name: string) => T): void {
    for (const [name, card] of known) {
      if (names.includes(name)) continue
      card.element.remove()
      known.delete(name)
    }
    for (const name of names) {
      if (known.has(name)) continue
      const card = make(name)
      known.set(name, card)
      place.append(card.element)
    }
  }

  admin.onNodes(({ nodes, silent: unheard, heartbeats }) => {
    silent.show(unheard)
    tiles.show(TILES.map(([label, read]) => [label, read(nodes)] as const))
    keep(cards, nodes.map(({ name }) => name), (name) => makeCard(name, hour))
    for (const node of nodes) cards.get(node.name)!.show(node)
    // Those that have gone lately are worth a look, too.
    const others = [...new Set([...unheard, ...heartbeats.filter(({ alive, name }) => !alive && !cards.has(name)).map(({ name }) => name)])]
    keep(silentCards, others, makeSilentCard)
    for (const name of others) silentCards.get(name)!.show(heartbeats.find((one) => one.name === name))
  })
  admin.poll({ interval: HISTORY, ask: (signal) => readHistory(hour.since, signal), show: (answer) => hour.take(answer) })

  const busiest = roomTable('Busiest documents', 'No document is in memory.')
  const largest = largestTable()
  admin.poll({ ask: (signal) => readRooms({ order: 'edits', limit: RANKED }, signal), show: ({ rooms }) => busiest.show(rooms) })
  admin.poll({ interval: LARGEST, patience: PATIENT, ask: (signal) => readDocuments({ prefix: '', order: 'size', limit: RANKED }, signal), show: ({ documents }) => largest.show(documents) })

  return {
    title: 'Overview',
    element: h(
      'div',
      {},
      h('h1', { class: 'spoken' }, 'Overview'),
      tiles.element,
      silent.element,
      place,
      h(
        'div',
        { class: 'columns' },
        section('Busiest documents', busiest.element, h('p', { class: 'hint' }, h('a', { href: viewUrl('documents', { order: 'edits' }) }, 'All documents in memory'))),
        section('Largest documents', largest.element, h('p', { class: 'hint' }, h('a', { href: viewUrl('documents', { where: 'stored', order: 'size' }) }, 'All that are stored, by size'))),
      ),
    ),
  }
}
