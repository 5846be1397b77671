//! At rest all nodes that are up have the same documents, see the same, and have it on disk.

use super::Check;
use crate::invariants::Violation;
use crate::world::World;
use vc_crdt::Replica;

/// Versions and views are equal, and every node that runs counts as up.
pub(crate) fn check(world: &World) -> Check {
    let running = world.running();
    let Some(&first) = running.first() else { return Ok(()) };
    let (one, view) = (world.engine(first), world.engine(first).view());
    for &of in &running {
        let other = world.engine(of);
        if one.replica().versions() != other.replica().versions() {
            let runs = one.replica().versions().missing_in(other.replica().versions());
            let back = other.replica().versions().missing_in(one.replica().versions());
            return Err(Violation(format!(
                "m{first} is ahead of m{of} by {runs:?}, behind by {back:?}"
            )));
        }
        if one.replica().nodes() != other.replica().nodes()
            || one.replica().cluster() != other.replica().cluster()
        {
            return Err(Violation(format!(
                "m{first} and m{of} have the same versions and other documents"
            )));
        }
        if view.input.digest() != other.view().input.digest() {
            return Err(Violation(format!("m{first} and m{of} see other inputs")));
        }
    }
    let up = world.up(first);
    if !up.iter().eq(running.iter()) {
        return Err(Violation(format!("{running:?} are up, {up:?} count as up")));
    }
    Ok(())
}

/// What is on the disks makes the very documents that the engines have.
pub(crate) fn disks(world: &World) -> Check {
    for of in world.running() {
        let (node, engine) = (&world.nodes[of], world.engine(of));
        let durable = node.disk.load();
        let loaded = Replica::load(
            node.key.clone(),
            node.id,
            world.cluster,
            durable.certificates,
            durable.changes,
        )
        .expect("readable");
        if !loaded.rejected.is_empty() || !loaded.unreadable.is_empty() {
            return Err(Violation(format!(
                "the disk of m{of} has invalid data: {:?}",
                loaded.rejected
            )));
        }
        let read = loaded.replica;
        let same = read.versions() == engine.replica().versions()
            && read.cluster() == engine.replica().cluster()
            && read.nodes() == engine.replica().nodes();
        if !same {
            return Err(Violation(format!("the disk of m{of} does not hold what its engine has")));
        }
    }
    Ok(())
}
