import { render } from 'preact'

import { App, signIn } from './app'
import { knownPeers, rememberedToken, takeFragment } from './arrival'
import { followAddress } from './route'
import { startClock } from './state'
import './style/base.css'
import './style/shell.css'
import './style/parts.css'
import './style/views.css'
import './theme'
import { readToken } from './token'

// First of all, so that the token is not in the page's address when anything else looks at it.
const brought = takeFragment()
const kept = rememberedToken()
const arrival = brought ?? (kept ? { token: kept, peers: [] } : null)

followAddress()
startClock()

const root = document.getElementById('app')
if (root) render(<App arrival={arrival} />, root)

if (arrival) {
  const reading = readToken(arrival.token, arrival.peers, Date.now(), knownPeers)
  // What cannot be used is shown in the sign-in, with the reason.
  if ('claims' in reading) void signIn(arrival.token, reading.claims.peers, kept === arrival.token)
}
