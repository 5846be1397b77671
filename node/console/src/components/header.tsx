// The page header: navigation, connection status, tools.

import { NAV_ITEMS, navItemOf, route } from '../model/route'
import { overlay } from '../model/shortcuts'
import { nodeName, now, useSession } from '../model/state'
import { cycleTheme, theme } from '../model/theme'
import { relativeTime, timeOfDay } from '../model/units'
import { Logo } from './logo'
import { StatusIcon } from './status-badge'

export function Header({ onSignOut }: { onSignOut: () => void }) {
  return (
    <header class="top">
      <a class="brand" href="#/" aria-label="Virtual Cluster">
        <Logo />
        <span>Virtual Cluster</span>
      </a>
      <Navigation />
      <ConnectionStatus />
      <div class="tools">
        <ToolButton label="Go to (/)" onPress={() => (overlay.value = 'palette')}>
          <path d="M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.3 10.3 14 14" />
        </ToolButton>
        <ToolButton label={`Theme: ${theme.value} (t)`} onPress={cycleTheme}>
          <circle cx="8" cy="8" r="5.5" />
          <path d="M8 2.5a5.5 5.5 0 0 1 0 11z" class="solid" />
        </ToolButton>
        <ToolButton label="Keyboard shortcuts (?)" onPress={() => (overlay.value = 'shortcuts')}>
          <path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.6 8 9 8 10m0 2.4v.3" />
        </ToolButton>
        <ToolButton label="Sign out" onPress={onSignOut}>
          <path d="M6.5 3H3v10h3.5M7 8h6.5m-2.5-2.8L13.8 8 11 10.8" />
        </ToolButton>
      </div>
    </header>
  )
}

interface ToolButtonProps {
  label: string
  onPress: () => void
  children: preact.ComponentChildren
}

function ToolButton({ label, onPress, children }: ToolButtonProps) {
  return (
    <button type="button" class="tool" aria-label={label} title={label} onClick={onPress}>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        {children}
      </svg>
    </button>
  )
}

function Navigation() {
  const current = navItemOf(route.value)
  return (
    <nav class="nav-items" aria-label="Views">
      {NAV_ITEMS.map((item) => (
        <a
          key={item.view}
          href={item.href}
          title={`${item.title} (${item.key})`}
          aria-current={item === current ? 'page' : undefined}
        >
          {item.title}
        </a>
      ))}
    </nav>
  )
}

/** Shows the node, the round-trip time, the user and the role: `alpha 2 ms`, `anna, admin`, `ben, viewer of shop`. */
function ConnectionStatus() {
  const session = useSession()
  const attached = session.attached.value
  if (!attached) return null
  const name = nodeName(session.nodes.value, attached.node)
  const { projects } = session.mesh.claims
  const link = session.connection.value
  const rtt = link.state === 'live' && link.rttMs !== null ? `${Math.round(link.rttMs)} ms` : null
  return (
    <div class="link">
      <span class="link-node">
        <StatusIcon tone={link.state === 'live' ? 'good' : 'bad'} />
        {link.state === 'live' ? name : 'lost'}
        {rtt && <span class="quiet rtt"> {rtt}</span>}
      </span>
      <span class="link-user quiet">
        {attached.user}, {attached.role}
        {projects && ` of ${projects.join(', ')}`}
      </span>
    </div>
  )
}

/** Warns while the view is stale. The live region is always mounted, so that screen readers announce changes. */
export function ConnectionBanner({ onSignOut }: { onSignOut: () => void }) {
  const session = useSession()
  const link = session.connection.value
  const stale = `showing the state as of ${timeOfDay(session.staleSince.value)}`
  return (
    <div role="status" class="banner-place">
      {link.state === 'lost' && (
        <p class="banner warn">
          <StatusIcon tone="warn" />
          <span>
            <b>Connection lost {relativeTime(now.value, link.since)}</b> ({link.reason}). Reconnecting; {stale}.
          </span>
        </p>
      )}
      {link.state === 'connecting' && (
        <p class="banner warn">
          <StatusIcon tone="busy" />
          <span>
            <b>Reconnecting</b>; {stale}.
          </span>
        </p>
      )}
      {link.state === 'refused' && (
        <p class="banner bad">
          <StatusIcon tone="bad" />
          <span>
            <b>The cluster rejects this token</b>: {link.reason}; {stale}.
          </span>
          <button type="button" class="button" onClick={onSignOut}>
            Sign in again
          </button>
        </p>
      )}
    </div>
  )
}

