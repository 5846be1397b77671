/** Links that say `download`: browsers take those past the service worker, so our script in the page leads them here. */

const PATH = '/__vc/download'

/** What to download, and under which name; `null`: this is no such request. */
export function parseDownload(url: URL): { url: URL; name: string } | null {
  if (url.pathname !== PATH) return null
  const target = URL.parse(url.searchParams.get('url') ?? '', url.origin)
  if (target?.protocol !== url.protocol || target.host !== url.host || target.pathname.startsWith('/__vc/')) return null
  return { url: target, name: url.searchParams.get('name') ?? '' }
}

/** The same response, to be kept as a file. A name that the app gave it goes before that of the link. */
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
