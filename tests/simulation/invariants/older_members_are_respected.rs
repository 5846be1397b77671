//! While an older member is there, nodes write nothing that it cannot read; while it is up, they plan as it does. Once a newer
//! schema is in effect, an older member that comes holds the documents instead.

use vc_crdt::KnownVersions;
use vc_engine::Engine;
use vc_protocol::Supports;

use crate::check::{Check, Violation};

/// Checks that a node adds no map while an older member is there, unless the newer schema is in effect, and plans by the older
/// rules while it is up. Notes when the newer schema takes effect.
pub fn check(engine: &Engine, in_effect: &mut bool) -> Check {
    let view = engine.view();
    let Supports { schema, plan, .. } = KnownVersions::default().supports();
    let is_older = |state: &vc_crdt::NodeState| {
        state.info.as_ref().is_some_and(|info| info.supports == KnownVersions::default().supports())
    };
    let older: Vec<_> = view.nodes.iter().filter(|(_, state)| is_older(state)).collect();
    if engine.replica().schema() > schema && !*in_effect {
        if !older.is_empty() {
            return Err(Violation("a newer schema is in effect in a mixed cluster".to_owned()));
        }
        *in_effect = true;
    }
    if older.iter().any(|(node, _)| view.up.contains(node)) && view.rules.version > plan {
        return Err(Violation("a newer plan is in effect in a mixed cluster".to_owned()));
    }
    Ok(())
}
