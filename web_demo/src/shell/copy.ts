import { toast } from './toast'

/** Copy to the clipboard; tell whether it worked. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    // Plain http on another host than localhost has no clipboard API; the old command still works.
    const area = document.createElement('textarea')
    area.value = text
    area.className = 'spoken'
    document.body.append(area)
    area.select()
    const done = document.execCommand('copy')
    area.remove()
    return done
  }
}

/** Copy `link`, and say so; where copying is not allowed, show it. */
export async function copyLink(link: string, done: string): Promise<void> {
  toast((await copy(link)) ? done : link)
}
