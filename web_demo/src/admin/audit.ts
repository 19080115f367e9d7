/** Who has done what, and who was refused: the newest entries that the running servers hold. */
import { h } from '../shell/dom'
import { type AuditEntry, readAudit } from './api'
import { count, plain } from './format'
import { chipColumn, documentColumn, labelled, makePager, nameColumn, searchField, select, silence, type Tone, whenColumn } from './parts'
import { makeTable, text } from './table'
import type { OpenView } from './view'

const KINDS = [
  ['', 'All'],
  ['actions', 'Actions'],
  ['reads', 'Reads'],
  ['refusals', 'Refusals'],
  ['sign-ins', 'Sign-ins'],
] as const

const OUTCOMES: Readonly<Record<AuditEntry['outcome'], readonly [tone: Tone, meaning: string]>> = {
  success: ['', 'It was done'],
  failure: ['bad', 'It was refused, or has failed'],
  unknown: ['warn', 'Its sender has gone before it was known what came of it'],
}

const details = ({ detail, target, left_out }: AuditEntry): string => [plain(detail), target !== null && !detail.includes(target) && `to ${plain(target)}`, left_out > 0 && `${count(left_out)} more like it before`].filter(Boolean).join('; ')

export const openAudit: OpenView = (admin) => {
  const changed = (): void => {
    admin.remember({ kind: kind.value, user: user.value.trim(), document: name.value.trim() })
    pager.reset()
    poll.again()
  }
  const kind = select(KINDS, changed, admin.query.get('kind') ?? '')
  const user = searchField('Exact', changed, admin.query.get('user') ?? '')
  const name = searchField('Exact', changed, admin.query.get('document') ?? '')
  const pager = makePager(() => poll.again())
  const silent = silence()
  const table = makeTable<AuditEntry>(
    'Audit log, the newest first',
    [
      whenColumn('When', (row) => row.at),
      chipColumn('What', (row) => [plain(row.kind), ...(OUTCOMES[row.outcome] ?? OUTCOMES.unknown)], { heading: true }),
      text('Details', details, { class: 'details' }),
      nameColumn('User', (row) => (row.on_behalf_of === null ? row.user : `${row.user ?? '–'} for ${row.on_behalf_of}`)),
      documentColumn('Document', (row) => (row.document === '*' ? null : row.document)),
      nameColumn('Address', (row) => row.address),
      text('Protocol', (row) => row.protocol ?? '–', { wide: true }),
      nameColumn('Server', (row) => row.node, { wide: true }),
      nameColumn('Trace', (row) => row.trace, { wide: true }),
    ],
    {
      // There is no number: entries of one millisecond that are alike in all else are one row.
      key: (row) => JSON.stringify(row),
      empty: 'No such entry. Servers hold the newest ones only, since their start; the whole log is the file of --audit-log.',
    },
  )
  const poll = admin.poll({
    interval: 3000,
    ask: (signal) => readAudit({ kind: kind.value, user: user.value.trim(), document: name.value.trim(), cursor: pager.cursor }, signal),
    show(page) {
      table.show(page.entries)
      silent.show(page.silent)
      pager.show(page.next)
    },
  })
  return {
    title: 'Audit',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Audit'), h('div', { class: 'filters' }, labelled('Kind', kind), labelled('User', user), labelled('Document', name))),
      silent.element,
      table.element,
      pager.element,
    ),
  }
}
