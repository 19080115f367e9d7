/** Limits that clients have hit, and what they were refused, since the servers started and in the last hour. */
import { h } from '../shell/dom'
import type { Nodes, Reason } from './api'
import { count, plain } from './format'
import { nameColumn, section, viewUrl } from './parts'
import { figure, makeTable, text } from './table'
import type { OpenView } from './view'

interface Hit extends Reason {
  nodes: string[]
}

/** Put the figures of all nodes together. */
function together(nodes: Nodes, read: (node: Nodes['nodes'][number]) => Reason[]): Hit[] {
  const hits = new Map<string, Hit>()
  for (const node of nodes.nodes) {
    for (const { reason, total, hour } of read(node)) {
      const hit = hits.get(reason) ?? { reason, total: 0, hour: 0, nodes: [] }
      hits.set(reason, { reason, total: hit.total + total, hour: hit.hour + hour, nodes: [...hit.nodes, `${node.name} (${count(total)})`] })
    }
  }
  return [...hits.values()].sort((a, b) => b.hour - a.hour || b.total - a.total)
}

const table = (caption: string, empty: string): ReturnType<typeof makeTable<Hit>> =>
  makeTable<Hit>(
    caption,
    [
      text('Reason', (row) => plain(row.reason.replaceAll('_', ' ')), { heading: true }),
      figure('In the last hour', (row) => count(row.hour)),
      figure('Since the start', (row) => count(row.total)),
      nameColumn('Servers', (row) => row.nodes.join(', ')),
    ],
    { key: (row) => row.reason, empty, mark: (row) => (row.hour > 0 ? 'warn' : '') },
  )

export const openLimits: OpenView = (admin) => {
  const limits = table('Limits that clients have hit', 'No client has hit a limit since the servers started.')
  const refusals = table('What clients were refused', 'No client was refused anything since the servers started.')
  const who = h('span', {}, ' Who it was is in the ', h('a', { href: viewUrl('audit', { kind: 'refusals' }) }, 'audit log'), '.')
  admin.onNodes((nodes) => {
    who.hidden = !admin.offers('audit')
    limits.show(together(nodes, (node) => node.limits))
    refusals.show(together(nodes, (node) => node.refusals))
  })
  return {
    title: 'Limits',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Limits')),
      h('p', { class: 'lead' }, 'Limits keep one client from taking what the others need.', who),
      section('Limits hit', limits.element),
      section('Refusals', refusals.element),
    ),
  }
}
