// Makes one file of the editor, where Django's static files are.
import { defineConfig } from 'vite'

export default defineConfig({
  build: {
    lib: { entry: 'frontend/editor.js', formats: ['es'], fileName: () => 'note.js' },
    outDir: 'notes/static/notes',
    emptyOutDir: false
  }
})
