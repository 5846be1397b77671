/** Invisible characters that change the reading direction of the text around them (CVE-2021-42574, "Trojan Source"). */
const BIDI_CONTROLS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g

/** Escapes bidirectional control characters as `\u{202e}`, so that a text reads in the order of its characters. */
export function escapeBidi(text: string): string {
  return text.replace(BIDI_CONTROLS, (control) => `\\u{${control.charCodeAt(0).toString(16)}}`)
}
