import { useSignal, type ReadonlySignal } from '@preact/signals'
import type { MeshState } from 'vc-mesh'

import { Logo } from '../components/logo'
import { StatusIcon } from '../components/status-badge'
import type { Credentials } from '../model/credentials'
import { now } from '../model/state'
import { type Claims, parseToken, stripWhitespace, type TokenSubject } from '../model/token'
import { dateTime, duration, relativeTime, shortId } from '../model/units'

/** The user that a sign-in would replace. */
interface Replaced {
  user: TokenSubject
  /** `false` if the user is not signed in, but this tab remembers the token. */
  isSignedIn: boolean
}

export interface SignInProps {
  /** `null` if no connection is being made. */
  connection: ReadonlySignal<MeshState> | null
  /** From a link, or remembered. */
  initial: Credentials | null
  /** Set if the token is from a link for another user or cluster: the sign-in is a confirmation. */
  replaces: Replaced | null
  /** Returns the stored addresses of a cluster. */
  storedPeers: (cluster: string) => string[]
  onSignIn: (token: string, peers: string[], isRemembered: boolean) => void
  onCancel: () => void
}

export function SignIn({ connection, initial, replaces, storedPeers, onSignIn, onCancel }: SignInProps) {
  const token = useSignal(initial?.token ?? '')
  const peers = useSignal(initial?.peers.join('\n') ?? '')
  const isRemembered = useSignal(false)
  const addresses = peers.value.split(/\s+/).filter(Boolean)
  const parsed = token.value.trim() === '' ? null : parseToken(token.value, addresses, now.value, storedPeers)
  const problem = parsed && 'problem' in parsed ? parsed.problem : ''
  const claims = parsed && 'claims' in parsed ? parsed.claims : null
  const state = connection?.value
  const unsupported = unsupportedReason()
  return (
    <main class="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault()
          if (claims) onSignIn(stripWhitespace(token.value), claims.peers, isRemembered.value)
        }}
      >
        <div class="sign-in-brand">
          <Logo />
          <h1>Virtual Cluster</h1>
        </div>
        {unsupported ? (
          <p role="alert" class="bad-text">
            {unsupported}
          </p>
        ) : state ? (
          <Connecting state={state} claims={claims} onCancel={onCancel} />
        ) : (
          <>
            {replaces && <LinkWarning claims={claims} replaces={replaces} />}
            <label class="field">
              <span>{replaces ? "The link's token" : 'Your token'}</span>
              <textarea
                rows={5}
                spellcheck={false}
                autocomplete="off"
                placeholder="eyJ…"
                value={token.value}
                aria-describedby="token-about"
                aria-invalid={problem !== ''}
                onInput={(event) => (token.value = event.currentTarget.value)}
                onKeyDown={(event) => {
                  // A token is a single line: Enter submits.
                  if (event.key !== 'Enter') return
                  event.preventDefault()
                  event.currentTarget.form?.requestSubmit()
                }}
              />
            </label>
            <div id="token-about" role="status">
              {problem && <p class="bad-text">{problem}</p>}
              {claims && <TokenSummary claims={claims} />}
              {!parsed && (
                <p class="quiet">
                  Create one with <code>vc token create --user NAME</code>, or run <code>vc console</code> to open this page with
                  one. The token stays in this page and is sent only to nodes of its cluster.
                </p>
              )}
            </div>
            <details>
              <summary>More addresses to try</summary>
              <label class="field">
                <span>
                  One per line, each with <code>/webrtc-direct/</code>
                </span>
                <textarea
                  rows={3}
                  spellcheck={false}
                  value={peers.value}
                  onInput={(event) => (peers.value = event.currentTarget.value)}
                />
              </label>
            </details>
            <label class="check">
              <input
                type="checkbox"
                checked={isRemembered.value}
                onChange={(event) => (isRemembered.value = event.currentTarget.checked)}
              />
              Remember in this tab
            </label>
            <button type="submit" class="button primary wide" aria-disabled={!parsed || problem !== ''}>
              {replaces ? 'Sign in with this token instead' : 'Connect'}
            </button>
            {replaces && (
              <button type="button" class="button wide" onClick={onCancel}>
                Continue as {replaces.user.user}
              </button>
            )}
          </>
        )}
      </form>
    </main>
  )
}

/** Returns why this page cannot connect in this browser; empty if it can. */
function unsupportedReason(): string {
  if (!isSecureContext) {
    return "Browsers connect to nodes only from pages served over https or from 127.0.0.1. Run 'vc console' to open this one there."
  }
  if (!('RTCPeerConnection' in globalThis)) return 'WebRTC is missing or disabled in this browser. Use another browser.'
  return ''
}

function LinkWarning({ claims, replaces: { user, isSignedIn } }: { claims: Claims | null; replaces: Replaced }) {
  return (
    <p role="alert" class="banner warn">
      <StatusIcon tone="warn" />
      <span>
        <b>The link contains {claims ? 'a token' : 'an invalid token'}</b>
        {claims && (
          <>
            {' '}
            of <b>{claims.user}</b> on the cluster <b>{shortId(claims.cluster)}</b>
          </>
        )}
        . {isSignedIn ? 'You are signed in as' : 'This tab remembers the token of'} <b>{user.user}</b> on the cluster{' '}
        <b>{shortId(user.cluster)}</b>.{' '}
        {claims && 'Use it only if you trust the author of the link, who may be able to read what you deploy there.'}
      </span>
    </p>
  )
}

/** Shows user, role, expiry and addresses of a token. */
function TokenSummary({ claims }: { claims: Claims }) {
  return (
    <p>
      For <b>{claims.user}</b>, {claims.role}, until {dateTime(claims.expires)}{' '}
      <span class="quiet">
        (expires in {duration(claims.expires - now.value)}; {addressCount(claims.peers.length)})
      </span>
    </p>
  )
}

const addressCount = (amount: number) => (amount === 1 ? '1 address' : `${amount} addresses`)

const isLoopback = (address: string) => /^\/(ip4\/127\.|ip6\/::1\/)/.test(address)

interface ConnectingProps {
  state: MeshState
  claims: Claims | null
  onCancel: () => void
}

/** Shows the progress of the first connection. */
function Connecting({ state, claims, onCancel }: ConnectingProps) {
  return (
    <div class="connecting">
      {claims && <TokenSummary claims={claims} />}
      <div role="status">
        {state.state === 'connecting' && (
          <p>
            <StatusIcon tone="busy" /> Dialing {claims ? addressCount(claims.peers.length) : 'the cluster'} over WebRTC…
          </p>
        )}
        {state.state === 'lost' && (
          <>
            <p>
              <StatusIcon tone="warn" /> No node has answered yet: {state.reason}. Retrying.
            </p>
            <p class="quiet">
              First attempt: {relativeTime(now.value, state.since)}. Check that this device can reach a node over the network. To
              get the addresses of current nodes, create a new token with{' '}
              <code>vc token create --user {claims?.user ?? 'NAME'}</code>.
            </p>
            {claims?.peers.every(isLoopback) && (
              <p>
                All addresses are loopback addresses (127.0.0.1), which Firefox does not dial. Use another browser on the host
                of that node, or let the nodes listen on a network.
              </p>
            )}
          </>
        )}
        {state.state === 'live' && <p>Connected. Waiting for data from the node…</p>}
      </div>
      {state.state === 'refused' && (
        <p role="alert" class="bad-text">
          <StatusIcon tone="bad" /> The cluster rejects this token: {state.reason}
        </p>
      )}
      <button type="button" class="button" onClick={onCancel}>
        {state.state === 'refused' ? 'Use another token' : 'Cancel'}
      </button>
    </div>
  )
}
