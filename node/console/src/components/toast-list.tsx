import { dismiss, toasts } from '../model/toasts'
import { StatusIcon } from './status-badge'

/** Shows notifications. Both live regions are always mounted, so that screen readers announce additions. */
export function ToastList() {
  const [good, bad] = [toasts.value.filter((it) => !it.isError), toasts.value.filter((it) => it.isError)]
  return (
    <div class="toasts">
      <div role="alert">{bad.map((it) => <Line key={it.id} {...it} />)}</div>
      <div role="status">{good.map((it) => <Line key={it.id} {...it} />)}</div>
    </div>
  )
}

function Line({ id, text, isError }: { id: number; text: string; isError: boolean }) {
  return (
    <div class={isError ? 'toast bad' : 'toast'}>
      <StatusIcon tone={isError ? 'bad' : 'good'} />
      <span>{text}</span>
      <button type="button" class="plain" aria-label="Dismiss" onClick={() => dismiss(id)}>
        ×
      </button>
    </div>
  )
}
