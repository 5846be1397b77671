// Who is on which node, how well, and the way to the views.

import { overlay } from '../keys'
import { PLACES, placeOf, route } from '../route'
import { now, useSession } from '../state'
import { nextTheme, theme } from '../theme'
import { ago, clock, shortId } from '../units'
import { Shaped } from './mark'

export function Header({ onSignOut }: { onSignOut: () => void }) {
  return (
    <header class="top">
      <a class="brand" href="#/" aria-label="Virtual Cluster">
        <Emblem />
        <span>Virtual Cluster</span>
      </a>
      <Navigation />
      <LinkLine />
      <div class="tools">
        <Tool label="Go to (/)" onPress={() => (overlay.value = 'palette')}>
          <path d="M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3 14 14" />
        </Tool>
        <Tool label={`Theme: ${theme.value} (t)`} onPress={nextTheme}>
          <circle cx="8" cy="8" r="5.5" />
          <path d="M8 2.5a5.5 5.5 0 0 1 0 11z" class="solid" />
        </Tool>
        <Tool label="Keys (?)" onPress={() => (overlay.value = 'keys')}>
          <path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.6 8 9 8 10m0 2.4v.3" />
        </Tool>
        <Tool label="Sign out" onPress={onSignOut}>
          <path d="M6.5 3H3v10h3.5M7 8h6.5m-2.5-2.8L13.8 8 11 10.8" />
        </Tool>
      </div>
    </header>
  )
}

export function Emblem() {
  return (
    <svg class="emblem" viewBox="0 0 16 16" aria-hidden="true">
      <path d="M8 3 3 12h10z" />
      <circle cx="8" cy="3" r="2.4" />
      <circle cx="3" cy="12" r="2.4" />
      <circle cx="13" cy="12" r="2.4" />
    </svg>
  )
}

interface ToolProps {
  label: string
  onPress: () => void
  children: preact.ComponentChildren
}

function Tool({ label, onPress, children }: ToolProps) {
  return (
    <button type="button" class="tool" aria-label={label} title={label} onClick={onPress}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {children}
      </svg>
    </button>
  )
}

function Navigation() {
  const here = placeOf(route.value)
  return (
    <nav class="places" aria-label="Views">
      {PLACES.map((place) => (
        <a
          key={place.view}
          href={place.href}
          title={`${place.title} (${place.key})`}
          aria-current={place === here ? 'page' : undefined}
        >
          {place.title}
        </a>
      ))}
    </nav>
  )
}

/** `live on alpha · 2 ms · anna, admin`. */
function LinkLine() {
  const session = useSession()
  const attached = session.attached.value
  if (!attached) return null
  const name = nodeName(session.nodes.value, attached.node)
  const link = session.link.value
  const rtt = link.state === 'live' && link.rttMs !== null ? `${Math.round(link.rttMs)} ms` : null
  return (
    <div class="link">
      <span class="link-node">
        <Shaped tone={link.state === 'live' ? 'good' : 'bad'} />
        {link.state === 'live' ? name : 'lost'}
        {rtt && <span class="quiet rtt"> {rtt}</span>}
      </span>
      <span class="link-user quiet">
        {attached.user}, {attached.role}
      </span>
    </div>
  )
}

/** Says when what is shown is not how things are. Always there, so that screen readers hear it change. */
export function LinkBanner({ onSignOut }: { onSignOut: () => void }) {
  const session = useSession()
  const link = session.link.value
  const seen = `you see how things were at ${clock(session.knownUntil.value)}`
  return (
    <div role="status" class="banner-place">
      {link.state === 'lost' && (
        <p class="banner warn">
          <Shaped tone="warn" />
          <span>
            <b>Connection lost {ago(now.value, link.since)}</b> ({link.reason}). Trying again; {seen}.
          </span>
        </p>
      )}
      {link.state === 'connecting' && (
        <p class="banner warn">
          <Shaped tone="busy" />
          <span>
            <b>Connecting again</b>; {seen}.
          </span>
        </p>
      )}
      {link.state === 'refused' && (
        <p class="banner bad">
          <Shaped tone="bad" />
          <span>
            <b>The cluster refuses this token</b>: {link.reason}; {seen}.
          </span>
          <button type="button" class="button" onClick={onSignOut}>
            Sign in again
          </button>
        </p>
      )}
    </div>
  )
}

export function nodeName(nodes: readonly { id: string; name: string }[], id: string): string {
  return nodes.find((row) => row.id === id)?.name ?? shortId(id)
}
