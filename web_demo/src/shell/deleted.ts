/**
 * What can be done about a document that was deleted: bring it back, or go on in a copy. Both come from what this page
 * holds; the server keeps no deleted document for anybody.
 */
import * as Y from 'yjs'
import { inventName, kindOf, pageUrl } from '../lib/address'
import { ApiError, createDocument } from '../lib/api'
import type { Connect } from '../lib/connection'
import type { OpenDocument } from '../lib/document'
import { visit } from '../lib/visit'
import { h } from './dom'
import { toast } from './toast'

/** Create the document anew; the sync that follows brings what this page holds. */
async function bringBack({ name, title, connection }: OpenDocument): Promise<void> {
  try {
    await createDocument(name, title.value)
  } catch (error) {
    // Somebody else has brought it back.
    if (!(error instanceof ApiError && error.status === 409)) throw error
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
