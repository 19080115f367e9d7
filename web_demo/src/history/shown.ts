/** What stands in the place of the live document while one looks back. */
export interface Shown {
  readonly element: HTMLElement
  /** Ask again what can be done. */
  tellActions(): void
  destroy(): void
}
