/**
 * Asking again and again: one request at a time, the next one an interval after the last began, none while nobody
 * looks. What is under way is given up when the page is hidden or the view is left.
 */
export interface PollOptions<T> {
  ask: (signal: AbortSignal) => Promise<T>
  show: (answer: T) => void
  failed: (error: unknown) => void
  /** Milliseconds from the begin of one request to the begin of the next. */
  interval?: number
  /** Milliseconds after which a request is given up. */
  patience?: number
}

const INTERVAL = 1000
/** Milliseconds after which a request is given up, and the longest pause after failures. */
const PATIENCE = 15_000
const LONGEST_PAUSE = 8000

export class Poll<T> {
  readonly #options: PollOptions<T>
  #timer = 0
  #request: AbortController | undefined
  #failures = 0
  #stopped = true
  #held = false
  #hurried = false

  constructor(options: PollOptions<T>) {
    this.#options = options
  }

  start(): void {
    if (!this.#stopped) return
    this.#stopped = false
    document.addEventListener('visibilitychange', this.#onVisibility)
    this.again()
  }

  stop(): void {
    this.#stopped = true
    document.removeEventListener('visibilitychange', this.#onVisibility)
    this.#giveUp()
  }

  /** Ask no more until it is let go: what is shown stays as it is. */
  set held(value: boolean) {
    this.#held = value
    if (value) this.#giveUp()
    else this.again()
  }

  /** Ask now, once even if it is held. */
  again(): void {
    this.#giveUp()
    if (!this.#stopped && !document.hidden) void this.#ask()
  }

  /** Ask once more as soon as what is under way was answered; news that come faster than answers give none up. */
  soon(): void {
    if (this.#request) this.#hurried = true
    else this.again()
  }

  readonly #onVisibility = (): void => {
    if (document.hidden) this.#giveUp()
    else if (!this.#held) this.again()
  }

  #giveUp(): void {
    clearTimeout(this.#timer)
    this.#request?.abort()
    this.#request = undefined
    this.#hurried = false
  }

  async #ask(): Promise<void> {
    const request = (this.#request = new AbortController())
    const began = performance.now()
    let late = false
    const patience = setTimeout(() => {
      late = true
      request.abort()
    }, this.#options.patience ?? PATIENCE)
    try {
      const answer = await this.#options.ask(request.signal)
      if (this.#request !== request) return
      this.#failures = 0
      this.#options.show(answer)
    } catch (error) {
      // Given up by this page.
      if (this.#request !== request) return
      this.#failures += 1
      this.#options.failed(late ? new Error('the server took too long to answer') : error)
    } finally {
      clearTimeout(patience)
    }
    // What `show` or `failed` has stopped, or asked anew, is not this one's business any more.
    if (this.#request !== request) return
    this.#request = undefined
    const hurried = this.#hurried
    this.#hurried = false
    if (this.#stopped || this.#held) return
    const interval = this.#options.interval ?? INTERVAL
    const pause = hurried ? 0 : Math.max(interval, Math.min(LONGEST_PAUSE, interval * 2 ** Math.min(this.#failures, 3)))
    this.#timer = window.setTimeout(() => this.again(), Math.max(50, pause - (performance.now() - began)))
  }
}
