import type { Logger } from '@libp2p/interface'
import { AbstractStream } from '@libp2p/utils'
import type { SendResult } from '@libp2p/utils'
import type { Uint8ArrayList } from 'uint8arraylist'

import { Flag, MAX_MESSAGE, MessageDecoder, OVERHEAD, encodeMessage } from './message.js'

/** Number of bytes buffered by the browser at which sending pauses. */
const HIGH_WATER = 256 * 1024
/** Number of bytes buffered by the browser at which sending resumes. */
const LOW_WATER = 64 * 1024

/** A libp2p stream on a WebRTC data channel. */
export class ChannelStream extends AbstractStream {
  readonly #channel: RTCDataChannel
  readonly #decoder = new MessageDecoder()
  #acknowledge: () => void = () => {}

  /** Takes over a data channel. */
  constructor(channel: RTCDataChannel, log: Logger) {
    super({ id: String(channel.id), direction: 'outbound', log, maxMessageSize: MAX_MESSAGE - OVERHEAD })
    this.#channel = channel
    channel.binaryType = 'arraybuffer'
    channel.bufferedAmountLowThreshold = LOW_WATER
    channel.addEventListener('message', ({ data }: MessageEvent<ArrayBuffer>) => this.#receive(new Uint8Array(data)))
    channel.addEventListener('bufferedamountlow', () => this.safeDispatchEvent('drain'))
    channel.addEventListener('close', () => {
      this.#acknowledge()
      this.onTransportClosed()
    })
    this.addEventListener('close', () => channel.close())
  }

  override sendData(data: Uint8ArrayList): SendResult {
    const sentBytes = data.byteLength
    this.#channel.send(encodeMessage(data.subarray(), null))
    return { sentBytes, canSendMore: this.#channel.bufferedAmount < HIGH_WATER }
  }

  override sendReset(): void {
    if (this.#channel.readyState === 'open') this.#channel.send(encodeMessage(null, Flag.Reset))
  }

  override async sendCloseWrite(): Promise<void> {
    const acknowledged = new Promise<void>((resolve) => (this.#acknowledge = resolve))
    this.#channel.send(encodeMessage(null, Flag.Fin))
    await acknowledged
  }

  override async sendCloseRead(): Promise<void> {
    this.#channel.send(encodeMessage(null, Flag.StopSending))
  }

  // Data channels have no flow control towards the sender; yamux on top of this stream has.
  override sendPause(): void {}
  override sendResume(): void {}

  #receive(bytes: Uint8Array): void {
    try {
      for (const { flag, data } of this.#decoder.push(bytes)) {
        if (data) this.onData(data)
        if (flag === Flag.Fin) {
          this.#channel.send(encodeMessage(null, Flag.FinAck))
          this.onRemoteCloseWrite()
        } else if (flag === Flag.StopSending) this.onRemoteCloseRead()
        else if (flag === Flag.Reset) this.onRemoteReset()
        else if (flag === Flag.FinAck) this.#acknowledge()
      }
    } catch (error) {
      this.abort(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

/** Waits until a data channel is open. Errors: it closes first, or `signal` aborts. */
export function opened(channel: RTCDataChannel, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    if (channel.readyState === 'open') return resolve()
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    channel.addEventListener('open', () => resolve(), { once: true })
    channel.addEventListener('close', () => reject(new Error('the connection was closed')), { once: true })
  })
}
