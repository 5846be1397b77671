import { withoutTurns } from '../bidi'

/** What a deployment changes of a service: `container.image: "web:1" -> "web:2"`, a line each. */
export function Changes({ lines }: { lines: readonly string[] }) {
  return (
    <ul class="changes">
      {lines.map(withoutTurns).map((line) => {
        const end = line.indexOf(': ') + 1
        return (
          <li key={line}>
            <span class="path">{line.slice(0, end)}</span>
            {line.slice(end)}
          </li>
        )
      })}
    </ul>
  )
}
