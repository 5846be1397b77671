//! The engine's configuration, inputs and outputs.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::KnownVersions;
use vc_protocol::audit::AuditRow;
use vc_protocol::change::{ChangeRange, DocumentId, SignedChange, Subject};
use vc_protocol::control::Change;
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::lease::LeaseMessage;
use vc_protocol::node::{NodeInfo, NodeProblem, Usage};
use vc_protocol::volume::VolumeCopy;
use vc_protocol::{ClusterId, InstanceId, Keypair, Millis, Name, NodeId, VolumeKey};

use crate::alerts::Delivery;
use crate::lease::Votes;
use crate::mutation::{Mutation, MutationError};
use crate::runtime::{RuntimeAction, RuntimeEvent};
use crate::volumes::VolumeTask;

/// The intervals and timeouts of a node, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Interval between heartbeats in a small cluster; longer in a large one
    /// ([`Timing::heartbeat_interval`]). Other versions may send at another interval.
    pub heartbeat: Millis,
    /// Longest interval between checks for silent nodes.
    pub silence_check: Millis,
    /// For how long a node may do nothing after an interval between its heartbeats, without being suspect.
    pub pause: Millis,
    /// Least time without a heartbeat before a node is suspect.
    pub suspect: Millis,
    /// The same for a node that has sent no heartbeat yet.
    pub first_contact: Millis,
    /// Interval between comparisons of version vectors with a peer.
    pub anti_entropy: Millis,
    /// Time that the runtime may be unavailable before this node's instances are given to other nodes.
    pub runtime_grace: Millis,
    /// For how long a node that has announced a restart may send no heartbeat, at most.
    pub restart: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: 200,
            silence_check: 250,
            pause: 1500,
            suspect: 1800,
            first_contact: 6000,
            anti_entropy: 10_000,
            runtime_grace: 5000,
            restart: 15_000,
        }
    }
}

/// The share of each member in the longest interval between heartbeats: at most 100 a second reach each node.
const HEARTBEAT_PER_MEMBER: Millis = 10;
/// The longest interval between heartbeats, whatever the size of the cluster: it adds to the time until a death is noticed.
const MAX_HEARTBEAT: Millis = 1000;

impl Timing {
    /// Returns the interval between heartbeats in a cluster of so many nodes.
    pub fn heartbeat_interval(&self, nodes: usize) -> Millis {
        let nodes = Millis::try_from(nodes).unwrap_or(Millis::MAX);
        self.heartbeat.max(nodes.saturating_mul(HEARTBEAT_PER_MEMBER).min(MAX_HEARTBEAT))
    }
}

/// The time, by both clocks of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic clock, which never goes back: for durations and timeouts.
    pub monotonic: Millis,
    /// The wall clock, which may be wrong or be set: for display only.
    pub wall: Millis,
}

impl From<Millis> for Clock {
    /// Two clocks that show the same time.
    fn from(now: Millis) -> Self {
        Self { monotonic: now, wall: now }
    }
}

/// What a node reported in its last heartbeat; stored in no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// CPU and memory in use.
    pub usage: Usage,
    /// How far its wall clock is ahead of this node's, in milliseconds, if that is [`MIN_CLOCK_OFFSET`] or more; otherwise 0.
    /// In whole seconds, because the time that a heartbeat takes is in it.
    pub clock_offset_ms: i64,
    /// When this node saw that it is down, by its wall clock; 0 while it is up.
    pub down_since: Millis,
    /// For how long this node had received no heartbeat of it then, in milliseconds; 0 while it is up, and if it is not known.
    pub silent_ms: Millis,
    /// Whether its documents were those of this node at its last heartbeat.
    pub in_sync: bool,
}

/// The smallest difference of two clocks that is reported, in milliseconds.
pub const MIN_CLOCK_OFFSET: i64 = 2000;

impl Vitals {
    pub(crate) fn new(usage: Usage, theirs: Millis, ours: Millis) -> Self {
        let signed = |millis: Millis| i64::try_from(millis).unwrap_or(i64::MAX);
        let offset = match theirs {
            // Not said.
            0 => 0,
            _ => signed(theirs).saturating_sub(signed(ours)),
        };
        let clock_offset_ms = reported(offset);
        Self { usage, clock_offset_ms, down_since: 0, silent_ms: 0, in_sync: false }
    }

    /// Takes in that the wall clock of this node was set forward by so many milliseconds.
    pub(crate) fn own_clock_was_set(&mut self, by: i64) {
        self.clock_offset_ms = reported(self.clock_offset_ms.saturating_sub(by));
    }
}

/// Returns what counts of a difference of two clocks.
fn reported(offset: i64) -> i64 {
    if offset.saturating_abs() >= MIN_CLOCK_OFFSET { offset / 1000 * 1000 } else { 0 }
}

/// The wall clocks of the nodes, as far as this node knows them.
#[derive(Debug, Clone, Copy)]
pub struct WallClocks<'a> {
    /// What this node's shows.
    pub now: Millis,
    /// What the others reported.
    pub vitals: &'a BTreeMap<NodeId, Vitals>,
}

impl WallClocks<'_> {
    /// Returns what the clock of a node shows, within a few seconds; this node's time if nothing is known of it.
    pub fn of(&self, node: NodeId) -> Millis {
        let ahead = self.vitals.get(&node).map_or(0, |vitals| vitals.clock_offset_ms);
        self.now.saturating_add_signed(ahead)
    }
}

/// The configuration of an engine.
pub struct Config {
    /// The node's key.
    pub key: Keypair,
    /// The node's id.
    pub id: NodeId,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// What the node's document says about it.
    pub info: NodeInfo,
    /// A random number, new at each start.
    pub nonce: u64,
    /// Intervals and timeouts.
    pub timing: Timing,
    /// Changes of a document after which a new generation drops the history: [`HISTORY`], or fewer in tests.
    pub history: u64,
    /// What this version knows.
    pub knows: KnownVersions,
    /// Whether to describe the changes of the cluster document for the audit log.
    pub audit: bool,
    /// When the watchdog ends the instances that run under leases, by the monotonic clock; without those that it does not know.
    pub deadlines: BTreeMap<InstanceId, Millis>,
}

/// Changes of a document after which a new generation drops the history.
pub const HISTORY: u64 = 2000;

/// What the store keeps.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// Signed changes.
    pub changes: Vec<SignedChange>,
    /// Membership certificates.
    pub certificates: Vec<String>,
    /// Documents whose changes can be deleted.
    pub replaced: Vec<DocumentId>,
    /// What this node has promised and granted as a voter.
    pub votes: Votes,
}

impl Durable {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.certificates.is_empty()
            && self.replaced.is_empty()
            && self.votes.is_empty()
    }
}

/// An input of the engine.
#[derive(Debug, Clone)]
pub enum Input {
    /// The time of [`Engine::poll_timeout`](crate::Engine::poll_timeout) has come.
    Wake,
    /// A member is connected.
    Connected(NodeId),
    /// No connection to it is left.
    Disconnected(NodeId),
    /// A gossip message whose signature says it is from this member.
    Gossip(NodeId, Gossip),
    /// A message on a stream from a connected member.
    Sync(NodeId, SyncMessage),
    /// A message about leases on a stream from a connected member.
    Lease(NodeId, LeaseMessage),
    /// Something happened in the runtime.
    Runtime(RuntimeEvent),
    /// The usage of this node.
    Usage(Usage),
    /// The description of this node has changed, for example its addresses.
    Info(NodeInfo),
    /// The ports that this node cannot publish (`8080/tcp`) now, and why.
    Ports(BTreeMap<String, String>),
    /// Why this node starts nothing, or `None`: it starts what the plan gives it.
    Fault(Option<String>),
    /// What this node's copy of a volume is now. Sent for every copy after the start, and then when it changes.
    Volume(VolumeKey, VolumeCopy),
    /// The delivery to this receiver ended: it has confirmed everything, or why it has not, in words that may be shown.
    Delivered(Name, Result<(), String>),
    /// The problems that this process alone sees, which its document may not have while its disk fails: all of them, when they change.
    OwnProblems(Vec<NodeProblem>),
    /// This node has taken over the data of these volumes, which a former node has left on its host.
    Adopted(BTreeSet<VolumeKey>),
    /// This process is about to end and to be started again: announce that to the other nodes.
    Restart,
    /// This member has refused this node because it was removed from the cluster. Members close the connections of a node that
    /// was removed, so it may never receive the change itself. The word of a server counts: any server may remove a node.
    Removed(NodeId),
    /// A certificate that authentication brought.
    Certificate(String),
    /// A change that a user asks for; the caller has checked the user's role.
    Mutate {
        /// Comes back in [`Output::Answer`].
        request: u64,
        /// The user and token.
        by: Subject,
        /// The change.
        mutation: Mutation,
    },
}

/// What the shell does for the engine, in the order of the outputs.
#[derive(Debug, Clone)]
pub enum Output {
    /// When the instances that run under leases must have ended, by the monotonic clock, [`Millis::MAX`] for those without an
    /// end: all of them, and before the actions that follow. The watchdog ends what is still there.
    Deadlines(BTreeMap<InstanceId, Millis>),
    /// Send to a connected member; may be lost.
    Lease(NodeId, LeaseMessage),
    /// Pass the action to the runtime.
    Runtime(RuntimeAction),
    /// Remove the data of a volume.
    RemoveVolume {
        /// The volume.
        volume: VolumeKey,
        /// When it was removed from the cluster, which is the same for all copies; `None`: others keep it.
        decided: Option<Millis>,
    },
    /// Keep the data of a volume aside: the cluster does not know it any more.
    ForgetVolume {
        /// The volume.
        volume: VolumeKey,
        /// When it was forgotten, which is the same for all copies.
        decided: Millis,
    },
    /// What to do with the copies of volumes on this node: all of them, when that has changed. A copy without a task stays as it
    /// is.
    Volumes(BTreeMap<VolumeKey, VolumeTask>),
    /// Make this durable before going on. When that fails: perform nothing of what follows, and make a new engine from
    /// what is durable.
    Persist(Durable),
    /// Record what changes of the cluster document did, which are durable by now. At a start those of all durable changes.
    Audit(Vec<AuditRow>),
    /// Record that a change or certificate was rejected, which a member sent: it, or the author, is broken or hostile.
    Rejected(Option<NodeId>, String),
    /// Publish the message to all members (gossipsub); may be lost.
    Gossip(Gossip),
    /// Send to a connected member; may be lost.
    Send(NodeId, SyncMessage),
    /// Read these runs of changes from disk and send them to a connected member, in batches; may be lost.
    Replay(NodeId, Vec<ChangeRange>),
    /// Its connections are dead: close them.
    Disconnect(NodeId),
    /// Answer the [`Input::Mutate`] of this number with what has changed, or why nothing has.
    Answer(u64, Result<Vec<Change>, MutationError>),
    /// Send these alerts to a receiver, and say with [`Input::Delivered`] how that ended. None follows for the same receiver before.
    Notify(Delivery),
    /// Stop this process: another one runs with the identity of this node. The text names it, for people.
    Stop(String),
    /// [`Engine::view`](crate::Engine::view) shows something new.
    ViewChanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_rarer_in_large_clusters() {
        let interval = |nodes| Timing::default().heartbeat_interval(nodes);
        assert_eq!([0, 1, 3, 20].map(interval), [200; 4]);
        assert_eq!([30, 60, 100, 1000].map(interval), [300, 600, 1000, 1000]);
        assert!((1..=100).all(|nodes| nodes as u64 * 1000 / interval(nodes) <= 100), "a second");
    }

    #[test]
    fn clocks_that_differ_by_two_seconds_are_reported() {
        let offset = |theirs, ours| Vitals::new(Usage::default(), theirs, ours).clock_offset_ms;
        assert_eq!(offset(11_999, 10_000), 0);
        assert_eq!(offset(12_300, 10_000), 2000);
        assert_eq!(offset(7_400, 10_000), -2000);
        assert_eq!(offset(0, 10_000), 0, "a node that does not say it");
        assert_eq!(offset(u64::MAX, 10_000) / 1000, (i64::MAX - 10_000) / 1000);
    }
}
