// Where on the page somebody is: the address's fragment.

import { signal } from '@preact/signals'

export type Route =
  | { view: 'overview' | 'services' | 'events' | 'plan' | 'deploy' }
  | { view: 'service'; service: string }
  | { view: 'logs'; service: string | null }

export interface Place {
  view: Route['view']
  title: string
  href: string
  key: string
}

/** The places that the navigation shows, each with its key. */
export const PLACES: readonly Place[] = [
  { view: 'overview', title: 'Overview', href: '#/', key: 'o' },
  { view: 'services', title: 'Services', href: '#/services', key: 's' },
  { view: 'logs', title: 'Logs', href: '#/logs', key: 'l' },
  { view: 'events', title: 'Events', href: '#/events', key: 'e' },
  { view: 'plan', title: 'Plan', href: '#/plan', key: 'p' },
  { view: 'deploy', title: 'Deploy', href: '#/deploy', key: 'd' },
]

export function readRoute(fragment: string): Route {
  const [view, ...rest] = fragment.replace(/^#?\/?/, '').split('/').map(decode)
  const service = rest.length === 2 && rest.every(Boolean) ? rest.join('/') : null
  switch (view) {
    case 'services':
      return service ? { view: 'service', service } : { view: 'services' }
    case 'logs':
      return { view: 'logs', service }
    case 'events':
    case 'plan':
    case 'deploy':
      return { view }
    default:
      return { view: 'overview' }
  }
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

export const serviceHref = (service: string) => `#/services/${service}`
export const logsHref = (service: string) => `#/logs/${service}`

export const route = signal<Route>({ view: 'overview' })

/** The route is that of the page's address, from now on. */
export function followAddress(): void {
  const read = () => (route.value = readRoute(location.hash))
  addEventListener('hashchange', read)
  read()
}

/** What the navigation marks: a service's page belongs to the services. */
export function placeOf(at: Route): Place {
  const view = at.view === 'service' ? 'services' : at.view
  return PLACES.find((it) => it.view === view) ?? (PLACES[0] as Place)
}
