//! Performs the engine's actions on processes.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::spec::ContainerSpec;

use super::children::{Children, LOCAL_ADDRESS, Running};
use super::launch::{launch, open_gate};
use super::state::State;
use crate::instance_queue::Backend;

/// How long a process may take to exit after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

impl Backend for Children {
    async fn start(
        &self,
        id: InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
        _: CancellationToken,
    ) {
        let run = self.running().get(&id).cloned();
        let phase = match run {
            // One that was started without a lease goes on: it is the only one of its slot.
            Some(run) if epoch.is_none() || run.epoch.is_none() || run.epoch == epoch => {
                if epoch.is_some()
                    && let Err(error) = self.watchdog.target(&id, run.process.target()).await
                {
                    tracing::warn!(instance = %id, %error, "a running process is not watched");
                }
                run.phase()
            }
            Some(run) if !run.kill().await => {
                let reason = "the process of its last epoch did not exit after SIGKILL".to_owned();
                Phase::NodeFault { reason }
            }
            _ => match self.launch(&id, spec, epoch).await {
                Some(phase) => phase,
                None => return,
            },
        };
        self.reporter.answer(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() }).await;
    }

    async fn prepare(
        &self,
        id: InstanceId,
        _: Box<ContainerSpec>,
        _: Option<u64>,
        _: CancellationToken,
    ) {
        let run = self.running().get(&id).cloned();
        let phase = run.map_or(Phase::Prepared, |run| run.phase());
        self.reporter.answer(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() }).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        let run = self.running().get(&id).cloned();
        if let Some(run) = run {
            run.process.signal_group(Signal::TERM);
            let ended = timeout(grace, run.ended.clone().wait_for(|ended| *ended)).await.is_ok();
            if !ended && !run.kill().await {
                let pid = run.process.pid;
                tracing::warn!(instance = %id, pid, "a process did not exit after SIGKILL");
                return;
            }
        }
        let directory = self.directory(&id);
        match self.blocking(move |_| std::fs::remove_dir_all(directory)).await {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(instance = %id, %error, "cannot remove the directory of a process");
            }
            Some(_) => {
                self.reporter
                    .answer(Observed { id, phase: Phase::Gone, address: String::new() })
                    .await
            }
            None => {}
        }
    }

    async fn inspect(&self, id: InstanceId) {
        let phase = self.phase(&id).await;
        self.reporter.observed(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() }).await;
    }
}

impl Running {
    /// Sends SIGKILL. Returns whether it has exited.
    async fn kill(&self) -> bool {
        self.process.signal_group(Signal::KILL);
        timeout(KILL_TIMEOUT, self.ended.clone().wait_for(|ended| *ended)).await.is_ok()
    }
}

impl Children {
    /// Starts the process of an instance, under a lease if there is an epoch. `None`: the node is stopping.
    async fn launch(
        &self,
        id: &InstanceId,
        spec: Box<ContainerSpec>,
        epoch: Option<u64>,
    ) -> Option<Phase> {
        let name = id.clone();
        let launched = self.blocking(move |this| {
            launch(&this.directory(&name), &this.identity, &name, &spec, epoch)
        });
        let (state, process, mut child) = match launched.await? {
            Ok(launched) => launched,
            Err(error) => return Some(Phase::Failed { reason: error.to_string() }),
        };
        let Some(_) = epoch else { return Some(self.watch(state, process, Some(child)).phase()) };
        let held = self.watchdog.target(id, process.target()).await;
        let run = match held {
            Ok(()) => open_gate(&mut child).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match run {
            Ok(()) => Some(self.watch(state, process, Some(child)).phase()),
            Err(reason) => {
                process.signal_group(Signal::KILL);
                // It cannot resist, and has run nothing.
                let _ = child.wait().await;
                let directory = self.directory(id);
                self.blocking(move |_| State::remove(&directory)).await?.ok();
                Some(Phase::NodeFault { reason })
            }
        }
    }
}
