//! What was done, for the invariants to count.

use vc_engine::runtime::InstanceId;
use vc_protocol::Millis;

/// Something that was done on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Its engine asked the runtime for something.
    Asked(String),
    /// A container began to run.
    Started(InstanceId),
    /// A container that ran was stopped because the engine asked for it.
    Stopped(InstanceId),
    /// A container ended by itself, or with its host.
    Ended(InstanceId),
    /// Its engine made this many changes durable.
    Persisted(usize),
    /// Its engine published changes.
    Published,
    /// Its engine sent changes to a peer.
    Replayed,
    /// Its engine closed a connection.
    Hung,
    /// Its engine started.
    Booted,
}

/// A deed, when, and of which node.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Millis,
    pub(crate) node: usize,
    pub(crate) deed: Deed,
}

/// A place in the ledger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize);

/// All deeds, in their order.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Vec<Entry>);

impl Ledger {
    pub(crate) fn enter(&mut self, at: Millis, node: usize, deed: Deed) {
        self.0.push(Entry { at, node, deed });
    }

    /// Here.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.0.len())
    }

    /// What was done since.
    pub(crate) fn since(&self, mark: Mark) -> &[Entry] {
        &self.0[mark.0..]
    }
}
