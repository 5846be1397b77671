//! `vc upgrade`: replaces the program of the nodes, one after the other.

mod file;
mod health;
mod plan;

use std::fs::File;
use std::io::Seek as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio_util::io::ReaderStream;
use vc_client::text::{list, one_line};
use vc_client::{SendStreamError, Session, SessionError, expect_reply};
use vc_protocol::control::{
    Change, NodeRow, NodeStatus, ProgramId, ProgramRow, Reply, Request, UpgradeRow, UpgradeStep,
};
use vc_protocol::{ApiError, ErrorCode, Millis, NodeId, in_words};

use self::file::ProgramFile;
use self::health::{Baseline, Observation, Watch};
use self::plan::{Candidate, Decision, Goal, Planned, must_wait, plan};
use super::drain::names;
use crate::app::App;
use crate::args::duration;
use crate::error::{Error, Result, SystemError};
use crate::render::{note, print};
use crate::terminal::{Confirmation, StopSignals, confirmed};

/// Bytes that are read and sent at once.
const CHUNK: usize = 128 * 1024;
/// Time between two looks at a node that restarts.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How long nothing may be worse after the upgrade of a node that is not the first.
const LOOK: Duration = Duration::from_secs(3);
/// The most nodes that an error names.
const MAX_NAMED: usize = 20;

/// Arguments of `vc upgrade`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc upgrade vc-node_0.2.0_amd64.deb         all nodes, one after the other; shows the plan and asks
  vc upgrade ./vc-node --dry-run             show the plan
  vc upgrade ./vc-node --node attic          only this node
  vc upgrade ./vc-node -y --pause 10m --output json
  vc upgrade --back --node attic             return to the program that it ran before

The first node is looked at for longer, before the others follow. Instances keep running, and connections are handed over. A node
on which the program does not become ready goes back by itself. When that happens, or something is wrong that was not wrong before,
the upgrade stops; run it again to go on. Ctrl-C stops after the node that is being upgraded. Needs a token of an admin.")]
pub(crate) struct Args {
    /// A vc-node binary, or the Debian package that has it
    #[arg(required_unless_present = "back", conflicts_with = "back")]
    file: Option<PathBuf>,
    /// Only this node, by its name or id; may be repeated: they are upgraded in this order
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<String>,
    /// Return these nodes to the programs that they ran before
    #[arg(long, requires = "nodes")]
    back: bool,
    /// How long the first node has to run without trouble before the others follow
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pause: Duration,
    /// Stop if a node, or the cluster, is not well this long after its restart
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// Show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// Why an upgrade stopped.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error("no node is called {0}")]
    NoNode(String),
    #[error("{count} nodes are called {name}")]
    Ambiguous { name: String, count: usize },
    /// A node that was named is left out.
    #[error("{node} cannot be upgraded: {reason}")]
    LeftOut { node: String, reason: String },
    /// A node must not restart now.
    #[error("{node} must not restart now: {reason}")]
    MustWait { node: String, reason: String },
    /// A node did not take the program, and runs the one before.
    #[error("{node} was not upgraded: {}", .error.message)]
    Refused { node: String, error: ApiError },
    /// A node went back by itself.
    #[error("{node} went back to vc-node {version}: {reason}")]
    WentBack { node: String, version: String, reason: String },
    /// A node, or the cluster, was not well in time.
    #[error("{node} has the program, and {limit} later there is trouble: {reason}")]
    Trouble { node: String, limit: String, reason: String },
}

impl From<UpgradeError> for ApiError {
    fn from(error: UpgradeError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            UpgradeError::NoNode(_) => (ErrorCode::NotFound, "see 'vc nodes'".to_owned()),
            UpgradeError::Ambiguous { .. } => {
                (ErrorCode::InvalidArgument, "name its id, see 'vc nodes'".to_owned())
            }
            UpgradeError::LeftOut { .. } => (ErrorCode::FailedPrecondition, String::new()),
            UpgradeError::MustWait { .. } => {
                (ErrorCode::FailedPrecondition, "run this again to go on".to_owned())
            }
            UpgradeError::Refused { error, .. } => (error.code, error.hint),
            UpgradeError::WentBack { node, .. } => (
                ErrorCode::Aborted,
                format!("see the log of vc-node on {node} ('journalctl -u vc-node')"),
            ),
            UpgradeError::Trouble { node, .. } => (
                ErrorCode::Aborted,
                format!(
                    "run this again to go on when it is well, or return it with 'vc upgrade --back --node {node}'"
                ),
            ),
        };
        match hint.as_str() {
            "" => Self::new(code, message),
            _ => Self::new(code, message).with_hint(hint),
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let file = match self.file.clone() {
            Some(path) => {
                let opened = spawn_blocking(move || ProgramFile::open(&path)).await;
                Some(
                    opened
                        .map_err(|error| SystemError::doing("read the program")(error.into()))??,
                )
            }
            None => None,
        };
        let mut link = Link { app, session: None };
        let goal = match &file {
            Some(file) => Goal::Program {
                id: file.id.clone(),
                version: file.version.clone(),
                arch: file.arch.to_owned(),
            },
            None => Goal::Previous,
        };
        let planned = self.plan(&mut link, &goal).await?;
        let mut upgrade = Upgrade { app, link, goal, file: file.map(|it| it.file), planned };
        upgrade.show_plan()?;
        self.check_named(&upgrade.planned)?;
        let count = upgrade.steps().len();
        if self.dry_run || count == 0 {
            return Ok(());
        }
        if self.confirmation.is_needed() {
            let what = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
            if !confirmed(&format!("Upgrade {what}, one after the other?"))? {
                note("nothing was changed");
                return Ok(());
            }
        }
        upgrade.run(self.pause, self.timeout).await
    }

    /// Asks the nodes what they run, and decides about each.
    async fn plan(&self, link: &mut Link<'_>, goal: &Goal) -> Result<Vec<Planned>> {
        let nodes = expect_reply!(link.ask(&Request::Nodes).await?, Nodes)?;
        let attached = expect_reply!(link.ask(&Request::Status).await?, Status)?.node;
        let mut candidates = Vec::new();
        for row in self.choose(nodes)? {
            let program = match row.state {
                NodeStatus::Up => link.program(row.id).await,
                _ => Err("it is not up".to_owned()),
            };
            candidates.push(Candidate { row, program });
        }
        Ok(plan(candidates, goal, attached, !self.nodes.is_empty()))
    }

    /// Returns the nodes that were named; all members if none were.
    fn choose(&self, mut nodes: Vec<NodeRow>) -> std::result::Result<Vec<NodeRow>, UpgradeError> {
        nodes.retain(|row| row.state != NodeStatus::Left);
        if self.nodes.is_empty() {
            return Ok(nodes);
        }
        let mut chosen: Vec<NodeRow> = Vec::new();
        for name in &self.nodes {
            let mut found: Vec<&NodeRow> = nodes.iter().filter(|row| names(name, row)).collect();
            let Some(row) = found.pop() else { return Err(UpgradeError::NoNode(name.clone())) };
            if !found.is_empty() {
                let (name, count) = (name.clone(), found.len() + 1);
                return Err(UpgradeError::Ambiguous { name, count });
            }
            if chosen.iter().all(|it| it.id != row.id) {
                chosen.push(row.clone());
            }
        }
        Ok(chosen)
    }

    /// Errors: a node that was named cannot be upgraded.
    fn check_named(&self, planned: &[Planned]) -> std::result::Result<(), UpgradeError> {
        let mut left_out = planned.iter().filter(|_| !self.nodes.is_empty());
        left_out.try_for_each(|it| match &it.decision {
            Decision::Skip(reason) => {
                Err(UpgradeError::LeftOut { node: one_line(it.name()), reason: reason.clone() })
            }
            Decision::Upgrade(_) | Decision::Done => Ok(()),
        })
    }
}

/// A session that is opened anew when it was lost: nodes restart, the attached one too.
struct Link<'a> {
    app: &'a App,
    session: Option<Session>,
}

impl Link<'_> {
    async fn session(&mut self) -> Result<&mut Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.app.connect().await?,
        };
        Ok(self.session.insert(session))
    }

    async fn ask(&mut self, request: &Request) -> Result<Reply> {
        let reply = self.session().await?.ask(request).await;
        if let Err(error) = &reply
            && !matches!(error, SessionError::Refused(it) if it.code != ErrorCode::Unimplemented)
        {
            self.session = None;
        }
        Ok(reply?)
    }

    /// Returns what a node runs; else why it does not say so.
    async fn program(&mut self, node: NodeId) -> std::result::Result<ProgramRow, String> {
        match self.ask(&Request::NodeProgram { node }).await {
            Ok(Reply::Program(program)) => Ok(*program),
            Ok(_) => Err("its answer is not understood".to_owned()),
            Err(Error::Failed(error)) if error.code == ErrorCode::Unimplemented => {
                Err("its vc-node is from before 'vc upgrade': upgrade it by hand".to_owned())
            }
            Err(Error::Failed(error)) => Err(error.message),
            Err(_) => Err("interrupted".to_owned()),
        }
    }

    async fn observe(&mut self) -> Result<Observation> {
        let nodes = expect_reply!(self.ask(&Request::Nodes).await?, Nodes)?;
        let instances = Request::Instances { service: None, usage: false };
        let instances = expect_reply!(self.ask(&instances).await?, Instances)?;
        let status = expect_reply!(self.ask(&Request::Status).await?, Status)?;
        Ok(Observation { nodes, instances, status })
    }
}

/// The upgrade of the nodes.
struct Upgrade<'a> {
    app: &'a App,
    link: Link<'a>,
    goal: Goal,
    file: Option<File>,
    planned: Vec<Planned>,
}

impl Upgrade<'_> {
    /// Returns the nodes to upgrade, with their programs.
    fn steps(&self) -> Vec<(Planned, ProgramId)> {
        let steps = self.planned.iter().filter_map(|it| match &it.decision {
            Decision::Upgrade(id) => Some((it.clone(), id.clone())),
            Decision::Done | Decision::Skip(_) => None,
        });
        steps.collect()
    }

    fn show_plan(&self) -> Result {
        if let Goal::Program { id, version, arch } = &self.goal
            && !self.app.out.is_json()
        {
            print(&format!("vc-node {version} for {arch}, {}\n", id.digest))?;
        }
        for it in &self.planned {
            match &it.decision {
                Decision::Upgrade(_) => self.show(UpgradeStep::Planned, it, "")?,
                Decision::Done => {
                    self.show(UpgradeStep::Skipped, it, "it runs this program already")?;
                }
                Decision::Skip(reason) => self.show(UpgradeStep::Skipped, it, reason)?,
            }
        }
        Ok(())
    }

    fn show(&self, step: UpgradeStep, of: &Planned, reason: &str) -> Result {
        let to = match &self.goal {
            Goal::Program { version, .. } => version.clone(),
            Goal::Previous => String::new(),
        };
        let digest = match &of.decision {
            Decision::Upgrade(id) => id.digest.clone(),
            Decision::Done | Decision::Skip(_) => String::new(),
        };
        let row = UpgradeRow {
            step,
            node: of.node(),
            node_name: of.name().to_owned(),
            from: of.version().to_owned(),
            to,
            digest,
            reason: reason.to_owned(),
        };
        if self.app.out.is_json() {
            return self.app.out.json(&row);
        }
        print(&(one_line(&line(&row)) + "\n"))
    }

    /// Upgrades the nodes, until all are or something is wrong.
    async fn run(&mut self, pause: Duration, limit: Duration) -> Result {
        let mut signals = StopSignals::subscribe()?;
        let before = Baseline::of(&self.link.observe().await?);
        let steps = self.steps();
        for (at, (step, id)) in steps.iter().enumerate() {
            let is_last = at + 1 == steps.len();
            let look = if at == 0 && !is_last { pause } else { LOOK };
            let upgrading = self.upgrade(step, id, &before, (look, limit));
            tokio::pin!(upgrading);
            let stop = tokio::select! {
                result = &mut upgrading => {
                    result.map_err(|error| so_far(error, &steps, at))?;
                    continue;
                }
                stop = signals.receive() => stop,
            };
            let name = one_line(step.name());
            note(&format!("stopping when {name} is upgraded; again to leave it to itself"));
            tokio::select! {
                result = &mut upgrading => result.map_err(|error| so_far(error, &steps, at))?,
                stop = signals.receive() => return Err(stop.into()),
            }
            if !is_last {
                note(&format!("stopped{}; run this again to go on", state(&steps, at + 1)));
            }
            return Err(stop.into());
        }
        let packaged = |it: &&(Planned, ProgramId)| {
            it.0.candidate.program.as_ref().is_ok_and(|program| !program.package.is_empty())
        };
        let packaged = names_of(steps.iter().filter(packaged));
        if !packaged.is_empty() && !self.app.out.is_json() {
            note(&format!(
                "on {packaged}, vc-node is of a Debian package that does not know of this: install the new package there when it suits"
            ));
        }
        Ok(())
    }

    /// Upgrades a node, and waits until nothing is worse than before.
    async fn upgrade(
        &mut self,
        step: &Planned,
        id: &ProgramId,
        before: &Baseline,
        (look, limit): (Duration, Duration),
    ) -> Result {
        let (node, name) = (step.node(), one_line(step.name()));
        let now = self.link.observe().await?;
        if let Some(reason) = must_wait(&now.nodes, node) {
            self.show(UpgradeStep::Failed, step, &reason)?;
            return Err(UpgradeError::MustWait { node: name, reason }.into());
        }
        let before = before.with_instances_of(&now);
        match self.send(node, id, &name).await {
            Ok(()) => self.show(UpgradeStep::Restarting, step, "")?,
            // Perhaps the node restarted before its answer was here.
            Err(Error::Failed(error)) if error.code == ErrorCode::Unavailable => {
                self.show(UpgradeStep::Restarting, step, &error.message)?;
            }
            Err(Error::Failed(error)) => {
                self.show(UpgradeStep::Failed, step, &error.message)?;
                return Err(UpgradeError::Refused { node: name, error }.into());
            }
            Err(error) => return Err(error),
        }
        let spinner = self.app.out.spinner(&format!("{name} restarts"));
        let result = self.wait(step, id, &before, (look, limit)).await;
        spinner.finish_and_clear();
        match result {
            Ok(()) => self.show(UpgradeStep::Upgraded, step, ""),
            Err(error) => {
                let error = ApiError::from(error);
                self.show(UpgradeStep::Failed, step, &error.message)?;
                Err(error.into())
            }
        }
    }
}

impl Upgrade<'_> {
    /// Has a node take a program.
    async fn send(&mut self, node: NodeId, program: &ProgramId, name: &str) -> Result {
        let request = Request::UpgradeNode { node, program: program.clone() };
        let sent = async {
            let file = self.file.as_ref().map(File::try_clone).transpose();
            let file = file.map_err(SystemError::doing("read the program"))?;
            let session = self.link.session().await?;
            session.send(&request).await?;
            let mut reply = session.receive_result().await?;
            if let (Reply::Ready, Some(mut file)) = (&reply, file) {
                file.rewind().map_err(SystemError::doing("read the program"))?;
                let bar = self.app.out.transfer_bar(name, Some(program.size));
                let mut chunks =
                    ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK);
                let sent = session.send_stream(&mut chunks, |bytes| bar.inc(bytes)).await;
                bar.finish_and_clear();
                reply = sent.map_err(|error| match error {
                    SendStreamError::Source(error) => {
                        SystemError::doing("read the program")(error).into()
                    }
                    SendStreamError::Session(error) => Error::from(error),
                })?;
            }
            Ok(expect_reply!(reply, Done)?)
        };
        let sent: Result<Vec<Change>> = sent.await;
        // The node restarts, or the stream is not at the end of an answer.
        self.link.session = None;
        sent.map(drop)
    }

    /// Waits until a node runs a program, and nothing has been worse for a while.
    async fn wait(
        &mut self,
        step: &Planned,
        id: &ProgramId,
        before: &Baseline,
        (look, limit): (Duration, Duration),
    ) -> std::result::Result<(), UpgradeError> {
        let node = step.node();
        let deadline = Instant::now() + limit + look;
        let mut watch = Watch::new(look);
        loop {
            let worse = match self.link.program(node).await {
                Err(reason) => Some(reason),
                Ok(program) if program.digest == id.digest => match self.link.observe().await {
                    Ok(now) => before.worse(node, &now),
                    Err(error) => Some(reason(error)),
                },
                Ok(ProgramRow { version, failed: Some(failed), .. })
                    if failed.digest == id.digest =>
                {
                    let (node, reason) = (one_line(step.name()), failed.reason);
                    return Err(UpgradeError::WentBack { node, version, reason });
                }
                Ok(_) => Some("it has not restarted yet".to_owned()),
            };
            let now = Instant::now();
            if watch.is_over(now, worse.is_some()) {
                return Ok(());
            }
            if let Some(reason) = worse.filter(|_| now >= deadline) {
                let (node, limit) = (one_line(step.name()), in_words(millis(limit)));
                return Err(UpgradeError::Trouble { node, limit, reason });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

/// Returns an error as the reason of another one.
fn reason(error: Error) -> String {
    match error {
        Error::Failed(error) => error.message,
        Error::Stop(_) | Error::Usage(_) => "interrupted".to_owned(),
    }
}

/// Returns the line for people.
fn line(row: &UpgradeRow) -> String {
    let UpgradeRow { step, node_name, from, to, reason, .. } = row;
    let to = if to.is_empty() { "the program before" } else { to };
    match step {
        UpgradeStep::Planned => format!("{node_name}: {from} -> {to}"),
        UpgradeStep::Skipped => format!("{node_name}: left out: {reason}"),
        UpgradeStep::Restarting => format!("{node_name}: has the program, restarts"),
        UpgradeStep::Upgraded => format!("{node_name}: upgraded"),
        UpgradeStep::Failed => format!("{node_name}: failed: {reason}"),
    }
}

/// Adds to an error which nodes are upgraded and which are not.
fn so_far(error: Error, steps: &[(Planned, ProgramId)], at: usize) -> Error {
    match error {
        Error::Failed(error) if steps.len() > 1 => {
            let message = format!("{}{}", error.message, state(steps, at));
            Error::Failed(ApiError { message, ..error })
        }
        other => other,
    }
}

/// Says which nodes are upgraded: those before `at`.
fn state(steps: &[(Planned, ProgramId)], at: usize) -> String {
    let (done, left) = steps.split_at(at);
    let (done, left) = (names_of(done), names_of(left));
    match done.is_empty() {
        true => format!("; no node is upgraded, {left} run what they ran"),
        false => format!("; {done} upgraded, not {left}"),
    }
}

fn names_of<'a>(steps: impl IntoIterator<Item = &'a (Planned, ProgramId)>) -> String {
    list(steps.into_iter().map(|(step, _)| one_line(step.name())).collect(), MAX_NAMED)
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
