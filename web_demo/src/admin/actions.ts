/** What can be done to documents and connections. Each asks first, names the object, and says what has come of it. */
import { deleteDocument } from '../lib/api'
import { h } from '../shell/dom'
import { toast } from '../shell/toast'
import { type Command, type Connected, compact, control, deleteForGood, eraseTrashed, type KeptVersion, type Outcome, repair, type Repair, restoreTrashed, restoreVersion, type TrashedDocument, verify, type Verification } from './api'
import { ask } from './dialog'
import { bytes, count, duration, moment, plain, some } from './format'
import { labelled, select } from './parts'

/** How long a result can be read. */
const SHOWN = 8000

/** How long somebody or something is kept out, in seconds. */
const SPANS = [
  ['60', 'a minute'],
  ['600', '10 minutes'],
  ['3600', 'an hour'],
  ['86400', 'a day'],
] as const

function told({ nodes, silent }: Outcome, what: string): string {
  const ended = nodes.reduce((sum, node) => sum + node.ended, 0)
  const missing = silent.length > 0 ? ` Not answered yet: ${silent.map(plain).join(', ')}; they do it when they look.` : ''
  return `${what}: ${some(ended, 'session')} ended on ${some(nodes.length, 'server')}.${missing}`
}

async function tell(command: Command, what: string): Promise<void> {
  toast(told(await control(command), what), { milliseconds: SHOWN })
}

export const kickConnection = ({ id, users, address }: Connected): Promise<boolean> =>
  ask({
    title: 'Kick this connection?',
    object: `${users.join(', ') || 'Nobody signed in'}${address ? ` at ${address}` : ''}, ${id}`,
    consequence: 'It is closed now. Clients come back by themselves; nothing that they have typed is lost.',
    action: 'Kick',
    act: () => tell({ action: 'kick', connection: id }, 'Kicked'),
  })

export function kickUser(user: string): Promise<boolean> {
  const seconds = select([['', 'may come back at once'], ...SPANS.map(([value, label]) => [value, `is kept out for ${label}`] as const)], () => undefined)
  return ask({
    title: 'Kick this user?',
    object: user,
    consequence: 'All connections of this user are closed, on all servers and all documents.',
    fields: labelled('Afterwards the user', seconds),
    action: 'Kick',
    act: () => tell({ action: 'kick', user, ...(seconds.value && { seconds: Number(seconds.value) }) }, 'Kicked'),
  })
}

export const closeDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Close this document?',
    object: name,
    consequence: 'Everybody on it is sent away, on all servers. Clients come back by themselves; nothing that they have typed is lost.',
    action: 'Close',
    act: () => tell({ action: 'kick', document: name }, 'Closed'),
  })

export const reloadDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Reload this document?',
    object: name,
    consequence: 'Each server stores what it has taken, drops the document from memory and reads it again from the store. Clients come back by themselves.',
    action: 'Reload',
    act: () => tell({ action: 'reload', document: name }, 'Reloaded'),
  })

export function quarantineDocument(name: string): Promise<boolean> {
  const seconds = select(SPANS, () => undefined, '600')
  return ask({
    title: 'Quarantine this document?',
    object: name,
    consequence: 'Everybody on it is sent away, and nobody can open it for that time. Its content stays as it is.',
    fields: labelled('For', seconds),
    action: 'Quarantine',
    danger: true,
    act: () => tell({ action: 'quarantine', document: name, seconds: Number(seconds.value) }, 'In quarantine'),
  })
}

export const releaseDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Release this document?',
    object: name,
    consequence: 'It can be opened again at once, also if it was closed because it had failed.',
    action: 'Release',
    act: () => tell({ action: 'release', document: name }, 'Released'),
  })

export const compactDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Compact this document?',
    object: name,
    consequence: 'A snapshot of its present state is made, so that it opens from fewer rows. No content and no history is lost.',
    action: 'Compact',
    async act() {
      const { made, number, bytes: size, reason } = await compact(name)
      toast(made ? `A snapshot of ${bytes(size)} was made, up to row ${count(number)}.` : `No snapshot was made${reason ? `: ${plain(reason)}` : ''}.`, { milliseconds: SHOWN })
    },
  })

export const verifyDocument = (name: string, show: (found: Verification) => void): Promise<boolean> =>
  ask({
    title: 'Verify this document?',
    object: name,
    consequence: 'All that is stored of it is read and checked. Nothing is changed.',
    action: 'Verify',
    act: async () => show(await verify(name)),
  })

/** Find out what a repair would do, and ask with these steps before it is done. */
export async function repairDocument(name: string, show: (done: Repair) => void): Promise<void> {
  let found: Repair
  try {
    found = await repair(name, true)
  } catch (error) {
    return void toast(`That cannot be told: ${plain((error as Error).message)}`, { milliseconds: SHOWN })
  }
  if (found.steps.length === 0) return void toast('There is nothing to repair.', { milliseconds: SHOWN })
  await ask({
    title: 'Repair this document?',
    object: name,
    consequence: 'What is damaged is set aside in files, and these steps are done. Then all servers read the document again.',
    fields: h('ul', { class: 'steps' }, ...found.steps.map((step) => h('li', {}, plain(step)))),
    action: 'Repair',
    danger: true,
    typed: true,
    act: async () => show(await repair(name, false)),
  })
}

export const removeDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Delete this document?',
    object: name,
    consequence: 'Everybody on it is sent away, and it goes into the trash. It can be restored from there for some time.',
    action: 'Delete',
    danger: true,
    typed: true,
    async act() {
      await deleteDocument(name)
      toast('The document is in the trash', { milliseconds: SHOWN })
    },
  })

export const eraseDocument = (name: string): Promise<boolean> =>
  ask({
    title: 'Erase this document for good?',
    object: name,
    consequence: 'Its content, its history and all that is in the trash of its name go. This cannot be undone.',
    action: 'Erase for good',
    danger: true,
    typed: true,
    async act() {
      await deleteForGood(name)
      toast('The document is erased', { milliseconds: SHOWN })
    },
  })

export function restoreDeleted({ id, name, title, deleted_at, bytes: size }: TrashedDocument): Promise<boolean> {
  const as = h('input', { class: 'field', autocomplete: 'off', spellcheck: 'false', placeholder: plain(name) })
  return ask({
    title: 'Restore this document?',
    object: name,
    consequence: `${title ? `“${plain(title)}”, ` : ''}${bytes(size)}, deleted ${moment(deleted_at)}. It is what it was, with its history.`,
    fields: labelled('Under another name, if its own is taken', as),
    action: 'Restore',
    async act() {
      await restoreTrashed(name, id, as.value || undefined)
      toast('The document is restored', { milliseconds: SHOWN })
    },
  })
}

export const eraseDeleted = ({ id, name, deleted_at }: TrashedDocument): Promise<boolean> =>
  ask({
    title: 'Erase this deleted document for good?',
    object: name,
    consequence: `It was deleted ${moment(deleted_at)}. Its content and its history go. This cannot be undone.`,
    action: 'Erase for good',
    danger: true,
    typed: true,
    async act() {
      await eraseTrashed(name, id)
      toast('The document is erased', { milliseconds: SHOWN })
    },
  })

export const restoreState = (document: string, version: KeptVersion): Promise<boolean> =>
  ask({
    title: 'Restore this version?',
    object: document,
    consequence: `The document becomes what it was ${moment(version.at)}${version.name ? `, “${plain(version.name)}”` : ''}. It is an edit: everybody sees it arrive, and it can be taken back.`,
    action: 'Restore',
    async act() {
      const { changed, before } = await restoreVersion(document, version.id)
      toast(changed ? `Restored. Row ${count(before)} was the last one before it.` : 'Nothing has changed: the document is what that version holds.', { milliseconds: SHOWN })
    },
  })

/** Say what a verification has found. */
export function verdict({ whole, rows, snapshots, pending, bytes: size, seconds, node }: Verification): string {
  return `${whole ? 'Whole' : 'Damaged'}: ${some(rows, 'row')}, ${some(snapshots, 'snapshot')} and ${some(pending, 'pending update')}, ${bytes(size)}, read in ${duration(seconds)} by ${plain(node)}.`
}
