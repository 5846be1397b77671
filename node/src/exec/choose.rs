//! Which instance a user means.

use std::cmp::Reverse;

use vc_crdt::View;
use vc_engine::report;
use vc_protocol::{InstanceId, NodeId};

/// The instance of a service that runs: of one replica, or the best of all: one of the present version before one that
/// is being replaced, one on this node before others. Errors: none runs, and why.
pub(super) fn instance(
    view: &View,
    own: NodeId,
    service: &str,
    replica: Option<u32>,
) -> Result<(NodeId, InstanceId), String> {
    let service = vc_engine::find_service(&view.cluster, service)?;
    let wanted = view.desired_digest(&service);
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let running = up
        .flat_map(|(&node, state)| state.claims.iter().map(move |(id, claim)| (node, id, claim)))
        .filter(|(_, id, claim)| id.slot.service == service && claim.state.is_running())
        .filter(|(_, id, _)| replica.is_none_or(|replica| replica == id.slot.replica));
    let best = running.min_by_key(|(node, id, _)| {
        (wanted.as_ref() != Some(&id.digest), *node != own, id.slot.replica, *node)
    });
    if let Some((node, id, _)) = best {
        return Ok((node, id.clone()));
    }

    let mut rows = report::instances(view);
    rows.retain(|row| row.service == service);
    rows.sort_by_key(|row| (Reverse(row.current), row.replica));
    let row = rows.iter().find(|row| replica.is_none_or(|replica| replica == row.replica));
    Err(match (row, replica) {
        (Some(row), _) => {
            let colon = if row.reason.is_empty() { "" } else { ": " };
            let state = row.state.as_str();
            format!(
                "{service}.{} is not running ({state}{colon}{}): see 'vc ps {service}'",
                row.replica, row.reason
            )
        }
        (None, Some(replica)) => {
            format!("{service} has no replica {replica}: see 'vc ps {service}'")
        }
        (None, None) => format!("{service} has no instances: see 'vc services'"),
    })
}
