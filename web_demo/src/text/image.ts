/**
 * Images in the document itself, bounded: an image travels to everybody and stays in the log, so it is
 * scaled down and compressed before it goes in, and refused if it is still too large.
 */
import type { CommandProps, Editor, JSONContent } from '@tiptap/core'
import Image from '@tiptap/extension-image'
import { Plugin, Selection } from '@tiptap/pm/state'
import { absolutePositionToRelativePosition, relativePositionToAbsolutePosition, ySyncPluginKey } from '@tiptap/y-tiptap'
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

/**
 * Put the caret into the text behind what was just inserted, and make that text where there is none. An image that
 * stayed selected would be replaced by the next key, or by the next image.
 */
function caretBehind({ tr, dispatch }: CommandProps): boolean {
  if (!dispatch) return true
  const end = tr.doc.resolve(tr.selection.to)
  if (!end.nodeAfter?.isTextblock) {
    const text = end.parent.contentMatchAt(end.index()).defaultType
    if (text?.isTextblock) tr.insert(end.pos, text.create())
  }
  tr.setSelection(Selection.near(tr.doc.resolve(end.pos), 1)).scrollIntoView()
  return true
}

/** Remember the place `at` by what stands there, so that it is found again after the edits of others. */
function placeAt({ state }: Editor, at: number): () => number | null {
  const { doc, type, binding } = ySyncPluginKey.getState(state)
  const place: unknown = absolutePositionToRelativePosition(at, type, binding.mapping)
  return () => relativePositionToAbsolutePosition(doc, type, place, binding.mapping)
}

/** Insert image files at `at`, or where the caret is when all have been read: in one step, so that none replaces another. */
export async function insertImages(editor: Editor, files: Iterable<File>, at?: number): Promise<void> {
  const place = at === undefined ? undefined : placeAt(editor, at)
  const images: JSONContent[] = []
  for (const file of files) {
    const src = await read(file)
    if (src === null) toast(`${file.name} is not an image that can be shown here`)
    else images.push({ type: 'image', attrs: { src, alt: file.name.replace(/\.\w+$/, '') } })
  }
  // Access may have ended meanwhile.
  if (images.length === 0 || editor.isDestroyed || !editor.isEditable) return
  const { from, to } = editor.state.selection
  const target = place?.() ?? { from, to }
  editor.chain().focus().insertContentAt(target, images).command(caretBehind).run()
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
