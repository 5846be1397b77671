// The page: the sign-in form until a node has answered, then the views.

import { useEffect, useRef } from 'preact/hooks'

import { CommandPalette } from './components/command-palette'
import { Confirm } from './components/confirm'
import { DropZone } from './components/drop-zone'
import { ErrorBoundary } from './components/error-boundary'
import { ConnectionBanner, Header } from './components/header'
import { ShortcutList } from './components/shortcut-list'
import { ToastList } from './components/toast-list'
import { storedPeers } from './model/credentials'
import { navItemOf, route, type Route } from './model/route'
import { installShortcuts, overlay } from './model/shortcuts'
import {
  connection,
  dismissLink,
  endSession,
  initialCredentials,
  loadMesh,
  pendingLink,
  session,
  signIn,
  signOut,
  switchUser,
} from './model/sign-in'
import { SessionContext, useSession } from './model/state'
import { Deploy } from './views/deploy'
import { Events } from './views/events'
import { Logs } from './views/logs'
import { Node } from './views/node'
import { Overview } from './views/overview'
import { Plan } from './views/plan'
import { Service } from './views/service'
import { Services } from './views/services'
import { SignIn } from './views/sign-in'
import { TerminalView } from './views/terminal'
import { Volumes } from './views/volumes'

export function App() {
  useEffect(() => void loadMesh(), [])
  const active = session.value
  const link = pendingLink.value
  if (link) {
    return (
      <>
        <SignIn
          key={link.credentials.token}
          connection={null}
          initial={link.credentials}
          replaces={{ user: link.current, isSignedIn: active !== null }}
          storedPeers={storedPeers}
          onSignIn={switchUser}
          onCancel={dismissLink}
        />
        <ToastList />
      </>
    )
  }
  if (!active?.attached.value || !active.status.value) {
    return (
      <>
        <SignIn
          connection={connection.value}
          initial={initialCredentials.value}
          replaces={null}
          storedPeers={storedPeers}
          onSignIn={(...args) => void signIn(...args)}
          onCancel={endSession}
        />
        <ToastList />
      </>
    )
  }
  return (
    <SessionContext.Provider value={active}>
      <ErrorBoundary>
        <Shell />
      </ErrorBoundary>
    </SessionContext.Provider>
  )
}

function Shell() {
  const { isLive } = useSession()
  const main = useRef<HTMLElement>(null)
  const at = route.value
  useEffect(installShortcuts, [])
  useEffect(() => () => void (overlay.value = 'none'), [])
  useEffect(() => {
    document.title = `${navItemOf(at).title} – Virtual Cluster`
    // Screen readers announce the new view, and Tab continues from its start.
    main.current?.focus({ preventScroll: true })
    scrollTo(0, 0)
  }, [at])
  return (
    <>
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault()
          main.current?.focus()
        }}
      >
        Skip to content
      </a>
      <Header onSignOut={signOut} />
      <ConnectionBanner onSignOut={endSession} />
      <main ref={main} id="main" tabIndex={-1} class={isLive.value ? 'view' : 'view stale'}>
        <View at={at} />
      </main>
      <ToastList />
      <Confirm />
      <DropZone />
      {overlay.value === 'shortcuts' && <ShortcutList />}
      {overlay.value === 'palette' && <CommandPalette />}
    </>
  )
}

function View({ at }: { at: Route }) {
  switch (at.view) {
    case 'overview':
      return <Overview />
    case 'services':
      return <Services />
    case 'service':
      return <Service key={at.service} service={at.service} />
    case 'node':
      return <Node key={at.node} node={at.node} />
    case 'volumes':
      return <Volumes />
    case 'logs':
      return <Logs service={at.service} replica={at.replica} />
    case 'terminal':
      return <TerminalView key={`${at.service}.${at.replica}`} service={at.service} replica={at.replica} />
    case 'events':
      return <Events />
    case 'plan':
      return <Plan />
    case 'deploy':
      return <Deploy />
  }
}
