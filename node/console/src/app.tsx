// The page: the sign-in until a node has answered, then the views.

import { signal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'

import { messageOf } from './actions'
import { forgetToken, knownPeers, rememberToken, type Arrival } from './arrival'
import { startOver } from './deployment'
import { listenToKeys, overlay } from './keys'
import { Confirm } from './parts/confirm'
import { Drop } from './parts/drop'
import { Header, LinkBanner } from './parts/header'
import { KeyList } from './parts/key-list'
import { Palette } from './parts/palette'
import { ToastList } from './parts/toast-list'
import { placeOf, route, type Route } from './route'
import { openSession, SessionContext, useSession, type Session } from './state'
import { say } from './toasts'
import { readToken } from './token'
import { Deploy } from './views/deploy'
import { Events } from './views/events'
import { Logs } from './views/logs'
import { Overview } from './views/overview'
import { Plan } from './views/plan'
import { Service } from './views/service'
import { Services } from './views/services'
import { SignIn } from './views/sign-in'

const session = signal<Session | null>(null)
/** What the sign-in begins with. */
const offered = signal<Arrival | null>(null)

/** The part that dials is large: it is fetched while the sign-in is already there. */
const loadMesh = () => import('vc-mesh')

/** Signs in with what a link brought or this tab kept. What cannot be used is shown in the sign-in, with the reason. */
export function arrive(arrival: Arrival, isRemembered: boolean): void {
  if (session.value) signOut()
  offered.value = arrival
  const reading = readToken(arrival.token, arrival.peers, Date.now(), knownPeers)
  if ('claims' in reading) void signIn(arrival.token, reading.claims.peers, isRemembered)
}

async function signIn(token: string, peers: string[], isRemembered: boolean): Promise<void> {
  try {
    const { Mesh } = await loadMesh()
    const mesh = new Mesh({ token, peers })
    session.value = openSession(mesh)
    mesh.start()
    if (isRemembered) rememberToken(token)
  } catch (error) {
    say(messageOf(error), true)
  }
}

function signOut(): void {
  session.value?.end()
  session.value = null
  offered.value = null
  forgetToken()
  startOver()
}

export function App() {
  useEffect(() => void loadMesh(), [])
  const now = session.value
  if (!now?.attached.value || !now.status.value) {
    return (
      <>
        <SignIn
          link={now?.link ?? null}
          arrival={offered.value}
          known={knownPeers}
          onSignIn={(...how) => void signIn(...how)}
          onCancel={signOut}
        />
        <ToastList />
      </>
    )
  }
  return (
    <SessionContext.Provider value={now}>
      <Shell />
    </SessionContext.Provider>
  )
}

function Shell() {
  const { isLive } = useSession()
  const main = useRef<HTMLElement>(null)
  const at = route.value
  useEffect(listenToKeys, [])
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
      <LinkBanner onSignOut={signOut} />
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
      return <Service service={at.service} />
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
