/**
 * Images in a document, bounded: an image travels to everybody and stays in the log, so it is scaled down and
 * compressed before it goes in, and refused if it is still too large.
 */

/** Pixels of the longer side, and characters of the data URL, that one image may have. */
const SIDE = 1600
const IMAGE_LENGTH = 400_000

const EMBEDDED = /^data:image\/(png|jpeg|webp|gif);base64,/

/** Whether `value` is an image as `shrink` makes them: part of the document itself, and no larger than allowed. */
export function isEmbeddedImage(value: unknown): value is string {
  return typeof value === 'string' && value.length <= IMAGE_LENGTH && EMBEDDED.test(value)
}

/** Scale and compress a picture of this size to a data URL; null if it cannot be made small enough. */
export function compress(picture: CanvasImageSource, width: number, height: number): string | null {
  for (let scale = Math.min(1, SIDE / Math.max(width, height)); scale > 0.05; scale /= 2) {
    const canvas = document.createElement('canvas')
    canvas.width = Math.max(1, Math.round(width * scale))
    canvas.height = Math.max(1, Math.round(height * scale))
    canvas.getContext('2d')!.drawImage(picture, 0, 0, canvas.width, canvas.height)
    const url = canvas.toDataURL('image/webp', 0.82)
    if (url.length <= IMAGE_LENGTH) return url
  }
  return null
}

/** Compress the image at `source`, a data or blob URL; null if it is none or cannot be made small enough. */
export async function shrink(source: string): Promise<string | null> {
  const image = new Image()
  image.src = source
  try {
    await image.decode()
  } catch {
    return null
  }
  // An SVG need not have a size of its own.
  return compress(image, image.naturalWidth || SIDE, image.naturalHeight || SIDE)
}
