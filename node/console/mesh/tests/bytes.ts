/** Every way to cut bytes in two, and into single ones. */
export function* cuts(bytes: Uint8Array): Generator<Uint8Array[]> {
  for (let at = 0; at <= bytes.length; at++) yield [bytes.slice(0, at), bytes.slice(at)]
  yield Array.from(bytes, (byte) => Uint8Array.of(byte))
}

/** Pieces as one. */
export function join(...pieces: Uint8Array[]): Uint8Array {
  return Uint8Array.from(pieces.flatMap((piece) => [...piece]))
}

/** Text as bytes. */
export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}
