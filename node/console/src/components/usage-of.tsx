// What instances use, requested while a view shows it.

import { useEffect, useMemo } from 'preact/hooks'

import { call } from '../model/rpc'
import { useSession } from '../model/state'
import { bytes, cores } from '../model/units'
import { instanceSamples, type Sample, UsageHistory } from '../model/usage'
import { Sparkline } from './sparkline'

/** Interval of the requests, in milliseconds: nodes measure as often while they are asked. */
const INTERVAL = 2_000

/** Follows what the instances of a service, or on a node, use; null for all. Returns their samples by `instanceKey`. */
export function useUsage(of: { service: string | null; node: string | null }): ReadonlyMap<string, readonly Sample[]> {
  const session = useSession()
  const history = useMemo(() => new UsageHistory(), [of.service, of.node])
  const isLive = session.isLive.value
  useEffect(() => {
    if (!isLive) return
    const abort = new AbortController()
    const ask = () =>
      call(session, { op: 'usage', ...of }, 'usage', abort.signal).then(
        (rows) => history.add(instanceSamples(rows)),
        // Older nodes do not know the request, and the connection tells of its own loss.
        () => {},
      )
    void ask()
    const timer = setInterval(ask, INTERVAL)
    return () => {
      clearInterval(timer)
      abort.abort()
    }
  }, [isLive, history])
  return history.samples.value
}

interface InstanceUsageProps {
  /** `shop/web.1`. */
  name: string
  samples: readonly Sample[]
}

/** Shows CPU and memory of an instance. */
export function InstanceUsage({ name, samples }: InstanceUsageProps) {
  return (
    <span class="usage-lines">
      <Sparkline name={`CPU of ${name}`} values={samples.map((it) => it.cpu)} max={0} format={(millis) => `${cores(millis)} cores`} />
      <Sparkline name={`Memory of ${name}`} values={samples.map((it) => it.memory)} max={0} format={bytes} />
    </span>
  )
}
