//! What happened, as the difference between two views: nobody has to say that he did something, and what one node sees
//! of another's doings is what the documents came to mean.

use vc_crdt::View;
use vc_protocol::control::{EventLevel, EventRow, RolloutState};
use vc_protocol::instance::{Claim, InstanceState};
use vc_protocol::{InstanceId, Millis, NodeId};

use crate::report::unplaced_reason;
use crate::rollout::Rollout;

/// The longest reason that is told, in characters.
const MAX_REASON: usize = 200;

/// What happened between two views, told `now`: nodes first, then services, then instances. Each fact once.
pub fn between(before: &View, after: &View, now: Millis) -> Vec<EventRow> {
    let mut told = Told { now, rows: Vec::new() };
    nodes(before, after, &mut told);
    services(before, after, &mut told);
    slots(before, after, &mut told);
    instances(before, after, &mut told);
    told.rows
}

struct Told {
    now: Millis,
    rows: Vec<EventRow>,
}

impl Told {
    fn say(&mut self, level: EventLevel, subject: &impl ToString, text: impl Into<String>) {
        let (time, subject, text) = (self.now, subject.to_string(), text.into());
        self.rows.push(EventRow { time, level, subject, text });
    }

    fn info(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Info, subject, text);
    }

    fn warning(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Warning, subject, text);
    }

    fn error(&mut self, subject: &impl ToString, text: impl Into<String>) {
        self.say(EventLevel::Error, subject, text);
    }
}

/// The first line of a reason, cut where it is long: the instance's row has all of it.
fn brief(reason: &str) -> String {
    let line = reason.trim().lines().next().unwrap_or_default();
    let mut text: String = line.chars().take(MAX_REASON).collect();
    if text.len() < line.len() {
        text.push('…');
    }
    text
}

fn nodes(before: &View, after: &View, told: &mut Told) {
    for (node, state) in &after.nodes {
        let name = after.name(*node);
        // Before it has said who it is, there is nothing to tell of it.
        if state.info.is_none() {
            continue;
        }
        let held = before.nodes.get(node).filter(|held| held.info.is_some());
        match (before.up.contains(node), after.up.contains(node)) {
            (_, true) if held.is_none() => told.info(&name, "joined the cluster"),
            (false, true) => told.info(&name, "is up again"),
            (true, false) if held.is_some() => {
                told.error(&name, "is down: the other nodes cannot hear it");
            }
            _ => {}
        }
        let drained = |view: &View| view.cluster.drained.get(node).copied().unwrap_or(false);
        match (drained(before), drained(after)) {
            (false, true) => told.info(&name, "is being drained"),
            (true, false) => told.info(&name, "takes instances again"),
            _ => {}
        }
        match (held.and_then(|held| held.runtime_error.as_ref()), &state.runtime_error) {
            (None, Some(why)) => {
                told.error(&name, format!("cannot run instances: {}", brief(why)));
            }
            (Some(_), None) => told.info(&name, "can run instances again"),
            _ => {}
        }
    }
    for node in after.left.keys().filter(|node| !before.left.contains_key(node)) {
        told.info(&after.name(*node), "left the cluster");
    }
}

fn services(before: &View, after: &View, told: &mut Told) {
    for (key, record) in &after.cluster.services {
        let image = &record.spec.container.image;
        let wanted = after.cluster.replicas(key);
        let Some(held) = before.cluster.services.get(key) else {
            told.info(key, format!("deployed by {}: {wanted} of {image}", record.deployed_by));
            continue;
        };
        let had = before.cluster.replicas(key);
        if had != wanted {
            told.info(key, format!("scaled from {had} to {wanted}"));
        }
        let rollout = |view| Rollout::of(view, key).map(|it| it.report()).unwrap_or_default();
        let (was, is) = (rollout(before), rollout(after));
        if held.updated != record.updated {
            told.info(
                key,
                match is.state {
                    RolloutState::Updating => {
                        format!("{} updates it to {image}", record.deployed_by)
                    }
                    _ => format!("changed by {}", record.deployed_by),
                },
            );
        }
        if (was.state, held.updated) == (is.state, record.updated) {
            continue;
        }
        match is.state {
            RolloutState::Complete if was.state == RolloutState::Updating => {
                told.info(key, "the update is complete");
            }
            RolloutState::Paused => {
                told.error(key, format!("the update failed and is paused: {}", brief(&is.reason)));
            }
            RolloutState::RolledBack => {
                let reason = brief(&is.reason);
                told.error(key, format!("the update failed, the version before returns: {reason}"));
            }
            RolloutState::Complete | RolloutState::Updating => {}
        }
    }
    let gone =
        before.cluster.services.keys().filter(|key| !after.cluster.services.contains_key(key));
    for key in gone {
        told.info(key, "removed");
    }
}

/// Where instances shall be.
fn slots(before: &View, after: &View, told: &mut Told) {
    for (slot, refusals) in &after.plan.unplaced {
        if !before.plan.unplaced.contains_key(slot) {
            let reason = brief(&unplaced_reason(after, slot, refusals));
            told.warning(slot, format!("has no node: {reason}"));
        }
    }
    for (slot, placement) in &after.plan.placements {
        let to = after.name(placement.node);
        match before.plan.placements.get(slot) {
            Some(held) if held.node != placement.node => {
                told.info(slot, format!("moves from {} to {to}", after.name(held.node)));
            }
            None if before.plan.unplaced.contains_key(slot) => {
                told.info(slot, format!("has a node: {to}"));
            }
            _ => {}
        }
    }
}

/// The claims of a node in a view; none while it is down, for nobody knows then.
fn claims(view: &View, node: NodeId) -> impl Iterator<Item = (&InstanceId, &Claim)> {
    let state = view.nodes.get(&node).filter(|_| view.up.contains(&node));
    state.into_iter().flat_map(|state| &state.claims)
}

fn claim<'a>(view: &'a View, node: NodeId, id: &InstanceId) -> Option<&'a Claim> {
    view.nodes.get(&node).filter(|_| view.up.contains(&node))?.claims.get(id)
}

/// What instances do.
fn instances(before: &View, after: &View, told: &mut Told) {
    for &node in &after.up {
        let name = after.name(node);
        for (id, claim) in claims(after, node) {
            instance(self::claim(before, node, id), id, claim, &name, told);
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
                told.info(&id.slot, format!("{old}stopped on {name}"));
            }
        }
    }
}

fn instance(held: Option<&Claim>, id: &InstanceId, claim: &Claim, node: &str, told: &mut Told) {
    use InstanceState::{
        Completed, Failed, Healthy, Pending, Pulling, Running, Starting, Stopping, Unhealthy,
    };
    let ran = held.is_some_and(|held| held.state.is_running());
    let again = held.is_some_and(|held| claim.restarts > held.restarts);
    let same = held.is_some_and(|held| held.state == claim.state);
    let slot = &id.slot;
    match claim.state {
        Running | Healthy if same && again => {
            told.warning(slot, format!("ended and was started again on {node}"));
        }
        Failed if same && again => {
            told.error(slot, format!("failed again on {node}: {}", brief(&claim.reason)));
        }
        _ if same => {}
        Running if !ran => told.info(slot, format!("runs on {node}")),
        Healthy if !ran => told.info(slot, format!("runs on {node} and is healthy")),
        Healthy => told.info(slot, "is healthy"),
        Unhealthy => told.warning(slot, format!("is unhealthy: {}", brief(&claim.reason))),
        Failed => told.error(slot, format!("failed on {node}: {}", brief(&claim.reason))),
        Completed => told.info(slot, format!("is done on {node}")),
        Running | Pending | Pulling | Starting | Stopping => {}
    }
}

#[cfg(test)]
mod tests;
