/** An app's Content-Security-Policy, and the one script of ours in its pages. */

/**
 * The same policies, of which each lets in one more script: the one at `url`, or with `nonce` where a policy believes no
 * addresses. At an origin without TLS `upgrade-insecure-requests` is left out, or nothing would load.
 */
export function allowScript(header: string, url: string, nonce: string): string {
  return header
    .split(',')
    .map((policy) => allowIn(policy, url, nonce))
    .join(',')
}

function allowIn(policy: string, url: string, nonce: string): string {
  const directives = policy.split(';').map((text) => text.trim().split(/\s+/))
  const find = (name: string): string[] | undefined => directives.find(([first]) => first?.toLowerCase() === name)
  const directive = find('script-src-elem') ?? find('script-src') ?? find('default-src')
  if (directive) {
    const words = directive.map((word) => word.toLowerCase())
    const none = words.indexOf("'none'")
    if (none > 0) directive.splice(none, 1)
    // A nonce where there is none would end 'unsafe-inline'; 'strict-dynamic' comes with one, or with a hash.
    directive.push(words.includes("'strict-dynamic'") ? `'nonce-${nonce}'` : url)
  }
  const plain = url.startsWith('http:')
  return directives
    .filter(([name]) => name !== '' && !(plain && name?.toLowerCase() === 'upgrade-insecure-requests'))
    .map((words) => words.join(' '))
    .join('; ')
}
