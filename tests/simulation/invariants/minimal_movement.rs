//! A death moves only what was held there; an arrival moves nothing.

use std::collections::BTreeSet;

use vc_protocol::Slot;

use super::Verdict;
use crate::ledger::{Deed, Mark};
use crate::world::World;

/// The slots that an up node's plan gives to node `of`.
pub(crate) fn held(world: &World, of: usize) -> BTreeSet<Slot> {
    let by = world.running()[0];
    world.engine(by).view().plan.slots_of(world.nodes[of].id).cloned().collect()
}

/// Since `mark`, only these slots were started anew, each at most once, and nothing was stopped.
pub(crate) fn only(world: &World, mark: Mark, slots: &BTreeSet<Slot>) -> Verdict {
    let mut started = BTreeSet::new();
    for entry in world.ledger.since(mark) {
        let of = entry.node;
        match &entry.deed {
            Deed::Started(id) if !slots.contains(&id.slot) => {
                return Err(format!("{id} was started on m{of}"));
            }
            Deed::Started(id) if !started.insert(id.clone()) => {
                return Err(format!("{id} was started twice"));
            }
            Deed::Stopped(id) => return Err(format!("{id} was stopped on m{of}")),
            _ => {}
        }
    }
    Ok(())
}

/// Since `mark`, nothing was started and nothing was stopped.
pub(crate) fn nothing(world: &World, mark: Mark) -> Verdict {
    only(world, mark, &BTreeSet::new())
}
