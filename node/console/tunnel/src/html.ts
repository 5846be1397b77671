/** Inserts the injected script into pages of an app, before any script of their own. */

/** Number of bytes after which a page without a head is passed on unchanged. */
const MAX_PROLOGUE = 64 * 1024

const LESS = 0x3c
const GREATER = 0x3e

/**
 * Returns a transform that inserts `tag` (ASCII) at the start of the head. It works on bytes, because all encodings of web
 * pages except UTF-16 are supersets of ASCII. Pages in UTF-16 are unchanged.
 */
export function insertInHead(tag: string): TransformStream<Uint8Array, Uint8Array> {
  let held: Uint8Array | null = new Uint8Array()
  return new TransformStream({
    transform(chunk, controller) {
      if (held === null) return controller.enqueue(chunk)
      held = joined(held, chunk)
      const place = headStart(held)
      if (place === 'later' && held.length < MAX_PROLOGUE) return
      for (const piece of typeof place === 'number' ? inserted(held, place, tag) : [held]) controller.enqueue(piece)
      held = null
    },
    flush(controller) {
      if (held === null) return
      // The page ends before its head: it is a fragment.
      const rest = held
      const place = headStart(joined(rest, new TextEncoder().encode('<body>')))
      for (const piece of typeof place === 'number' ? inserted(rest, place, tag) : [rest]) controller.enqueue(piece)
    },
  })
}

function inserted(page: Uint8Array, place: number, tag: string): Uint8Array[] {
  return [page.subarray(0, place), new TextEncoder().encode(tag), page.subarray(place)]
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  const both = new Uint8Array(one.length + other.length)
  both.set(one)
  both.set(other, one.length)
  return both
}

/**
 * Returns the offset at which the head starts: after `<head>`, or before the first content other than white space, comments,
 * the doctype and `<html>`. `later` if more bytes are needed, `never` for UTF-16.
 */
function headStart(page: Uint8Array): number | 'later' | 'never' {
  if (page.length < 3) return 'later'
  if ((page[0] === 0xff && page[1] === 0xfe) || (page[0] === 0xfe && page[1] === 0xff)) return 'never'
  let at = page[0] === 0xef && page[1] === 0xbb && page[2] === 0xbf ? 3 : 0
  for (;;) {
    while (isSpace(page[at])) at += 1
    if (at + 6 > page.length) return 'later'
    if (page[at] !== LESS) return at
    const word = latin(page.subarray(at + 1, at + 6)).toLowerCase()
    if (!/^([!?]|html[\s/>]|head[\s/>])/.test(word)) return at
    const after = tagEnd(page, at, word)
    if (after === 'later' || word.startsWith('head')) return after
    at = after
  }
}

/** Returns the offset after the tag, comment or declaration at an offset. */
function tagEnd(page: Uint8Array, at: number, word: string): number | 'later' {
  if (word.startsWith('!--')) {
    const end = latin(page.subarray(at + 4)).indexOf('-->')
    return end < 0 ? 'later' : at + 4 + end + 3
  }
  let quote = 0
  for (let i = at + 1; i < page.length; i++) {
    const byte = page[i]
    if (quote !== 0) quote = byte === quote ? 0 : quote
    else if (byte === 0x22 || byte === 0x27) quote = byte
    else if (byte === GREATER) return i + 1
  }
  return 'later'
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d)
}

function latin(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')
}
