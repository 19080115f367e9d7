/** What a view of the admin page is, and what it may ask of the frame around it. */
import type { Nodes } from './api'
import type { Poll } from './poll'

export interface Asking<T> {
  ask: (signal: AbortSignal) => Promise<T>
  show: (answer: T) => void
  /** Milliseconds; a second where nothing is said. */
  interval?: number
  /** Milliseconds after which a request is given up; 15 seconds where nothing is said. */
  patience?: number
  /** Tell whether the view says this failure itself; all else is said by the frame. */
  failed?: (error: unknown) => boolean
}

export interface Admin {
  /** Ask until the view is left. */
  poll<T>(asking: Asking<T>): Poll<T>
  /** Call `listener` with the figures of all nodes, each second until the view is left. */
  onNodes(listener: (nodes: Nodes) => void): void
  /** Whether the server has what a view shows, as far as it is known. */
  offers(view: string): boolean
  /** What the address says beside the view. */
  readonly query: URLSearchParams
  /** Write what was chosen into the address, without a new entry in the history of the browser. */
  remember(query: Readonly<Record<string, string>>): void
  /** Show another address of this page. */
  go(url: string): void
}

export interface View {
  readonly title: string
  readonly element: HTMLElement
  /** Let go of what is not a poll. */
  close?(): void
}

export type OpenView = (admin: Admin) => View
