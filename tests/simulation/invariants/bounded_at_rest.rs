//! At rest documents are bounded, on disk too, and so is what nodes send.

use vc_protocol::Millis;

use crate::check::{Check, Violation};
use crate::world::World;

/// Messages over streams that a node may send to another in ten seconds at rest: a summary each way, with an answer, and once
/// more for what was lost.
const MESSAGES: u64 = 8;
/// Changes of a document beyond those after which a new generation starts: the checkpoint's parts, and what is written before
/// the next opportunity.
const SLACK: u64 = 12;

/// Checks what the disks hold, and what was sent since `sent` messages in all, within `duration` milliseconds.
pub fn check(world: &World, sent: u64, duration: Millis) -> Check {
    let nodes = world.running().len() as u64;
    let limit = nodes * MESSAGES * (duration / 10_000 + 1);
    let found = world.network.sent - sent;
    if found > limit {
        return Err(Violation(format!(
            "{nodes} nodes sent {found} messages in {duration} ms at rest"
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
