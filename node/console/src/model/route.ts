// The router: the view is the fragment of the page's address.

import { signal } from '@preact/signals'

export type Route =
  | { view: 'overview' | 'services' | 'volumes' | 'events' | 'plan' | 'deploy' }
  | { view: 'service'; service: string }
  /** `node` is its id or its name. */
  | { view: 'node'; node: string }
  | { view: 'logs'; service: string | null; replica: number | null }
  | { view: 'terminal'; service: string; replica: number }

export interface NavItem {
  view: Route['view']
  title: string
  href: string
  key: string
}

/** The navigation, with the shortcut of each view. */
export const NAV_ITEMS: readonly NavItem[] = [
  { view: 'overview', title: 'Overview', href: '#/', key: 'o' },
  { view: 'services', title: 'Services', href: '#/services', key: 's' },
  { view: 'volumes', title: 'Volumes', href: '#/volumes', key: 'v' },
  { view: 'logs', title: 'Logs', href: '#/logs', key: 'l' },
  { view: 'events', title: 'Events', href: '#/events', key: 'e' },
  { view: 'plan', title: 'Plan', href: '#/plan', key: 'p' },
  { view: 'deploy', title: 'Deploy', href: '#/deploy', key: 'd' },
]

/** Parses a fragment. Unknown ones lead to the overview. */
export function parseRoute(fragment: string): Route {
  const [view, ...rest] = fragment.replace(/^#?\/?/, '').split('/').map(decode)
  const [project, name, number] = rest
  const service = project && name ? `${project}/${name}` : null
  switch (view) {
    case 'services':
      return service && rest.length === 2 ? { view: 'service', service } : { view: 'services' }
    case 'nodes':
      return rest.length === 1 && project ? { view: 'node', node: project } : { view: 'overview' }
    case 'logs':
      return { view: 'logs', service, replica: (service && Number(number)) || null }
    case 'terminal':
      return service && Number(number) > 0 ? { view: 'terminal', service, replica: Number(number) } : { view: 'services' }
    case 'volumes':
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

export const nodeHref = (node: string) => `#/nodes/${encodeURIComponent(node)}`
export const serviceHref = (service: string) => `#/services/${service}`
export const logsHref = (service: string, replica?: number) => `#/logs/${service}${replica === undefined ? '' : `/${replica}`}`

export const terminalHref = (service: string, replica: number) => `#/terminal/${service}/${replica}`

export const route = signal<Route>({ view: 'overview' })

/** Updates {@link route} from the page's address, now and on every change. */
export function trackLocation(): void {
  const read = () => (route.value = parseRoute(location.hash))
  addEventListener('hashchange', read)
  read()
}

/** The item of each page that has none. */
const PARENTS: Partial<Record<Route['view'], Route['view']>> = { service: 'services', terminal: 'services', node: 'overview' }

/** Returns the navigation item to highlight: the page of a service belongs to Services, for example. */
export function navItemOf(at: Route): NavItem {
  const view = PARENTS[at.view] ?? at.view
  return NAV_ITEMS.find((it) => it.view === view) ?? (NAV_ITEMS[0] as NavItem)
}
