/** A page of an app gets a script of ours before any of its own. */

/** A page that has not come to its head after so many bytes stays as it is. */
const MAX_PROLOGUE = 64 * 1024

const LESS = 0x3c
const GREATER = 0x3e

/**
 * Puts `tag`, in ASCII, where the head begins. Works on bytes: every encoding that pages have but UTF-16 writes ASCII as
 * ASCII. A page in UTF-16 stays as it is.
 */
export function insertInHead(tag: string): TransformStream<Uint8Array, Uint8Array> {
  let held: Uint8Array | null = new Uint8Array()
  return new TransformStream({
    transform(chunk, controller) {
      if (held === null) return controller.enqueue(chunk)
      held = joined(held, chunk)
      const place = headBegins(held)
      if (place === 'later' && held.length < MAX_PROLOGUE) return
      for (const piece of typeof place === 'number' ? inserted(held, place, tag) : [held]) controller.enqueue(piece)
      held = null
    },
    flush(controller) {
      if (held === null) return
      // A page that ends before its head: a fragment.
      const rest = held
      const place = headBegins(joined(rest, new TextEncoder().encode('<body>')))
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
 * After `<head>`, or before the first thing that is neither white space, comment, doctype nor `<html>`: there the head
 * begins, written or not. `later`: that has not come yet; `never`: UTF-16.
 */
function headBegins(page: Uint8Array): number | 'later' | 'never' {
  if (page.length < 3) return 'later'
  if ((page[0] === 0xff && page[1] === 0xfe) || (page[0] === 0xfe && page[1] === 0xff)) return 'never'
  let at = page[0] === 0xef && page[1] === 0xbb && page[2] === 0xbf ? 3 : 0
  for (;;) {
    while (isSpace(page[at])) at += 1
    if (at + 6 > page.length) return 'later'
    if (page[at] !== LESS) return at
    const word = latin(page.subarray(at + 1, at + 6)).toLowerCase()
    if (!/^([!?]|html[\s/>]|head[\s/>])/.test(word)) return at
    const after = tagEnds(page, at, word)
    if (after === 'later' || word.startsWith('head')) return after
    at = after
  }
}

/** Behind the tag, comment or declaration at a place. */
function tagEnds(page: Uint8Array, at: number, word: string): number | 'later' {
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
