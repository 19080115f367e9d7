/** A value that tells when it changes: all the state management this page needs. */
export class Signal<T> {
  #value: T
  readonly #listeners = new Set<(value: T) => void>()

  constructor(value: T) {
    this.#value = value
  }

  get value(): T {
    return this.#value
  }

  /** Take a new value; one that says the same (as JSON) is no change. */
  set(value: T): void {
    if (JSON.stringify(value) === JSON.stringify(this.#value)) return
    this.#value = value
    for (const listener of [...this.#listeners]) listener(value)
  }

  /** Call `listener` now and with every later value; returns the way to stop that. */
  subscribe(listener: (value: T) => void): () => void {
    this.#listeners.add(listener)
    listener(this.#value)
    return () => void this.#listeners.delete(listener)
  }
}
