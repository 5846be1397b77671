import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { cancelRequest, withCancellation } from '../src/worker/cancellation'

const pages = new Set<string>()
const open: (() => Promise<unknown>)[] = []

beforeEach(() => {
  vi.useFakeTimers()
  pages.clear()
  vi.stubGlobal('self', { clients: { get: async (id: string) => (pages.has(id) ? { id } : undefined) } })
})
afterEach(async () => {
  for (const end of open.splice(0)) await end()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

/** Starts a request of a page; `ended` tells whether it was cancelled, `answer` completes it. */
function pending(page: string, url: string, keepalive = false): { ended: () => boolean; answer: () => Promise<Response> } {
  if (page !== '') pages.add(page)
  let resolve: (answer: Response) => void = () => {}
  const answered = new Promise<Response>((call) => (resolve = call))
  let seen: AbortSignal | undefined
  const event = { clientId: page, request: { url, keepalive, signal: new AbortController().signal } } as unknown as FetchEvent
  const done = withCancellation(event, (signal) => {
    seen = signal
    return answered
  })
  const answer = (): Promise<Response> => {
    resolve(new Response('an answer'))
    return done
  }
  open.push(answer)
  return { ended: () => seen?.aborted === true, answer }
}

it('an abort cancels the request with its page and mark only', () => {
  const one = pending('a', 'http://app/x#vc-1')
  const others = [pending('a', 'http://app/x#vc-2'), pending('a', 'http://app/x'), pending('b', 'http://app/x#vc-1')]
  cancelRequest('a', '#vc-1')
  cancelRequest('c', '#vc-2')
  expect(one.ended()).toBe(true)
  expect(others.map((it) => it.ended())).toEqual([false, false, false])
})

it('an abort cancels a request that arrives later, also redirected, until it is evicted', () => {
  cancelRequest('d', '#vc-1')
  expect(pending('d', 'http://app/x#vc-1').ended()).toBe(true)
  expect(pending('d', 'http://app/y#vc-1').ended()).toBe(true)
  expect(pending('e', 'http://app/x#vc-1').ended()).toBe(false)
  for (let i = 2; i < 2000; i++) cancelRequest('d', `#vc-${i}`)
  expect(pending('d', 'http://app/x#vc-1').ended()).toBe(false)
  expect(pending('d', 'http://app/x#vc-1999').ended()).toBe(true)
})

it('requests of closed pages are cancelled, except navigations and keepalive requests', async () => {
  const gone = [pending('a', 'http://app/x'), pending('a', 'http://app/y')]
  const kept = [pending('b', 'http://app/x'), pending('', 'http://app/'), pending('a', 'http://app/beacon', true)]
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([false, false])
  pages.delete('a')
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([true, true])
  expect(kept.map((it) => it.ended())).toEqual([false, false, false])
})

it('an answered request is not checked any more', async () => {
  const [one, other] = [pending('a', 'http://app/x'), pending('a', 'http://app/y')]
  await one.answer()
  pages.delete('a')
  await vi.advanceTimersByTimeAsync(5_000)
  expect([one.ended(), other.ended()]).toEqual([false, true])
  await other.answer()
  expect(vi.getTimerCount()).toBe(0)
})
