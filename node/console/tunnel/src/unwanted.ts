/**
 * What scripts give up before it is answered. Of that only some browsers tell a service worker; so each request that a
 * script can give up gets a mark, which the worker is told. A mark is the fragment of a URL: that is never sent, and no
 * answer shows it.
 */

let marks = 0

/** A URL of the app's own and its mark; `null`: it is another's, or none. Who resolves and encodes it is the browser. */
function mark(given: unknown): { url: string; fragment: string } | null {
  if (typeof given !== 'string' && !(given instanceof URL)) return null
  const { protocol, host } = URL.parse(given, document.baseURI) ?? {}
  if (protocol !== location.protocol || host !== location.host) return null
  marks += 1
  const fragment = `#vc-${marks}`
  return { url: String(given).trim().replace(/#.*/s, '') + fragment, fragment }
}

/** Has `unwanted` called with the mark of whatever a script gives up. */
export function followAborts(unwanted: (fragment: string) => void): void {
  window.fetch = new Proxy(window.fetch, {
    apply(native, self, args: Parameters<typeof fetch>) {
      const [input, init] = args
      const request = input instanceof Request ? input : null
      const signal = init?.signal === undefined ? request?.signal : init.signal
      // A copy of one with a body would have none in some browsers, and only a stream of it in others.
      const copies = request === null || ['GET', 'HEAD'].includes(request.method)
      const marked = signal instanceof AbortSignal && copies ? mark(request?.url ?? input) : null
      if (!signal || marked === null) return Reflect.apply(native, self, args)
      const onAbort = (): void => unwanted(marked.fragment)
      signal.addEventListener('abort', onAbort)
      const asked = Reflect.apply(native, self, [request ? new Request(marked.url, request) : marked.url, init])
      return asked.finally(() => signal.removeEventListener('abort', onAbort))
    },
  })

  const opened = new WeakMap<XMLHttpRequest, string>()
  const giveUp = (request: XMLHttpRequest): void => {
    const fragment = opened.get(request)
    if (fragment) unwanted(fragment)
  }
  XMLHttpRequest.prototype.open = new Proxy(XMLHttpRequest.prototype.open, {
    apply(native, self: XMLHttpRequest, args: Parameters<XMLHttpRequest['open']>) {
      const [method, given, ...rest] = args
      const marked = mark(given)
      Reflect.apply(native, self, marked ? [method, marked.url, ...rest] : args)
      if (opened.has(self)) giveUp(self)
      else for (const way of ['abort', 'timeout']) self.addEventListener(way, () => giveUp(self))
      opened.set(self, marked?.fragment ?? '')
    },
  })
}
