import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { brotliCompress, constants, gzip } from 'node:zlib'
import { defineConfig, type Plugin } from 'vite'
import { excalidraw } from './vite.excalidraw.ts'

const COMPRESSED = /\.(js|css|html|svg|json|md)$/

/** Write a `.br` and a `.gz` beside every text file, so that the server never compresses at run time. */
function precompress(): Plugin {
  let out = 'dist'
  return {
    name: 'precompress',
    apply: 'build',
    configResolved(config) {
      out = config.build.outDir
    },
    async closeBundle() {
      for (const entry of await readdir(out, { recursive: true })) {
        if (!COMPRESSED.test(entry)) continue
        const path = join(out, entry)
        const plain = await readFile(path)
        const packed = {
          br: await promisify(brotliCompress)(plain, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: plain.length } }),
          gz: await promisify(gzip)(plain, { level: constants.Z_BEST_COMPRESSION }),
        }
        for (const [ending, data] of Object.entries(packed)) {
          if (data.length < plain.length) await writeFile(`${path}.${ending}`, data)
        }
      }
    },
  }
}

const SHARED = /src\/(lib\/(?!detour|hocuspocus|streams|ywebsocket|visit)|shell\/(?!guests|deleted|caret-names|old-copy-notice)).*\.ts$|node_modules\/(yjs|lib0|y-protocols|y-indexeddb|w3c-keyname)\//

const server = process.env['COLLAB_URL'] ?? 'http://127.0.0.1:1234'

// `make demo-dev` beside a running `collab serve`.
const proxy = {
  '/api': server,
  '/streams': server,
  '/ws': { target: server, ws: true },
  '/hocuspocus': { target: process.env['HOCUSPOCUS_URL'] ?? server, ws: true },
}

export default defineConfig({
  // Relative, so that the build works at any path behind a proxy.
  base: './',
  // Two copies of yjs in one page break its `instanceof` checks.
  resolve: {
    dedupe: ['yjs', 'lib0', 'y-protocols', '@codemirror/state', '@codemirror/view', 'react', 'react-dom'],
    alias: {
      // micromark's look-up of entities has a form for browsers that asks the DOM, which its worker has not.
      'decode-named-character-reference': fileURLToPath(new URL('node_modules/decode-named-character-reference/index.js', import.meta.url)),
    },
  },
  build: {
    target: 'es2022',
    // Newer than `target` means by itself: light-dark() and nesting stay as they are written.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    // Inlined assets would be data: URLs, which the Content-Security-Policy refuses for fonts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Excalidraw is as large as it is; the tests watch what a first visit loads.
    chunkSizeWarningLimit: 800,
    license: { fileName: 'licenses.md' },
    // What every page with a document needs travels as one file: a dozen small ones cost more in headers than in content.
    rolldownOptions: { output: { codeSplitting: { groups: [{ name: 'shared', test: SHARED }] } } },
  },
  plugins: [excalidraw(), precompress()],
  // Found late, in a worker, they would make the first visit reload itself.
  optimizeDeps: { include: ['micromark', 'micromark-extension-gfm'] },
  server: { proxy },
  preview: { proxy },
})
