/** A console with nothing but `Open`, and a mesh that is one HTTP server (`site.mjs`): what the tunnel does does not depend on it. */
import type { AppMesh } from '../../../node/console/tunnel/src/opener'
import { openService } from '../../../node/console/tunnel/src/opener'

const state = { state: 'live' }
const mesh: AppMesh = {
  state,
  claims: { aud: new URLSearchParams(location.search).get('cluster') ?? '12D3KooWtest' },
  async exchange(request, body, options) {
    const answer = await fetch('/fake/exchange', {
      method: 'POST',
      headers: { 'x-request': encodeURIComponent(JSON.stringify(request)) },
      body: body && (await new Response(body as ReadableStream<Uint8Array<ArrayBuffer>>).blob()),
      ...(options?.signal ? { signal: options.signal } : {}),
    })
    const head = JSON.parse(decodeURIComponent(answer.headers.get('x-answer') ?? ''))
    if (head.error) throw Object.assign(new Error(head.error), { code: 'refused' })
    return { head, body: answer.body ?? new Blob().stream() }
  },
  socket(service, port, target, protocols = [], headers = []) {
    const request = encodeURIComponent(JSON.stringify({ service, port, target, headers }))
    return new WebSocket(`ws://${location.host}/fake/socket?request=${request}`, protocols)
  },
}

Object.assign(window, {
  secret: 'the-token',
  lose: () => (state.state = 'lost'),
  find: () => (state.state = 'live'),
})
localStorage.setItem('token', 'the-token')
for (const button of document.querySelectorAll('button')) {
  button.addEventListener('click', () => {
    openService(mesh, button.dataset['service'] ?? '', Number(button.dataset['port'])).then(
      () => (document.title = 'opened'),
      (error: Error) => (document.title = `refused: ${error.message}`),
    )
  })
}
