//! The history of actions, which the invariants check.

use vc_engine::runtime::InstanceId;
use vc_protocol::Millis;

/// An action on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The engine sent an action to the runtime.
    Requested(String),
    /// A container started.
    Started(InstanceId),
    /// A running container was stopped by the engine.
    Stopped(InstanceId),
    /// A container exited, or ended with its host.
    Ended(InstanceId),
    /// The engine wrote this many changes to disk.
    Persisted(usize),
    /// The engine published changes.
    Published,
    /// The engine sent changes to a peer.
    Replayed,
    /// The engine closed a connection.
    Disconnected,
    /// The engine started.
    Booted,
}

/// An action with its time and node.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Millis,
    pub node: usize,
    pub action: Action,
}

/// A position in the history.
#[derive(Debug, Clone, Copy)]
pub struct Cursor(usize);

/// All actions in order of time.
#[derive(Debug, Default)]
pub struct History(Vec<Entry>);

impl History {
    /// Appends an action.
    pub fn record(&mut self, at: Millis, node: usize, action: Action) {
        self.0.push(Entry { at, node, action });
    }

    /// Returns the end of the history.
    pub fn cursor(&self) -> Cursor {
        Cursor(self.0.len())
    }

    /// Returns the actions since the cursor.
    pub fn since(&self, cursor: Cursor) -> &[Entry] {
        &self.0[cursor.0..]
    }
}
