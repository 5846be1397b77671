//! The runtime of a node, whichever kind it is.

use std::sync::Arc;

use tokio::sync::mpsc;
use vc_engine::runtime::{RuntimeAction, RuntimeEvent};
use vc_protocol::control::ExecRequest;
use vc_protocol::node::RuntimeKind;
use vc_protocol::{InstanceId, Slot};

use crate::docker::{self, Archive, Exec, Upload};
use crate::drain::Drain;
use crate::error::RuntimeError;
use crate::identity::Identity;
use crate::instance_queue;
use crate::log::{LogLines, LogQuery};
use crate::process;
use crate::usage::InstanceUsage;
use crate::watchdog::Watchdog;

/// The kind of runtime, with its settings.
#[derive(Debug, Clone)]
pub enum Config {
    /// Containers of a Docker engine.
    Docker(docker::Config),
    /// Child processes.
    Process(process::Config),
}

/// A handle to the runtime. When the last one is dropped the runtime stops watching; what it started keeps running.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Containers of a Docker engine.
    Docker(docker::Docker),
    /// Child processes.
    Process(process::Process),
}

impl Runtime {
    /// Starts the tasks of a runtime on the current tokio runtime. An unreachable Docker engine is reported as
    /// [`RuntimeEvent::Unavailable`] and retried.
    pub fn start(
        config: Config,
        identity: Identity,
        drain: Arc<dyn Drain>,
        watchdog: Watchdog,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        match config {
            Config::Docker(config) => {
                Self::Docker(docker::Docker::start(config, identity, drain, watchdog, events))
            }
            Config::Process(config) => {
                Self::Process(process::Process::start(config, identity, drain, watchdog, events))
            }
        }
    }

    /// Queues an action and returns at once. Actions on one instance are performed in order, a newer one replacing those
    /// that wait; a [`RuntimeAction::Remove`] cancels a pull. Beyond
    /// [`MAX_PENDING_ACTIONS`](crate::MAX_PENDING_ACTIONS) waiting actions or
    /// [`MAX_ACTIVE_INSTANCES`](crate::MAX_ACTIVE_INSTANCES), actions are dropped with a warning: the engine repeats them.
    pub fn perform(&self, action: RuntimeAction) {
        let actions = match self {
            Self::Docker(docker) => docker.actions(),
            Self::Process(process) => process.actions(),
        };
        if let Err(mpsc::error::TrySendError::Full(action)) = actions.try_send(action) {
            tracing::warn!(instance = %instance_queue::id_of(&action), "action dropped: too many are waiting");
        }
    }

    /// Reads the logs of an instance in a slot.
    ///
    /// # Errors
    /// There is no such instance, or its logs cannot be read.
    pub async fn logs(&self, slot: &Slot, query: LogQuery) -> Result<LogLines, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.logs(slot, query).await,
            Self::Process(process) => process.logs(slot, query).await,
        }
    }

    /// Measures what the running instances use. Those that cannot be measured in time are left out.
    ///
    /// # Errors
    /// They cannot be listed.
    pub async fn usage(&self) -> Result<Vec<InstanceUsage>, RuntimeError> {
        match self {
            Self::Docker(docker) => docker.usage().await,
            Self::Process(process) => Ok(process.usage().await),
        }
    }

    /// Runs a command in an instance, or attaches to the instance itself, which starts by that.
    ///
    /// # Errors
    /// The instance does not run, or does not wait for a client; it is no container, or Docker refuses.
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

    /// Reads the file or directory at a path of an instance, as a tar archive.
    ///
    /// # Errors
    /// The instance does not run or is no container, or there is no such path.
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

    /// Prepares to write a file or directory called `name` to a path of an instance.
    ///
    /// # Errors
    /// The instance does not run or is no container, or the path has no directory.
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

    /// Returns the kind of runtime.
    pub fn kind(&self) -> RuntimeKind {
        match self {
            Self::Docker(_) => RuntimeKind::Docker,
            Self::Process(_) => RuntimeKind::Process,
        }
    }
}
