//! Running commands in containers.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions};
use bollard::models::{ContainerStateStatusEnum, ContainerSummaryStateEnum};
use bollard::query_parameters::{ListContainersOptionsBuilder, ResizeContainerTTYOptionsBuilder};
use tokio::io::AsyncWrite;
use tokio::time::{sleep, timeout};
use vc_protocol::InstanceId;
use vc_protocol::control::ExecRequest;

use super::client::DockerClient;
use super::hijack::{ExecOutput, hijack};
use super::labels;
use crate::docker_error::{self, DockerError};
use crate::error::RuntimeError;

/// How long Docker may take to start a command.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Docker does not report the end of a command, so it is polled: the first and the longest interval.
const POLL_INTERVAL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// The environment variable that tags the processes of a command, so that they are found when its client has gone.
const TAG: &str = "VC_EXEC";
/// Sends SIGHUP to the process with the tag `$1` that Docker itself started (its parent is outside the container). When
/// it ends, the kernel hangs up on whatever else uses its terminal.
const HANG_UP: &str = r#"
for process in /proc/[0-9]*; do
    case "$(cat "$process/environ" 2>/dev/null)" in *"$1"*) ;; *) continue ;; esac
    while read -r key value; do
        [ "$key $value" = "PPid: 0" ] && kill -HUP "${process#/proc/}"
    done <"$process/status"
done 2>/dev/null"#;

/// A command that runs in a container.
pub struct Exec {
    /// The command's standard input. Shutting it down is the end of the input.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// The command's output.
    pub output: ExecOutput,
    /// The process, to wait for and to control.
    pub process: ExecProcess,
}

/// The process of a command.
#[derive(Clone)]
pub struct ExecProcess {
    client: bollard::Docker,
    container: String,
    command: Command,
}

/// What runs in the container.
#[derive(Clone)]
enum Command {
    /// Its own process.
    Own,
    /// One beside it: its id in Docker, its user, and what its environment has.
    Exec { id: String, user: Option<String>, tag: String },
}

impl DockerClient {
    /// Returns the id of the container of an instance, which must be running.
    pub(super) async fn running(
        &self,
        client: &bollard::Docker,
        instance: &InstanceId,
    ) -> Result<String, RuntimeError> {
        match self.instance_container(client, instance).await? {
            None => Err(RuntimeError::NoInstance(instance.slot.clone())),
            Some((id, ContainerSummaryStateEnum::RUNNING)) => Ok(id),
            Some(_) => Err(RuntimeError::NotRunning(instance.slot.clone())),
        }
    }

    /// Returns the id of the container of an instance, and its state; of several, of one that runs.
    pub(super) async fn instance_container(
        &self,
        client: &bollard::Docker,
        instance: &InstanceId,
    ) -> Result<Option<(String, ContainerSummaryStateEnum)>, RuntimeError> {
        let mut labels = labels::slot_filters(&self.identity, &instance.slot);
        labels.push(format!("{}={}", labels::DIGEST, instance.digest));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = client.list_containers(Some(options)).await.map_err(|it| self.error(it))?;
        let found = found.into_iter().filter_map(|it| Some((it.id?, it.state?)));
        Ok(found.max_by_key(|(_, state)| *state == ContainerSummaryStateEnum::RUNNING))
    }

    pub(super) async fn exec(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let client = self.client().map_err(|error| self.error(error))?;
        let start = self.start_exec(client, instance, request);
        let late = || RuntimeError::ExecTimeout(START_TIMEOUT.as_secs());
        timeout(START_TIMEOUT, start).await.map_err(|_| late())?
    }

    async fn start_exec(
        &self,
        client: bollard::Docker,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let container = self.running(&client, instance).await?;
        // Nothing is started in a container that stands still.
        drop(self.turns.acquire([container.clone()]).await);
        let random = getrandom::u64().map_err(|error| RuntimeError::Exec(error.into()))?;
        let tag = format!("{TAG}={random:016x}");
        let options = CreateExecOptions {
            attach_stdin: Some(request.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(request.tty),
            env: Some(request.environment.iter().chain([&tag]).cloned().collect()),
            cmd: Some(request.command.clone()),
            user: request.user.clone(),
            working_dir: request.working_dir.clone(),
            ..CreateExecOptions::default()
        };
        let created = client.create_exec(&container, options).await;
        let id = created.map_err(|error| self.error(error))?.id;
        let mut body = serde_json::json!({ "Detach": false, "Tty": request.tty });
        if let (true, Some((columns, rows))) = (request.tty, request.size) {
            body["ConsoleSize"] = serde_json::json!([rows, columns]);
        }
        let started = hijack(&self.host, &format!("/exec/{id}/start"), body.to_string()).await;
        let (input, output) = started.map_err(RuntimeError::Exec)?;
        let output = ExecOutput::new(output, request.tty);
        let command = Command::Exec { id, user: request.user.clone(), tag };
        let process = ExecProcess { client, container, command };
        // Older engines ignore the size in the request, and accept it only once the command runs.
        if let (true, Some((columns, rows))) = (request.tty, request.size) {
            process.set_initial_size(columns, rows).await;
        }
        Ok(Exec { input: Box::pin(input), output, process })
    }
}

impl ExecProcess {
    /// Returns the process of a container itself, which may not have been started yet.
    pub(super) fn of_container(client: bollard::Docker, container: String) -> Self {
        Self { client, container, command: Command::Own }
    }

    /// Resizes the terminal. It may have none or have ended, so failures are only logged.
    pub async fn resize(&self, columns: u16, rows: u16) {
        if let Err(error) = self.try_resize(columns, rows).await {
            tracing::debug!(error = docker_error::message(&error), "cannot resize a terminal");
        }
    }

    /// Sets the size as soon as there is a terminal, unless the command ends before.
    pub(super) async fn set_initial_size(&self, columns: u16, rows: u16) {
        let mut pause = POLL_INTERVAL.0;
        while self.try_resize(columns, rows).await.is_err() {
            match self.inspect().await {
                Ok(None) => {}
                _ => return,
            }
            sleep(pause).await;
            pause = POLL_INTERVAL.1.min(pause * 2);
        }
    }

    async fn try_resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        match &self.command {
            Command::Own => {
                let size = ResizeContainerTTYOptionsBuilder::default()
                    .w(columns.into())
                    .h(rows.into())
                    .build();
                self.client.resize_container_tty(&self.container, size).await
            }
            Command::Exec { id, .. } => {
                let size = ResizeExecOptions { width: columns, height: rows };
                self.client.resize_exec(id, size).await
            }
        }
    }

    /// Returns the exit code; `None` before the command has ended.
    async fn inspect(&self) -> Result<Option<i64>, RuntimeError> {
        match &self.command {
            Command::Own => {
                let seen = self.client.inspect_container(&self.container, None).await;
                let state = seen.map_err(DockerError::from)?.state.unwrap_or_default();
                match state.error.filter(|error| !error.is_empty()) {
                    Some(error) => Err(RuntimeError::Exec(std::io::Error::other(error))),
                    None => {
                        let ended = state.status == Some(ContainerStateStatusEnum::EXITED);
                        Ok(state.exit_code.filter(|_| ended))
                    }
                }
            }
            Command::Exec { id, .. } => {
                let seen = self.client.inspect_exec(id).await.map_err(DockerError::from)?;
                Ok(seen.exit_code.filter(|_| seen.running != Some(true)))
            }
        }
    }

    /// Waits for the end of the command, which may have closed its outputs long before, and returns its exit code.
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub async fn exit_code(&self) -> Result<i64, RuntimeError> {
        let mut pause = POLL_INTERVAL.0;
        loop {
            match self.inspect().await? {
                Some(code) => return Ok(code),
                None => sleep(pause).await,
            }
            pause = POLL_INTERVAL.1.min(pause * 2);
        }
    }

    /// Sends SIGHUP, as a terminal does when its connection is lost; Docker does not, so the command would run forever.
    /// Needs a shell in the container, as an interactive terminal does anyway. The container's own process may ignore that signal, as the
    /// first of its namespace: it is stopped, within its grace time.
    pub async fn hang_up(&self) {
        let hangup = async {
            let Command::Exec { user, tag, .. } = &self.command else {
                return self.client.stop_container(&self.container, None).await;
            };
            let command = ["sh", "-c", HANG_UP, "sh", tag];
            let options = CreateExecOptions {
                cmd: Some(command.map(str::to_owned).into()),
                user: user.clone(),
                ..CreateExecOptions::default()
            };
            let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
            let id = self.client.create_exec(&self.container, options).await?.id;
            self.client.start_exec(&id, Some(detached)).await.map(drop)
        };
        if let Err(error) = hangup.await {
            tracing::debug!(error = docker_error::message(&error), "cannot hang up a command");
        }
    }
}
