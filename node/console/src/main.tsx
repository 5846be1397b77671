import { render } from 'preact'

import { App } from './app'
import { consumeFragment, storedToken } from './model/credentials'
import { trackLocation } from './model/route'
import { openLink, restoreSession } from './model/sign-in'
import { startClock } from './model/state'
import './style/base.css'
import './style/shell.css'
import './style/components.css'
import './style/topology.css'
import './style/cluster.css'
import './style/views.css'
import './model/theme'

/** Signs in with the token in the page's fragment, if there is one, and removes it from the address. */
function openFragment(): void {
  const credentials = consumeFragment()
  if (credentials) openLink(credentials)
}

// The remembered session comes first: a link for another user must not replace it without confirmation.
const remembered = storedToken()
if (remembered) restoreSession(remembered)
openFragment()
// A link may be opened in a tab that shows the console already.
addEventListener('hashchange', openFragment)

trackLocation()
startClock()

// A reload works while the node that serves this page is down. Without service workers it does not.
if (import.meta.env.PROD) navigator.serviceWorker?.register('./sw.js').catch(() => {})

const root = document.getElementById('app')
if (root) render(<App />, root)
