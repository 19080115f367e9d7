/** Elements without a framework: enough for a frame around an editor, and nothing to learn for who lifts it out. */
type Props = Record<string, string | boolean | ((event: never) => void)>
type Child = Node | string | null | undefined | false

/** Make an element: `on…` are listeners, all else attributes, of which `false` means absent. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag)
  for (const [key, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(key.slice(2), value as EventListener)
    else if (typeof value === 'string') element.setAttribute(key, value)
    else element.toggleAttribute(key, value)
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

/** Outlines on a 24-pixel grid. */
const ICONS = {
  bold: 'M7 5h6a3.5 3.5 0 0 1 0 7H7zM7 12h7a3.5 3.5 0 0 1 0 7H7z',
  italic: 'M10 5h8M6 19h8M14 5l-4 14',
  underline: 'M7 4v7a5 5 0 0 0 10 0V4M5 20h14',
  strike: 'M4 12h16M16.5 7.5C16 5.5 14 5 12 5c-2.5 0-4 1.2-4 3 0 1 .5 1.8 1.3 2.300M7.5 16c.4 2 2.3 3 4.5 3 2.7 0 4.5-1.3 4.5-3.2 0-.7-.2-1.3-.6-1.8',
  code: 'm8 7-5 5 5 5M16 7l5 5-5 5',
  codeBlock: 'M4 5h16v14H4zM10 9.5 7.5 12l2.5 2.500M14 9.500l2.5 2.5-2.5 2.5',
  link: 'M10 14a4 4 0 0 0 5.7 0l3-3A4 4 0 0 0 13 5.300l-1.2 1.200M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.700l1.2-1.2',
  bullets: 'M9 6h11M9 12h11M9 18h11M4.5 6h.01M4.5 12h.01M4.5 18h.01',
  numbers: 'M10 6h10M10 12h10M10 18h10M4 5l1.2-.8V9M3.8 13.600c.2-.8 2.2-.9 2.2.3 0 .9-2.2 1.5-2.2 2.900H6.2',
  tasks: 'M4 5.5 5.5 7 8.5 4M4 12.5 5.5 14l3-3M12 6h8M12 13h8M4 19.500h16',
  quote: 'M5 5v14M9 7h10M9 12h10M9 17h6',
  table: 'M4 5h16v14H4zM4 10h16M4 14.500h16M10 5v14',
  image: 'M4 5h16v14H4zM4 16l4.5-4.500L13 16l3-3 4 4M15.5 9.500h.01',
  line: 'M4 12h16',
  undo: 'M8 5 4 9l4 4M4 9h9.500a5.5 5.5 0 0 1 0 11H9',
  redo: 'm16 5 4 4-4 4M20 9h-9.500a5.5 5.5 0 0 0 0 11H15',
  plus: 'M12 5v14M5 12h14',
  trash: 'M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.5 11v5.500M13.5 11v5.5',
  pencil: 'm5 19 1-4L16.5 4.500a1.5 1.5 0 0 1 2 0l1 1a1.5 1.5 0 0 1 0 2L9 18z',
  share: 'M12 15V4M8 7.5 12 3.500l4 4M5 12v8h14v-8',
  split: 'M4 5h16v14H4zM12 5v14',
  people: 'M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M3 20c0-3.5 2.5-6 6-6s6 2.5 6 6M15.5 4.500a3.5 3.5 0 0 1 0 6M18 14.500c2 .8 3 2.8 3 5.5',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8M12 3v1.500M12 19.500V21M3 12h1.500M19.5 12H21M5.6 5.600l1.1 1.100M17.3 17.300l1.1 1.100M5.6 18.400l1.1-1.100M17.3 6.700l1.1-1.1',
  moon: 'M19.5 14.500A8 8 0 0 1 9.5 4.500a8 8 0 1 0 10 10z',
  text: 'M6 4h9l4 4v12H6zM9.5 11h6M9.5 14.500h6',
  board: 'M4 5h16v12H4zM12 17v3.500M8 20.500h8M7.5 13c2-5 3.5-5 4.5-2s2.5 2 4.5-2',
  eye: 'M3 12c2-4 5-6.5 9-6.500s7 2.5 9 6.500c-2 4-5 6.5-9 6.500S5 16 3 12M12 14.500a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5',
  close: 'M6 6l12 12M18 6 6 18',
  inspect: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14M16 16l4.500 4.500',
  history: 'M4 5v5h5M4.7 9.5A8 8 0 1 1 4 13M12 8.5V13l3 2',
} as const

export type IconName = keyof typeof ICONS
/** The path of an icon that only a part of the page needs, which is loaded later. */
export type Outline = `${'M' | 'm'}${number}${string}`

export function icon(sign: IconName | Outline): SVGSVGElement {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', '0 0 24 24')
  svg.setAttribute('class', 'icon')
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
  path.setAttribute('d', ICONS[sign as IconName] ?? sign)
  svg.append(path)
  return svg
}

/** A button that shows an icon; `label` is its name and its tooltip. */
export function iconButton(sign: IconName | Outline, label: string, onclick: () => void, props: Props = {}): HTMLButtonElement {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props }, icon(sign))
}
