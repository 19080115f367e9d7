// Starts @y/websocket-server on 127.0.0.1:PORT as its package does; with DATA_DIR each document is kept as one file,
// written when its last client leaves, which is what its persistence hook offers.
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { docs, setPersistence, setupWSConnection } from '@y/websocket-server/utils'

const dataDir = process.env.DATA_DIR
const file = (name) => path.join(dataDir, encodeURIComponent(name))

if (dataDir) {
  setPersistence({
    provider: null,
    bindState: (name, doc) => {
      if (fs.existsSync(file(name))) Y.applyUpdate(doc, fs.readFileSync(file(name)))
    },
    writeState: async (name, doc) => fs.writeFileSync(file(name), Y.encodeStateAsUpdate(doc))
  })
}

const wss = new WebSocket.Server({ noServer: true })
wss.on('connection', setupWSConnection)
const server = http.createServer((_request, response) => response.end('okay'))
server.on('upgrade', (request, socket, head) => {
  wss.handleUpgrade(request, socket, head, (ws) => wss.emit('connection', ws, request))
})
server.listen(Number(process.env.PORT || 0), '127.0.0.1', 4096, () => {
  console.log(`listening on ws://127.0.0.1:${server.address().port}`)
})
process.on('SIGTERM', () => {
  if (dataDir) for (const [name, doc] of docs) fs.writeFileSync(file(name), Y.encodeStateAsUpdate(doc))
  process.exit(0)
})
