/**
 * The question before an action: it names the object, and what follows. For what cannot be taken back the name is to be
 * typed. The action runs while the dialog is open, so that a failure is read where it was asked for.
 */
import { h } from '../shell/dom'
import { plain } from './format'

export interface Question {
  /** Such as "Delete this document?". */
  title: string
  /** The name of the object, as it is. */
  object: string
  /** What the action does, and to whom. */
  consequence: string
  /** The word on the button. */
  action: string
  danger?: boolean
  /** The name has to be typed. */
  typed?: boolean
  /** More to be chosen; read it in `act`. */
  fields?: HTMLElement
  act: () => Promise<void>
}

let open: HTMLDialogElement | undefined

/** Ask, and act if the answer is yes. Gives whether it was done. */
export function ask({ title, object, consequence, action, danger = false, typed = false, fields, act }: Question): Promise<boolean> {
  open?.close()
  return new Promise((resolve) => {
    let done = false
    const name = plain(object)
    const failure = h('p', { class: 'dialog-failure', role: 'alert', hidden: true })
    const field = h('input', { class: 'field', id: 'typed', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off', 'aria-describedby': 'dialog-object' })
    const go = h('button', { class: `button${danger ? ' danger' : ''}`, disabled: typed }, action)
    const cancel = h('button', { type: 'button', class: 'button quiet', onclick: () => dialog.close() }, 'Cancel')
    // A name with characters that nobody can type is taken as it is shown, too.
    field.addEventListener('input', () => (go.disabled = field.value !== object && field.value !== name))
    const form = h(
      'form',
      {
        onsubmit: async (event: Event) => {
          event.preventDefault()
          if (go.disabled) return
          go.disabled = true
          failure.hidden = true
          form.setAttribute('aria-busy', 'true')
          try {
            await act()
            done = true
            dialog.close()
          } catch (error) {
            failure.textContent = `That did not work: ${plain(error instanceof Error ? error.message : String(error))}`
            failure.hidden = false
            go.disabled = false
          }
          form.removeAttribute('aria-busy')
        },
      },
      h('h2', { id: 'dialog-title' }, title),
      h('p', { class: 'dialog-object', id: 'dialog-object' }, h('bdi', {}, name)),
      h('p', { id: 'dialog-consequence' }, consequence),
      fields ?? null,
      typed && h('label', { class: 'dialog-typed', for: 'typed' }, 'Type the name to go on', field),
      failure,
      h('div', { class: 'dialog-buttons' }, cancel, go),
    )
    const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'dialog-title', 'aria-describedby': 'dialog-object dialog-consequence' }, form)
    const before = document.activeElement
    dialog.addEventListener('close', () => {
      dialog.remove()
      if (open === dialog) open = undefined
      if (before instanceof HTMLElement && before.isConnected) before.focus()
      resolve(done)
    })
    open = dialog
    document.body.append(dialog)
    dialog.showModal()
    ;(typed ? field : cancel).focus()
  })
}
