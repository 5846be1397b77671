/// <reference lib="webworker" />
/** Holds the service worker's channels to the console. Browsers stop and restart the worker; pages keep channels for it. */
import type { App, WorkerMessage } from '../protocol'
import { RpcChannel } from '../rpc-channel'

declare const self: ServiceWorkerGlobalScope

/** Time within which a page that has a channel shares it, in milliseconds. */
const PAGE_TIMEOUT = 1_500
/** Maximum number of channels: consoles that show one app at once. */
const MAX_CHANNELS = 8

/** Channels, newest last. */
const channels: RpcChannel[] = []
let asking: Promise<void> | null = null
let onChannel: (() => void) | null = null

/** Returns a channel whose console is open; `null` if neither this worker nor a page has one. */
export async function findChannel(): Promise<RpcChannel | null> {
  const alive = await newestAlive()
  if (alive) return alive
  asking ??= askPages().finally(() => {
    asking = null
  })
  await asking
  return newestAlive()
}

/** Adds a channel. Shares a fresh one with every page: the channels that they have may belong to a closed console. */
export async function addChannel(port: MessagePort, app: App, fresh: boolean): Promise<void> {
  const channel = new RpcChannel(port, app, (closed) => {
    channels.splice(channels.indexOf(closed), 1)
  })
  channels.push(channel)
  if (channels.length > MAX_CHANNELS) channels[0]?.close()
  onChannel?.()
  if (fresh) for (const page of await pages()) shareChannel(page, channel)
}

/** Sends a page a fork of a channel. */
export function shareChannel(page: Client, channel: RpcChannel): void {
  const port = channel.fork()
  page.postMessage({ worker: 'channel', app: channel.app } satisfies WorkerMessage, [port])
}

/** Returns the pages of this origin, those outside the worker's control included. */
export async function pages(): Promise<readonly Client[]> {
  return self.clients.matchAll({ type: 'window', includeUncontrolled: true })
}

async function newestAlive(): Promise<RpcChannel | null> {
  for (const channel of [...channels].reverse()) {
    if (await channel.alive()) return channel
  }
  return null
}

async function askPages(): Promise<void> {
  const all = await pages()
  if (all.length === 0) return
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, PAGE_TIMEOUT)
    onChannel = () => {
      clearTimeout(timer)
      resolve()
    }
    for (const page of all) page.postMessage({ worker: 'need-channel' } satisfies WorkerMessage)
  })
  onChannel = null
}
