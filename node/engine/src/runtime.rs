//! What the engine asks of a runtime, and what a runtime tells it. Docker and child processes both speak this.

pub use vc_protocol::InstanceId;
use vc_protocol::Millis;
use vc_protocol::spec::ContainerSpec;

/// What the engine wants of the runtime. Each is idempotent: the engine repeats what it does not see happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeAction {
    /// Create it and start it; when it exists and has exited, start it again; when it runs, do nothing but report it.
    Start {
        /// Which.
        id: InstanceId,
        /// What it runs; its digest is `id.digest`.
        spec: Box<ContainerSpec>,
    },
    /// Stop it within the grace time, then remove it. Ends in [`Phase::Gone`].
    Remove {
        /// Which.
        id: InstanceId,
        /// From SIGTERM to SIGKILL.
        grace_ms: Millis,
    },
}

/// What the runtime sees of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Which.
    pub id: InstanceId,
    /// How far it is.
    pub phase: Phase,
    /// Where it is reached, as `ip:port` list or `ip`; empty when nowhere.
    pub address: String,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its image is being fetched.
    Pulling {
        /// How far that is, for people.
        progress: String,
    },
    /// It runs. `health` is `None` without a healthcheck or before its first verdict.
    Running {
        /// Verdict of its healthcheck.
        health: Option<bool>,
        /// When it was started, by this node's clock.
        started: Millis,
        /// What its failing healthcheck and it itself wrote last, on one line; empty while it does not fail.
        said: String,
    },
    /// It ran and exited by itself.
    Exited {
        /// Its exit code; 128 + signal when a signal ended it.
        code: i64,
        /// The last lines it wrote, on one line; empty when it wrote none, or nobody knows.
        output: String,
    },
    /// Its image is nowhere to be had; `reason` says where it was looked for. Asked for again, it looks again.
    NoImage {
        /// Where it was looked for.
        reason: String,
    },
    /// It could not be created or started; `reason` is one line for people.
    Failed {
        /// Why.
        reason: String,
    },
    /// It is not there (any more).
    Gone,
}

/// What a runtime tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Everything of this cluster and node that exists. Follows each (re)connection to the runtime, and a timer.
    /// What is not in it is gone.
    Listed(Vec<Observed>),
    /// One instance changed.
    Changed(Observed),
    /// The runtime cannot be reached; one line for people. Ends with the next [`RuntimeEvent::Listed`].
    Unavailable(String),
}
