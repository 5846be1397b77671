// The session of this tab: restored from a remembered token, opened by a link, or started in the sign-in form.

import { computed, signal } from '@preact/signals'
import type { MeshState } from 'vc-mesh'

import { errorMessage } from './actions'
import { type Credentials, removeToken, storedPeers, storeToken } from './credentials'
import { clearDraft, startOver } from './deployment'
import { openSession, type Session } from './state'
import { every } from './timers'
import { showToast } from './toasts'
import { parseToken, readSubject, type TokenSubject } from './token'

export const session = signal<Session | null>(null)
/** Initial values of the sign-in form. */
export const initialCredentials = signal<Credentials | null>(null)
/**
 * Credentials of a link for another user or cluster than the current one. They require a confirmation, because any site
 * can make such a link.
 */
export const pendingLink = signal<{ credentials: Credentials; current: TokenSubject } | null>(null)

/** The subject of the current token. Set before its session exists, until sign-out. */
let current: TokenSubject | null = null
/** The subject of the last token: a draft is kept for it and cleared for any other. */
let previous: TokenSubject | null = null

/** The mesh client is being loaded for a sign-in. */
const isLoading = signal(false)
const CONNECTING = signal<MeshState>({ state: 'connecting', since: 0 })

/** The connection that the sign-in form shows; `null` while there is none. */
export const connection = computed(() => session.value?.connection ?? (isLoading.value ? CONNECTING : null))

/** Loads the mesh client. It is large, so it is split from the bundle and the sign-in form appears first. */
export const loadMesh = () => import('vc-mesh')

/** Signs in with the token that this tab remembers. An invalid one is shown in the form with the reason. */
export function restoreSession(token: string): void {
  initialCredentials.value = { token, peers: [] }
  current = readSubject(token)
  const parsed = parseToken(token, [], Date.now(), storedPeers)
  if ('claims' in parsed) void signIn(token, parsed.claims.peers, true)
}

/**
 * Signs in with the credentials of a link if there is no current user, or the link is for the same user and cluster.
 * Otherwise it becomes {@link pendingLink}: without a confirmation a user might deploy secrets to an attacker's cluster.
 */
export function openLink(credentials: Credentials): void {
  const parsed = parseToken(credentials.token, credentials.peers, Date.now(), storedPeers)
  const claims = 'claims' in parsed ? parsed.claims : null
  if (current && (claims?.user !== current.user || claims.cluster !== current.cluster)) {
    pendingLink.value = { credentials, current }
    return
  }
  if (current) endSession()
  initialCredentials.value = credentials
  if (claims) void signIn(credentials.token, claims.peers, false)
}

/** Opens a session. Replaces the current one, and is superseded by a later call. */
export async function signIn(token: string, peers: string[], isRemembered: boolean): Promise<void> {
  const subject = (current = readSubject(token))
  if (previous && (subject?.user !== previous.user || subject.cluster !== previous.cluster)) clearDraft()
  previous = subject
  isLoading.value = true
  try {
    const { Mesh } = await loadMesh()
    if (current !== subject) return
    const mesh = new Mesh({ token, peers, every })
    session.value?.close()
    session.value = openSession(mesh)
    isLoading.value = false
    mesh.start()
    if (isRemembered) storeToken(token)
  } catch (error) {
    if (current === subject) {
      current = null
      isLoading.value = false
    }
    showToast(errorMessage(error), true)
  }
}

/** Replaces the current session after the user has confirmed {@link pendingLink}. */
export function switchUser(token: string, peers: string[], isRemembered: boolean): void {
  endSession()
  initialCredentials.value = { token, peers }
  void signIn(token, peers, isRemembered)
}

/** Discards {@link pendingLink} and keeps the current session. */
export function dismissLink(): void {
  pendingLink.value = null
}

export function signOut(): void {
  endSession()
  clearDraft()
}

/** Ends the session and removes the token, but keeps the draft for the same user. */
export function endSession(): void {
  session.value?.close()
  session.value = null
  isLoading.value = false
  initialCredentials.value = null
  pendingLink.value = null
  current = null
  removeToken()
  startOver()
}
