//! `vc run`: runs a command once, on a node that has room for it.

use std::collections::BTreeMap;
use std::time::Duration;

use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{ExecRequest, LogRequest, Reply, Request, RunRow, RunState, ServiceRow};
use vc_protocol::spec::{
    ContainerSpec, Deployment, NetworkMode, RestartCondition, RestartPolicy, ServiceMode,
    ServiceSpec,
};
use vc_protocol::{ApiError, ErrorCode, IdError, Name, ServiceKey};

use super::deploy::new_trace;
use super::exec::{check_terminal, exit_with, relay_terminal};
use crate::app::{App, change_all};
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{lost_lines, note, print};
use crate::terminal::{self, StopSignals};

/// The project of commands in images.
const PROJECT: &str = "run";

/// How often it is tried to attach to a job whose container is not there yet, as while its image is pulled.
const ATTACH_INTERVAL: Duration = Duration::from_millis(300);
/// From which attempt on it is said why that is so.
const QUIET_ATTEMPTS: u32 = 7;

/// Arguments of `vc run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc run --rm alpine:3 -- uname -a           an image, on the node that placement chooses
  vc run --rm shop/web -- ./manage.py migrate
  vc run --rm -it alpine:3 -- sh             a shell in a container of its own
  vc run --rm -i shop/db -- psql < dump.sql
  vc run -d --name import shop/web -- ./import.sh
  vc job logs shop/import -f                 what it writes; 'vc rm shop/import' removes it

Of a deployed service it has everything but the ports and the healthcheck: its environment, networks, secrets and volumes. With a volume
that is written it runs where the volume is, beside the service. It is a job: 'vc job history' has its exit code. The
exit code is that of the command. With -i or -t it is stopped when vc ends, whatever ends it. Ctrl-C stops and removes it; with -it the
command gets it.")]
pub(crate) struct Args {
    /// Remove it when it has ended
    #[arg(long)]
    rm: bool,
    /// Return when it is deployed, and print its name
    #[arg(short, long, conflicts_with = "rm")]
    detach: bool,
    /// Pass standard input to the command
    #[arg(short, long, conflicts_with = "detach")]
    interactive: bool,
    /// Allocate a terminal for the command
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
    /// Name of the job [default: made of the service or image]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Project of the job [default: that of the service, or run]
    #[arg(long, value_name = "PROJECT")]
    project: Option<Name>,
    /// Set an environment variable, to the value that it has here without one; may be repeated
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    environment: Vec<String>,
    /// A deployed service (web, or shop/web), or else an image
    #[arg(value_name = "SERVICE|IMAGE")]
    target: String,
    /// Command and its arguments [default: that of the service or image]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        check_terminal(self.interactive && self.tty)?;
        let deployment = app.in_session(async |session| self.deployment(session).await).await?;
        let service = deployment.service.clone();
        let deploy = Request::Deploy {
            deployments: vec![deployment],
            files: Vec::new(),
            pull: false,
            force: false,
            data_from: None,
            trace: new_trace(),
        };
        app.in_session(async |session| Ok(change_all(session, &[deploy], &mut Vec::new()).await?))
            .await?;
        if self.detach {
            return print(&format!("{service}\n"));
        }
        if self.is_attached() {
            let ended =
                app.in_session(async |session| self.attached(session, &service).await).await;
            if self.rm || matches!(ended, Err(Error::Stop(_))) {
                app.ask(Request::Remove { service: service.to_string() }).await?;
            }
            return exit_with(ended?);
        }
        let followed = follow(app, &service).await;
        let remove = self.rm || matches!(followed, Err(Error::Stop(Stop::Interrupted)));
        let ended = match followed {
            Ok(()) => end(app, &service).await,
            Err(error) => Err(error),
        };
        if remove {
            let service = service.to_string();
            app.ask(Request::Remove { service }).await?;
        }
        let run = ended?;
        match run.exit_code {
            Some(0) => Ok(()),
            Some(code) => Err(Stop::Exit(u8::try_from(code).unwrap_or(u8::MAX)).into()),
            None => Err(ApiError::new(
                ErrorCode::Aborted,
                format!("{service} did not end: {}", run.reason),
            )
            .into()),
        }
    }

    /// Returns whether the command has the input or the terminal of this program.
    fn is_attached(&self) -> bool {
        self.interactive || self.tty
    }

    /// Attaches to the job once its container waits for that, and returns its exit code.
    async fn attached(&self, session: &mut Session, service: &ServiceKey) -> Result<i64> {
        let own_terminal = self.interactive && self.tty;
        let request = Request::Exec(ExecRequest {
            service: service.to_string(),
            replica: None,
            command: Vec::new(),
            tty: self.tty,
            stdin: self.interactive,
            environment: Vec::new(),
            user: None,
            working_dir: None,
            size: if self.tty { terminal::size() } else { None },
            attach: true,
        });
        let mut signals = StopSignals::subscribe()?;
        let attached = async {
            let (mut attempts, mut said) = (0_u32, String::new());
            loop {
                let why = match session.ask(&request).await {
                    Ok(Reply::Ready) => break,
                    Ok(_) => return Err(SessionError::Unexpected.into()),
                    Err(SessionError::Refused(error))
                        if error.code == ErrorCode::FailedPrecondition =>
                    {
                        error.message
                    }
                    Err(error) => return Err(error.into()),
                };
                refuse_ended(session, service).await?;
                attempts = attempts.saturating_add(1);
                if attempts >= QUIET_ATTEMPTS && why != said {
                    note(&why);
                    said = why;
                }
                tokio::time::sleep(ATTACH_INTERVAL).await;
            }
            let input = self.interactive.then(terminal::input);
            relay_terminal(session, input, own_terminal).await
        };
        tokio::select! {
            code = attached => code,
            stop = signals.receive() => Err(stop.into()),
        }
    }

    /// Returns the job that runs the command.
    async fn deployment(&self, session: &mut Session) -> Result<Deployment> {
        let inspect = Request::Inspect { service: self.target.clone(), show_values: true };
        let (project, base, mut spec) = match session.ask(&inspect).await {
            Ok(reply) => {
                let detail = expect_reply!(reply, Service)?;
                let ServiceKey { project, service } = detail.row.service.clone();
                (project, service.to_string(), detail.spec.clone().into_inner())
            }
            Err(SessionError::Refused(error)) if error.code == ErrorCode::NotFound => {
                let image = self.target.rsplit('/').next().unwrap_or_default();
                let base = image.split([':', '@']).next().unwrap_or_default().to_owned();
                let container =
                    ContainerSpec { image: self.target.clone(), ..ContainerSpec::default() };
                let spec = ServiceSpec { container, ..ServiceSpec::default() };
                (parse(PROJECT)?, base, spec)
            }
            Err(error) => return Err(error.into()),
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => parse(&format!("{base}-run-{:08x}", random()?))?,
        };
        if let Some(NetworkMode::Service(owner)) = &spec.container.network_mode {
            let refused = format!(
                "{} has the network of {owner}, which only its own instances have",
                self.target
            );
            return Err(ApiError::new(ErrorCode::FailedPrecondition, refused)
                .with_hint(format!("run the command in an instance: vc exec {} -- …", self.target))
                .into());
        }
        (spec.mode, spec.schedule, spec.max_concurrent) = (ServiceMode::ReplicatedJob, None, 0);
        (spec.ports, spec.dynamic_ports, spec.expose) = (Vec::new(), Vec::new(), Vec::new());
        spec.depends_on = BTreeMap::new();
        let container = &mut spec.container;
        container.healthcheck = None;
        if self.is_attached() {
            container.attach = true;
            container.settings.tty = self.tty;
            container.settings.stdin_open = self.interactive;
        }
        container.restart =
            RestartPolicy { condition: RestartCondition::None, ..RestartPolicy::default() };
        if container.stop_grace_ms == 0 {
            container.stop_grace_ms = 10_000;
        }
        if !self.command.is_empty() {
            container.command = Some(self.command.clone());
        }
        for variable in &self.environment {
            let own = || Some((variable.as_str(), std::env::var(variable).ok()?));
            let said = variable.split_once('=').map(|(key, value)| (key, value.to_owned()));
            if let Some((key, value)) = said.or_else(own) {
                container.environment.insert(key.to_owned(), value);
            }
        }
        let project = self.project.clone().unwrap_or(project);
        let service = ServiceKey { project, service: name };
        refuse_existing(session, &service).await?;
        Ok(Deployment { service, replicas: Some(1), spec: spec.into() })
    }
}

/// Errors: the job has ended before anything was attached to it.
async fn refuse_ended(session: &mut Session, service: &ServiceKey) -> Result {
    let reply = session.ask(&Request::Runs { service: service.to_string() }).await?;
    let rows = expect_reply!(reply, Runs)?;
    match rows.into_iter().find(|row| row.ended > 0) {
        None => Ok(()),
        Some(row) => Err(ApiError::new(
            ErrorCode::Aborted,
            format!("{service} did not start: {}", row.reason),
        )
        .into()),
    }
}

/// Errors: there is a service of that name, which the command would replace.
async fn refuse_existing(session: &mut Session, service: &ServiceKey) -> Result {
    let inspect = Request::Inspect { service: service.to_string(), show_values: false };
    match session.ask(&inspect).await {
        Err(SessionError::Refused(error)) if error.code == ErrorCode::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            Err(ApiError::new(ErrorCode::AlreadyExists, format!("there is a service {service}"))
                .with_hint("choose another --name")
                .into())
        }
    }
}

fn parse(name: &str) -> Result<Name> {
    let parsed: std::result::Result<Name, IdError> = name.parse();
    let refused = |error: IdError| ApiError::new(ErrorCode::InvalidArgument, error.to_string());
    Ok(parsed.map_err(|error| refused(error).with_hint("name it with --name"))?)
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("no random number: {error}"))
    })?;
    Ok(u32::from_le_bytes(bytes))
}

/// Prints what a job writes until it has ended.
async fn follow(app: &App, service: &ServiceKey) -> Result {
    let mut printed = 0;
    let mut logs = app.connect().await?;
    // Only the job says when it has ended.
    let followed = async {
        match copy(&mut logs, service, true, 0, &mut printed).await {
            Ok(()) => std::future::pending().await,
            Err(Error::Failed(error)) => {
                note(&format!("its output is not followed any more: {}", error.message));
                std::future::pending().await
            }
            Err(error) => error,
        }
    };
    tokio::select! {
        ended = app.in_session(async |session| watch(session, service).await) => ended?,
        error = followed => return Err(error),
        result = tokio::signal::ctrl_c() => {
            result.map_err(SystemError::doing("wait for signals"))?;
            return Err(Stop::Interrupted.into());
        }
    }
    // What had not arrived when it ended; an instance that wrote nothing has no log.
    let rest = app.in_session(async |session| copy(session, service, false, printed, &mut 0).await);
    match rest.await {
        Err(Error::Failed(error)) => {
            note(&error.message);
            Ok(())
        }
        result => result,
    }
}

/// Prints the lines of a job but for the first ones, and counts them.
async fn copy(
    session: &mut Session,
    service: &ServiceKey,
    follow: bool,
    skip: usize,
    lines: &mut usize,
) -> Result {
    let request = Request::Logs(LogRequest {
        service: service.to_string(),
        replica: None,
        follow,
        tail: None,
        since: None,
        batched: false,
    });
    session.send(&request).await?;
    loop {
        match session.receive_result().await? {
            Reply::Log(row) => {
                if let Some(lost) = row.lost {
                    *lines =
                        lines.saturating_add(usize::try_from(lost.lines).unwrap_or(usize::MAX));
                    note(&lost_lines(&row, lost));
                }
                *lines = lines.saturating_add(1);
                if *lines > skip {
                    print(&format!("{}\n", row.line))?;
                }
            }
            Reply::Note(text) => note(&text),
            Reply::End => return Ok(()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Returns when a job has ended.
async fn watch(session: &mut Session, service: &ServiceKey) -> Result {
    session.send(&Request::Watch { services: vec![service.clone()] }).await?;
    loop {
        match session.receive_result().await? {
            Reply::Watched { services, .. } => {
                let has_ended = |row: &ServiceRow| row.succeeded + row.failed > 0;
                if services.iter().any(has_ended) {
                    return Ok(());
                }
            }
            Reply::End => return Err(SessionError::Lost("closed by the node".to_owned()).into()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

/// Returns how a job has ended.
async fn end(app: &App, service: &ServiceKey) -> Result<RunRow> {
    let reply = app.ask(Request::Runs { service: service.to_string() }).await?;
    let rows = expect_reply!(reply, Runs)?;
    let has_ended = |row: &RunRow| matches!(row.state, RunState::Succeeded | RunState::Failed);
    let none = || ApiError::new(ErrorCode::Unavailable, format!("{service} has not ended"));
    Ok(rows.into_iter().find(has_ended).ok_or_else(none)?)
}
