import { render } from 'preact'

import { App } from './app'
import { rememberedToken, takeFragment } from './arrival'
import { arriveAgain, arriveByLink } from './entrance'
import { followAddress } from './route'
import { startClock } from './state'
import './style/base.css'
import './style/shell.css'
import './style/parts.css'
import './style/views.css'
import './theme'

/** Takes the token out of the page's address before anything else looks at it. */
function followLink(): void {
  const arrival = takeFragment()
  if (arrival) arriveByLink(arrival)
}

// Who is here already is known before the link is looked at.
const kept = rememberedToken()
if (kept) arriveAgain(kept)
followLink()
// A link may be opened in a tab that has the console already.
addEventListener('hashchange', followLink)

followAddress()
startClock()

const root = document.getElementById('app')
if (root) render(<App />, root)
