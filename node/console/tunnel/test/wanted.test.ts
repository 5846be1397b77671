import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { giveUp, whileWanted } from '../src/worker/wanted'

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

/** What a page asks for, and how it is answered; `ended` says whether that is wanted no more. */
function asked(page: string, url: string, keepalive = false): { ended: () => boolean; answer: () => Promise<Response> } {
  if (page !== '') pages.add(page)
  let resolve: (answer: Response) => void = () => {}
  const answered = new Promise<Response>((call) => (resolve = call))
  let seen: AbortSignal | undefined
  const event = { clientId: page, request: { url, keepalive, signal: new AbortController().signal } } as unknown as FetchEvent
  const done = whileWanted(event, (signal) => {
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

it('what a page gives up is given up, and nothing else of it or of another', () => {
  const one = asked('a', 'http://app/x#vc-1')
  const others = [asked('a', 'http://app/x#vc-2'), asked('a', 'http://app/x'), asked('b', 'http://app/x#vc-1')]
  giveUp('a', '#vc-1')
  giveUp('c', '#vc-2')
  expect(one.ended()).toBe(true)
  expect(others.map((it) => it.ended())).toEqual([false, false, false])
})

it('what was given up before it came is given up, wherever it was redirected, and not remembered for ever', () => {
  giveUp('d', '#vc-1')
  expect(asked('d', 'http://app/x#vc-1').ended()).toBe(true)
  expect(asked('d', 'http://app/y#vc-1').ended()).toBe(true)
  expect(asked('e', 'http://app/x#vc-1').ended()).toBe(false)
  for (let i = 2; i < 2000; i++) giveUp('d', `#vc-${i}`)
  expect(asked('d', 'http://app/x#vc-1').ended()).toBe(false)
  expect(asked('d', 'http://app/x#vc-1999').ended()).toBe(true)
})

it('what pages wait for that are gone is given up, but not a navigation, nor what is to outlive its page', async () => {
  const gone = [asked('a', 'http://app/x'), asked('a', 'http://app/y')]
  const kept = [asked('b', 'http://app/x'), asked('', 'http://app/'), asked('a', 'http://app/beacon', true)]
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([false, false])
  pages.delete('a')
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([true, true])
  expect(kept.map((it) => it.ended())).toEqual([false, false, false])
})

it('what is answered is watched no more', async () => {
  const [one, other] = [asked('a', 'http://app/x'), asked('a', 'http://app/y')]
  await one.answer()
  pages.delete('a')
  await vi.advanceTimersByTimeAsync(5_000)
  expect([one.ended(), other.ended()]).toEqual([false, true])
  await other.answer()
  expect(vi.getTimerCount()).toBe(0)
})
