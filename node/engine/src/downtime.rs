//! For how long nodes have been down, as this node knows it; for display.

use vc_protocol::control::{InstanceRow, NodeRow};
use vc_protocol::{Millis, in_words};

/// Says in the reasons of slots that wait for a node that is down for how long it has been: `desk: is down for 40 s; goes
/// elsewhere after 10 min (lost_after)`. `now` by this node's wall clock.
pub fn name_downtimes(instances: &mut [InstanceRow], nodes: &[NodeRow], now: Millis) {
    let down: Vec<(&str, String)> =
        nodes.iter().filter_map(|row| Some((row.name.as_str(), downtime(row, now)?))).collect();
    for row in instances.iter_mut().filter(|row| row.node.is_none()) {
        for (name, time) in &down {
            let said = format!("{name}: is down; ");
            row.reason = row.reason.replace(&said, &format!("{name}: is down for {time}; "));
        }
    }
}

/// Returns for how long a node has been down, in steps of 10 s, and of a minute from the first on.
pub(crate) fn downtime(row: &NodeRow, now: Millis) -> Option<String> {
    let time = now.saturating_sub(row.down_since);
    let step = if time < 60_000 { 10_000 } else { 60_000 };
    let known = row.down_since > 0 && time >= step;
    known.then(|| in_words(time / step * step))
}
