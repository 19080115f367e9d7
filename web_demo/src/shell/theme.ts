/** Light or dark: what the system says, until somebody chooses here; then that, in every tab. */
import { Signal } from '../lib/signal'
import { icon, iconButton } from './dom'

export type Theme = 'light' | 'dark'

const KEY = 'collab:theme'
const system = matchMedia('(prefers-color-scheme: dark)')

function chosen(): Theme | null {
  try {
    const value = localStorage.getItem(KEY)
    return value === 'light' || value === 'dark' ? value : null
  } catch {
    return null
  }
}

const present = (): Theme => chosen() ?? (system.matches ? 'dark' : 'light')

/** The theme that shows now. */
export const theme = new Signal<Theme>(present())

const update = (): void => theme.set(present())
system.addEventListener('change', update)
addEventListener('storage', update)
theme.subscribe((value) => {
  document.documentElement.dataset['theme'] = value
})

export function themeButton(): HTMLButtonElement {
  const button = iconButton('moon', 'Dark appearance', () => {
    const next = theme.value === 'dark' ? 'light' : 'dark'
    try {
      localStorage.setItem(KEY, next)
      update()
    } catch {
      theme.set(next)
    }
  })
  theme.subscribe((value) => {
    button.replaceChildren(icon(value === 'dark' ? 'sun' : 'moon'))
    button.setAttribute('aria-pressed', String(value === 'dark'))
  })
  return button
}
