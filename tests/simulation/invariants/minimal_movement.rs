//! A death moves only what was held there; an arrival moves nothing.

use crate::invariants::Violation;
use std::collections::BTreeSet;

use vc_protocol::Slot;

use super::Check;
use crate::history::{Action, Cursor};
use crate::world::World;

/// The slots that an up node's plan gives to node `of`.
pub(crate) fn held(world: &World, of: usize) -> BTreeSet<Slot> {
    let by = world.running()[0];
    world.engine(by).view().plan.slots_of(world.nodes[of].id).cloned().collect()
}

/// Since `cursor`, only these slots were started anew, each at most once, and nothing was stopped.
pub(crate) fn only(world: &World, cursor: Cursor, slots: &BTreeSet<Slot>) -> Check {
    let mut started = BTreeSet::new();
    for entry in world.history.since(cursor) {
        let of = entry.node;
        match &entry.action {
            Action::Started(id) if !slots.contains(&id.slot) => {
                return Err(Violation(format!("{id} was started on m{of}")));
            }
            Action::Started(id) if !started.insert(id.clone()) => {
                return Err(Violation(format!("{id} was started twice")));
            }
            Action::Stopped(id) => return Err(Violation(format!("{id} was stopped on m{of}"))),
            _ => {}
        }
    }
    Ok(())
}

/// Since `cursor`, nothing was started and nothing was stopped.
pub(crate) fn nothing(world: &World, cursor: Cursor) -> Check {
    only(world, cursor, &BTreeSet::new())
}
