import { describe, expect, it } from 'vitest'
import { insertInHead } from '../src/html'

const TAG = '<script src="/x"></script>'

async function through(page: Uint8Array, chunk: number): Promise<Uint8Array> {
  const pieces = Array.from({ length: Math.ceil(page.length / chunk) }, (_, i) => page.slice(i * chunk, (i + 1) * chunk))
  const source = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece)
      controller.close()
    },
  })
  return new Uint8Array(await new Response(source.pipeThrough(insertInHead(TAG)) as ReadableStream<Uint8Array<ArrayBuffer>>).arrayBuffer())
}

const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0))
const text = (bytes: Uint8Array): string => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')

/** Pages with `|` at the place of the tag. */
const PAGES = [
  '<!DOCTYPE html><html lang="en"><head>|<title>t</title></head><body>',
  '<!doctype html>\n<!-- a <head> in a comment --><html>\n<head data-x="a>b">|<meta charset=utf-8>',
  '<!doctype html><html>|<body>no head',
  '<!doctype html>|<title>no html</title>',
  '|<p>a fragment of a page',
  '|plain words',
  '|a',
  '\u00ef\u00bb\u00bf<!doctype html><head>|',
  '<?xml version="1.0"?><html xmlns="x"><head>|<title/>',
  '<!doctype html><html>|<header>not a head</header>',
  '<HTML><HEAD>|<TITLE>T</TITLE>',
  '<!doctype html><head/>|',
  '  \n|',
  '|',
]

describe('insertInHead', () => {
  it('puts the tag first in the head, for any chunk size', async () => {
    for (const marked of PAGES) {
      const page = latin1(marked.replace('|', ''))
      for (const chunk of [1, 2, 7, 1000]) {
        expect(text(await through(page, chunk)), `${marked} by ${chunk}`).toBe(marked.replace('|', TAG))
      }
    }
  })

  it('changes no other byte', async () => {
    const page = latin1('<!doctype html><head>' + Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join(''))
    expect(text(await through(page, 13))).toBe(text(page).replace('<head>', `<head>${TAG}`))
  })

  it('leaves UTF-16 and pages without a head unchanged', async () => {
    const wide = latin1('\u00ff\u00fe<\0h\0e\0a\0d\0>\0')
    expect(text(await through(wide, 3))).toBe(text(wide))
    const endless = latin1('<!--' + 'x'.repeat(100_000))
    expect(text(await through(endless, 5000))).toBe(text(endless))
  })
})
