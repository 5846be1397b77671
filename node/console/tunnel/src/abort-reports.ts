/**
 * Reports the requests that scripts abort before they are answered. Not every browser tells a service worker, so each
 * request that a script can abort carries a mark: a URL fragment, which is not sent and does not show in responses.
 */

let marks = 0

/** Adds a mark to a URL of the app's own host; returns `null` for another host or an invalid URL. */
function mark(given: unknown): { url: string; fragment: string } | null {
  if (typeof given !== 'string' && !(given instanceof URL)) return null
  const { protocol, host } = URL.parse(given, document.baseURI) ?? {}
  if (protocol !== location.protocol || host !== location.host) return null
  marks += 1
  const fragment = `#vc-${marks}`
  // Left relative: the browser resolves and encodes it.
  return { url: String(given).trim().replace(/#.*/s, '') + fragment, fragment }
}

/** Wraps `fetch` and `XMLHttpRequest` so that `onAbort` gets the mark of each request that a script aborts. */
export function reportAborts(onAbort: (fragment: string) => void): void {
  window.fetch = new Proxy(window.fetch, {
    apply(native, self, args: Parameters<typeof fetch>) {
      const [input, init] = args
      const request = input instanceof Request ? input : null
      const signal = init?.signal === undefined ? request?.signal : init.signal
      // A copy of a request with a body has no body in some browsers, and only a stream in others.
      const canCopy = request === null || ['GET', 'HEAD'].includes(request.method)
      const marked = signal instanceof AbortSignal && canCopy ? mark(request?.url ?? input) : null
      if (!signal || marked === null) return Reflect.apply(native, self, args)
      const listener = (): void => onAbort(marked.fragment)
      signal.addEventListener('abort', listener)
      const response = Reflect.apply(native, self, [request ? new Request(marked.url, request) : marked.url, init])
      return response.finally(() => signal.removeEventListener('abort', listener))
    },
  })

  const opened = new WeakMap<XMLHttpRequest, string>()
  const report = (request: XMLHttpRequest): void => {
    const fragment = opened.get(request)
    if (fragment) onAbort(fragment)
  }
  XMLHttpRequest.prototype.open = new Proxy(XMLHttpRequest.prototype.open, {
    apply(native, self: XMLHttpRequest, args: Parameters<XMLHttpRequest['open']>) {
      const [method, given, ...rest] = args
      const marked = mark(given)
      Reflect.apply(native, self, marked ? [method, marked.url, ...rest] : args)
      if (opened.has(self)) report(self)
      else for (const event of ['abort', 'timeout']) self.addEventListener(event, () => report(self))
      opened.set(self, marked?.fragment ?? '')
    },
  })
}
