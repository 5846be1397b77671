//! What runs instances on this node: a Docker engine, or plain child processes. Both take the engine's
//! [`RuntimeAction`]s and answer with [`RuntimeEvent`]s; neither decides anything.
//!
//! Each has one loop (`lane`) that owns what is known, and performs at most one action an instance at a time. What the
//! outside reports (an event of Docker, the end of a process) is never believed as such: it is a reason to look, and
//! only what is seen then is told. So late, doubled or lost hints cannot leave a wrong picture.

mod clock;
pub mod docker;
mod drain;
pub mod images;
mod lane;
mod lines;
pub mod process;
mod reason;
mod text;

use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::sync::mpsc;
use vc_engine::runtime::{RuntimeAction, RuntimeEvent};
use vc_protocol::control::ExecRequest;
pub use vc_protocol::control::LogStream;
use vc_protocol::node::RuntimeKind;
use vc_protocol::{ClusterId, InstanceId, Millis, NodeId, Slot, VolumeKey};

pub use docker::{Archive, Exec, ExecOutput, ExecProcess, Upload};
pub use drain::{Drain, Unrouted};
pub use lane::{ACTIONS, LANES};
pub use lines::MAX_LINE;

/// For whom a runtime runs instances: it sees and touches no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
}

/// Which runtime, and where it is.
#[derive(Debug, Clone)]
pub enum Config {
    /// A Docker engine.
    Docker(docker::Config),
    /// Child processes.
    Process(process::Config),
}

/// A handle to the runtime. It stops watching when the last handle is dropped; what it started goes on.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// A Docker engine.
    Docker(docker::Docker),
    /// Child processes.
    Process(process::Process),
}

/// Which lines of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Of the instance with this digest; `None`: of the one that runs, else of the one that ran last.
    pub digest: Option<String>,
    /// Go on until the instance exits.
    pub follow: bool,
    /// The last so many lines; `None`: all that is kept.
    pub tail: Option<u32>,
    /// Not before this time.
    pub since: Option<Millis>,
}

/// A line that an instance wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When; `None` where the runtime does not know (processes write straight to a file).
    pub time: Option<Millis>,
    /// Which of the two outputs.
    pub stream: LogStream,
    /// The line without its end, at most [`MAX_LINE`] bytes: a longer one comes in pieces.
    pub line: String,
}

/// Lines, read no faster than they are taken. Dropping it ends the reading.
pub type LogLines = BoxStream<'static, LogLine>;

/// Why something about an instance cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing runs there.
    #[error("{0} is not on this node: `vc ps` tells where it is")]
    NoInstance(Slot),
    /// Docker did not do it.
    #[error("Docker at {host} gives no logs: {reason}")]
    Docker {
        /// Where Docker was asked.
        host: String,
        /// What it said.
        reason: String,
    },
    /// There is such an instance, but it is not up.
    #[error("{0} is not running: see 'vc ps {service}'", service = .0.service)]
    NotRunning(Slot),
    /// Docker did not do it, for this reason.
    #[error("{0}")]
    Refused(String),
    /// What was asked is for containers only.
    #[error("{0} needs Docker: this node runs plain processes (--runtime process)")]
    NeedsDocker(&'static str),
    /// The files could not be read.
    #[error("cannot read the logs of {slot}: {source}")]
    Read {
        /// Whose.
        slot: Slot,
        /// Why.
        source: std::io::Error,
    },
}

impl Runtime {
    /// Starts the tasks of a runtime; needs a tokio runtime around it. It never fails: what is out of reach is reported
    /// as [`RuntimeEvent::Unavailable`] and tried again.
    pub fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        match config {
            Config::Docker(config) => {
                Self::Docker(docker::Docker::start(config, identity, drain, events))
            }
            Config::Process(config) => {
                Self::Process(process::Process::start(config, identity, drain, events))
            }
        }
    }

    /// Asks for an action and returns at once. Actions on one instance are performed one after another, the newest of
    /// those that wait replacing the others; a [`RuntimeAction::Remove`] breaks off a pull. More than [`ACTIONS`] that
    /// wait, or than [`LANES`] instances at work, are dropped with a warning: the engine repeats itself.
    pub fn perform(&self, action: RuntimeAction) {
        let actions = match self {
            Self::Docker(docker) => docker.actions(),
            Self::Process(process) => process.actions(),
        };
        if let Err(mpsc::error::TrySendError::Full(action)) = actions.try_send(action) {
            tracing::warn!(instance = %lane::id_of(&action), "the runtime is behind: an action was dropped");
        }
    }

    /// Removes the data of a named volume, in its own time. Child processes have none.
    pub fn remove_volume(&self, volume: VolumeKey) {
        if let Self::Docker(docker) = self {
            let docker = docker.clone();
            tokio::spawn(async move { docker.remove_volume(&volume).await });
        }
    }

    /// What an instance in a slot wrote.
    pub async fn logs(&self, slot: &Slot, query: LogQuery) -> Result<LogLines, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.logs(slot, query).await,
            Self::Process(process) => process.logs(slot, query).await,
        }
    }

    /// Runs a command in an instance.
    pub async fn exec(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.exec(instance, request).await,
            Self::Process(_) => Err(RuntimeError::NeedsDocker("exec")),
        }
    }

    /// What is at a path in an instance, as a tar archive.
    pub async fn copy_out(
        &self,
        instance: &InstanceId,
        path: &str,
    ) -> Result<Archive, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.copy_out(instance, path).await,
            Self::Process(_) => Err(RuntimeError::NeedsDocker("cp")),
        }
    }

    /// Prepares to put what is called `name` at a path in an instance.
    pub async fn copy_in(
        &self,
        instance: &InstanceId,
        path: &str,
        name: &str,
    ) -> Result<Upload, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.copy_in(instance, path, name).await,
            Self::Process(_) => Err(RuntimeError::NeedsDocker("cp")),
        }
    }

    /// Which runtime it is.
    pub fn kind(&self) -> RuntimeKind {
        match self {
            Self::Docker(_) => RuntimeKind::Docker,
            Self::Process(_) => RuntimeKind::Process,
        }
    }
}
