//! Leases of a few nodes under loss, delay, cuts, restarts and clocks that drift: at most one holder at any time.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord, View, VolumeRecord};
use vc_protocol::Keypair;
use vc_protocol::lease::LeaseReply;
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{OnPartition, ServiceSpec};
use vc_protocol::volume::VolumeCopy;

use super::*;

fn id(byte: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
    NodeId::of(&key.public()).expect("ed25519")
}

fn set(number: u64, voters: impl IntoIterator<Item = NodeId>) -> VoterSet {
    VoterSet {
        number,
        voters: voters.into_iter().collect(),
        lease_ms: LEASE_MS,
        forced: false,
        by: String::new(),
    }
}

/// A xorshift generator: the tests need no more of randomness.
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

struct Node {
    leases: Leases,
    disk: Votes,
    /// By how much its clock runs fast, in thousandths.
    drift: i64,
    /// It handles nothing until then.
    stalled_until: Millis,
    wants: bool,
}

/// Nodes that want one lease, by true time.
struct World {
    now: Millis,
    rng: Rng,
    nodes: BTreeMap<NodeId, Node>,
    view: View,
    set: VoterSet,
    mail: BTreeMap<(Millis, u64), (NodeId, NodeId, LeaseMessage)>,
    sent: u64,
    /// Nodes that reach only themselves.
    cut: BTreeSet<NodeId>,
    /// Sets of voters that nodes learn of later.
    news: Vec<(Millis, NodeId, VoterSet)>,
    decided: BTreeMap<u64, VoterSet>,
    loss: u64,
    holder: Option<(NodeId, Epoch)>,
    highest: Epoch,
    acquired: usize,
}

/// The slot whose lease the tests are about.
fn slot() -> Slot {
    "shop/db.1".parse().expect("a slot")
}

fn key() -> LeaseKey {
    LeaseKey::slot(&slot())
}

impl World {
    fn new(seed: u64, count: u8, voters: u8) -> Self {
        let set = set(1, (1..=voters).map(id));
        let nodes = (1..=count).map(|byte| {
            let node = Node {
                leases: Leases::new(id(byte), Votes::default(), BTreeMap::new(), Some(&set), 0),
                disk: Votes::default(),
                drift: 0,
                stalled_until: 0,
                wants: true,
            };
            (id(byte), node)
        });
        let mut world = Self {
            now: 100_000,
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            nodes: nodes.collect(),
            view: view(count),
            set,
            mail: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            news: Vec::new(),
            decided: BTreeMap::new(),
            loss: 0,
            holder: None,
            highest: 0,
            acquired: 0,
        };
        for state in world.nodes.values_mut() {
            state.leases.planned = everything(count);
        }
        world
    }

    /// The time by the clock of a node.
    fn local(&self, node: NodeId) -> Millis {
        let drift = self.nodes[&node].drift;
        let now = i64::try_from(self.now).expect("a time");
        u64::try_from(now + now * drift / 1000).expect("a time")
    }

    fn perform(&mut self, from: NodeId, effects: Effects) {
        let node = self.nodes.get_mut(&from).expect("a node");
        node.disk.leases.extend(effects.votes.leases);
        if effects.votes.change.is_some() {
            node.disk.change = effects.votes.change;
        }
        for (to, message) in effects.messages {
            let is_cut = self.cut.contains(&from) != self.cut.contains(&to)
                || self.cut.contains(&from) && self.cut.contains(&to);
            if is_cut || self.rng.below(1000) < self.loss {
                continue;
            }
            let delay =
                if self.rng.below(20) == 0 { self.rng.below(8000) } else { 1 + self.rng.below(20) };
            self.sent += 1;
            self.mail.insert((self.now + delay, self.sent), (from, to, message));
        }
        if let Some(decided) = effects.decided {
            let first = self.decided.entry(decided.number).or_insert_with(|| decided.clone());
            assert_eq!(*first, decided, "the voters decide once");
            if decided.number > self.set.number {
                self.set = decided.clone();
            }
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let delay = if node == from { 0 } else { self.rng.below(3000) };
                self.news.push((self.now + delay, node, decided.clone()));
            }
        }
    }

    /// Makes a set of voters known to a node.
    fn adopt(&mut self, node: NodeId, set: VoterSet) {
        let now = self.local(node);
        let leases = &mut self.nodes.get_mut(&node).expect("a node").leases;
        if leases.set.as_ref().is_none_or(|known| known.number < set.number) {
            leases.set = Some(set);
            leases.since = now;
            leases.holder.renew_now();
        }
    }

    fn restart(&mut self, node: NodeId) {
        let now = self.local(node);
        let count = u8::try_from(self.nodes.len()).expect("few");
        let state = self.nodes.get_mut(&node).expect("a node");
        // A holder that starts again goes on with the epoch of its claim, if its instance runs.
        let resumed = match self.holder {
            Some((holder, epoch)) if holder == node => BTreeMap::from([(key(), epoch)]),
            _ => BTreeMap::new(),
        };
        let set = state.leases.set.clone();
        state.leases = Leases::new(node, state.disk.clone(), resumed, set.as_ref(), now);
        state.leases.planned = everything(count);
    }

    /// Lets 10 ms pass on all nodes, and checks who holds the lease.
    fn step(&mut self) {
        self.now += 10;
        let now = self.now;
        for (_, node, set) in self.news.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.adopt(node, set);
        }
        while let Some(entry) = self.mail.first_entry() {
            let &(at, number) = entry.key();
            if at > self.now {
                break;
            }
            let (from, to, message) = entry.remove();
            let stalled_until = self.nodes[&to].stalled_until;
            if stalled_until > self.now {
                self.mail.insert((stalled_until, number), (from, to, message));
                continue;
            }
            let now = self.local(to);
            let effects =
                self.nodes.get_mut(&to).expect("a node").leases.handle(from, message, now);
            self.perform(to, effects);
        }
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&node].stalled_until > self.now {
                continue;
            }
            let now = self.local(node);
            let state = self.nodes.get_mut(&node).expect("a node");
            let needs = if state.wants { BTreeSet::from([key()]) } else { BTreeSet::new() };
            let effects = state.leases.need(&needs, &BTreeSet::new(), &self.view, now);
            self.perform(node, effects);
            let effects = self.nodes.get_mut(&node).expect("a node").leases.handle_timeout(now);
            self.perform(node, effects);
        }
        self.check();
    }

    /// Checks that at most one node holds the lease by its own clock, stalled or not, and that epochs grow.
    fn check(&mut self) {
        let keys = BTreeSet::from([key()]);
        let mut holders = Vec::new();
        for (&node, state) in &self.nodes {
            if let Some(held) = state.leases.held(&keys, self.local(node)) {
                holders.push((node, held.epoch));
            }
        }
        assert!(holders.len() <= 1, "two holders at {}: {holders:?}", self.now);
        if let Some(&(node, epoch)) = holders.first()
            && self.holder != Some((node, epoch))
        {
            assert!(epoch > self.highest, "epoch {epoch} follows {}", self.highest);
            self.highest = epoch;
            self.acquired += 1;
        }
        // A holder that has started again and not renewed yet still counts: its instance may run.
        if !holders.is_empty() {
            self.holder = holders.first().copied();
        }
    }

    fn run(&mut self, millis: Millis) {
        for _ in 0..millis / 10 {
            self.step();
        }
    }

    fn current(&self) -> Option<(NodeId, Epoch)> {
        let keys = BTreeSet::from([key()]);
        let held = |(&node, state): (&NodeId, &Node)| {
            Some((node, state.leases.held(&keys, self.local(node))?.epoch))
        };
        self.nodes.iter().find_map(held)
    }
}

/// The plan of a test gives the lease to every node that asks.
fn everything(count: u8) -> BTreeMap<LeaseKey, BTreeSet<NodeId>> {
    BTreeMap::from([(key(), (1..=count).map(id).collect())])
}

fn view(count: u8) -> View {
    let spec = ServiceSpec { on_partition: Some(OnPartition::Exclusive), ..ServiceSpec::default() };
    let record = ServiceRecord {
        spec: spec.into(),
        previous: None,
        revision: 1,
        updated: 1,
        deployed_by: "ada".to_owned(),
        trace: None,
    };
    let services = BTreeMap::from([(slot().service, record.into())]);
    let cluster = ClusterState { services, ..ClusterState::default() };
    let node = |byte: u8| {
        let info = Some(NodeInfo::for_tests(&format!("n{byte}")));
        (id(byte), NodeState { incarnation: 1, info, ..NodeState::default() })
    };
    View::from_states(cluster, (1..=count).map(node).collect(), &KnownVersions::default())
}

#[test]
fn one_node_gets_the_lease_and_renews_it() {
    for voters in [1, 3, 5] {
        let mut world = World::new(1, 5, voters);
        world.run(5000);
        let first = world.current().expect("a holder");
        world.run(60_000);
        assert_eq!(world.current(), Some(first), "{voters} voters");
        assert_eq!(world.acquired, 1);
    }
}

#[test]
fn a_lease_that_is_released_goes_to_the_next_node_at_once() {
    let mut world = World::new(2, 3, 3);
    world.run(1000);
    let (holder, epoch) = world.current().expect("a holder");
    world.nodes.get_mut(&holder).expect("a node").wants = false;
    world.run(1000);
    let (next, later) = world.current().expect("a holder");
    assert!(next != holder && later > epoch);
}

#[test]
fn a_holder_that_is_cut_off_loses_the_lease_before_another_node_gets_it() {
    let mut world = World::new(3, 3, 3);
    world.run(1000);
    let (holder, _) = world.current().expect("a holder");
    world.cut.insert(holder);
    world.run(5000);
    assert_eq!(world.current(), None, "it counts less than the voters do");
    world.run(3000);
    let (next, _) = world.current().expect("a holder");
    assert_ne!(next, holder);
    world.cut.clear();
    world.run(20_000);
    assert_eq!(world.current().map(|it| it.0), Some(next), "what waits does not disturb it");
}

#[test]
fn the_only_voter_keeps_its_lease_and_may_restart() {
    let mut world = World::new(4, 2, 1);
    world.nodes.get_mut(&id(2)).expect("a node").wants = false;
    world.run(1000);
    let held = world.current().expect("a holder");
    let keys = BTreeSet::from([key()]);
    let lease = world.nodes[&id(1)].leases.held(&keys, world.local(id(1))).expect("held");
    assert_eq!(lease.until, None, "no other node can get it meanwhile");
    world.now += 60_000;
    world.restart(id(1));
    world.step();
    assert_eq!(world.current(), Some(held));
}

#[test]
fn a_voter_that_restarts_grants_nothing_anew_and_renews_what_it_granted() {
    let mut world = World::new(5, 3, 3);
    world.run(1000);
    let held = world.current().expect("a holder");
    for voter in [1, 2, 3] {
        if id(voter) != held.0 {
            world.restart(id(voter));
        }
    }
    world.run(3000);
    assert_eq!(world.current(), Some(held));
    world.cut.insert(held.0);
    for voter in [1, 2, 3] {
        world.restart(id(voter));
    }
    world.run(5000);
    assert_eq!(world.current(), None, "the lease of before may still be in use");
    world.run(10_000);
    assert!(world.current().is_some());
}

#[test]
fn epochs_grow_when_every_voter_is_replaced() {
    let mut world = World::new(6, 6, 3);
    world.run(1000);
    let (first, epoch) = world.current().expect("a holder");
    world.nodes.values_mut().for_each(|node| node.wants = false);
    world.run(100);
    let wanted: BTreeSet<NodeId> = (4..=6).map(id).collect();
    for _ in 0..200 {
        let extra = wanted.difference(&world.set.voters).next().copied();
        let gone = world.set.voters.difference(&wanted).next().copied();
        let mut voters = world.set.voters.clone();
        match (extra, gone) {
            (Some(node), _) if voters.len() == 3 => drop(voters.insert(node)),
            (_, Some(node)) => drop(voters.remove(&node)),
            _ => break,
        }
        let next = set(world.set.number + 1, voters);
        let proposer = *world.set.voters.first().expect("a voter");
        world.nodes.get_mut(&proposer).expect("a node").leases.next = Some(next);
        world.run(1000);
        for node in world.nodes.values_mut() {
            node.leases.next = None;
        }
    }
    assert_eq!(world.set.voters, wanted);
    let second = *world.nodes.keys().find(|node| **node != first).expect("a node");
    world.nodes.get_mut(&second).expect("a node").wants = true;
    world.run(10_000);
    let (_, later) = world.current().expect("a holder");
    assert!(later > epoch, "{later} > {epoch}");
}

/// The random schedules: nodes want the lease and give it up, are cut off, restart and stall, their clocks drift by up to 5 %
/// each way, voters change, and messages are lost or late.
#[test]
fn there_is_never_more_than_one_holder() {
    let (mut acquired, mut changes) = (0, 0);
    for seed in 1..=60 {
        let count = 2 + u8::try_from(seed % 5).expect("small");
        let voters = [1, 3, 3, 5][usize::try_from(seed % 4).expect("small")].min(count);
        let mut world = World::new(seed, count, voters);
        world.loss = [0, 50, 300][usize::try_from(seed % 3).expect("small")];
        for node in world.nodes.keys().copied().collect::<Vec<_>>() {
            let drift = i64::try_from(world.rng.below(100)).expect("small") - 50;
            world.nodes.get_mut(&node).expect("a node").drift = drift;
        }
        for _ in 0..60 {
            let nth = usize::try_from(world.rng.below(u64::from(count))).expect("small");
            let node = *world.nodes.keys().nth(nth).expect("a node");
            match world.rng.below(8) {
                0 => drop(world.cut.insert(node)),
                1 | 2 => world.cut.clear(),
                3 => world.restart(node),
                4 => {
                    let until = world.now + world.rng.below(9000);
                    world.nodes.get_mut(&node).expect("a node").stalled_until = until;
                }
                5 => {
                    let state = world.nodes.get_mut(&node).expect("a node");
                    state.wants = !state.wants;
                }
                6 => {
                    let mut voters = world.set.voters.clone();
                    if !voters.remove(&node) || voters.is_empty() {
                        voters.insert(node);
                    }
                    let next = set(world.set.number + 1, voters);
                    if next.voters != world.set.voters {
                        let proposer = *world.set.voters.first().expect("a voter");
                        world.nodes.get_mut(&proposer).expect("a node").leases.next = Some(next);
                    }
                }
                _ => {}
            }
            let number = world.set.number;
            world.run(1500);
            if world.set.number != number {
                changes += 1;
                world.nodes.values_mut().for_each(|node| node.leases.next = None);
            }
        }
        world.cut.clear();
        world.loss = 0;
        world.nodes.values_mut().for_each(|node| node.wants = true);
        world.run(30_000);
        assert!(world.current().is_some(), "seed {seed}: a holder once all is well");
        acquired += world.acquired;
    }
    assert!(acquired > 200 && changes > 50, "{acquired} holders, {changes} changes of the voters");
}

#[test]
fn the_right_to_a_run_is_granted_to_one_node_only_and_forgotten_after_many_others() {
    let (one, other, set) = (id(1), id(2), set(1, [id(3)]));
    let mut voter = voter::Voter::new(id(3), BTreeMap::new(), LEASE_MS, 0);
    let slot =
        |time: u32| Slot { service: "shop/backup".parse().expect("a service"), replica: time };
    let ask = |voter: &mut voter::Voter, from: NodeId, key: LeaseKey, epoch: Epoch, now: Millis| {
        let prepare = LeaseRequest::Prepare { key: key.clone(), epoch };
        let accept = LeaseRequest::Accept { key, epoch, sent: now, held: false };
        let (may, version) = (|_: NodeId, _: &LeaseKey| true, (1, LEASE_MS));
        let answer = voter.handle(from, version, vec![prepare, accept], Some(&set), &may, now);
        matches!(answer.replies[1], LeaseReply::Accepted { .. })
    };
    let run = LeaseKey::run(&slot(60));
    assert!(ask(&mut voter, one, run.clone(), 7, 0));
    let later = 100 * LEASE_MS;
    assert!(!ask(&mut voter, other, run.clone(), 9, later), "although it has ended long ago");
    assert!(ask(&mut voter, one, run.clone(), 9, later), "its node may renew it");
    assert!(ask(&mut voter, one, LeaseKey::job(&slot(60).service), 7, 0));
    assert!(
        ask(&mut voter, other, LeaseKey::job(&slot(60).service), 9, later),
        "as any other lease"
    );
    for time in 2..=101 {
        assert!(voter.forget_runs(|_| false).is_empty());
        assert!(ask(&mut voter, one, LeaseKey::run(&slot(time * 60)), 7, later));
    }
    assert!(voter.forget_runs(|key| *key == run).is_empty(), "the plan has it");
    assert_eq!(voter.forget_runs(|_| false), BTreeSet::from([run]));
}

#[test]
fn a_voter_that_has_promised_a_lease_to_a_node_which_did_not_get_it_joins_its_holder() {
    let (holder, waiting, set) = (id(1), id(2), set(1, [id(3)]));
    let mut voter = voter::Voter::new(id(3), BTreeMap::new(), LEASE_MS, 0);
    let mut ask = |from: NodeId, request: LeaseRequest, now: Millis| {
        let (may, version) = (|_: NodeId, _: &LeaseKey| true, (1, LEASE_MS));
        let mut answer = voter.handle(from, version, vec![request], Some(&set), &may, now);
        let votes = answer.votes.into_values().next();
        (answer.replies.pop().expect("an answer"), votes)
    };
    let prepare = |epoch| LeaseRequest::Prepare { key: key(), epoch };
    let accept = |epoch, held| LeaseRequest::Accept { key: key(), epoch, sent: 1, held };
    let is_granted = |reply: &LeaseReply| matches!(reply, LeaseReply::Accepted { .. });

    let (promise, _) = ask(waiting, prepare(9), 1);
    assert!(matches!(promise, LeaseReply::Promised { epoch: 9, .. }), "{promise:?}");
    let (reply, _) = ask(holder, accept(7, false), 2);
    assert!(!is_granted(&reply), "it may not have a majority: the other may get it");
    let (reply, vote) = ask(holder, accept(7, true), 3);
    assert!(is_granted(&reply), "{reply:?}");
    let vote = vote.expect("durable before it is answered");
    assert_eq!((vote.promised, vote.accepted), (9, Some((7, holder))), "the promise stands");

    // The other does not get it meanwhile, and does when it has ended; the former holder does not come back under its epoch.
    assert!(is_granted(&ask(holder, accept(7, true), 1000).0), "a renewal");
    assert!(!is_granted(&ask(waiting, accept(9, false), 1001).0));
    let later = 1000 + 2 * LEASE_MS;
    assert!(is_granted(&ask(waiting, accept(9, false), later).0));
    assert!(!is_granted(&ask(holder, accept(7, true), later + 1).0));
    assert!(!is_granted(&ask(holder, accept(7, true), later + 3 * LEASE_MS).0));
}

#[test]
fn a_lease_below_the_epoch_of_its_volume_is_asked_for_anew_unless_an_instance_runs_under_it() {
    let volume: VolumeKey = "shop/data".parse().expect("a key");
    let (node, key) = (id(1), LeaseKey::volume(&volume));
    let view = |written| {
        let copy = VolumeCopy { written, ..VolumeCopy::default() };
        let record = VolumeRecord { lamport: 1, since: 0, begun: 1, copy: Some(copy) };
        let info = Some(NodeInfo::for_tests("n1"));
        let volumes = BTreeMap::from([(volume.clone(), record.into())]);
        let state = NodeState { incarnation: 1, info, volumes, ..NodeState::default() };
        let nodes = BTreeMap::from([(node, state)]);
        View::from_states(ClusterState::default(), nodes, &KnownVersions::default())
    };
    let (keys, set) = (BTreeSet::from([key.clone()]), set(1, [node]));
    let mut leases = Leases::new(node, Votes::default(), BTreeMap::new(), Some(&set), 0);
    leases.planned = BTreeMap::from([(key.clone(), BTreeSet::from([node]))]);
    let mut epoch_at = |now: Millis, written: Option<Epoch>, in_use: &BTreeSet<&LeaseKey>| {
        let mut messages = leases.need(&keys, in_use, &view(written), now).messages;
        for now in (now..now + 3000).step_by(10) {
            messages.extend(leases.handle_timeout(now).messages);
            while let Some((_, message)) = messages.pop() {
                messages.extend(leases.handle(node, message, now).messages);
            }
        }
        leases.held(&keys, now + 3000).expect("held").epoch
    };
    let first = epoch_at(60_000, None, &BTreeSet::new());
    let later = first + 4;
    assert_eq!(epoch_at(70_000, Some(later), &BTreeSet::from([&key])), first);
    assert!(epoch_at(80_000, Some(later), &BTreeSet::new()) > later);
}
