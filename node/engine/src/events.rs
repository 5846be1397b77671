//! Cluster events, computed as the difference between two views: no node reports what it does, and every node derives the
//! events of all nodes from the documents.

mod runs;
mod volumes;
mod voters;

use vc_crdt::liveness::{accuses, observers};
use vc_crdt::{NodeState, View};
use vc_protocol::control::{EventLevel, EventRow, RolloutState};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::{InstanceId, Millis, NodeId};

use crate::mutation::revision::image_change;
use crate::report::unplaced_reason;
use crate::rollout::Rollout;

/// The longest reason in an event, in characters.
const MAX_REASON: usize = 200;

/// Returns the events between two views with the time `now`: nodes first, then voters, services, slots, instances, runs
/// and volumes.
pub fn between(before: &View, after: &View, now: Millis) -> Vec<EventRow> {
    let mut events = Events { now, rows: Vec::new() };
    nodes(before, after, &mut events);
    voters::voters(before, after, &mut events);
    services(before, after, &mut events);
    slots(before, after, &mut events);
    instances(before, after, &mut events);
    runs::runs(before, after, &mut events);
    volumes::volumes(before, after, &mut events);
    events.rows
}

struct Events {
    now: Millis,
    rows: Vec<EventRow>,
}

impl Events {
    fn push(&mut self, level: EventLevel, subject: &impl ToString, text: impl Into<String>) {
        let (time, subject, text) = (self.now, subject.to_string(), text.into());
        self.rows.push(EventRow { time, level, subject, text });
    }

    fn info(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.push(EventLevel::Info, subject, text);
    }

    fn warning(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.push(EventLevel::Warning, subject, text);
    }

    fn error(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.push(EventLevel::Error, subject, text);
    }
}

/// Returns the first line of a reason, cut at [`MAX_REASON`]; the instance's row has all of it.
fn brief(reason: &str) -> String {
    let line = reason.trim().lines().next().unwrap_or_default();
    let mut text: String = line.chars().take(MAX_REASON).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn nodes(before: &View, after: &View, events: &mut Events) {
    for (node, state) in &after.nodes {
        let name = after.name(*node);
        // Its document has not arrived yet.
        if state.info.is_none() {
            continue;
        }
        let held = before.nodes.get(node).filter(|held| held.info.is_some());
        match (before.up.contains(node), after.up.contains(node)) {
            (_, true) if held.is_none() => events.info(&name, "joined the cluster"),
            (false, true) => events.info(&name, "is up again"),
            (true, false) if held.is_some() => {
                let observers = observers(*node, after.nodes.keys());
                let reporting =
                    observers.iter().filter(|&&by| accuses(&after.nodes, by, *node)).count();
                let of = observers.len();
                events.error(
                    &name,
                    format!("is down: no heartbeat (reported by {reporting} of {of} observers)"),
                );
            }
            _ => {}
        }
        let drained = |view: &View| view.cluster.drained.get(node).copied().unwrap_or(false);
        match (drained(before), drained(after)) {
            (false, true) => events.info(&name, "is being drained"),
            (true, false) => events.info(&name, "takes instances again"),
            _ => {}
        }
        upgraded(&name, held, state, events);
        let error = |state: &NodeState| {
            let is_witness = state.info.as_ref().is_some_and(|info| info.witness);
            state.runtime_error.clone().filter(|_| !is_witness)
        };
        match (held.and_then(error), error(state)) {
            (None, Some(why)) => {
                events.error(&name, format!("cannot run instances: {}", brief(&why)));
            }
            (Some(_), None) => events.info(&name, "can run instances again"),
            _ => {}
        }
    }
    for node in after.left.keys().filter(|node| !before.left.contains_key(node)) {
        events.info(&after.name(*node), "left the cluster");
    }
}

/// Says that a node runs another version, or went back from one.
fn upgraded(
    name: &impl ToString,
    held: Option<&NodeState>,
    state: &NodeState,
    events: &mut Events,
) {
    let infos = held.and_then(|held| held.info.as_ref()).zip(state.info.as_ref());
    let Some((was, is)) = infos else { return };
    if was.version != is.version {
        events.info(name, format!("runs vc-node {}, before that {}", is.version, was.version));
    }
    if was.failed_upgrade != is.failed_upgrade && !is.failed_upgrade.is_empty() {
        events.error(name, is.failed_upgrade.clone());
    }
}

fn services(before: &View, after: &View, events: &mut Events) {
    for (key, record) in &after.cluster.services {
        let image = &record.spec.container.image;
        let wanted = after.cluster.replicas(key);
        let Some(held) = before.cluster.services.get(key) else {
            let wanted = match record.spec.mode.is_per_node() {
                true => "one on each node".to_owned(),
                false => wanted.to_string(),
            };
            events.info(key, format!("deployed by {}: {wanted} of {image}", record.deployed_by));
            continue;
        };
        let had = before.cluster.replicas(key);
        if had != wanted && !record.spec.mode.is_per_node() {
            events.info(key, format!("scaled from {had} to {wanted}"));
        }
        let rollout = |view| Rollout::of(view, key).map(|it| it.report()).unwrap_or_default();
        let (was, is) = (rollout(before), rollout(after));
        if held.revision != record.revision {
            events.info(
                key,
                match is.state {
                    RolloutState::Updating => match image_change(&held.spec, &record.spec) {
                        Some(change) => format!("updated by {}: {change}", record.deployed_by),
                        None if held.spec.container.image == *image => {
                            format!("updated by {}", record.deployed_by)
                        }
                        None => format!("updated to {image} by {}", record.deployed_by),
                    },
                    _ => format!("changed by {}", record.deployed_by),
                },
            );
        }
        if (was.state, held.revision) == (is.state, record.revision) {
            continue;
        }
        let is_job = record.spec.mode.is_job();
        match is.state {
            RolloutState::Complete if is_job => {
                if was.state == RolloutState::Updating {
                    events.info(key, "has completed");
                }
            }
            RolloutState::Paused if is_job => {
                events.error(key, format!("has failed: {}", brief(&is.reason)));
            }
            RolloutState::Complete if was.state == RolloutState::Updating => {
                events.info(key, "update complete");
            }
            RolloutState::Paused => {
                events.error(key, format!("update failed and paused: {}", brief(&is.reason)));
            }
            RolloutState::RolledBack => {
                let reason = brief(&is.reason);
                events.error(
                    key,
                    format!("update failed, rolling back to the previous version: {reason}"),
                );
            }
            RolloutState::Complete | RolloutState::Updating => {}
        }
    }
    let gone =
        before.cluster.services.keys().filter(|key| !after.cluster.services.contains_key(key));
    for key in gone {
        events.info(key, "removed");
    }
}

/// Changes of placements.
fn slots(before: &View, after: &View, events: &mut Events) {
    for (slot, refusals) in &after.plan.unplaced {
        if !before.plan.unplaced.contains_key(slot) {
            let reason = brief(&unplaced_reason(after, slot, refusals));
            events.warning(slot, format!("cannot be placed: {reason}"));
        }
    }
    for (slot, placement) in &after.plan.placements {
        let to = after.name(placement.node);
        match before.plan.placements.get(slot) {
            Some(held) if held.node != placement.node => {
                events.info(slot, format!("moves from {} to {to}", after.name(held.node)));
            }
            None if before.plan.unplaced.contains_key(slot) => {
                events.info(slot, format!("placed on {to}"));
            }
            _ => {}
        }
    }
}

/// Returns the claims of a node; none while it is down.
fn claims(view: &View, node: NodeId) -> impl Iterator<Item = (&InstanceId, &Claim)> {
    let state = view.nodes.get(&node).filter(|_| view.up.contains(&node));
    state.into_iter().flat_map(|state| &state.claims)
}

fn claim<'a>(view: &'a View, node: NodeId, id: &InstanceId) -> Option<&'a Claim> {
    view.nodes.get(&node).filter(|_| view.up.contains(&node))?.claims.get(id)
}

/// Changes of instances.
fn instances(before: &View, after: &View, events: &mut Events) {
    for &node in &after.up {
        let name = after.name(node);
        for (id, claim) in claims(after, node) {
            instance(self::claim(before, node, id), id, claim, &name, events);
        }
        for (id, held) in claims(before, node) {
            let ran = held.state.is_running() || held.state == InstanceState::Stopping;
            if ran && claim(after, node, id).is_none() {
                let wanted = after.desired_digest(&id.slot.service);
                let old = if wanted.is_some_and(|wanted| wanted != id.digest) {
                    "an earlier version "
                } else {
                    ""
                };
                events.info(&id.slot, format!("{old}stopped on {name}"));
            }
        }
    }
}

fn instance(held: Option<&Claim>, id: &InstanceId, claim: &Claim, node: &str, events: &mut Events) {
    use InstanceState::{
        Completed, Failed, Healthy, Pending, Pulling, Running, Starting, Stopping, Unhealthy,
    };
    let ran = held.is_some_and(|held| held.state.is_running());
    let again = held.is_some_and(|held| claim.restarts > held.restarts);
    let same = held.is_some_and(|held| held.state == claim.state);
    let slot = &id.slot;
    match claim.state {
        Running | Healthy if same && again => {
            events.warning(slot, format!("exited and was restarted on {node}"));
        }
        Failed if same && again => {
            events.error(slot, format!("failed again on {node}: {}", brief(&claim.reason)));
        }
        _ if same => {}
        Running if !ran => events.info(slot, format!("runs on {node}")),
        Healthy if !ran => events.info(slot, format!("runs on {node} and is healthy")),
        Healthy => events.info(slot, "is healthy"),
        Unhealthy => events.warning(slot, format!("is unhealthy: {}", brief(&claim.reason))),
        Failed => events.error(slot, format!("failed on {node}: {}", brief(&claim.reason))),
        Completed => events.info(slot, format!("completed on {node}")),
        Running | Pending | Pulling | Starting | Stopping => {}
    }
}

#[cfg(test)]
mod tests;
