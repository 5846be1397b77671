//! Sees that the times of schedules have come, and writes that into this node's document.
//!
//! Which runs begin is a function of the documents; this is what puts a time into them. Every node that is up looks, in turns, so that
//! mostly one writes. A time that is known already is never written again, whatever the clocks do.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{NodeState, View};
use vc_placement::rendezvous;
use vc_protocol::run::{DueRecord, Skipped};
use vc_protocol::spec::{Overlap, Schedule, Timetable};
use vc_protocol::{Lamport, Millis, NodeId, ServiceKey, Slot};

use crate::interface::{Clock, Vitals};

/// The nodes look one after the other, in this time after each other.
const TURN: Millis = 2_000;
/// How late a run may begin in any case: nodes restart, and leases take a moment.
const ON_TIME: Millis = 60_000;
/// Seconds of a day.
const DAY: u32 = 86_400;
/// How many times that have passed are counted, at most.
const MAX_MISSED: u32 = 1_000;

/// The schedules of the services, as this node looks after them.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    tables: BTreeMap<ServiceKey, (Lamport, Option<Timetable>)>,
    /// When to look again, by the monotonic clock.
    look_at: Option<Millis>,
}

/// Returns the time that the cluster goes by, in milliseconds since 1970: the median of the clocks of the nodes that are up, of an even
/// number the earlier one, so that a clock that is wrong begins nothing.
pub(crate) fn cluster_time(
    view: &View,
    node: NodeId,
    vitals: &BTreeMap<NodeId, Vitals>,
    own: Millis,
) -> Millis {
    let others = view.up.iter().filter(|it| **it != node);
    let offset = |it: &NodeId| vitals.get(it).map_or(0, |vitals| vitals.clock_offset_ms);
    let mut offsets: Vec<i64> = others.map(offset).chain([0]).collect();
    offsets.sort_unstable();
    own.saturating_add_signed(offsets[(offsets.len() - 1) / 2])
}

impl Schedules {
    /// Returns when to call [`Schedules::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        self.look_at
    }

    /// Returns whether it is time to look again.
    pub(crate) fn handle_timeout(&mut self, now: Millis) -> bool {
        self.look_at.take_if(|at| now >= *at).is_some()
    }

    /// Writes the times that have come into `own`, and forgets old ones. `clock.wall` is the time that the cluster goes by.
    pub(crate) fn update(&mut self, view: &View, node: NodeId, own: &mut NodeState, clock: Clock) {
        self.look_at = None;
        forget(view, own);
        if !view.has_runs || !view.rules.modes || !view.up.contains(&node) {
            return;
        }
        let services = view.cluster.services.iter().filter_map(|(key, record)| {
            let runs = view.cluster.replicas(key) > 0 && view.held.reason(key).is_none();
            Some((key, record, record.spec.schedule.as_ref().filter(|_| runs)?))
        });
        let mut wake: Vec<Millis> = Vec::new();
        for (key, record, schedule) in services {
            let (revision, table) = self.tables.entry(key.clone()).or_default();
            if *revision != record.revision {
                (*revision, *table) = (record.revision, schedule.timetable().ok());
            }
            let Some(table) = table else { continue };
            let turn = TURN.saturating_mul(rank(view, key, node));
            let Some(next) = next(view, key, record.updated, table, clock.wall) else { continue };
            let at = millis(next).saturating_add(turn);
            if clock.wall >= at {
                let (time, due) = come(view, key, schedule, table, next, clock.wall);
                own.due.insert(Slot { service: key.clone(), replica: time }, due);
                // What follows is seen in the view that has this.
                continue;
            }
            wake.push(at);
            for time in late(view, key) {
                let at = millis(time).saturating_add(allowed(schedule)).saturating_add(turn);
                if clock.wall < at {
                    wake.push(at);
                    continue;
                }
                let skipped = Some(Skipped::Missed);
                let due = DueRecord { at: clock.wall, missed: 0, skipped, by: String::new() };
                own.due.insert(Slot { service: key.clone(), replica: time }, due);
            }
        }
        let services = &view.cluster.services;
        self.tables.retain(|key, _| services.contains_key(key));
        // The clocks may be set meanwhile: it looks again after a minute at the latest.
        let after = wake.into_iter().map(|at| at.saturating_sub(clock.wall).clamp(1, 60_000)).min();
        self.look_at = after.map(|after| clock.monotonic.saturating_add(after));
    }
}

/// Returns the first time of a schedule that no document has, after the newest that one has and after the deployment. What lies more
/// than a day ahead is of a clock that was wrong, and does not count.
fn next(
    view: &View,
    service: &ServiceKey,
    deployed: Millis,
    table: &Timetable,
    now: Millis,
) -> Option<u32> {
    let seconds = |millis: Millis| u32::try_from(millis / 1000).unwrap_or(u32::MAX);
    let horizon = seconds(now).saturating_add(DAY);
    let mut due = view.runs.due(service).map(|(slot, _)| slot.replica).rev();
    let known = due.find(|time| *time <= horizon).unwrap_or(0);
    let deployed = Some(seconds(deployed)).filter(|time| *time <= horizon).unwrap_or(0);
    table.next(known.max(deployed))
}

fn millis(seconds: u32) -> Millis {
    Millis::from(seconds) * 1000
}

/// Returns how late a run may begin.
pub(crate) fn allowed(schedule: &Schedule) -> Millis {
    schedule.catch_up_ms.max(ON_TIME)
}

/// Returns how many nodes look after a service before this one.
fn rank(view: &View, service: &ServiceKey, node: NodeId) -> u64 {
    let weight = |node: &NodeId| rendezvous(&[&service.to_string(), &node.to_string()]);
    let own = (weight(&node), node);
    view.up.iter().filter(|it| (weight(it), **it) > own).count() as u64
}

/// Returns the newest of the times from `next` on that have come, with what is to happen.
fn come(
    view: &View,
    service: &ServiceKey,
    schedule: &Schedule,
    table: &Timetable,
    next: u32,
    now: Millis,
) -> (u32, DueRecord) {
    let until = u32::try_from(now / 1000).unwrap_or(u32::MAX);
    let time = table.latest(until).unwrap_or(next).max(next);
    let mut missed = 0;
    let mut before = next;
    while before < time && missed < MAX_MISSED {
        missed += 1;
        before = table.next(before).unwrap_or(time);
    }
    let is_under_way = || view.input.services.get(service).is_some_and(|it| !it.due.is_empty());
    let skipped = if now.saturating_sub(millis(time)) > allowed(schedule) {
        Some(Skipped::Missed)
    } else if schedule.overlap == Overlap::Forbid && is_under_way() {
        Some(Skipped::Overlap)
    } else {
        None
    };
    (time, DueRecord { at: now, missed, skipped, by: String::new() })
}

/// Returns the times that have come and at which no run has begun.
fn late<'a>(view: &'a View, service: &ServiceKey) -> impl Iterator<Item = u32> + use<'a> {
    let due = view.input.services.get(service).into_iter().flat_map(|it| it.due.keys().copied());
    let service = service.clone();
    due.filter(move |&replica| {
        let slot = Slot { service: service.clone(), replica };
        view.runs.get(&slot).is_none()
    })
}

/// Forgets the times of services without a schedule, and all but the newest of the others. Those at which a run is under way stay.
fn forget(view: &View, own: &mut NodeState) {
    let mut left: BTreeMap<ServiceKey, u32> = BTreeMap::new();
    let slots: BTreeSet<Slot> = own.due.keys().cloned().collect();
    for slot in slots.into_iter().rev() {
        let service = &slot.service;
        let schedule = view.cluster.services.get(service).and_then(|it| it.spec.schedule.as_ref());
        let keep = match schedule {
            Some(schedule) => schedule.keep,
            None if view.held.reason(service).is_some() => u32::MAX,
            None => 0,
        };
        let open = view.input.services.get(service);
        let is_open = open.is_some_and(|it| it.due.contains_key(&slot.replica));
        let left = left.entry(service.clone()).or_insert(keep);
        if is_open || *left > 0 {
            *left = left.saturating_sub(1);
        } else {
            own.due.remove(&slot);
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;

    use super::*;

    fn id(byte: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_change_the_time_of_the_cluster() {
        let node = |byte: u8| {
            let info = Some(NodeInfo::for_tests(&format!("n{byte}")));
            (id(byte), NodeState { incarnation: 1, info, ..NodeState::default() })
        };
        let view = |count: u8| {
            let nodes = (1..=count).map(node).collect();
            View::from_states(ClusterState::default(), nodes, &KnownVersions::default())
        };
        // What each node thinks the time is, if the second one is an hour ahead.
        let hour = 3_600_000;
        let seen_by = |count: u8, by: u8| {
            let ahead = |byte: u8| if byte == 2 { hour } else { 0 };
            let vitals = (1..=count).map(|other| {
                let clock_offset_ms = ahead(other) - ahead(by);
                (id(other), Vitals { clock_offset_ms, ..Vitals::default() })
            });
            let own = 1_000_000_u64.saturating_add_signed(ahead(by));
            cluster_time(&view(count), id(by), &vitals.collect(), own)
        };
        for count in 2..=5 {
            for by in 1..=count {
                assert_eq!(seen_by(count, by), 1_000_000, "{by} of {count}");
            }
        }
    }
}
