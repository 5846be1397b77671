// The page: the sign-in until a node has answered, then the views.

import { useEffect, useRef } from 'preact/hooks'

import { knownPeers } from './arrival'
import { brought, dialled, leave, loadMesh, offered, session, signIn, signInInstead, signOut, stay } from './entrance'
import { listenToKeys, overlay } from './keys'
import { Confirm } from './parts/confirm'
import { Drop } from './parts/drop'
import { Header, LinkBanner } from './parts/header'
import { KeyList } from './parts/key-list'
import { Guarded } from './parts/mishap'
import { Palette } from './parts/palette'
import { ToastList } from './parts/toast-list'
import { placeOf, route, type Route } from './route'
import { SessionContext, useSession } from './state'
import { Deploy } from './views/deploy'
import { Events } from './views/events'
import { Logs } from './views/logs'
import { Overview } from './views/overview'
import { Plan } from './views/plan'
import { Service } from './views/service'
import { Services } from './views/services'
import { SignIn } from './views/sign-in'

export function App() {
  useEffect(() => void loadMesh(), [])
  const now = session.value
  const other = brought.value
  if (other) {
    return (
      <>
        <SignIn
          key={other.arrival.token}
          link={null}
          arrival={other.arrival}
          instead={{ of: other.instead, isIn: now !== null }}
          known={knownPeers}
          onSignIn={signInInstead}
          onCancel={stay}
        />
        <ToastList />
      </>
    )
  }
  if (!now?.attached.value || !now.status.value) {
    return (
      <>
        <SignIn
          link={dialled.value}
          arrival={offered.value}
          instead={null}
          known={knownPeers}
          onSignIn={(...how) => void signIn(...how)}
          onCancel={leave}
        />
        <ToastList />
      </>
    )
  }
  return (
    <SessionContext.Provider value={now}>
      <Guarded>
        <Shell />
      </Guarded>
    </SessionContext.Provider>
  )
}

function Shell() {
  const { isLive } = useSession()
  const main = useRef<HTMLElement>(null)
  const at = route.value
  useEffect(listenToKeys, [])
  useEffect(() => () => void (overlay.value = 'none'), [])
  useEffect(() => {
    document.title = `${placeOf(at).title} – Virtual Cluster`
    // Whoever listens hears the new view from its beginning, and Tab goes on from there.
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
        Skip to the view
      </a>
      <Header onSignOut={signOut} />
      <LinkBanner onSignOut={leave} />
      <main ref={main} id="main" tabIndex={-1} class={isLive.value ? 'view' : 'view stale'}>
        <View at={at} />
      </main>
      <ToastList />
      <Confirm />
      <Drop />
      {overlay.value === 'keys' && <KeyList />}
      {overlay.value === 'palette' && <Palette />}
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
    case 'logs':
      return <Logs service={at.service} />
    case 'events':
      return <Events />
    case 'plan':
      return <Plan />
    case 'deploy':
      return <Deploy />
  }
}
