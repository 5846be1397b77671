//! The interface between the engine and a runtime: Docker, or child processes.

use std::collections::BTreeMap;

pub use vc_protocol::InstanceId;
use vc_protocol::node::Orphans;
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{Millis, NodeId, TraceId};

/// An action for the runtime. All are idempotent: the engine repeats an action without a visible effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeAction {
    /// Create and start an instance. One that has exited is started again; one that runs is only reported.
    Start {
        /// The instance.
        id: InstanceId,
        /// Its spec, whose digest is `id.digest`.
        spec: Box<ContainerSpec>,
        /// Epoch of the lease under which it runs, which it sees as `VC_EPOCH`; `None` for an instance without a lease.
        epoch: Option<u64>,
        /// The deployment that it is of, for the log.
        trace: Option<TraceId>,
    },
    /// Fetch the image of an instance and create it, without running anything of it. Ends in [`Phase::Prepared`], or as a start
    /// that fails; an instance that exists is only reported.
    Prepare {
        /// The instance.
        id: InstanceId,
        /// Its spec, whose digest is `id.digest`.
        spec: Box<ContainerSpec>,
        /// Epoch of the lease under which it runs, which it sees as `VC_EPOCH`; `None` for an instance without a lease.
        epoch: Option<u64>,
        /// The deployment that it is of, for the log.
        trace: Option<TraceId>,
    },
    /// Stop an instance within the grace, then remove it. Ends in [`Phase::Gone`].
    Remove {
        /// The instance.
        id: InstanceId,
        /// How long its open connections may take to close before it is told to stop; it gets no new ones.
        drain_ms: Millis,
        /// How long it may run in all.
        grace_ms: Millis,
    },
}

/// An observation of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The instance.
    pub id: InstanceId,
    /// Its phase.
    pub phase: Phase,
    /// Its address, as `ip` or a list of `ip:port`; empty if it has none.
    pub address: String,
}

/// The phase of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its image is being fetched.
    Pulling {
        /// The progress, for people.
        progress: String,
    },
    /// It is created and was never started.
    Prepared,
    /// It runs. `health` is `None` without a healthcheck or before its first result.
    Running {
        /// Result of its healthcheck.
        health: Option<bool>,
        /// When it was started, by this node's clock.
        started: Millis,
        /// Last output of the failing healthcheck and of the instance, on one line; empty while the check passes.
        said: String,
    },
    /// It exited by itself.
    Exited {
        /// Its exit code; 128 + signal when a signal ended it.
        code: i64,
        /// The last lines it wrote, on one line; empty if there are none, or they are not known.
        output: String,
        /// Whether the kernel killed a process of it for want of memory: its own limit, or that of the host.
        out_of_memory: bool,
    },
    /// Its image was not found. Another start looks for it again.
    NoImage {
        /// Where the image was looked for.
        reason: String,
    },
    /// It could not be created or started; `reason` is one line for people.
    Failed {
        /// The reason, for people.
        reason: String,
    },
    /// It could not be created or started by a fault of the node: others may start it.
    NodeFault {
        /// The fault, for people.
        reason: String,
    },
    /// It does not exist.
    Gone,
}

/// An event from the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// All instances of this cluster and node. Sent after each connection to the runtime, and periodically; an instance
    /// that is not in the list is gone.
    Listed(Vec<Observed>),
    /// One instance changed.
    Changed(Observed),
    /// What other nodes of the cluster have in this runtime; sent when it changes.
    Orphans(BTreeMap<NodeId, Orphans>),
    /// The runtime cannot be reached, with the reason in one line. Ends with the next [`RuntimeEvent::Listed`].
    Unavailable(String),
    /// The runtime is there and does not answer, with the reason in one line: what it ran runs on as far as is known, and nothing
    /// can be started or stopped. Ends likewise.
    Hung(String),
}
