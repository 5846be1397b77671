//! Performs the engine's actions on processes.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_protocol::spec::ContainerSpec;

use super::children::{Children, LOCAL_ADDRESS, Running};
use super::launch::launch;
use crate::instance_queue::Backend;

/// How long a process may take to exit after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

impl Backend for Children {
    async fn start(&self, id: InstanceId, spec: Box<ContainerSpec>, _: CancellationToken) {
        let run = self.running().get(&id).cloned();
        let phase = match run {
            Some(run) => run.phase(),
            None => {
                let name = id.clone();
                let launched = self.blocking(move |this| {
                    launch(&this.directory(&name), &this.identity, &name, &spec)
                });
                match launched.await {
                    Some(Ok((state, process, child))) => {
                        self.watch(state, process, Some(child)).phase()
                    }
                    Some(Err(error)) => Phase::Failed { reason: error.to_string() },
                    None => return,
                }
            }
        };
        self.reporter.answer(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() }).await;
    }

    async fn prepare(&self, id: InstanceId, _: Box<ContainerSpec>, _: CancellationToken) {
        let run = self.running().get(&id).cloned();
        let phase = run.map_or(Phase::Prepared, |run| run.phase());
        self.reporter.answer(Observed { id, phase, address: LOCAL_ADDRESS.to_owned() }).await;
    }

    async fn remove(&self, id: InstanceId, grace: Duration) {
        let run = self.running().get(&id).cloned();
        if let Some(Running { process, mut ended, .. }) = run {
            process.signal_group(Signal::TERM);
            if timeout(grace, ended.wait_for(|ended| *ended)).await.is_err() {
                process.signal_group(Signal::KILL);
                if timeout(KILL_TIMEOUT, ended.wait_for(|ended| *ended)).await.is_err() {
                    tracing::warn!(instance = %id, pid = process.pid, "a process did not exit after SIGKILL");
                    return;
                }
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
