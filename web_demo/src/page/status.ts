/** The connection in words: never more than is known. */
import type { Connection, Status } from '../connect'
import { copyOnClick } from './copy'
import { byId } from './dom'

/** A drop that is healed within this time (milliseconds) is not worth a word to anybody. */
const PATIENCE = 400

function words(status: Status): string {
  switch (status.state) {
    case 'connecting':
      return 'Connecting'
    case 'connected':
      return 'Connected'
    case 'offline':
      return 'Offline, your changes are kept in this tab'
    case 'refused':
      return 'Not connected'
  }
}

/** Show the status, and for a refusal the reason and a way to keep the text. */
export function showStatus(connection: Connection, text: () => string): void {
  const line = byId('status', HTMLParagraphElement)
  const label = line.querySelector('.words')!
  const refused = byId('refused', HTMLElement)
  copyOnClick(byId('rescue', HTMLButtonElement), text)

  let timer: number | undefined
  const show = (status: Status): void => {
    line.dataset['state'] = status.state
    label.textContent = words(status)
    line.title = status.state === 'offline' ? `${status.why} This page tries again by itself.` : ''
    refused.hidden = status.state !== 'refused'
    if (status.state === 'refused') {
      byId('refused-reason', HTMLElement).textContent = status.why
      byId('refused-advice', HTMLElement).textContent = text()
        ? 'What you see is only in this tab now: copy it before you close it.'
        : 'Start a new document to go on.'
      byId('rescue', HTMLButtonElement).hidden = text() === ''
    }
  }
  connection.onStatus((status) => {
    clearTimeout(timer)
    if (status.state === 'offline') timer = window.setTimeout(show, PATIENCE, status)
    else show(status)
  })

  addEventListener('beforeunload', (event) => {
    if (connection.unsent) event.preventDefault()
  })
}
