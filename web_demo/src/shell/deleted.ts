/**
 * What can be done about a document that was deleted: bring it back, or go on in a copy. The server keeps what was
 * deleted for some time, for those who may restore it; else what this page holds becomes a new document.
 */
import * as Y from 'yjs'
import { inventName, kindOf, pageUrl } from '../lib/address'
import { ApiError, createDocument, restoreDocument } from '../lib/api'
import type { Connect } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { visit } from '../lib/visit'
import { h } from './dom'
import { toast } from './toast'

/**
 * Restore the document: it is the same one, and the sync that follows merges what this page has. Where it is not kept,
 * or this user may not, a new one is made of what this page holds. It has to be told as content: what an old copy
 * brings to a new document of the name is what was deleted.
 */
async function bringBack({ name, doc, title, connection }: OpenDocument): Promise<void> {
  try {
    await restoreDocument(name)
  } catch (error) {
    if (!(error instanceof ApiError && [403, 404, 409].includes(error.status))) throw error
    try {
      await createDocument(name, title.value, Y.encodeStateAsUpdate(doc))
    } catch (error) {
      // Somebody else has brought it back.
      if (!(error instanceof ApiError && error.status === 409)) throw error
    }
  }
  connection.retry()
}

/** Put a copy under a name of its own, and go there. */
async function goOnInCopy({ name, doc, title }: OpenDocument, connect: Connect): Promise<void> {
  const target = inventName(kindOf(name))
  const copy = new Y.Doc()
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc))
  await visit(connect, copy, target, () => copy.getMap('meta').set('title', `Copy of ${title.value}`))
  location.href = pageUrl(target)
}

/** Make the buttons. */
export function waysOn(opened: OpenDocument, connect: Connect): HTMLElement[] {
  const empty = opened.doc.store.clients.size === 0
  const offer = (label: string, id: string, act: () => Promise<void>): HTMLButtonElement => {
    const button = h('button', {
      type: 'button',
      class: 'button quiet',
      id,
      onclick: async () => {
        button.disabled = true
        try {
          await act()
        } catch (error) {
          toast(`That did not work: ${(error as Error).message}`)
        }
        button.disabled = false
      },
    }, label)
    return button
  }
  return [
    offer(empty ? 'Start it again' : 'Bring it back', 'bring-back', () => bringBack(opened)),
    ...(empty ? [] : [offer('Go on in a copy', 'keep-copy', () => goOnInCopy(opened, connect))]),
  ]
}
