import { linePoints } from '../model/usage'

/** Size of the drawing in its own units; the style sheet sets the size on the page. */
const [WIDTH, HEIGHT] = [120, 24]

interface SparklineProps {
  /** `CPU of shop/web.1`. */
  name: string
  /** Oldest first. */
  values: readonly number[]
  /** The value at the top; the largest of `values` if it is 0. */
  max: number
  format: (value: number) => string
}

/** Shows the last value and how it came about. */
export function Sparkline({ name, values, max, format }: SparklineProps) {
  const last = values.at(-1)
  if (last === undefined) return <span class="quiet">–</span>
  const top = max || Math.max(...values)
  return (
    <span class="spark" title={`${name}: ${format(last)}${max ? ` of ${format(max)}` : ''}, at most ${format(Math.max(...values))} here`}>
      <span class="spark-value">{format(last)}</span>
      <svg viewBox={`-1 -1 ${WIDTH + 2} ${HEIGHT + 2}`} preserveAspectRatio="none" aria-hidden="true">
        <polyline points={linePoints(values, top, WIDTH, HEIGHT)} />
      </svg>
    </span>
  )
}
