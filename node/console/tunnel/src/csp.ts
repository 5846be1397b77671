/** Adapts an app's Content-Security-Policy to the injected script. */

/**
 * Returns the policies of a header, each extended to allow the script at `url`, or with `nonce` if the policy ignores URLs
 * (`strict-dynamic`). Removes `upgrade-insecure-requests` at an origin without TLS, where nothing would load with it.
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
    // A nonce disables 'unsafe-inline', so it is added only to 'strict-dynamic', which requires a nonce or a hash anyway.
    directive.push(words.includes("'strict-dynamic'") ? `'nonce-${nonce}'` : url)
  }
  const plain = url.startsWith('http:')
  return directives
    .filter(([name]) => name !== '' && !(plain && name?.toLowerCase() === 'upgrade-insecure-requests'))
    .map((words) => words.join(' '))
    .join('; ')
}
