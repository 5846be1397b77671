/** Links that say `download` go past the service worker, and so past the app: they are led there. */

/** A link's download, of the app, as a request that the service worker sees; `null`: not one of those. */
function led(link: HTMLAnchorElement): string | null {
  // Not by its origin: that of what a page has made itself (blob:) is the page's.
  const isOfApp = link.protocol === location.protocol && link.host === location.host
  if (!link.hasAttribute('download') || !isOfApp) return null
  const query = new URLSearchParams({ url: link.href, name: link.download })
  return `/__vc/download?${query.toString()}`
}

/** After so long, ms, an answer has begun, or never will: what has begun needs its frame no more. */
const BEGUN = 300_000

function download(path: string): void {
  const frame = document.createElement('iframe')
  frame.hidden = true
  frame.src = path
  document.documentElement.append(frame)
  setTimeout(() => frame.remove(), BEGUN)
}

/** Watches the page's links, those that its scripts press as well. */
export function interceptDownloads(): void {
  // Last, so that the page's own listeners have said whether they want it.
  addEventListener('click', (event) => {
    const link = event.composedPath().find((it) => it instanceof HTMLAnchorElement)
    const path = link && !event.defaultPrevented && event.button === 0 ? led(link) : null
    if (path === null) return
    event.preventDefault()
    download(path)
  })
  const { click } = HTMLElement.prototype
  HTMLAnchorElement.prototype.click = function (this: HTMLAnchorElement): void {
    // One that is in no page tells no page of it.
    const path = this.isConnected ? null : led(this)
    if (path === null) click.call(this)
    else download(path)
  }
}
