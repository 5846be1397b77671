// What pages of tests have: the mesh client, and a digest of more than fits in memory.
import { sha256 as hashing } from '@noble/hashes/sha2.js'

export * from 'vc-mesh-source'

/** Looks at the age of a view from now on; what it returns ends that, and says how old it was at most, milliseconds. */
export function watchAge(mesh) {
  let oldest = 0
  const look = () => (oldest = Math.max(oldest, Date.now() - mesh.seen))
  const timer = setInterval(look, 20)
  return () => {
    clearInterval(timer)
    look()
    return oldest
  }
}

/** How many bytes a stream has, and their SHA-256, hexadecimal. */
export async function sha256(stream) {
  const hash = hashing.create()
  let bytes = 0
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read()
    if (done) break
    hash.update(value)
    bytes += value.byteLength
  }
  return { bytes, digest: Array.from(hash.digest(), (byte) => byte.toString(16).padStart(2, '0')).join('') }
}
