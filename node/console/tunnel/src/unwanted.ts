/**
 * What scripts give up before it is answered. Of that only some browsers tell a service worker; so each request that a
 * script can give up gets a mark, which the worker is told. A mark is the fragment of a URL: that is never sent, and no
 * answer shows it.
 */

let marks = 0

/** A URL of the app's own, marked; `null`: it is another's. */
function mark(given: unknown): string | null {
  const url = URL.parse(String(given), document.baseURI)
  if (url?.origin !== location.origin) return null
  marks += 1
  url.hash = `vc-${marks}`
  return url.href
}

/** Has `unwanted` called with the marked URL of whatever a script gives up. */
export function followAborts(unwanted: (url: string) => void): void {
  window.fetch = new Proxy(window.fetch, {
    apply(native, self, args: Parameters<typeof fetch>) {
      const [input, init] = args
      const request = input instanceof Request ? input : null
      const signal = init?.signal === undefined ? request?.signal : init.signal
      // A copy of one with a body would have none in some browsers.
      const copies = request === null || ['GET', 'HEAD'].includes(request.method)
      const url = signal instanceof AbortSignal && copies ? mark(request?.url ?? input) : null
      if (!signal || url === null) return Reflect.apply(native, self, args)
      const onAbort = (): void => unwanted(url)
      signal.addEventListener('abort', onAbort)
      const asked = Reflect.apply(native, self, [request ? new Request(url, request) : url, init])
      return asked.finally(() => signal.removeEventListener('abort', onAbort))
    },
  })

  const asked = new WeakMap<XMLHttpRequest, string>()
  XMLHttpRequest.prototype.open = new Proxy(XMLHttpRequest.prototype.open, {
    apply(native, self: XMLHttpRequest, [method, given, ...rest]: Parameters<XMLHttpRequest['open']>) {
      const url = mark(given)
      Reflect.apply(native, self, [method, url ?? given, ...rest])
      if (!asked.has(self)) {
        const giveUp = (): void => unwanted(asked.get(self) ?? '')
        for (const way of ['abort', 'timeout']) self.addEventListener(way, giveUp)
      }
      asked.set(self, url ?? '')
    },
  })
}
