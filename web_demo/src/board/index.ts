/** The whiteboard. */
import { connectHocuspocus } from '../lib/hocuspocus'
import { openPage } from '../shell/page'

export async function openBoard(name: string): Promise<void> {
  await openPage(name, connectHocuspocus)
}
