/**
 * Images in the document itself, bounded: an image travels to everybody and stays in the log, so it is
 * scaled down and compressed before it goes in, and refused if it is still too large.
 */
import type { Editor } from '@tiptap/core'
import Image from '@tiptap/extension-image'
import { Plugin } from '@tiptap/pm/state'
import { toast } from '../shell/toast'

/** Pixels of the longer side, and characters of the data URL, that one image may have. */
const SIDE = 1600
const LENGTH = 400_000

const EMBEDDED = /^data:image\/(png|jpeg|webp|gif);base64,/

/** Scale and compress an image file to a data URL; null if it is none or cannot be made small enough. */
async function shrink(file: File): Promise<string | null> {
  let bitmap: ImageBitmap
  try {
    bitmap = await createImageBitmap(file)
  } catch {
    return null
  }
  for (let scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height)); scale > 0.05; scale /= 2) {
    const canvas = document.createElement('canvas')
    canvas.width = Math.max(1, Math.round(bitmap.width * scale))
    canvas.height = Math.max(1, Math.round(bitmap.height * scale))
    canvas.getContext('2d')!.drawImage(bitmap, 0, 0, canvas.width, canvas.height)
    const url = canvas.toDataURL('image/webp', 0.82)
    if (url.length <= LENGTH) return url
  }
  return null
}

/** Insert image files at `at`, or where the caret is. */
export async function insertImages(editor: Editor, files: Iterable<File>, at?: number): Promise<void> {
  for (const file of files) {
    const src = await shrink(file)
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
        renderHTML: ({ src }: { src?: unknown }) => ({ src: typeof src === 'string' && src.length <= LENGTH && EMBEDDED.test(src) ? src : null }),
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
