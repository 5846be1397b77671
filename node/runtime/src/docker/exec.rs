//! Commands in containers.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions};
use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use tokio::io::AsyncWrite;
use tokio::time::{sleep, timeout};
use vc_protocol::InstanceId;
use vc_protocol::control::ExecRequest;

use super::hijack::{ExecOutput, hijack};
use super::{Engine, container};
use crate::RuntimeError;
use crate::reason;

/// How long Docker may take to start a command.
const START: Duration = Duration::from_secs(20);
/// Docker tells nobody that a command has ended: the first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Marks the processes of a command, so that they are found again when its user has gone.
const MARK: &str = "VC_EXEC";
/// Hangs up on the process that Docker itself started (its parent is outside the container) with the mark `$1`. When it
/// ends, the kernel hangs up on whatever else uses its terminal.
const HANG_UP: &str = r#"
for process in /proc/[0-9]*; do
    case "$(cat "$process/environ" 2>/dev/null)" in *"$1"*) ;; *) continue ;; esac
    while read -r key value; do
        [ "$key $value" = "PPid: 0" ] && kill -HUP "${process#/proc/}"
    done <"$process/status"
done 2>/dev/null"#;

/// A command that runs in a container.
pub struct Exec {
    /// Takes its input; shutting it down tells the command that there is no more.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it writes.
    pub output: ExecOutput,
    /// The command itself.
    pub process: ExecProcess,
}

/// A command that Docker runs.
#[derive(Clone)]
pub struct ExecProcess {
    client: bollard::Docker,
    container: String,
    id: String,
    user: Option<String>,
    mark: String,
}

impl Engine {
    /// The container of an instance that is up.
    pub(super) async fn running(
        &self,
        client: &bollard::Docker,
        instance: &InstanceId,
    ) -> Result<String, RuntimeError> {
        let mut labels = container::ours_in(&self.identity, &instance.slot);
        labels.push(format!("{}={}", container::DIGEST, instance.digest));
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = client.list_containers(Some(options)).await.map_err(|it| self.refused(&it))?;
        if found.is_empty() {
            return Err(RuntimeError::NoInstance(instance.slot.clone()));
        }
        let up = |state| state == Some(ContainerSummaryStateEnum::RUNNING);
        let running = found.into_iter().find(|summary| up(summary.state));
        let id = running.and_then(|summary| summary.id);
        id.ok_or_else(|| RuntimeError::NotRunning(instance.slot.clone()))
    }

    pub(super) fn refused(&self, error: &Error) -> RuntimeError {
        let why = reason::of(error);
        RuntimeError::Refused(if reason::is_lost(error) {
            format!("Docker does not answer at {}: {why}", self.host)
        } else {
            why
        })
    }

    pub(super) async fn exec(
        &self,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let client = self.client().map_err(|error| self.refused(&error))?;
        let start = self.start_exec(client, instance, request);
        let late = || RuntimeError::Refused("Docker did not start the command in time".to_owned());
        timeout(START, start).await.map_err(|_| late())?
    }

    async fn start_exec(
        &self,
        client: bollard::Docker,
        instance: &InstanceId,
        request: &ExecRequest,
    ) -> Result<Exec, RuntimeError> {
        let container = self.running(&client, instance).await?;
        let random = random().map_err(|error| RuntimeError::Refused(error.to_string()))?;
        let mark = format!("{MARK}={random:016x}");
        let options = CreateExecOptions {
            attach_stdin: Some(request.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(request.tty),
            env: Some(request.environment.iter().chain([&mark]).cloned().collect()),
            cmd: Some(request.command.clone()),
            user: request.user.clone(),
            working_dir: request.working_dir.clone(),
            ..CreateExecOptions::default()
        };
        let created = client.create_exec(&container, options).await;
        let id = created.map_err(|error| self.refused(&error))?.id;
        let mut body = serde_json::json!({ "Detach": false, "Tty": request.tty });
        if let (true, Some((columns, rows))) = (request.tty, request.size) {
            body["ConsoleSize"] = serde_json::json!([rows, columns]);
        }
        let refused = |error: io::Error| RuntimeError::Refused(error.to_string());
        let started = hijack(&self.host, &format!("/exec/{id}/start"), body.to_string()).await;
        let (input, output) = started.map_err(refused)?;
        let output = ExecOutput::new(output, request.tty);
        let process = ExecProcess { client, container, id, user: request.user.clone(), mark };
        // An older engine does not take it with the start, and not before the command is up.
        if let (true, Some((columns, rows))) = (request.tty, request.size) {
            process.first_size(columns, rows).await;
        }
        Ok(Exec { input: Box::pin(input), output, process })
    }
}

impl ExecProcess {
    /// Its terminal has another size now. It may have none, or have ended: then nobody misses it.
    pub async fn resize(&self, columns: u16, rows: u16) {
        if let Err(error) = self.try_resize(columns, rows).await {
            tracing::debug!(error = reason::of(&error), "a terminal was not resized");
        }
    }

    /// Sets the size as soon as there is a terminal to have it, or the command has ended.
    async fn first_size(&self, columns: u16, rows: u16) {
        let mut pause = PAUSES.0;
        while self.try_resize(columns, rows).await.is_err() {
            match self.client.inspect_exec(&self.id).await {
                Ok(seen) if seen.running == Some(true) || seen.exit_code.is_none() => {}
                _ => return,
            }
            sleep(pause).await;
            pause = PAUSES.1.min(pause * 2);
        }
    }

    async fn try_resize(&self, columns: u16, rows: u16) -> Result<(), Error> {
        let size = ResizeExecOptions { width: columns, height: rows };
        self.client.resize_exec(&self.id, size).await
    }

    /// Waits for its end. A command may close its outputs long before.
    pub async fn exit_code(&self) -> Result<i64, RuntimeError> {
        let mut pause = PAUSES.0;
        loop {
            let seen = self.client.inspect_exec(&self.id).await;
            let seen = seen.map_err(|error| RuntimeError::Refused(reason::of(&error)))?;
            match seen.exit_code {
                Some(code) if seen.running != Some(true) => return Ok(code),
                _ => sleep(pause).await,
            }
            pause = PAUSES.1.min(pause * 2);
        }
    }

    /// Hangs up, as a terminal does when its line is cut. Docker does not: what runs on a terminal would stay for ever.
    /// Needs a shell in the container; who uses a terminal there has one.
    pub async fn hang_up(&self) {
        let words = ["sh", "-c", HANG_UP, "sh", &self.mark];
        let options = CreateExecOptions {
            cmd: Some(words.map(str::to_owned).into()),
            user: self.user.clone(),
            ..CreateExecOptions::default()
        };
        let detached = StartExecOptions { detach: true, ..StartExecOptions::default() };
        let hung_up = async {
            let id = self.client.create_exec(&self.container, options).await?.id;
            self.client.start_exec(&id, Some(detached)).await
        };
        if let Err(error) = hung_up.await {
            tracing::debug!(error = reason::of(&error), "a command was left behind by its user");
        }
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
