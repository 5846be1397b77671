import { useSignal, type ReadonlySignal } from '@preact/signals'

import type { Arrival } from '../arrival'
import { Emblem } from '../parts/header'
import { Shaped } from '../parts/mark'
import { now } from '../state'
import { bareToken, readToken, type Claims, type Owner } from '../token'
import { ago, duration, moment, shortId } from '../units'
import type { MeshState } from 'vc-mesh'

interface Instead {
  of: Owner
  /** Whether he is signed in; otherwise this tab remembers his token. */
  isIn: boolean
}

export interface SignInProps {
  /** `null`: nothing is being dialled. */
  link: ReadonlySignal<MeshState> | null
  /** What came with the link or was remembered. */
  arrival: Arrival | null
  /** In whose place it would be: a link brought the token, and nothing has happened yet. */
  instead: Instead | null
  /** Addresses that earlier visits learned, of the cluster that a token names. */
  known: (cluster: string) => string[]
  onSignIn: (token: string, peers: string[], isRemembered: boolean) => void
  onCancel: () => void
}

export function SignIn({ link, arrival, instead, known, onSignIn, onCancel }: SignInProps) {
  const token = useSignal(arrival?.token ?? '')
  const peers = useSignal(arrival?.peers.join('\n') ?? '')
  const isRemembered = useSignal(false)
  const addresses = peers.value.split(/\s+/).filter(Boolean)
  const claimed = token.value.trim() === '' ? null : readToken(token.value, addresses, now.value, known)
  const problem = claimed && 'problem' in claimed ? claimed.problem : ''
  const state = link?.value
  const missing = whatIsMissing()
  return (
    <main class="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault()
          if (claimed && 'claims' in claimed) onSignIn(bareToken(token.value), claimed.claims.peers, isRemembered.value)
        }}
      >
        <div class="sign-in-brand">
          <Emblem />
          <h1>Virtual Cluster</h1>
        </div>
        {missing ? (
          <p role="alert" class="bad-text">
            {missing}
          </p>
        ) : state ? (
          <Dialling state={state} claims={claimed && 'claims' in claimed ? claimed.claims : null} onCancel={onCancel} />
        ) : (
          <>
            {instead && <FromLink claims={claimed && 'claims' in claimed ? claimed.claims : null} instead={instead} />}
            <label class="field">
              <span>{instead ? "The link's token" : 'Your token'}</span>
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
                  // A token has no lines: Enter signs in.
                  if (event.key !== 'Enter') return
                  event.preventDefault()
                  event.currentTarget.form?.requestSubmit()
                }}
              />
            </label>
            <div id="token-about" role="status">
              {problem && <p class="bad-text">{problem}</p>}
              {claimed && 'claims' in claimed && <Whose claims={claimed.claims} />}
              {!claimed && (
                <p class="quiet">
                  Make one with <code>vc token create --user NAME</code>, or let <code>vc console</code> open this page with it.
                  It stays in this page and goes to the cluster alone.
                </p>
              )}
            </div>
            <details>
              <summary>More addresses to try</summary>
              <label class="field">
                <span>
                  One a line, each with <code>/webrtc-direct/</code>
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
            <button type="submit" class="button primary wide" aria-disabled={!claimed || problem !== ''}>
              {instead ? 'Sign in with this token instead' : 'Connect'}
            </button>
            {instead && (
              <button type="button" class="button wide" onClick={onCancel}>
                Go on as {instead.of.user}
              </button>
            )}
          </>
        )}
      </form>
    </main>
  )
}

/** What the browser does not give this page, without which nothing here works; empty: nothing. */
function whatIsMissing(): string {
  if (!isSecureContext) {
    return "Browsers let a page reach the nodes only over https or from 127.0.0.1. 'vc console' opens it there."
  }
  if (!('RTCPeerConnection' in globalThis)) return 'This browser has no WebRTC, or it is turned off: use another one.'
  return ''
}

/** Says what a link would change. */
function FromLink({ claims, instead }: { claims: Claims | null; instead: Instead }) {
  return (
    <p role="alert" class="banner warn">
      <Shaped tone="warn" />
      <span>
        <b>A link brought {claims ? 'a token' : 'what cannot be used'}</b>
        {claims && (
          <>
            {' '}
            of <b>{claims.user}</b> on the cluster <b>{shortId(claims.cluster)}</b>
          </>
        )}
        . {instead.isIn ? 'You are signed in as' : 'This tab remembers the token of'} <b>{instead.of.user}</b> on the cluster{' '}
        <b>{shortId(instead.of.cluster)}</b>.{' '}
        {claims && 'Use it only if you know who made the link: what you deploy there, they may see.'}
      </span>
    </p>
  )
}

function Whose({ claims }: { claims: Claims }) {
  return (
    <p>
      For <b>{claims.user}</b>, {claims.role}, until {moment(claims.expires)}{' '}
      <span class="quiet">
        ({duration(claims.expires - now.value)} left; {addresses(claims.peers.length)} to try)
      </span>
    </p>
  )
}

const addresses = (amount: number) => (amount === 1 ? '1 address' : `${amount} addresses`)

const isLoopback = (address: string) => /^\/(ip4\/127\.|ip6\/::1\/)/.test(address)

interface DiallingProps {
  state: MeshState
  claims: Claims | null
  onCancel: () => void
}

function Dialling({ state, claims, onCancel }: DiallingProps) {
  return (
    <div class="dialling">
      {claims && <Whose claims={claims} />}
      <div role="status">
        {state.state === 'connecting' && (
          <p>
            <Shaped tone="busy" /> Dialling {claims ? addresses(claims.peers.length) : 'the cluster'} over WebRTC …
          </p>
        )}
        {state.state === 'lost' && (
          <>
            <p>
              <Shaped tone="warn" /> No node has answered yet: {state.reason}. Trying again.
            </p>
            <p class="quiet">
              Since {ago(now.value, state.since)}. Is this device in a network that reaches a node? A token that names current
              nodes comes from <code>vc token create --user {claims?.user ?? 'NAME'}</code>.
            </p>
            {claims?.peers.every(isLoopback) && (
              <p>
                Its addresses are those of a node to itself (127.0.0.1). Firefox does not dial them: use another browser on that
                node, or have the nodes listen in a network.
              </p>
            )}
          </>
        )}
        {state.state === 'live' && <p>Connected; waiting for the first view …</p>}
      </div>
      {state.state === 'refused' && (
        <p role="alert" class="bad-text">
          <Shaped tone="bad" /> The cluster refuses this token: {state.reason}
        </p>
      )}
      <button type="button" class="button" onClick={onCancel}>
        {state.state === 'refused' ? 'Use another token' : 'Cancel'}
      </button>
    </div>
  )
}
