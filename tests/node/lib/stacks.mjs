// The published client packages by the version a user installs. One process holds one generation of
// Yjs (two in one process break each other's constructor checks), so packages are loaded on demand.

import WebSocket from 'ws'

const generations = {
  yjs13: {
    yjs: 'yjs',
    awareness: 'y-protocols/awareness',
    providers: { '3.0': 'y-websocket-3.0', 3.1: 'y-websocket-3.1' }
  },
  yjs14: {
    yjs: '@y/y',
    awareness: '@y/protocols/awareness',
    providers: { 4: '@y/websocket' }
  }
}

export const loadStack = async (generation) => {
  const { yjs, awareness, providers } = generations[generation]
  const stack = { Y: await import(yjs), awareness: await import(awareness), providers: {} }
  for (const [version, name] of Object.entries(providers)) {
    stack.providers[version] = (await import(name)).WebsocketProvider
  }
  return stack
}

// 3.0 asks for `WebSocket.OPEN` on the global when it resyncs; browsers have it, Node 20 has not.
globalThis.WebSocket ??= WebSocket

export { WebSocket }
