import type { Change } from 'vc-mesh'

/** Returns the line for people, as `vc` prints it. */
export function changeLine(change: Change): string {
  switch (change.change) {
    case 'created':
    case 'removed':
      return `${change.service} ${change.change}`
    case 'updated':
    case 'unchanged':
      return `${change.service} ${change.change}${change.note ? `: ${change.note}` : ''}`
    case 'redeployed':
      return `${change.service} deployed again`
    case 'scaled':
      return `${change.service} scaled from ${change.from} to ${change.to}`
    case 'restarting':
      return `${change.service} is restarting`
    case 'rolled_back':
      return `${change.service} rolled back to ${change.version ? `version ${change.version}` : 'the previous version'}`
    case 'moving':
      return `${change.slot} moves from ${change.from_name} to ${change.to_name}: ${change.reason}`
    case 'drained':
      return `${change.node_name} is being drained`
    case 'undrained':
      return change.unchanged
        ? `${change.node_name} is not drained: nothing changes`
        : `${change.node_name} takes instances again`
    case 'left':
      return `${change.node_name} has left the cluster`
    case 'adopted':
      return (
        `${change.node_name} has stopped ${change.containers} containers of ${change.former.slice(-8)}` +
        (change.volumes.length > 0 ? `, and has taken over the data of ${change.volumes.join(', ')}` : '') +
        (change.left.length > 0 ? `; the data of ${change.left.join(', ')} stays unused in Docker there` : '')
      )
    case 'upgrading':
      return `${change.node_name} restarts with vc-node ${change.to} (${change.digest}) instead of ${change.from}`
    case 'image_pushed':
      return `${change.reference} pushed`
    case 'image_removed':
      return `${change.reference} removed`
    case 'image_unchanged':
      return `${change.reference} unchanged`
    case 'volume_restored':
      return `volume ${change.volume} restored from ${change.from}, as snapshot ${change.snapshot}`
    case 'volume_replaced':
      return `volume ${change.volume} replaced by what was uploaded, as snapshot ${change.snapshot}; it was as in snapshot ${change.before}`
    case 'volume_changed':
      return `copied to ${change.path} of volume ${change.volume}, on ${change.node_name}`
    case 'volume_undeleted':
      return `volume ${change.volume} is on ${change.node_name} again`
    case 'snapshot_taken':
      return `volume ${change.volume} has snapshot ${change.snapshot} on ${change.node_name}`
    case 'volume_created':
      return `volume ${change.volume} created on ${change.node_name} from ${change.from}`
    case 'volume_forgotten':
      return `volume ${change.volume} forgotten; its data stays on the nodes`
    case 'volume_removed':
      return `volume ${change.volume} removed`
    case 'token_revoked':
      return `token ${change.token} is revoked`
    case 'user_revoked':
      return `the tokens of ${change.user} are revoked`
    case 'traced':
      return `the logs of all nodes name it ${change.trace}`
    case 'receiver_added':
      return `${change.receiver} gets alerts from now on`
    case 'receiver_removed':
      return `${change.receiver} gets no more alerts`
    case 'receiver_tested':
      return `${change.receiver} has confirmed a test alert from ${change.node_name}`
    case 'policy_changed':
      return change.allowed.length > 0
        ? `${change.project} may use ${change.allowed.join(' ')}`
        : `${change.project} may use nothing of its hosts; what runs stays`
    case 'signing_key_rotated':
      return `the signing key is rotated: epoch ${change.epoch}, ${change.members.length} certificates issued`
    case 'voter_wished':
      if (change.votes === null) return `the cluster decides whether ${change.node_name} is a voter`
      return `${change.node_name} is to be ${change.votes ? 'a' : 'no'} voter`
    case 'voters_forced':
      return (
        `the voters are ${change.names.join(', ')} (set ${change.number}), ` + 'without the consent of those before'
      )
    case 'files_sealed':
      return `${change.files} secrets and configs sealed again`
    default:
      return 'unknown change (this console is older than the node)'
  }
}
