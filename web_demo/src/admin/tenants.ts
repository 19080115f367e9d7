/** Tenants: what each uses, and what it may use. */
import { h } from '../shell/dom'
import { toast } from '../shell/toast'
import { readTenants, setQuota, type Tenant } from './api'
import { ask } from './dialog'
import { bytes, count, moment, plain } from './format'
import { chipColumn, deedsColumn, labelled, makePager, nameColumn, type Tone } from './parts'
import { type Column, makeTable, setText } from './table'
import type { OpenView } from './view'

const TONES: Readonly<Record<Tenant['state'], Tone>> = { ok: 'good', over: 'warn', stopped: 'bad' }
const MEANINGS: Readonly<Record<Tenant['state'], string>> = {
  ok: 'Below all its quotas',
  over: 'Over a quota: new sessions may only read',
  stopped: 'Far over a quota: no edits are taken',
}

const minutes = (value: number): string => `${count(value)} min`

/** What is counted, and has a quota. */
const COUNTED: readonly (readonly [key: string, label: string, format: (value: number) => string])[] = [
  ['documents', 'Documents', count],
  ['bytes_stored', 'Stored', bytes],
  ['connections', 'Connections', count],
  ['edits', 'Edits', count],
  ['bytes_sent', 'Sent', bytes],
  ['connection_minutes', 'Connected', minutes],
]

/** What is used, of what may be, with a bar where there is a bound. */
function usageColumn(key: string, label: string, format: (value: number) => string): Column<Tenant> {
  return {
    label,
    numeric: true,
    cell: () => {
      const words = h('span', {})
      const meter = h('meter', { min: '0', max: '1', low: '0.8', high: '0.999', optimum: '0' })
      return {
        content: h('span', { class: 'usage' }, words, meter),
        show(row) {
          const used = row.usage[key] ?? 0
          const bound = row.quota[key] ?? null
          setText(words, bound === null ? format(used) : `${format(used)} of ${format(bound)}`)
          meter.hidden = bound === null
          if (bound !== null) meter.value = bound === 0 ? 1 : Math.min(1, used / bound)
          meter.setAttribute('aria-label', `${label}, share of the quota`)
        },
      }
    },
  }
}

function changeQuota(row: Tenant): Promise<boolean> {
  const fields = COUNTED.map(([key, label]) => {
    const own = row.own_quota?.[key]
    const field = h('input', { class: 'field', inputmode: 'numeric', pattern: '[0-9]*|none', placeholder: 'default', autocomplete: 'off', title: 'A whole number, “none”, or nothing' })
    field.value = own === undefined ? '' : own === null ? 'none' : String(own)
    return [key, field, labelled(key === 'bytes_stored' || key === 'bytes_sent' ? `${label}, bytes` : label, field)] as const
  })
  return ask({
    title: 'Change the quotas of this tenant?',
    object: row.tenant,
    consequence: 'A number is the bound, “none” is no bound, and an empty field has the default of the server. All servers follow within about ten seconds.',
    fields: h('div', { class: 'quota-fields' }, ...fields.map(([, , element]) => element)),
    action: 'Change',
    async act() {
      const quota: Record<string, number | null> = {}
      for (const [key, field] of fields) {
        const value = field.value.trim()
        if (value !== '') quota[key] = value === 'none' ? null : Number(value)
      }
      await setQuota(row.tenant, quota)
      toast('The quotas are changed')
    },
  })
}

export const openTenants: OpenView = (admin) => {
  const month = h('input', { type: 'month', class: 'field', onchange: () => (admin.remember({ month: month.value }), pager.reset(), poll.again()) })
  month.value = admin.query.get('month') ?? ''
  const pager = makePager(() => poll.again())
  const table = makeTable<Tenant>(
    'Tenants',
    [
      nameColumn('Tenant', (row) => row.tenant, { heading: true }),
      chipColumn('State', (row) => [row.state, TONES[row.state], `${MEANINGS[row.state]}${row.over.length > 0 ? `: ${row.over.map(plain).join(', ')}` : ''}`]),
      ...COUNTED.map(([key, label, format]) => usageColumn(key, label, format)),
      { label: 'Measured', wide: true, cell: () => {
        const content = h('span', { class: 'when' })
        return { content, show: (row: Tenant) => setText(content, row.measured_at === null ? '–' : moment(row.measured_at)) }
      } },
      deedsColumn<Tenant>((row) => row.tenant, [{ label: 'Quotas', act: (row) => void changeQuota(row).then((done) => done && poll.again()) }]),
    ],
    { key: (row) => row.tenant, empty: 'No tenant is known yet.', mark: (row) => (row.state === 'ok' ? '' : row.state === 'over' ? 'warn' : 'bad') },
  )
  const poll = admin.poll({
    interval: 3000,
    ask: (signal) => readTenants({ month: month.value, cursor: pager.cursor }, signal),
    show(page) {
      table.show(page.tenants)
      pager.show(page.next)
      if (month.value === '') month.value = page.month
    },
  })
  return {
    title: 'Tenants',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Tenants'), h('div', { class: 'filters' }, labelled('Month', month))),
      h('p', { class: 'lead' }, 'Documents, bytes stored and connections are of now; edits, bytes sent and minutes are of the month.'),
      table.element,
      pager.element,
    ),
  }
}
