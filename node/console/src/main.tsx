import { render } from 'preact'

import { App, arrive } from './app'
import { rememberedToken, takeFragment } from './arrival'
import { followAddress } from './route'
import { startClock } from './state'
import './style/base.css'
import './style/shell.css'
import './style/parts.css'
import './style/views.css'
import './theme'

/** Takes the token out of the page's address before anything else looks at it. `false`: there is none. */
function arriveByLink(): boolean {
  const brought = takeFragment()
  if (brought) arrive(brought, false)
  return brought !== null
}

const kept = rememberedToken()
if (!arriveByLink() && kept) arrive({ token: kept, peers: [] }, true)
// A link may be opened in a tab that has the console already.
addEventListener('hashchange', arriveByLink)

followAddress()
startClock()

const root = document.getElementById('app')
if (root) render(<App />, root)
