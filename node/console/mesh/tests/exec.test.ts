import './polyfills.js'

import { afterEach, describe, expect, it } from 'vitest'

import { MeshError } from '../src/api.js'
import type { RunningCommand } from '../src/api.js'
import { exec } from '../src/exec.js'
import type { Frames } from '../src/frames.js'
import type { Mux } from '../src/mux.js'
import type { ExecRequest } from '../src/types.js'
import { muxPair } from './mux-pair.js'

let mux: Mux | null = null
afterEach(() => {
  mux?.end(new MeshError('lost', 'the test is over'))
  mux = null
})

const SHELL = { command: ['sh'], tty: true, stdin: true, environment: [], user: null, working_dir: null, size: [80, 24] as [number, number] }
const REQUEST: ExecRequest = { service: 'shop/web', replica: 1, ...SHELL }
const bytes = (text: string) => new TextEncoder().encode(text)

/** Starts a command on a node that handles its frames with `serve`, after its answer. */
async function started(serve: (frames: Frames) => Promise<void>, answer: unknown = { reply: 'ready' }): Promise<RunningCommand> {
  const pair = await muxPair(async (frames) => {
    expect(await frames.receiveJson()).toEqual({ op: 'exec', ...REQUEST })
    await frames.sendJson({ reply: 'keep_alive' })
    await frames.sendJson(answer)
    await serve(frames)
  })
  mux = pair.mux
  return await exec((signal) => pair.mux.open(signal), REQUEST)
}

/** Returns what a command writes, and its exit code. */
async function finished(command: RunningCommand): Promise<[output: string, code: number]> {
  const output = command.output()
  for (let text = ''; ; ) {
    const next = await output.next()
    if (next.done) return [text, next.value]
    text += new TextDecoder().decode(next.value)
  }
}

// The bytes are those of `ExecFrame` in protocol/src/exec.rs.
describe('a command', () => {
  it('gets what is written and the size of its terminal, and returns its output and exit code', async () => {
    const received: number[][] = []
    const command = await started(async (frames) => {
      for (let n = 0; n < 2; n += 1) received.push([...((await frames.receive()) ?? [])])
      for (const [kind, text] of [[3, 'out '], [3, ''], [4, 'err']] as const) await frames.send(Uint8Array.of(kind), bytes(text))
      await frames.send(Uint8Array.of(5, 255, 255, 255, 255, 255, 255, 255, 254))
    })
    command.write(bytes('ls'))
    command.resize(300, 40)
    expect(await finished(command)).toEqual(['out err', -2])
    expect(received).toEqual([[0, 108, 115], [2, 1, 44, 0, 40]])
  })

  it('gets much in frames that the node takes', async () => {
    const sizes: number[] = []
    const command = await started(async (frames) => {
      for (let missing = 70_000; missing > 0; missing -= sizes.at(-1) ?? 0) sizes.push(((await frames.receive())?.byteLength ?? 1) - 1)
      await frames.send(Uint8Array.of(5, 0, 0, 0, 0, 0, 0, 0, 0))
    })
    command.write(new Uint8Array(70_000))
    expect(await finished(command)).toEqual(['', 0])
    expect(sizes).toEqual([32_768, 32_768, 4464])
  })

  it('fails with the reason of the node, before it runs and after', async () => {
    const error = { code: 'not_found', message: 'no such program', hint: 'name another' }
    await expect(started(async () => {}, { reply: 'error', value: error })).rejects.toMatchObject({ code: 'refused', status: 'not_found' })
    const command = await started((frames) => frames.send(Uint8Array.of(6), bytes(JSON.stringify(error))))
    await expect(finished(command)).rejects.toThrow('no such program: name another')
    const lost = await started(async () => {})
    await expect(finished(lost)).rejects.toMatchObject({ code: 'lost' })
  })
})
