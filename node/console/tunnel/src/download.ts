/** Routes links with `download` through the service worker, which browsers bypass for them. */

/** Returns the path at which the service worker serves a link's download; `null` if it is not a download of the app. */
function downloadPath(link: HTMLAnchorElement): string | null {
  // Not compared by origin: `blob:` URLs have the page's.
  const isOfApp = link.protocol === location.protocol && link.host === location.host
  if (!link.hasAttribute('download') || !isOfApp) return null
  const query = new URLSearchParams({ url: link.href, name: link.download })
  return `/__vc/download?${query.toString()}`
}

/** Time after which the frame of a download is removed, in milliseconds. A download that has started does not need it. */
const FRAME_LIFETIME = 300_000

function download(path: string): void {
  const frame = document.createElement('iframe')
  frame.hidden = true
  frame.src = path
  document.documentElement.append(frame)
  setTimeout(() => frame.remove(), FRAME_LIFETIME)
}

/** Intercepts clicks on download links, those by scripts included. */
export function interceptDownloads(): void {
  // On the window, so that the page's own listeners can prevent the default first.
  addEventListener('click', (event) => {
    const link = event.composedPath().find((it) => it instanceof HTMLAnchorElement)
    const path = link && !event.defaultPrevented && event.button === 0 ? downloadPath(link) : null
    if (path === null) return
    event.preventDefault()
    download(path)
  })
  const { click } = HTMLElement.prototype
  HTMLAnchorElement.prototype.click = function (this: HTMLAnchorElement): void {
    // A click on a disconnected link does not bubble to the window.
    const path = this.isConnected ? null : downloadPath(this)
    if (path === null) click.call(this)
    else download(path)
  }
}
