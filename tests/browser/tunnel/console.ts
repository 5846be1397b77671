/** A console with nothing but `Open`: a button for each service, on a page that is signed in. */
import { Mesh } from '../../../node/console/mesh/src/index'
import { openService } from '../../../node/console/tunnel/src/launcher'

async function signIn(token: string): Promise<void> {
  const mesh = new Mesh({ token })
  Object.assign(window, { mesh })
  mesh.start()
  const seen = new Promise<void>((done) => mesh.onView((_, changed) => changed.has('services') && done()))
  await seen
  for (const { service, ports } of mesh.view.services) {
    const button = document.createElement('button')
    button.textContent = button.dataset['service'] = service
    button.onclick = () => {
      openService(mesh, service, Number(/^\d+/.exec(ports[0] ?? '')?.[0])).then(
        () => (document.title = 'opened'),
        (error: Error) => (document.title = `refused: ${error.message}`),
      )
    }
    document.body.append(button)
  }
  localStorage.setItem('token', token)
}

Object.assign(window, { signIn })
