// A socket of Hocuspocus providers that keeps books of what the server has told them to be saved.

import * as decoding from 'lib0/decoding'
import WebSocket from 'ws'
import * as Y from 'yjs'

const [SYNC, SYNC_STATUS, STEP1] = [0, 8, 0]

// A provider that brings back what others wrote may have large values among it.
const tokensOf = (update) => Y.decodeUpdate(update).structs
  .flatMap((struct) => struct.content?.arr ?? []).filter((value) => typeof value === 'string')

// Makes the class: `opened(socket)` and `closed(socket)` are told of each, `saved(name, tokens)` of each status 1. It
// keeps, for each address, the messages without a status yet, oldest first.
export const booked = ({ opened = () => {}, closed = () => {}, saved }) => class Booked extends WebSocket {
  constructor (...args) {
    super(...args)
    this.waiting = new Map()
    // What a provider gives up while it connects; without a listener, that ends the process.
    this.on('error', () => {})
    this.on('open', () => opened(this))
    this.on('close', () => closed(this))
    // Before the listeners of the provider, which is there only when this has returned.
    this.on('message', (data) => {
      const decoder = decoding.createDecoder(new Uint8Array(data))
      const name = decoding.readVarString(decoder)
      if (decoding.readVarUint(decoder) !== SYNC_STATUS) return
      const queue = this.waiting.get(name)
      if (!queue?.length) throw new Error(`a status for ${name}, where nothing was sent`)
      const tokens = queue.shift()
      if (decoding.readVarUint(decoder) !== 1) throw new Error(`refused: ${tokens}`)
      if (tokens.length) saved(name, tokens)
    })
  }

  send (data, ...rest) {
    const decoder = decoding.createDecoder(new Uint8Array(data))
    const name = decoding.readVarString(decoder)
    if (decoding.readVarUint(decoder) === SYNC && decoding.readVarUint(decoder) !== STEP1) {
      if (!this.waiting.has(name)) this.waiting.set(name, [])
      this.waiting.get(name).push(tokensOf(decoding.readVarUint8Array(decoder)))
    }
    return super.send(data, ...rest)
  }
}
