/** Excalidraw asks this of pasted text that looks like Mermaid, and pastes it as text when it fails. */
export async function parseMermaidToExcalidraw() {
  throw new Error('Mermaid is not part of this page')
}
