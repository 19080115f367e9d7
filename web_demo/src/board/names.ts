/**
 * Names for screen readers where Excalidraw has none, or another than it shows. Its markup is its own, so what it
 * adds is looked over as it comes.
 */
const MENDS: [selector: string, mend: (element: Element) => void][] = [
  ['.main-menu-trigger:not([aria-label])', (button) => button.setAttribute('aria-label', 'Menu')],
  ['.color-picker-container:not([aria-label])', (dialog) => dialog.setAttribute('aria-label', 'Colors')],
  ['.FontPicker__container:not([aria-label])', (dialog) => dialog.setAttribute('aria-label', 'Fonts')],
  // A box around a button that says of itself whether it is open.
  ['div[aria-haspopup][aria-expanded]', (box) => ['aria-haspopup', 'aria-expanded', 'aria-controls'].forEach((name) => box.removeAttribute(name))],
  ['.ImageExportModal .TextInput:not([aria-label])', (input) => input.setAttribute('aria-label', 'File name')],
  // The heading that the dialog says it is named by does not carry that id.
  ['.Dialog[aria-labelledby="dialog-title"]', nameByHeading],
  // What is written on them is their name, with the shortcut; the title describes them.
  [':is(.dropdown-menu-item, .reset-zoom-button, .ImageExportModal .ExcButton)[aria-label]', (button) => button.removeAttribute('aria-label')],
  ['input[name="exportScale"]:not([aria-label])', (input) => input.setAttribute('aria-label', `Scale ${input.parentElement?.textContent ?? ''}`)],
  ['label[title] > input:not([aria-label])', (input) => input.setAttribute('aria-label', input.parentElement?.getAttribute('title') ?? '')],
  // Within the main part of a page there is no footer of the page.
  ['[role="contentinfo"]', nameFooter],
]

function nameByHeading(dialog: Element): void {
  dialog.removeAttribute('aria-labelledby')
  dialog.setAttribute('aria-label', dialog.querySelector('h2, h3')?.textContent || 'Dialog')
}

function nameFooter(footer: Element): void {
  footer.setAttribute('role', 'group')
  footer.setAttribute('aria-label', 'Zoom, undo and help')
}

/** Mend what Excalidraw shows in this page, now and later. */
export function nameThings(): void {
  const mend = (): void => {
    for (const [selector, act] of MENDS) for (const element of document.querySelectorAll(`.excalidraw ${selector}`)) act(element)
  }
  // Its dialogs are children of the body.
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true })
  mend()
}
