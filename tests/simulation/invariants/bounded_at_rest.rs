//! At rest documents are bounded, on disk too, and so is what nodes send.

use vc_protocol::Millis;
use vc_protocol::lease::MAX_VOTERS;

use crate::check::{Check, Violation};
use crate::network::Sent;
use crate::world::World;

/// Messages over streams that a node may send to another in ten seconds at rest: a summary each way, with an answer, and once
/// more for what was lost.
const MESSAGES: u64 = 8;
/// Messages about leases of a node in a second, to and from each voter: its renewals in one message, and what it asks for anew.
const LEASE_MESSAGES: u64 = 2 * 2 + 2;
/// Changes of a document beyond those after which a new generation starts: the checkpoint's parts, and what is written before
/// the next opportunity.
const SLACK: u64 = 12;

/// Checks what the disks hold, and what was sent within `duration` milliseconds, since `before` were sent in all.
pub fn check(world: &World, before: Sent, duration: Millis) -> Check {
    let nodes = world.running().len() as u64;
    let found = world.network.sent;
    let (sync, lease) = (found.sync - before.sync, found.lease - before.lease);
    let limit = nodes * MESSAGES * (duration / 10_000 + 1);
    let lease_limit = nodes * MAX_VOTERS as u64 * LEASE_MESSAGES * duration / 1000;
    if sync > limit || lease > lease_limit {
        return Err(Violation(format!(
            "{nodes} nodes sent {sync} messages, and {lease} about leases, in {duration} ms at rest"
        )));
    }
    for index in world.acting() {
        let disk = &world.nodes[index].disk;
        let limit = world.document_history + SLACK;
        let long = disk.node_changes().into_iter().find(|(_, changes)| *changes as u64 > limit);
        if let Some((document, changes)) = long {
            return Err(Violation(format!("m{index} holds {changes} changes of {document:?}")));
        }
        if world.engine(index).replica().is_checkpoint_due(world.document_history) {
            return Err(Violation(format!(
                "m{index} keeps a long history of the cluster document"
            )));
        }
    }
    Ok(())
}
