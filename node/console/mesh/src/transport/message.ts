import { Uint8ArrayList } from 'uint8arraylist'

/** The largest message on a data channel, with its length, in bytes. */
export const MAX_MESSAGE = 16 * 1024
/** What a message has beside its data at most: its length (3 bytes), the flag (2), and the data's own tag and length (4). */
export const OVERHEAD = 9

const FLAG_TAG = 0x08
const DATA_TAG = 0x12

/** What a message says of its stream. */
export const Flag = {
  /** Nothing more is sent. */
  Fin: 0,
  /** Nothing more is read. */
  StopSending: 1,
  /** It is broken off. */
  Reset: 2,
  /** The other side's `Fin` has come, with all before it. */
  FinAck: 3,
} as const

/** A message of a stream on a data channel. */
export interface Message {
  flag?: number
  data?: Uint8Array
}

/** A message in protobuf, behind its length: as libp2p's WebRTC specification asks. */
export function encodeMessage(data: Uint8Array | null, flag: number | null): Uint8Array<ArrayBuffer> {
  const body: number[] = []
  if (flag !== null) body.push(FLAG_TAG, flag)
  if (data) body.push(DATA_TAG, ...varint(data.byteLength))
  const head = [...varint(body.length + (data?.byteLength ?? 0)), ...body]
  const message = new Uint8Array(head.length + (data?.byteLength ?? 0))
  message.set(head)
  if (data) message.set(data, head.length)
  return message
}

/** Finds messages in what comes on a data channel, however a peer cuts it. */
export class MessageDecoder {
  readonly #bytes = new Uint8ArrayList()

  /** The messages that are complete with these bytes. Errors: one is too large, or is none. */
  *push(bytes: Uint8Array): Generator<Message> {
    this.#bytes.append(bytes)
    for (;;) {
      const start = readVarint(this.#bytes.subarray(0, Math.min(10, this.#bytes.byteLength)), 0)
      if (!start) return
      const { value: length, at } = start
      if (at + length > MAX_MESSAGE) throw new Error(`a message of ${length} bytes is too large`)
      if (this.#bytes.byteLength < at + length) return
      const message = this.#bytes.subarray(at, at + length)
      this.#bytes.consume(at + length)
      yield decodeMessage(message)
    }
  }
}

/** Fields that are not known are passed over, as protobuf asks. */
function decodeMessage(bytes: Uint8Array): Message {
  const message: Message = {}
  for (let at = 0; at < bytes.length; ) {
    const tag = need(readVarint(bytes, at))
    const value = need(readVarint(bytes, tag.at))
    at = value.at
    if (tag.value === FLAG_TAG) message.flag = value.value
    else if ((tag.value & 7) === 2) {
      if (at + value.value > bytes.length) throw new Error('a message is cut')
      if (tag.value === DATA_TAG) message.data = bytes.subarray(at, at + value.value)
      at += value.value
    } else if ((tag.value & 7) !== 0) throw new Error('a message cannot be read')
  }
  return message
}

function need<T>(value: T | null): T {
  if (value === null) throw new Error('a message is cut')
  return value
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)]
}

/** `null`: it is not complete. Errors: it is longer than 32 bits. */
function readVarint(bytes: Uint8Array, at: number): { value: number; at: number } | null {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) return null
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) return { value, at }
  }
  throw new Error('a number is too large')
}
