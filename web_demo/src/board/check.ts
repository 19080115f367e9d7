/**
 * What may be drawn. Anybody who may write can put anything into the document, and Excalidraw takes what it is
 * given at its word: a point that is a word, or an index that is no index, would break the page of everybody.
 */
import type { ExcalidrawElement } from '@excalidraw/excalidraw/element/types'

type Check = (value: unknown) => boolean

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

const string: Check = (value) => typeof value === 'string'
const boolean: Check = (value) => typeof value === 'boolean'
// Beyond, the canvas loses its precision and then itself.
const number: Check = (value) => typeof value === 'number' && Math.abs(value) < 1e8
const whole: Check = (value) => Number.isSafeInteger(value)
const list = (of: Check): Check => (value) => Array.isArray(value) && value.every(of)
const object = (fields: Record<string, Check>): Check => (value) => isObject(value) && Object.entries(fields).every(([key, check]) => check(value[key]))
const optional = (check: Check): Check => (value) => value === undefined || value === null || check(value)
const point: Check = (value) => Array.isArray(value) && value.length >= 2 && value.every(number)
const positive: Check = (value) => number(value) && (value as number) > 0

/** A key of `fractional-indexing`: the first letter tells how long its whole part is, and no fraction ends in 0. */
const index: Check = (value) => {
  if (typeof value !== 'string' || !/^[A-Za-z][0-9A-Za-z]+$/.test(value)) return false
  const head = value.charCodeAt(0)
  const whole = head >= 97 ? head - 95 : 92 - head
  return value.length >= whole && !(value.length > whole && value.endsWith('0')) && value !== `A${'0'.repeat(26)}`
}

const binding = optional(object({ elementId: string, focus: number, gap: number, fixedPoint: optional(point) }))

const COMMON: Record<string, Check> = {
  id: (value) => typeof value === 'string' && value.length > 0 && value.length <= 128,
  index: optional(index),
  version: whole,
  versionNonce: whole,
  x: number,
  y: number,
  width: number,
  height: number,
  angle: optional(number),
  strokeColor: optional(string),
  backgroundColor: optional(string),
  fillStyle: optional(string),
  strokeStyle: optional(string),
  strokeWidth: optional(positive),
  roughness: optional(number),
  opacity: optional(number),
  seed: optional(whole),
  groupIds: optional(list(string)),
  frameId: optional(string),
  boundElements: optional(list(object({ id: string, type: string }))),
  roundness: optional(object({ type: whole, value: optional(number) })),
  link: optional(string),
  locked: optional(boolean),
  isDeleted: optional(boolean),
}

/** The kinds that this page draws; pages of others inside the board are not among them. */
const KINDS: Record<string, Record<string, Check>> = {
  rectangle: {},
  ellipse: {},
  diamond: {},
  frame: { name: optional(string) },
  line: { points: list(point), startBinding: binding, endBinding: binding },
  arrow: { points: list(point), startBinding: binding, endBinding: binding, elbowed: optional(boolean), fixedSegments: optional(list(object({ start: point, end: point, index: whole }))) },
  freedraw: { points: list(point), pressures: optional(list(number)), simulatePressure: optional(boolean) },
  text: { text: string, originalText: optional(string), fontSize: positive, fontFamily: whole, lineHeight: optional(positive), containerId: optional(string), textAlign: optional(string), verticalAlign: optional(string) },
  image: { fileId: optional(string), scale: optional(point), crop: optional(object({ x: number, y: number, width: positive, height: positive, naturalWidth: positive, naturalHeight: positive })) },
}

const passes = (value: Record<string, unknown>, checks: Record<string, Check>): boolean => Object.entries(checks).every(([key, check]) => check(value[key]))

// Entries are never changed in place, and each is asked for at every change of the board.
const known = new WeakMap<object, boolean>()

/** Whether `value` is an element that can be drawn. */
export function isElement(value: unknown): value is ExcalidrawElement {
  if (!isObject(value)) return false
  let good = known.get(value)
  if (good === undefined) {
    const kind = Object.hasOwn(KINDS, String(value['type'])) ? KINDS[String(value['type'])] : undefined
    good = kind !== undefined && passes(value, COMMON) && passes(value, kind)
    known.set(value, good)
  }
  return good
}
