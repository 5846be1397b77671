import { escapeBidi } from '../model/bidi'

/** Renders the changes that a deployment makes to a service: `container.image: "web:1" -> "web:2"`. */
export function ChangeList({ lines }: { lines: readonly string[] }) {
  return (
    <ul class="changes">
      {lines.map(escapeBidi).map((line, index) => {
        const end = line.indexOf(': ') + 1
        return (
          <li key={`${index} ${line}`}>
            <span class="path">{line.slice(0, end)}</span>
            {line.slice(end)}
          </li>
        )
      })}
    </ul>
  )
}
