/** Signs that are not seen, and that change the direction in which what is around them is read. */
const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g

/** A text in the order in which its signs are: those that turn others round are written out, as `\u{202e}`. */
export function withoutTurns(text: string): string {
  return text.replace(TURNS, (sign) => `\\u{${sign.charCodeAt(0).toString(16)}}`)
}
