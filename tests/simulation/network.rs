//! Links between nodes, connections over them, and message loss.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use serde::Serialize;
use vc_engine::Input;
use vc_protocol::gossip::Gossip;
use vc_protocol::wire::{MAX_FRAME, MAX_GOSSIP, encode};
use vc_protocol::{Millis, NodeId};

use crate::world::{Event, World};

/// Faults of the network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkFaults {
    /// One-way latency, in milliseconds.
    pub latency: (Millis, Millis),
    /// Messages lost on a link, per thousand.
    pub loss: u64,
    /// Messages delivered twice, per thousand.
    pub duplicated: u64,
    /// Messages delivered much later than those sent after them, per thousand.
    pub reordered: u64,
    /// Milliseconds until a connection over a dead link closes.
    pub dead_timeout: (Millis, Millis),
}

impl Default for NetworkFaults {
    fn default() -> Self {
        Self {
            latency: (1, 20),
            loss: 0,
            duplicated: 0,
            reordered: 0,
            dead_timeout: (5_000, 15_000),
        }
    }
}

/// A connection as seen by its two ends, which may disagree while one end has not noticed a closed link.
#[derive(Debug, Default)]
struct Connection {
    /// Number of the connection that each end has open: first the node with the lower index, then the other.
    ends: [Option<u64>; 2],
    /// Number of the latest scheduled dial; earlier ones are dropped.
    dial: u64,
    /// Failed dials in a row.
    failures: u32,
}

/// All links and connections.
#[derive(Debug, Default)]
pub struct Network {
    pub faults: NetworkFaults,
    /// Directions `(from, to)` in which all messages are dropped.
    cut: BTreeSet<(usize, usize)>,
    connections: BTreeMap<(usize, usize), Connection>,
    count: u64,
    /// Messages that were sent over streams.
    pub sent: Sent,
}

/// Numbers of messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    /// Of anti-entropy.
    pub sync: u64,
    /// About leases.
    pub lease: u64,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    fn connection(&mut self, a: usize, b: usize) -> &mut Connection {
        self.connections.entry(pair(a, b)).or_default()
    }

    fn end(&self, at: usize, to: usize) -> Option<u64> {
        self.connections.get(&pair(at, to)).and_then(|it| it.ends[usize::from(at > to)])
    }

    fn set_end(&mut self, at: usize, to: usize, end: Option<u64>) {
        self.connection(at, to).ends[usize::from(at > to)] = end;
    }

    /// Returns whether both ends share a connection and messages pass in this direction.
    fn carries(&self, from: usize, to: usize) -> bool {
        let end = self.end(from, to);
        end.is_some() && end == self.end(to, from) && !self.cut.contains(&(from, to))
    }

    /// Returns whether messages pass in both directions.
    fn is_whole(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// Returns which of these nodes nothing passes to or from this one, not through others of them either.
    pub fn apart_from(&self, index: usize, nodes: &[usize]) -> BTreeSet<usize> {
        let is_cut = |a, b| self.cut.contains(&(a, b)) && self.cut.contains(&(b, a));
        let mut apart: BTreeSet<usize> = nodes.iter().copied().filter(|&it| it != index).collect();
        let mut reached = vec![index];
        while let Some(at) = reached.pop() {
            reached.extend(apart.extract_if(.., |&it| !is_cut(at, it)));
        }
        apart
    }

    /// Returns whether any link is cut.
    pub fn is_cut(&self) -> bool {
        !self.cut.is_empty()
    }

    /// Returns the peers to which a node has a connection open.
    pub fn peers(&self, index: usize, count: usize) -> Vec<usize> {
        (0..count).filter(|&other| other != index && self.end(index, other).is_some()).collect()
    }
}

impl World {
    /// Drops all messages from `from` to `to`.
    pub fn cut_one_way(&mut self, from: usize, to: usize) {
        self.network.cut.insert((from, to));
        self.disturb(from);
        self.disturb(to);
        let dead_timeout = self.network.faults.dead_timeout;
        for (at, peer) in [(from, to), (to, from)] {
            if let Some(connection) = self.network.end(at, peer) {
                let after = self.rng.within(dead_timeout);
                self.schedule(after, Event::Timeout { at, peer, connection });
            }
        }
    }

    /// Cuts all links between nodes of different sides. Nodes on no side keep all their links.
    pub fn partition(&mut self, sides: &[&[usize]]) {
        self.trace_world(&format!("partition {sides:?}"));
        for (n, one) in sides.iter().enumerate() {
            for other in &sides[n + 1..] {
                for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    self.cut_one_way(a, b);
                    self.cut_one_way(b, a);
                }
            }
        }
    }

    /// Restores all links.
    pub fn heal(&mut self) {
        self.trace_world("all links are restored");
        for (from, to) in std::mem::take(&mut self.network.cut) {
            self.disturb(from);
            self.disturb(to);
            self.watch.healed = true;
        }
    }

    /// Closes one end of a connection if its link is still dead or the other end has gone.
    pub fn timeout(&mut self, at: usize, peer: usize, connection: u64) {
        let dead =
            !self.network.is_whole(at, peer) || self.network.end(peer, at) != Some(connection);
        if dead {
            self.close(at, peer, connection);
        }
    }

    /// Closes one end of a connection and schedules a redial.
    pub fn close(&mut self, at: usize, peer: usize, connection: u64) {
        if self.network.end(at, peer) != Some(connection) {
            return;
        }
        self.network.set_end(at, peer, None);
        let id = self.nodes[peer].id;
        self.deliver(1, at, Input::Disconnected(id));
        self.plan_dial(at, peer, (200, 1500));
    }

    /// Closes a connection at the request of an engine; the other end closes when the link lets the message through.
    pub fn disconnect(&mut self, at: usize, peer: usize) {
        let Some(connection) = self.network.end(at, peer) else { return };
        self.trace_node(at, &format!("disconnects m{peer}"));
        self.close(at, peer, connection);
        let intact = self.network.is_whole(at, peer);
        let after = self.rng.within(if intact {
            self.network.faults.latency
        } else {
            self.network.faults.dead_timeout
        });
        self.schedule(after, Event::Close { at: peer, peer: at, connection });
    }

    /// Closes the connections of a node whose process ended; with `host`, the kernel closes none of them.
    pub fn close_connections(&mut self, index: usize, host: bool) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != index) {
            let Some(connection) = self.network.end(index, peer) else { continue };
            self.network.set_end(index, peer, None);
            let intact = !host && self.network.is_whole(index, peer);
            let after =
                self.rng.within(if intact { (1, 300) } else { self.network.faults.dead_timeout });
            self.schedule(after, Event::Close { at: peer, peer: index, connection });
        }
    }

    /// Returns whether a node knows that another one has left the cluster.
    pub fn knows_left(&self, index: usize, peer: usize) -> bool {
        let engine = self.nodes[index].engine.as_ref();
        engine.is_some_and(|engine| engine.view().left.contains_key(&self.nodes[peer].id))
    }

    /// Closes both ends of a connection after a while.
    pub fn close_after(&mut self, after: Millis, a: usize, b: usize) {
        for (at, peer) in [(a, b), (b, a)] {
            if let Some(connection) = self.network.end(at, peer) {
                self.schedule(after, Event::Close { at, peer, connection });
            }
        }
    }

    /// Announces the open connections of a process to its new engine.
    pub fn restore_connections(&mut self, index: usize) {
        for peer in self.network.peers(index, self.nodes.len()) {
            let id = self.nodes[peer].id;
            self.deliver(1, index, Input::Connected(id));
        }
    }

    /// Schedules a dial between two nodes, in place of an earlier one.
    pub fn plan_dial(&mut self, a: usize, b: usize, within: (Millis, Millis)) {
        let connection = self.network.connection(a, b);
        connection.dial += 1;
        let number = connection.dial;
        let after = self.rng.within(within);
        self.schedule(after, Event::Dial { a, b, number });
    }

    /// Schedules dials from a started node to all others.
    pub fn dial_all(&mut self, index: usize) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != index) {
            self.network.connection(index, peer).failures = 0;
            self.plan_dial(index, peer, (20, 400));
        }
    }

    /// Connects two nodes; on failure schedules another dial with exponential backoff.
    pub fn dial(&mut self, a: usize, b: usize, number: u64) {
        if self.nodes[a].off || self.nodes[b].off {
            return;
        }
        let are_members = !self.knows_left(a, b) && !self.knows_left(b, a);
        let (there, whole) =
            (self.is_running(a) && self.is_running(b) && are_members, self.network.is_whole(a, b));
        let connection = self.network.connection(a, b);
        if connection.dial != number {
            return;
        }
        let [one, other] = connection.ends;
        if one.is_some() && one == other {
            return;
        }
        if !there || !whole {
            connection.failures = (connection.failures + 1).min(4);
            let backoff = 500 << connection.failures;
            return self.plan_dial(a, b, (backoff / 2, backoff));
        }
        connection.failures = 0;
        self.network.count += 1;
        let id = self.network.count;
        let after = self.rng.within((5, 100));
        for (at, peer) in [(a, b), (b, a)] {
            let known = self.network.end(at, peer).is_some();
            self.network.set_end(at, peer, Some(id));
            let (certificate, peer_id) =
                (self.nodes[peer].certificate.clone(), self.nodes[peer].id);
            self.deliver(after, at, Input::Certificate(certificate));
            // An end with an older connection is connected already.
            if !known {
                self.deliver(after, at, Input::Connected(peer_id));
            }
        }
    }

    /// Returns a random one-way delay, in milliseconds.
    fn one_way(&mut self) -> Millis {
        let reordered = self.rng.permille(self.network.faults.reordered);
        self.rng.within(self.network.faults.latency)
            + if reordered { self.rng.within((100, 1500)) } else { 0 }
    }

    /// Sends a message over a connection; it may be lost, delayed or duplicated.
    pub fn send<M: Serialize + Clone>(
        &mut self,
        from: usize,
        to: usize,
        message: &M,
        input: fn(NodeId, M) -> Input,
    ) {
        assert!(encode(message).len() <= MAX_FRAME, "the message exceeds the frame limit");
        if !self.network.carries(from, to)
            || !self.is_running(to)
            || self.rng.permille(self.network.faults.loss)
        {
            return;
        }
        let id = self.nodes[from].id;
        let copies = 1 + u32::from(self.rng.permille(self.network.faults.duplicated));
        for _ in 0..copies {
            let after = self.one_way();
            self.deliver(after, to, input(id, message.clone()));
        }
    }

    /// Floods a gossip message to all nodes reachable over connections, along the fastest paths.
    pub fn publish(&mut self, from: usize, gossip: &Gossip) {
        assert!(encode(gossip).len() <= MAX_GOSSIP, "the message exceeds the gossip limit");
        let id = self.nodes[from].id;
        let mut reached = BTreeSet::from([from]);
        let mut queue = BinaryHeap::from([Reverse((0, from, from))]);
        while let Some(Reverse((after, via, to))) = queue.pop() {
            let first = via == to;
            if !first && !reached.insert(to) {
                continue;
            }
            if !first {
                let copies = 1 + u32::from(self.rng.permille(self.network.faults.duplicated));
                for copy in 0..copies {
                    self.deliver(
                        after + 700 * u64::from(copy),
                        to,
                        Input::Gossip(id, gossip.clone()),
                    );
                }
            }
            for next in 0..self.nodes.len() {
                let passes = !reached.contains(&next)
                    && self.network.carries(to, next)
                    && self.is_awake(next);
                if passes && !self.rng.permille(self.network.faults.loss) {
                    let hop = self.one_way();
                    queue.push(Reverse((after + hop, to, next)));
                }
            }
        }
    }
}
