//! Pauses the instances that write a volume, with the commands that its declaration has around each snapshot.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use vc_protocol::control::ExecRequest;
use vc_protocol::volume::Hooks;
use vc_protocol::{InstanceId, VolumeKey};
use vc_runtime::docker::{Docker, Exec, PausedInstances, VolumePlace};
use vc_runtime::{LogStream, Runtime};
use vc_volumes::{Pause, PauseError};

/// Time for a command before or after a snapshot.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a command's output that its error names.
const MAX_OUTPUT: usize = 300;

/// Pauses the instances that write a volume.
struct PauseWriters {
    docker: Docker,
    volume: VolumeKey,
    place: VolumePlace,
    hooks: Hooks,
    /// Where the commands run; `None`: no instance runs.
    instance: Option<InstanceId>,
    paused: Mutex<Option<PausedInstances>>,
}

/// Returns what pauses the instances that write a volume, with these commands around it.
pub(crate) fn pause_writers(
    docker: Docker,
    volume: VolumeKey,
    place: VolumePlace,
    hooks: Hooks,
    instance: Option<InstanceId>,
) -> Arc<dyn Pause> {
    Arc::new(PauseWriters { docker, volume, place, hooks, instance, paused: Mutex::default() })
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Pause for PauseWriters {
    fn pause(&self) -> Pending<'_, Result<Instant, PauseError>> {
        Box::pin(async {
            self.hook("before", &self.hooks.before).await?;
            let paused = self.docker.pause(&self.volume, &self.place).await;
            let paused = paused.map_err(|error| PauseError(error.to_string()))?;
            let since = paused.since();
            *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = Some(paused);
            Ok(since)
        })
    }

    fn resume(&self) -> Pending<'_, Instant> {
        Box::pin(async {
            drop(self.paused.lock().unwrap_or_else(PoisonError::into_inner).take());
            let resumed = Instant::now();
            if let Err(error) = self.hook("after", &self.hooks.after).await {
                tracing::warn!(volume = %self.volume, %error);
            }
            resumed
        })
    }
}

impl PauseWriters {
    /// Runs a command in an instance.
    async fn hook(&self, when: &str, command: &[String]) -> Result<(), PauseError> {
        let (Some(instance), false) = (&self.instance, command.is_empty()) else { return Ok(()) };
        let failed = |cause: String| {
            PauseError(format!("the hook '{when}' in {} failed: {cause}", instance.slot))
        };
        let run = async {
            let request = ExecRequest {
                service: instance.slot.service.to_string(),
                replica: Some(instance.slot.replica),
                command: command.to_vec(),
                tty: false,
                stdin: false,
                environment: Vec::new(),
                user: None,
                working_dir: None,
                size: None,
                attach: false,
            };
            let runtime = Runtime::Docker(self.docker.clone());
            let started = runtime.exec(instance, &request).await;
            let Exec { mut output, process, .. } = started.map_err(|it| failed(it.to_string()))?;
            let mut said = Vec::new();
            while let Ok(Some((stream, bytes))) = output.next().await {
                if stream == LogStream::Stderr && said.len() < MAX_OUTPUT {
                    said.extend(bytes);
                }
            }
            match process.exit_code().await {
                Ok(0) => Ok(()),
                Ok(code) => {
                    said.truncate(MAX_OUTPUT);
                    let said = String::from_utf8_lossy(&said);
                    let line = said.lines().last().unwrap_or_default().trim();
                    Err(failed(format!("exit code {code}, {line}")))
                }
                Err(error) => Err(failed(error.to_string())),
            }
        };
        match timeout(HOOK_TIMEOUT, run).await {
            Ok(result) => result,
            Err(_) => Err(failed(format!("it did not end within {} s", HOOK_TIMEOUT.as_secs()))),
        }
    }
}
