/**
 * One document twice, side by side, with a plug for each side: the picture of what a CRDT does. Each side is
 * the ordinary page in a frame; all that passes between here and there is the
 * title and "you are offline now".
 */
import { pageUrl, untitled } from '../lib/address'
import { h } from '../shell/dom'
import { themeButton } from '../shell/theme'
import './split.css'

const PEOPLE = ['Ada', 'Grace']

export function openSplit(name: string): void {
  const heading = h('h1', { class: 'split-title' })
  const show = (title: string): void => {
    heading.textContent = title
    document.title = `${title}, twice · collab`
  }
  show(untitled(name))
  addEventListener('message', ({ origin, data }) => {
    if (origin === location.origin && typeof data?.title === 'string') show(data.title)
  })
  document.body.replaceChildren(
    h(
      'header',
      { class: 'bar' },
      h('a', { class: 'brand', href: './', 'aria-label': 'All documents', title: 'All documents' }, h('img', { src: './favicon.svg', alt: '', width: '28', height: '28' })),
      heading,
      h('div', { class: 'actions' }, h('a', { class: 'button quiet', href: pageUrl(name) }, 'One window'), themeButton()),
    ),
    h('main', { class: 'sides' }, ...PEOPLE.map((person) => side(name, person))),
  )
}

function side(name: string, person: string): HTMLElement {
  const frame = h('iframe', { src: `${pageUrl(name)}&as=${person}`, title: `The document as ${person} sees it`, allow: 'clipboard-write' })
  const state = h('span', {}, 'Online')
  const tell = (): void => frame.contentWindow?.postMessage({ online: plug.getAttribute('aria-checked') === 'true' }, location.origin)
  // Before a side has said its title it hears nothing; a plug may have been pulled by then.
  addEventListener('message', ({ origin, source }) => {
    if (origin === location.origin && source === frame.contentWindow && state.textContent === 'Offline') tell()
  })
  const plug = h('button', {
    type: 'button',
    class: 'plug',
    role: 'switch',
    'aria-checked': 'true',
    'aria-label': `${person} is online`,
    onclick: () => {
      const online = plug.getAttribute('aria-checked') !== 'true'
      plug.setAttribute('aria-checked', String(online))
      state.textContent = online ? 'Online' : 'Offline'
      tell()
    },
  })
  return h('section', { class: 'side', 'aria-label': person }, h('header', { class: 'side-head' }, h('h2', {}, person), h('span', { class: 'plug-box' }, state, plug)), frame)
}
