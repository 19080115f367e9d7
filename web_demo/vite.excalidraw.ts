/**
 * What Excalidraw needs to come whole from where the page comes from.
 *
 * Its fonts are files that it looks for beside the page, else at a CDN. Here they become assets like any other:
 * hashed, cached, at any path, and there is no "else". Left out are Xiaolai, a handwriting for Chinese, Japanese and
 * Korean of 13 MB (such text shows in a font of the system), and the translations, as these pages speak English.
 */
import type { Plugin } from 'vite'

const OURS = /@excalidraw\/excalidraw\/dist\/(?:prod|dev)\/[^/]+\.js$/
const FONT = /"(\.\/fonts\/[\w./-]+\.woff2)"/g
const CDN = 'https://esm.sh/'
const OTHER_LOCALE = /\.\/locales\/(?!en-[A-Z\d]{8}\.js$)[\w-]+\.js$/
const NOTHING = '\0excalidraw:nothing'

/** The one line that registers Xiaolai's faces under the name in `$1`; whatever stays unused the bundler drops. */
const CJK = /,\w+\(\w+,\.\.\.\w+\)(,\w+\(\w+,\.\.\.\w+\),\w+\._initialized=!0)/

export function excalidraw(): Plugin {
  return {
    name: 'excalidraw',
    apply: 'build',
    // Before Vite's own plugin finds the translations.
    enforce: 'pre',
    onLog(_level, { code }) {
      // "use client" is a word to frameworks that render on a server.
      return code === 'MODULE_LEVEL_DIRECTIVE' ? false : undefined
    },
    resolveId(source, importer) {
      return importer && OURS.test(importer) && OTHER_LOCALE.test(source) ? NOTHING : null
    },
    load(id) {
      return id === NOTHING ? 'export default {}' : null
    },
    transform(code, id) {
      if (!OURS.test(id) || !code.includes(CDN)) return null
      if (!CJK.test(code)) this.error('Excalidraw registers its fonts in another way than this plugin knows')
      return {
        code: code
          .replace(CJK, '$1')
          .replaceAll(FONT, (found, path: string) => (path.includes('/Xiaolai/') ? '""' : `new URL(${found},import.meta.url).href`))
          .replaceAll(CDN, './'),
        map: null,
      }
    },
  }
}
