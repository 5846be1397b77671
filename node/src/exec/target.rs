//! Chooses the instance that a command runs in.

use std::cmp::Reverse;

use vc_crdt::View;
use vc_engine::report;
use vc_protocol::instance::InstanceState;
use vc_protocol::{InstanceId, NodeId, Slot};

use super::error::ExecError;

/// Returns a running instance of a service, or with `starts` one that starts: of the given replica, or of any. Prefers the present version
/// over one that is being replaced, then the lowest replica, so that commands through different nodes reach the same one.
pub(super) fn choose(
    view: &View,
    service: &str,
    replica: Option<u32>,
    starts: bool,
) -> Result<(NodeId, InstanceId), ExecError> {
    let service = vc_engine::find_service(&view.cluster, service)?;
    let desired = view.desired_digest(&service);
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let running = up
        .flat_map(|(&node, state)| state.claims.iter().map(move |(id, claim)| (node, id, claim)))
        .filter(|(_, id, claim)| {
            let fits = match starts {
                true => claim.state == InstanceState::Starting,
                false => claim.state.is_running(),
            };
            id.slot.service == service && fits
        })
        .filter(|(_, id, _)| replica.is_none_or(|replica| replica == id.slot.replica));
    let best = running
        .min_by_key(|(node, id, _)| (desired.as_ref() != Some(&id.digest), id.slot.replica, *node));
    if let Some((node, id, _)) = best {
        return Ok((node, id.clone()));
    }

    let mut rows = report::instances(view);
    rows.retain(|row| row.service == service && replica.is_none_or(|it| it == row.replica));
    let row = rows.iter().min_by_key(|row| (Reverse(row.current), row.replica));
    Err(match (row, replica) {
        (Some(row), _) => {
            let colon = if row.reason.is_empty() { "" } else { ": " };
            ExecError::NotRunning {
                slot: Slot { service, replica: row.replica },
                state: format!("{}{colon}{}", row.state.as_str(), row.reason),
            }
        }
        (None, Some(replica)) => ExecError::NoReplica { service, replica },
        (None, None) => ExecError::NoInstances(service),
    })
}
