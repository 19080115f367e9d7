/**
 * What Excalidraw needs to come whole from where the page comes from, under a strict Content-Security-Policy.
 *
 * Its fonts are files that it looks for beside the page, else at a CDN. Here they become assets like any other:
 * hashed, cached, at any path, and there is no "else". Left out are:
 *
 * - Xiaolai, a handwriting for Chinese, Japanese and Korean of 13 MB; such text shows in a font of the system.
 * - The translations: these pages speak English.
 * - The tool that cuts fonts down for an exported SVG, 1.8 MB: it evaluates strings, which the policy refuses.
 *   An exported SVG carries its fonts whole, some 25 kB each.
 */
import type { Plugin } from 'vite'

const OURS = /@excalidraw\/excalidraw\/dist\/prod\/[^/]+\.js$/
const FONT = /"(\.\/fonts\/[\w./-]+\.woff2)"/g
const CDN = 'https://esm.sh/'
/** Where Xiaolai's faces are registered, before the last one. */
const CJK = /(,\w+\(\w+),\.\.\.\w+(\),\w+\(\w+,\.\.\.\w+\),\w+\._initialized=!0)/
/** Whether fonts are cut down in a worker. */
const WORKERS = /typeof Worker<"u"(?=,\w+=async\(\w+,\w+\)=>\{let\{Commands:)/

const OTHER_LOCALE = /\.\/locales\/(?!en-[A-Z\d]{8}\.js$)[\w-]+\.js$/
const CUTTER = /\.\/subset-(?:shared|worker)\.chunk\.js$/

/** Modules in the place of others. */
const STANDINS: Record<string, string> = {
  '\0excalidraw:locale': 'export default {}',
  '\0excalidraw:whole-fonts': `
    export const Commands = {}
    export const toBase64 = async (buffer) => 'data:font/woff2;base64,' + btoa(Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join(''))
    export const subsetToBase64 = toBase64`,
}

export function excalidraw(): Plugin {
  return {
    name: 'excalidraw',
    apply: 'build',
    // Before Vite's own plugin finds what stands in the package.
    enforce: 'pre',
    onLog(_level, { code }) {
      // "use client" is a word to frameworks that render on a server.
      return code === 'MODULE_LEVEL_DIRECTIVE' ? false : undefined
    },
    resolveId(source, importer) {
      if (!importer || !OURS.test(importer)) return null
      if (OTHER_LOCALE.test(source)) return '\0excalidraw:locale'
      return CUTTER.test(source) ? '\0excalidraw:whole-fonts' : null
    },
    load(id) {
      return STANDINS[id] ?? null
    },
    transform(code, id) {
      if (!OURS.test(id) || !code.includes(CDN)) return null
      if (!CJK.test(code) || !WORKERS.test(code)) this.error('Excalidraw handles its fonts in another way than this plugin knows')
      return {
        code: code
          .replace(CJK, '$1$2')
          .replace(WORKERS, 'false')
          .replaceAll(FONT, (found, path: string) => (path.includes('/Xiaolai/') ? '""' : `new URL(${found},import.meta.url).href`))
          .replaceAll(CDN, './'),
        map: null,
      }
    },
  }
}
