/** The languages to choose from; each is fetched when it is first needed. */
import type { Extension } from '@codemirror/state'

interface Language {
  readonly label: string
  load(): Promise<Extension>
}

/** By the name that stands in the document; the first is what a new document starts with. */
export const LANGUAGES: Readonly<Record<string, Language>> = {
  markdown: { label: 'Markdown', load: async () => (await import('./markdown')).markdown },
  plain: { label: 'Plain text', load: async () => [] },
  javascript: { label: 'JavaScript', load: async () => (await import('@codemirror/lang-javascript')).javascript({ jsx: true }) },
  typescript: { label: 'TypeScript', load: async () => (await import('@codemirror/lang-javascript')).javascript({ jsx: true, typescript: true }) },
  python: { label: 'Python', load: async () => (await import('@codemirror/lang-python')).python() },
  rust: { label: 'Rust', load: async () => (await import('@codemirror/lang-rust')).rust() },
  go: { label: 'Go', load: async () => (await import('@codemirror/lang-go')).go() },
  java: { label: 'Java', load: async () => (await import('@codemirror/lang-java')).java() },
  cpp: { label: 'C, C++', load: async () => (await import('@codemirror/lang-cpp')).cpp() },
  html: { label: 'HTML', load: async () => (await import('@codemirror/lang-html')).html() },
  css: { label: 'CSS', load: async () => (await import('@codemirror/lang-css')).css() },
  json: { label: 'JSON', load: async () => (await import('@codemirror/lang-json')).json() },
  yaml: { label: 'YAML', load: async () => (await import('@codemirror/lang-yaml')).yaml() },
  sql: { label: 'SQL', load: async () => (await import('@codemirror/lang-sql')).sql() },
}

/** A known language's name, whatever a peer has written there. */
export function languageName(value: unknown): string {
  return typeof value === 'string' && Object.hasOwn(LANGUAGES, value) ? value : 'markdown'
}
