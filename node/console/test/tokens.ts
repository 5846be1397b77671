// Tokens with arbitrary claims and invalid signatures.

const DIALABLE = '/ip4/192.168.1.11/udp/4778/webrtc-direct/certhash/uEi/p2p/12D3'

/** Returns a token with exactly these claims. */
export function token(claims: object): string {
  const bytes = new TextEncoder().encode(JSON.stringify(claims))
  const payload = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
  return `e30.${payload}.c2ln`
}

/** Returns a user token that `claims` extend or override. */
export const tokenOf = (claims: object): string =>
  token({ exp: 4_000_000_000, scope: { user: 'deployer' }, peers: [DIALABLE], ...claims })
