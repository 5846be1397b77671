import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { giveUp, whileWanted } from '../src/worker/wanted'

const pages = new Set<string>()
const open: (() => Promise<void>)[] = []

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
function asked(page: string, url: string): { ended: () => boolean; answer: () => Promise<void> } {
  if (page !== '') pages.add(page)
  let resolve: () => void = () => {}
  const answered = new Promise<void>((call) => (resolve = call))
  let seen: AbortSignal | undefined
  const event = { clientId: page, request: { url, signal: new AbortController().signal } } as unknown as FetchEvent
  const done = whileWanted(event, (signal) => {
    seen = signal
    return answered
  })
  const answer = (): Promise<void> => {
    resolve()
    return done
  }
  open.push(answer)
  return { ended: () => seen?.aborted === true, answer }
}

it('what a page gives up is given up, and nothing else of it or of another', () => {
  const one = asked('a', 'http://app/x#vc-1')
  const others = [asked('a', 'http://app/x#vc-2'), asked('a', 'http://app/x'), asked('b', 'http://app/x#vc-1')]
  giveUp('a', 'http://app/x#vc-1')
  giveUp('c', 'http://app/x')
  expect(one.ended()).toBe(true)
  expect(others.map((it) => it.ended())).toEqual([false, false, false])
})

it('what pages wait for that are gone is given up, a navigation is not', async () => {
  const gone = [asked('a', 'http://app/x'), asked('a', 'http://app/y')]
  const kept = [asked('b', 'http://app/x'), asked('', 'http://app/')]
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([false, false])
  pages.delete('a')
  await vi.advanceTimersByTimeAsync(5_000)
  expect(gone.map((it) => it.ended())).toEqual([true, true])
  expect(kept.map((it) => it.ended())).toEqual([false, false])
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
