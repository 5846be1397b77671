import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

import { takeFile } from '../deployment'
import { useSession } from '../state'

/** Takes a file that is dropped anywhere on the page, and says so while it is held over it. */
export function Drop() {
  const session = useSession()
  const isOver = useSignal(false)
  useEffect(() => {
    const off = new AbortController()
    const on = (name: 'dragenter' | 'dragover' | 'dragleave' | 'drop', listener: (event: DragEvent) => void) =>
      addEventListener(name, listener, { signal: off.signal })
    const holdsFile = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false
    const over = (event: DragEvent) => {
      if (!holdsFile(event)) return
      event.preventDefault()
      isOver.value = true
    }
    on('dragenter', over)
    on('dragover', over)
    on('dragleave', (event) => {
      if (event.relatedTarget === null) isOver.value = false
    })
    on('drop', (event) => {
      isOver.value = false
      const file = event.dataTransfer?.files[0]
      if (!file) return
      event.preventDefault()
      location.hash = '#/deploy'
      void takeFile(file, session)
    })
    return () => off.abort()
  }, [session])
  return isOver.value && <div class="drop">Drop the Compose file to see what it would change</div>
}
