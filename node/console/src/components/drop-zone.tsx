import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'

import { loadFile } from '../model/deployment'
import { useSession } from '../model/state'

/** Accepts a file dropped anywhere on the page, with a hint while one is dragged over it. */
export function DropZone() {
  const session = useSession()
  const isOver = useSignal(false)
  useEffect(() => {
    const cleanup = new AbortController()
    const on = (name: 'dragenter' | 'dragover' | 'dragleave' | 'drop', listener: (event: DragEvent) => void) =>
      addEventListener(name, listener, { signal: cleanup.signal })
    const hasFile = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false
    const onDragOver = (event: DragEvent) => {
      if (!hasFile(event)) return
      event.preventDefault()
      isOver.value = true
    }
    on('dragenter', onDragOver)
    on('dragover', onDragOver)
    on('dragleave', (event) => {
      if (event.relatedTarget === null) isOver.value = false
    })
    on('drop', (event) => {
      isOver.value = false
      const file = event.dataTransfer?.files[0]
      if (!file) return
      event.preventDefault()
      location.hash = '#/deploy'
      void loadFile(file, session)
    })
    return () => cleanup.abort()
  }, [session])
  return isOver.value && <div class="drop-zone">Drop the Compose file for a dry run</div>
}
