// Who is signed in: by what a link brought, by what this tab kept, or by what somebody typed.

import { computed, signal } from '@preact/signals'
import type { MeshState } from 'vc-mesh'

import { messageOf } from './actions'
import { forgetToken, knownPeers, rememberToken, type Arrival } from './arrival'
import { forgetDraft, startOver } from './deployment'
import { openSession, type Session } from './state'
import { say } from './toasts'
import { ownerOf, readToken, type Owner } from './token'

export const session = signal<Session | null>(null)
/** What the sign-in begins with. */
export const offered = signal<Arrival | null>(null)
/** What a link brought though somebody else is here. Any site can make a link, so this waits for the user's word. */
export const brought = signal<{ arrival: Arrival; instead: Owner } | null>(null)

/** Whose this tab is: from when a token is taken, for a session takes a while to begin, until it is signed out. */
let owner: Owner | null = null
/** Whose it was last: what he was about to deploy waits for him, and for nobody else. */
let before: Owner | null = null

/** Somebody signs in: the part that dials is not there yet. */
const isOpening = signal(false)
const OPENING = signal<MeshState>({ state: 'connecting', since: 0 })

/** The link that the sign-in shows; `null`: nobody signs in. */
export const dialled = computed(() => session.value?.link ?? (isOpening.value ? OPENING : null))

/** The part that dials is large: it is fetched while the sign-in is already there. */
export const loadMesh = () => import('vc-mesh')

/** Signs in with what this tab kept. What cannot be used is shown in the sign-in, with the reason. */
export function arriveAgain(token: string): void {
  offered.value = { token, peers: [] }
  owner = ownerOf(token)
  const reading = readToken(token, [], Date.now(), knownPeers)
  if ('claims' in reading) void signIn(token, reading.claims.peers, true)
}

/**
 * Signs in with what a link brought, if nobody is here or the same user of the same cluster. Otherwise nothing happens
 * before the user has said so: he would deploy his secrets to the cluster of whoever made the link.
 */
export function arriveByLink(arrival: Arrival): void {
  const reading = readToken(arrival.token, arrival.peers, Date.now(), knownPeers)
  const claims = 'claims' in reading ? reading.claims : null
  if (owner && (claims?.user !== owner.user || claims.cluster !== owner.cluster)) {
    brought.value = { arrival, instead: owner }
    return
  }
  if (owner) leave()
  offered.value = arrival
  if (claims) void signIn(arrival.token, claims.peers, false)
}

export async function signIn(token: string, peers: string[], isRemembered: boolean): Promise<void> {
  const mine = (owner = ownerOf(token))
  if (before && (mine?.user !== before.user || mine.cluster !== before.cluster)) forgetDraft()
  before = mine
  isOpening.value = true
  try {
    const { Mesh } = await loadMesh()
    // Meanwhile another token may have been taken.
    if (owner !== mine) return
    const mesh = new Mesh({ token, peers })
    // Nobody would end it any more.
    session.value?.end()
    session.value = openSession(mesh)
    isOpening.value = false
    mesh.start()
    if (isRemembered) rememberToken(token)
  } catch (error) {
    if (owner === mine) {
      owner = null
      isOpening.value = false
    }
    say(messageOf(error), true)
  }
}

/** Signs in with what a link brought, or what it was made into, in place of who is here. */
export function signInInstead(token: string, peers: string[], isRemembered: boolean): void {
  leave()
  offered.value = { token, peers }
  void signIn(token, peers, isRemembered)
}

/** Leaves everything as it was before the link. */
export function stay(): void {
  brought.value = null
}

export function signOut(): void {
  leave()
  forgetDraft()
}

/** Ends the session of somebody who comes again. */
export function leave(): void {
  session.value?.end()
  session.value = null
  isOpening.value = false
  offered.value = null
  brought.value = null
  owner = null
  forgetToken()
  startOver()
}
