/** Which page the address asks for. Each is a chunk of its own, so that nobody loads an editor not asked for. */
import './shell/style.css'
import { documentName, kindOf } from './lib/address'
import { takeTokenFromAddress } from './lib/token'
import './shell/theme'

takeTokenFromAddress()
const name = documentName()

if (location.pathname.endsWith('/admin')) {
  const { openAdmin } = await import('./admin')
  openAdmin()
} else if (name === null) {
  const { openHome } = await import('./home')
  openHome()
} else if (location.pathname.endsWith('/split')) {
  const { openSplit } = await import('./split')
  openSplit(name)
} else if (kindOf(name) === 'text') {
  const { openText } = await import('./text')
  await openText(name)
} else if (kindOf(name) === 'board') {
  const { openBoard } = await import('./board')
  await openBoard(name)
} else {
  const { openCode } = await import('./code')
  await openCode(name)
}
