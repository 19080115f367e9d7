/** Copy to the clipboard, and say so on the button itself. */

const SHOWN = 2000

async function copy(text: string): Promise<boolean> {
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

/** Copy what `text` gives at each click of `button`. */
export function copyOnClick(button: HTMLButtonElement, text: () => string): void {
  const label = button.textContent
  let timer: number | undefined
  button.addEventListener('click', async () => {
    button.textContent = (await copy(text())) ? 'Copied' : 'Copying is blocked'
    button.focus()
    clearTimeout(timer)
    timer = window.setTimeout(() => {
      button.textContent = label
    }, SHOWN)
  })
}
