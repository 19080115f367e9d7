/**
 * The images of a board: a `Y.Map` of data URLs by the id that Excalidraw gives a file, the hash of its content.
 *
 * Elements say where an image is and what is cut from it, the map holds it once, however often it is drawn. An
 * image is scaled down before it goes in, goes out with the last element that shows it, and comes back from
 * whoever still has it when undo or somebody's copy needs it again.
 */
import type { ExcalidrawElement, FileId } from '@excalidraw/excalidraw/element/types'
import type { BinaryFileData, DataURL, ExcalidrawImperativeAPI } from '@excalidraw/excalidraw/types'
import type * as Y from 'yjs'
import { isEmbeddedImage, shrink } from '../lib/image'

/**
 * Characters of all images of one board: a client that has been offline sends what it has in one message, which
 * must stay below the 16 MiB that the server takes.
 */
const TOTAL = 12_000_000

/** What is in the map is small and never changed: the id follows from the content. */
interface StoredImage {
  dataURL: string
  created: number
}

const isStored = (value: unknown): value is StoredImage => typeof value === 'object' && value !== null && isEmbeddedImage((value as StoredImage).dataURL)

function toFile(id: string, { dataURL, created }: StoredImage): BinaryFileData {
  const mimeType = dataURL.slice('data:'.length, dataURL.indexOf(';')) as BinaryFileData['mimeType']
  return { id: id as FileId, dataURL: dataURL as DataURL, mimeType, created: typeof created === 'number' ? created : 0 }
}

/** Give the images of a document, by their ids, to begin a scene with. */
export function readImages(images: Y.Map<unknown>): Record<string, BinaryFileData> {
  return Object.fromEntries([...images].flatMap(([id, value]) => (isStored(value) ? [[id, toFile(id, value)]] : [])))
}

/** Keep the files of `api` and `images` in step. `refused` tells that an image could not be taken in. */
export function bindImages(images: Y.Map<unknown>, api: ExcalidrawImperativeAPI, refused: () => void): { keep(present: Iterable<ExcalidrawElement>): void } {
  const onTheWay = new Set<string>()
  let needed = new Set<string>()

  const show = (): void => {
    const known = api.getFiles()
    const news = Object.values(readImages(images)).filter(({ id }) => !known[id])
    if (news.length > 0) api.addFiles(news)
  }

  async function send({ id, dataURL, created }: BinaryFileData): Promise<void> {
    onTheWay.add(id)
    const small = await shrink(dataURL)
    let total = small?.length ?? 0
    for (const value of images.values()) if (isStored(value)) total += value.dataURL.length
    if (small === null || total > TOTAL) return refused()
    onTheWay.delete(id)
    if (needed.has(id) && !images.has(id)) images.set(id, { dataURL: small, created } satisfies StoredImage)
  }

  images.observe((_event, { local }) => {
    if (!local) show()
  })

  return {
    /** Store what the elements that are there show, and nothing else; call inside the transaction that writes them. */
    keep(present) {
      const files = api.getFiles()
      needed = new Set()
      for (const element of present) if (element.type === 'image' && element.fileId) needed.add(element.fileId)
      for (const id of needed) {
        const file = files[id]
        if (file && !images.has(id) && !onTheWay.has(id)) void send(file)
      }
      for (const id of [...images.keys()]) if (!needed.has(id)) images.delete(id)
    },
  }
}
