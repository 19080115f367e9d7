/**
 * Images in the document itself, bounded: an image travels to everybody and stays in the log, so it is
 * scaled down and compressed before it goes in, and refused if it is still too large.
 */
import type { Editor } from '@tiptap/core'
import Image from '@tiptap/extension-image'
import { Plugin } from '@tiptap/pm/state'
import { compress, isEmbeddedImage } from '../lib/image'
import { toast } from '../shell/toast'

/** Compress an image file to a data URL; null if it is none or cannot be made small enough. */
async function read(file: File): Promise<string | null> {
  let bitmap: ImageBitmap
  try {
    bitmap = await createImageBitmap(file)
  } catch {
    return null
  }
  return compress(bitmap, bitmap.width, bitmap.height)
}

/** Insert image files at `at`, or where the caret is. */
export async function insertImages(editor: Editor, files: Iterable<File>, at?: number): Promise<void> {
  for (const file of files) {
    const src = await read(file)
    if (src === null) toast(`${file.name} is not an image that can be shown here`)
    else editor.chain().focus(at).setImage({ src, alt: file.name.replace(/\.\w+$/, '') }).run()
  }
}

const imagesIn = (data: DataTransfer | null): File[] => [...(data?.files ?? [])].filter((file) => file.type.startsWith('image/'))

/** Tiptap's image, which takes pasted and dropped files and shows nothing that another server would have to send. */
export const BoundedImage = Image.extend({
  addAttributes() {
    return {
      ...this.parent?.(),
      src: {
        default: null,
        renderHTML: ({ src }: { src?: unknown }) => ({ src: isEmbeddedImage(src) ? src : null }),
      },
    }
  },
  addProseMirrorPlugins() {
    const { editor } = this
    return [
      new Plugin({
        props: {
          handlePaste(_view, event) {
            const files = imagesIn(event.clipboardData)
            void insertImages(editor, files)
            return files.length > 0
          },
          handleDrop(view, event) {
            const files = imagesIn(event.dataTransfer)
            void insertImages(editor, files, view.posAtCoords({ left: event.clientX, top: event.clientY })?.pos)
            return files.length > 0
          },
        },
      }),
    ]
  },
}).configure({ allowBase64: true })
