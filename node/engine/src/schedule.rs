//! Sees that the times of schedules have come, and writes that into this node's document.
//!
//! Which runs begin is a function of the documents; this is what puts a time into them. Every node that is up looks, in turns, so that
//! mostly one writes. A time that is known already is never written again, whatever the clocks do.

use std::collections::BTreeMap;

use vc_crdt::{NodeState, Runs, View};
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
    /// The services that are scaled to 0, and when those were resumed that this process has seen so, in milliseconds since 1970.
    suspended: BTreeMap<ServiceKey, Option<Millis>>,
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
        forget(view, own, clock.wall);
        self.note_suspended(view, clock.wall);
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
            let resumed = self.suspended.get(key).copied().flatten().unwrap_or(0);
            let since = [record.updated, resumed];
            let Some(next) = next(view, key, since, table, clock.wall) else { continue };
            let at = millis(next).saturating_add(turn);
            if clock.wall >= at {
                let (time, mut due) = come(view, key, schedule, table, next, clock.wall);
                // It was deployed by a clock that was wrong: its times come all the same.
                due.at = due.at.max(record.updated);
                own.due.insert(Slot { service: key.clone(), replica: time }, due);
                // What follows is seen in the view that has this.
                continue;
            }
            wake.push(at);
            for time in late(view, key, &Remembered::of(view, key, schedule, clock.wall)) {
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

    /// Notes which services are scaled to 0: the times that pass meanwhile are not missed.
    fn note_suspended(&mut self, view: &View, now: Millis) {
        let services = &view.cluster.services;
        self.suspended.retain(|key, _| services.contains_key(key));
        for (key, _) in services.iter().filter(|(_, it)| it.spec.schedule.is_some()) {
            if view.cluster.replicas(key) == 0 {
                self.suspended.insert(key.clone(), None);
            } else if let Some(resumed) = self.suspended.get_mut(key) {
                resumed.get_or_insert(now);
            }
        }
    }
}

/// Returns the first time of a schedule that no document has, after the newest that one has and after those in `since`: when the service
/// was deployed, and resumed. What lies more than a day ahead is of a clock that was wrong, and does not count.
fn next(
    view: &View,
    service: &ServiceKey,
    since: [Millis; 2],
    table: &Timetable,
    now: Millis,
) -> Option<u32> {
    let due = view.runs.due(service).map(|(slot, _)| slot.replica);
    let runs = view.runs.of_service(service).map(|(slot, _)| slot.replica);
    let known = due.chain(runs).chain(since.map(seconds));
    table.next(known.filter(|&time| !is_ahead(time, now)).max().unwrap_or(0))
}

fn seconds(millis: Millis) -> u32 {
    u32::try_from(millis / 1000).unwrap_or(u32::MAX)
}

/// Returns whether a time is more than a day ahead of `now`: it is of a clock that was wrong.
pub(crate) fn is_ahead(time: u32, now: Millis) -> bool {
    time > seconds(now).saturating_add(DAY)
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
    let most = match schedule.overlap {
        Overlap::Forbid => 1,
        Overlap::Allow => Runs::MAX_AT_ONCE,
        Overlap::Replace => usize::MAX,
    };
    let under_way = || view.input.services.get(service).map_or(0, |it| it.due.len());
    let skipped = if now.saturating_sub(millis(time)) > allowed(schedule) {
        Some(Skipped::Missed)
    } else if under_way() >= most {
        Some(Skipped::Overlap)
    } else {
        None
    };
    (time, DueRecord { at: now, missed, skipped, by: String::new() })
}

/// The times of a schedule that are remembered: the newest that any document has, those of a clock that was wrong beside the others.
struct Remembered {
    now: Millis,
    /// The first of them.
    first: u32,
    /// The first of those that are more than a day ahead.
    first_ahead: u32,
}

impl Remembered {
    fn of(view: &View, service: &ServiceKey, schedule: &Schedule, now: Millis) -> Self {
        let keep = schedule.keep.max(1) as usize;
        let first = |ahead: bool| {
            let due = view.runs.due(service).map(|(slot, _)| slot.replica).rev();
            due.filter(|&time| is_ahead(time, now) == ahead).nth(keep - 1).unwrap_or(0)
        };
        Self { now, first: first(false), first_ahead: first(true) }
    }

    fn contains(&self, time: u32) -> bool {
        time >= if is_ahead(time, self.now) { self.first_ahead } else { self.first }
    }
}

/// Returns the times that have come and at which no run has begun.
fn late(view: &View, service: &ServiceKey, remembered: &Remembered) -> Vec<u32> {
    let is_late = |(slot, due): &(&Slot, &DueRecord)| {
        let is_known = remembered.contains(slot.replica) || is_open(view, slot);
        is_known && due.skipped.is_none() && view.runs.get(slot).is_none()
    };
    view.runs.due(service).filter(is_late).map(|(slot, _)| slot.replica).collect()
}

/// Returns whether a run is to begin or under way.
fn is_open(view: &View, slot: &Slot) -> bool {
    let open = view.input.services.get(&slot.service);
    open.is_some_and(|it| it.due.contains_key(&slot.replica))
}

/// Forgets the times of services without a schedule, and of the others all that are not [`Remembered`]. Those at which a run is under way
/// stay.
fn forget(view: &View, own: &mut NodeState, now: Millis) {
    let mut remembered: BTreeMap<ServiceKey, Option<Remembered>> = BTreeMap::new();
    own.due.retain(|slot, _| {
        let service = &slot.service;
        let remembered = remembered.entry(service.clone()).or_insert_with(|| {
            let record = view.cluster.services.get(service);
            let schedule = record.and_then(|it| it.spec.schedule.as_ref());
            schedule.map(|schedule| Remembered::of(view, service, schedule, now))
        });
        let keeps = match remembered {
            Some(remembered) => remembered.contains(slot.replica),
            None => view.held.reason(service).is_some(),
        };
        keeps || is_open(view, slot)
    });
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
