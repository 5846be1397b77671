//! Links, the connections over them, and what gets lost.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use vc_engine::Input;
use vc_protocol::Millis;
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::wire::{MAX_FRAME, MAX_GOSSIP, encode};

use crate::world::{Event, World};

/// Faults of the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkFaults {
    /// One-way latency.
    pub(crate) latency: (Millis, Millis),
    /// Messages lost on a link, per thousand.
    pub(crate) loss: u64,
    /// Messages that come duplicated, of a thousand.
    pub(crate) duplicated: u64,
    /// Messages delivered much later than those sent after them, per thousand.
    pub(crate) reordered: u64,
    /// Time until a connection over a dead link closes.
    pub(crate) dead_timeout: (Millis, Millis),
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

/// A connection: each end has its own idea of whether it is there.
#[derive(Debug, Default)]
struct Connection {
    /// Of the node with the lower, and with the higher number: the connection that this end believes in.
    ends: [Option<u64>; 2],
    /// Only the latest plan to dial counts.
    dial: u64,
    /// Failed dials in a row.
    failures: u32,
}

/// All links and connections.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) faults: NetworkFaults,
    /// Directions in which nothing gets through.
    cut: BTreeSet<(usize, usize)>,
    connections: BTreeMap<(usize, usize), Connection>,
    count: u64,
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

    /// Whether a message gets from one end to the other.
    fn carries(&self, from: usize, to: usize) -> bool {
        let end = self.end(from, to);
        end.is_some() && end == self.end(to, from) && !self.cut.contains(&(from, to))
    }

    /// Whether both directions work.
    fn is_whole(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a, b)) && !self.cut.contains(&(b, a))
    }

    /// The peers that a node believes itself connected to.
    pub(crate) fn peers(&self, of: usize, count: usize) -> Vec<usize> {
        (0..count).filter(|&other| other != of && self.end(of, other).is_some()).collect()
    }
}

impl World {
    /// Nothing gets from `from` to `to`.
    pub(crate) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.network.cut.insert((from, to));
        let dead_timeout = self.network.faults.dead_timeout;
        for (at, peer) in [(from, to), (to, from)] {
            if let Some(connection) = self.network.end(at, peer) {
                let after = self.rng.within(dead_timeout);
                self.schedule(after, Event::Timeout { at, peer, connection });
            }
        }
    }

    /// Cuts the links between the sides; nodes that are in none are on no side.
    pub(crate) fn partition(&mut self, sides: &[&[usize]]) {
        self.say(&format!("partition {sides:?}"));
        for (n, one) in sides.iter().enumerate() {
            for other in &sides[n + 1..] {
                for (&a, &b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    self.cut_one_way(a, b);
                    self.cut_one_way(b, a);
                }
            }
        }
    }

    /// All links work again.
    pub(crate) fn heal(&mut self) {
        self.say("all links are whole");
        self.network.cut.clear();
    }

    /// A connection over a link that has stayed dead ends at one end.
    pub(crate) fn timeout(&mut self, at: usize, peer: usize, connection: u64) {
        let dead =
            !self.network.is_whole(at, peer) || self.network.end(peer, at) != Some(connection);
        if dead {
            self.close(at, peer, connection);
        }
    }

    /// One end of a connection goes.
    pub(crate) fn close(&mut self, at: usize, peer: usize, connection: u64) {
        if self.network.end(at, peer) != Some(connection) {
            return;
        }
        self.network.set_end(at, peer, None);
        let id = self.nodes[peer].id;
        self.deliver(1, at, Input::Disconnected(id));
        self.plan_dial(at, peer, (200, 1500));
    }

    /// Closes a connection at the request of an engine; the other end closes when the link lets the message through.
    pub(crate) fn disconnect(&mut self, at: usize, peer: usize) {
        let Some(connection) = self.network.end(at, peer) else { return };
        self.note(at, &format!("hangs up on {peer}"));
        self.close(at, peer, connection);
        let quick = self.network.is_whole(at, peer);
        let after = self.rng.within(if quick {
            self.network.faults.latency
        } else {
            self.network.faults.dead_timeout
        });
        self.schedule(after, Event::Close { at: peer, peer: at, connection });
    }

    /// Closes the connections of a node whose process ended; with `host`, the kernel closes none of them.
    pub(crate) fn connections_end(&mut self, of: usize, host: bool) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != of) {
            let Some(connection) = self.network.end(of, peer) else { continue };
            self.network.set_end(of, peer, None);
            let quick = !host && self.network.is_whole(of, peer);
            let after =
                self.rng.within(if quick { (1, 300) } else { self.network.faults.dead_timeout });
            self.schedule(after, Event::Close { at: peer, peer: of, connection });
        }
    }

    /// The engine was made anew in a process that lives on: it learns what is connected.
    pub(crate) fn connections_again(&mut self, of: usize) {
        for peer in self.network.peers(of, self.nodes.len()) {
            let id = self.nodes[peer].id;
            self.deliver(1, of, Input::Connected(id));
        }
    }

    /// Plans to connect two nodes; an earlier plan is void.
    pub(crate) fn plan_dial(&mut self, a: usize, b: usize, within: (Millis, Millis)) {
        let connection = self.network.connection(a, b);
        connection.dial += 1;
        let number = connection.dial;
        let after = self.rng.within(within);
        self.schedule(after, Event::Dial { a, b, number });
    }

    /// Plans to dial all nodes from one that has just started.
    pub(crate) fn dial_all(&mut self, of: usize) {
        for peer in (0..self.nodes.len()).filter(|&peer| peer != of) {
            self.network.connection(of, peer).failures = 0;
            self.plan_dial(of, peer, (20, 400));
        }
    }

    /// Tries to connect two nodes, and goes on trying.
    pub(crate) fn dial(&mut self, a: usize, b: usize, number: u64) {
        let (there, whole) =
            (self.is_running(a) && self.is_running(b), self.network.is_whole(a, b));
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
            let most = 500 << connection.failures;
            return self.plan_dial(a, b, (most / 2, most));
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
            // An end that still has an older connection gets one more.
            if !known {
                self.deliver(after, at, Input::Connected(peer_id));
            }
        }
    }

    fn one_way(&mut self) -> Millis {
        let reordered = self.rng.permille(self.network.faults.reordered);
        self.rng.within(self.network.faults.latency)
            + if reordered { self.rng.within((100, 1500)) } else { 0 }
    }

    /// A message over a connection.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: &SyncMessage) {
        assert!(encode(message).len() <= MAX_FRAME, "a message that no frame holds");
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
            self.deliver(after, to, Input::Sync(id, message.clone()));
        }
    }

    /// Gossips a message from node to node.
    pub(crate) fn publish(&mut self, from: usize, gossip: &Gossip) {
        assert!(encode(gossip).len() <= MAX_GOSSIP, "a message that gossip does not take");
        let id = self.nodes[from].id;
        let mut reached = BTreeSet::from([from]);
        let mut ways = BinaryHeap::from([Reverse((0, from, from))]);
        while let Some(Reverse((after, via, to))) = ways.pop() {
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
                    ways.push(Reverse((after + hop, to, next)));
                }
            }
        }
    }
}
