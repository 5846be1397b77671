/** Serves links with `download`, which the injected script routes here: browsers bypass the service worker for them. */

const PATH = '/__vc/download'

/** Returns the URL and file name of a download request; `null` if it is another request. */
export function parseDownload(url: URL): { url: URL; name: string } | null {
  if (url.pathname !== PATH) return null
  const target = URL.parse(url.searchParams.get('url') ?? '', url.origin)
  if (target?.protocol !== url.protocol || target.host !== url.host || target.pathname.startsWith('/__vc/')) return null
  return { url: target, name: url.searchParams.get('name') ?? '' }
}

/** Returns a response that the browser saves as a file. A file name of the app takes precedence over that of the link. */
export function asAttachment(response: Response, name: string): Response {
  if (!response.ok) return response
  const headers = new Headers()
  for (const kept of ['content-type', 'content-length']) {
    const value = response.headers.get(kept)
    if (value !== null) headers.set(kept, value)
  }
  const given = response.headers.get('content-disposition') ?? ''
  const encoded = encodeURIComponent(name).replaceAll(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`)
  const named = name === '' ? 'attachment' : `attachment; filename*=UTF-8''${encoded}`
  headers.set('content-disposition', /filename/i.test(given) ? given.replace(/^\s*[^;]*/, 'attachment') : named)
  return new Response(response.body, { headers })
}
