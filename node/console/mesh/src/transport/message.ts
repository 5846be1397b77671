import { Uint8ArrayList } from 'uint8arraylist'

/** Maximum size of a message on a data channel with its length prefix, in bytes. */
export const MAX_MESSAGE = 16 * 1024
/** Maximum overhead of a message, in bytes: its length (3), the flag (2), and the data's tag and length (4). */
export const OVERHEAD = 9

const FLAG_TAG = 0x08
const DATA_TAG = 0x12

/** Flags of the message format of libp2p's WebRTC specification. */
export const Flag = {
  /** The sender has no more data. */
  Fin: 0,
  /** The sender reads no more data. */
  StopSending: 1,
  /** The sender aborts the stream. */
  Reset: 2,
  /** The sender has received the peer's `Fin`. */
  FinAck: 3,
} as const

/** A message of a stream on a data channel. */
export interface Message {
  flag?: number
  data?: Uint8Array
}

/** Encodes a length-prefixed protobuf message (libp2p's WebRTC specification). */
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

/** Decodes messages from a data channel, for any division into packets. */
export class MessageDecoder {
  readonly #bytes = new Uint8ArrayList()

  /** Returns the messages that these bytes complete. Errors: a message is too large or malformed. */
  push(bytes: Uint8Array): Message[] {
    this.#bytes.append(bytes)
    const messages: Message[] = []
    for (;;) {
      const start = readVarint(this.#bytes.subarray(0, Math.min(10, this.#bytes.byteLength)), 0)
      if (!start) return messages
      const { value: length, at } = start
      if (at + length > MAX_MESSAGE) throw new Error(`a message of ${length} bytes exceeds the limit of ${MAX_MESSAGE}`)
      if (this.#bytes.byteLength < at + length) return messages
      const message = this.#bytes.subarray(at, at + length)
      this.#bytes.consume(at + length)
      messages.push(decodeMessage(message))
    }
  }
}

/** Decodes the protobuf fields of a message; unknown fields are skipped. */
function decodeMessage(bytes: Uint8Array): Message {
  const message: Message = {}
  for (let at = 0; at < bytes.length; ) {
    const tag = need(readVarint(bytes, at))
    const value = need(readVarint(bytes, tag.at))
    at = value.at
    if (tag.value === FLAG_TAG) message.flag = value.value
    else if ((tag.value & 7) === 2) {
      if (at + value.value > bytes.length) throw new Error('truncated message')
      if (tag.value === DATA_TAG) message.data = bytes.subarray(at, at + value.value)
      at += value.value
    } else if ((tag.value & 7) !== 0) throw new Error('malformed message: unknown wire type')
  }
  return message
}

function need<T>(value: T | null): T {
  if (value === null) throw new Error('truncated message')
  return value
}

function varint(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)]
}

/** Reads a varint and returns the offset after it; `null` if it is incomplete. Errors: longer than 5 bytes. */
function readVarint(bytes: Uint8Array, at: number): { value: number; at: number } | null {
  let value = 0
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[at++]
    if (byte === undefined) return null
    value += (byte & 0x7f) * 2 ** shift
    if (byte < 0x80) return { value, at }
  }
  throw new Error('malformed message: varint is too long')
}
