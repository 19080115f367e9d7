// Starts @hocuspocus/server on 127.0.0.1:PORT with its defaults; with DATA_DIR each document is kept as one file,
// through the hooks that its own database extension uses. With REDIS_PORT several of them are one cluster, through the
// extension of its makers.
import fs from 'node:fs'
import path from 'node:path'
import * as Y from 'yjs'
import { Redis } from '@hocuspocus/extension-redis'
import { Server } from '@hocuspocus/server'

const dataDir = process.env.DATA_DIR
const file = (name) => path.join(dataDir, encodeURIComponent(name))

const server = new Server({
  address: '127.0.0.1',
  port: Number(process.env.PORT || 0),
  quiet: true,
  ...(process.env.REDIS_PORT && {
    extensions: [new Redis({ host: '127.0.0.1', port: Number(process.env.REDIS_PORT) })]
  }),
  ...(dataDir && {
    onLoadDocument: async ({ documentName, document }) => {
      if (fs.existsSync(file(documentName))) Y.applyUpdate(document, fs.readFileSync(file(documentName)))
    },
    onStoreDocument: async ({ documentName, document }) => {
      fs.writeFileSync(file(documentName), Y.encodeStateAsUpdate(document))
    }
  })
})
await server.listen()
console.log(`listening on ws://127.0.0.1:${server.address.port}`)
