import { useSignal } from '@preact/signals'
import type { ServiceSpec } from 'vc-mesh'

import { specLines } from '../model/spec-lines'

/** Shows a service's spec, optionally beside the previous one. */
export function Spec({ now, before }: { now: ServiceSpec; before: ServiceSpec | null }) {
  const isChecked = useSignal(false)
  const isCompared = isChecked.value && before !== null
  const lines = specLines(now, isCompared ? before : null)
  return (
    <>
      {before && (
        <label class="check">
          <input type="checkbox" checked={isChecked.value} onChange={(event) => (isChecked.value = event.currentTarget.checked)} />
          Compare with the previous version
        </label>
      )}
      <div class="scroll" tabIndex={0} role="region" aria-label="Specification, line by line">
        <table class="spec">
          {isCompared && (
            <thead>
              <tr>
                <th scope="col">Key</th>
                <th scope="col">Now</th>
                <th scope="col">Before</th>
              </tr>
            </thead>
          )}
          <tbody>
            {lines.map((line) => (
              <tr key={line.path} class={isCompared && line.now !== line.before ? 'changed' : ''}>
                <th scope="row">{line.path}</th>
                <td>{line.now ?? <span class="quiet">not set</span>}</td>
                {isCompared && <td>{line.before ?? <span class="quiet">not set</span>}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  )
}
