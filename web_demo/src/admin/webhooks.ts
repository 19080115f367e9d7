/** Receivers of webhooks, and what they are to be told or were. */
import { h } from '../shell/dom'
import { toast } from '../shell/toast'
import { type Delivery, enableReceiver, readDeliveries, readReceivers, type Receiver, resend } from './api'
import { ask } from './dialog'
import { age, count, moment, plain, some } from './format'
import { chipColumn, deedsColumn, documentColumn, labelled, makePager, nameColumn, section, select, whenColumn, type Tone } from './parts'
import { figure, makeTable, text } from './table'
import type { OpenView } from './view'

const RECEIVER_TONES: Readonly<Record<Receiver['state'], Tone>> = { working: 'good', failing: 'warn', disabled: 'bad' }
const DELIVERY_TONES: Readonly<Record<Delivery['state'], Tone>> = { delivered: 'good', pending: 'warn', failed: 'bad' }

export const openWebhooks: OpenView = (admin) => {
  const receivers = makeTable<Receiver>(
    'Receivers',
    [
      nameColumn('Receiver', (row) => row.name, { heading: true }),
      chipColumn('State', (row) => [row.state, RECEIVER_TONES[row.state], row.since ? `since ${moment(row.since)}` : '']),
      figure('Waiting', (row) => count(row.pending)),
      figure('Oldest', (row) => (row.oldest ? age(row.oldest) : '–')),
      figure('Delivered', (row) => count(row.delivered)),
      figure('Given up', (row) => count(row.failed)),
      figure('No room', (row) => count(row.dropped), { wide: true }),
      text('Events', (row) => plain(`${row.events.join(', ')}${row.prefix ? ` below ${row.prefix}` : ''}`), { class: 'details', wide: true }),
      deedsColumn<Receiver>((row) => row.name, [
        {
          label: 'Enable',
          offered: (row) => row.state === 'disabled',
          act: (row) =>
            void ask({
              title: 'Enable this receiver?',
              object: row.name,
              consequence: 'It is tried at once with what waits. What happened while it was disabled was not written for it.',
              action: 'Enable',
              act: () => enableReceiver(row.name),
            }).then((done) => done && (toast('The receiver is enabled'), receiversPoll.again())),
        },
        {
          label: 'Send failed again',
          offered: (row) => row.failed > 0,
          act: (row) =>
            void ask({
              title: 'Send again what was given up?',
              object: row.name,
              consequence: `What was given up waits for this receiver again: ${some(row.failed, 'delivery', 'deliveries')}.`,
              action: 'Send again',
              act: async () => void toast(`${some(await resend({ receiver: row.name }), 'delivery waits', 'deliveries wait')} again`),
            }).then((done) => done && receiversPoll.again()),
        },
      ]),
    ],
    { key: (row) => row.name, empty: 'This server has no receivers of webhooks. They are written down in its settings.' },
  )

  const changed = (): void => {
    admin.remember({ receiver: receiver.value, state: state.value })
    pager.reset()
    deliveriesPoll.again()
  }
  const receiver = select([['', 'All']], changed)
  const wanted = admin.query.get('receiver') ?? ''
  if (wanted) receiver.append(h('option', { value: wanted, selected: true }, plain(wanted)))
  const state = select([['', 'All'], ['pending', 'Pending'], ['delivered', 'Delivered'], ['failed', 'Given up']], changed, admin.query.get('state') ?? '')
  const pager = makePager(() => deliveriesPoll.again())
  const deliveries = makeTable<Delivery>(
    'Deliveries, the newest first',
    [
      figure('Number', (row) => String(row.id), { heading: true, numeric: false }),
      whenColumn('When', (row) => row.at),
      text('Event', (row) => plain(row.type)),
      documentColumn('Document', (row) => row.document),
      nameColumn('Receiver', (row) => row.receiver),
      chipColumn('State', (row) => [row.state === 'failed' ? 'given up' : row.state, DELIVERY_TONES[row.state], row.next_at ? `tried again ${moment(row.next_at)}` : row.done_at ? moment(row.done_at) : '']),
      figure('Failures', (row) => count(row.failures)),
      text('Last answer', (row) => [row.status, row.error && plain(row.error)].filter(Boolean).join(' ') || '–', { class: 'details' }),
      deedsColumn<Delivery>((row) => `delivery ${row.id}`, [
        {
          label: 'Send again',
          act: (row) =>
            void ask({
              title: 'Send this delivery again?',
              object: `${row.id}: ${row.type} of ${row.document} to ${row.receiver}`,
              consequence: 'The receiver is sent the message again, with the same identifier.',
              action: 'Send again',
              act: () => resend({ id: row.id }).then(() => undefined),
            }).then((done) => done && (toast('The delivery waits again'), deliveriesPoll.again())),
        },
      ]),
    ],
    { key: (row) => String(row.id), empty: 'No such deliveries' },
  )

  const receiversPoll = admin.poll({
    interval: 2000,
    ask: readReceivers,
    show(list) {
      receivers.show(list)
      for (const { name } of list) {
        if (![...receiver.options].some(({ value }) => value === name)) receiver.append(h('option', { value: name }, plain(name)))
      }
    },
  })
  const deliveriesPoll = admin.poll({
    interval: 2000,
    ask: (signal) => readDeliveries({ receiver: receiver.value, state: state.value, cursor: pager.cursor }, signal),
    show(page) {
      deliveries.show(page.deliveries)
      pager.show(page.next)
    },
  })
  return {
    title: 'Webhooks',
    element: h(
      'div',
      {},
      h('div', { class: 'view-head' }, h('h1', {}, 'Webhooks')),
      section('Receivers', receivers.element),
      section('Deliveries', h('div', { class: 'filters' }, labelled('Receiver', receiver), labelled('State', state)), deliveries.element, pager.element),
    ),
  }
}
