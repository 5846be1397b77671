//! At rest all running nodes have the same documents and placement input, in memory and on disk.

use crate::check::{Check, Violation};
use crate::kind::Kind;
use crate::world::World;
use vc_crdt::Replica;

/// Checks that versions, documents and placement inputs are equal, and that the running nodes are those considered up. Nodes
/// that hold the documents have them and do not read all of them.
pub fn check(world: &World) -> Check {
    let running = world.running();
    let Some(&first) = world.acting().first() else { return Ok(()) };
    let (one, view) = (world.engine(first), world.engine(first).view());
    for &index in &running {
        let other = world.engine(index);
        if one.replica().versions() != other.replica().versions() {
            let runs = one.replica().versions().missing_in(other.replica().versions());
            let back = other.replica().versions().missing_in(one.replica().versions());
            return Err(Violation(format!(
                "m{first} is ahead of m{index} by {runs:?}, behind by {back:?}"
            )));
        }
        if world.holds(index) {
            continue;
        }
        if one.replica().nodes() != other.replica().nodes()
            || one.replica().cluster() != other.replica().cluster()
        {
            return Err(Violation(format!(
                "m{first} and m{index} have equal versions and different documents"
            )));
        }
        if view.input.digest() != other.view().input.digest() {
            return Err(Violation(format!(
                "m{first} and m{index} have different placement inputs"
            )));
        }
    }
    let up = world.up(first);
    if !up.iter().eq(running.iter()) {
        return Err(Violation(format!("{running:?} are running, {up:?} are considered up")));
    }
    Ok(())
}

/// Checks that each engine has exactly the documents that load from its disk.
pub fn disks(world: &World) -> Check {
    for index in world.running() {
        let (node, engine) = (&world.nodes[index], world.engine(index));
        let durable = node.disk.load();
        let loaded = Replica::load(
            node.key.clone(),
            node.id,
            world.cluster,
            node.knows,
            durable.certificates,
            durable.changes,
        )
        .expect("the disk is readable");
        // What was damaged, and no other node has, stays on the disk.
        let is_damaged = world.kinds.contains(&Kind::FlippedBit);
        if !loaded.rejected.is_empty() && !is_damaged || !loaded.unreadable.is_empty() {
            return Err(Violation(format!(
                "the disk of m{index} has invalid data: {:?}",
                loaded.rejected
            )));
        }
        let read = loaded.replica;
        let same = read.versions() == engine.replica().versions()
            && read.cluster() == engine.replica().cluster()
            && read.nodes() == engine.replica().nodes();
        if !same {
            return Err(Violation(format!("the disk of m{index} differs from its engine")));
        }
    }
    Ok(())
}
