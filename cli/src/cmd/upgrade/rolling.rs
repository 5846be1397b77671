//! The upgrade of one node after the other.

use std::cell::Cell;
use std::fs::File;
use std::io::Seek as _;
use std::time::{Duration, Instant};

use tokio_util::io::ReaderStream;
use vc_client::text::{list, one_line};
use vc_client::{SendStreamError, expect_reply};
use vc_protocol::control::{
    Change, ProgramId, ProgramRow, Reply, Request, UpgradeRow, UpgradeStep,
};
use vc_protocol::{ApiError, ErrorCode, Millis, NodeId, in_words};

use super::error::UpgradeError;
use super::health::{Baseline, Watch};
use super::link::Link;
use super::plan::{Candidate, Decision, Goal, Planned, must_wait};
use crate::app::App;
use crate::error::{Error, Result, SystemError};
use crate::render::{note, print};
use crate::terminal::StopSignals;

/// Bytes that are read and sent at once.
const CHUNK: usize = 128 * 1024;
/// Time between two looks at a node that restarts.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A node that has taken a program restarts within this time: it runs the program to check it, for at most 30 s, and lets connections finish.
const RESTART_TIMEOUT: Duration = Duration::from_secs(45);
/// A node that takes nothing of a program for this time takes none of it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long nothing may be worse after the upgrade of a node that is not the first.
const LOOK: Duration = Duration::from_secs(3);
/// The most nodes that an error names.
const MAX_NAMED: usize = 20;

/// The upgrade of the nodes.
pub(super) struct Upgrade<'a> {
    pub(super) app: &'a App,
    pub(super) link: Link<'a>,
    pub(super) goal: Goal,
    /// `None` of a return to the programs before.
    pub(super) file: Option<File>,
    pub(super) planned: Vec<Planned>,
}

impl Upgrade<'_> {
    /// Returns the nodes to upgrade, with their programs.
    pub(super) fn steps(&self) -> Vec<(Planned, ProgramId)> {
        let steps = self.planned.iter().filter_map(|it| match &it.decision {
            Decision::Upgrade(id) => Some((it.clone(), id.clone())),
            Decision::Done | Decision::Skip(_) => None,
        });
        steps.collect()
    }

    /// Prints what becomes of each node.
    pub(super) fn show_plan(&self) -> Result {
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
    pub(super) async fn run(&mut self, pause: Duration, limit: Duration) -> Result {
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
                return Err(stop.into());
            }
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
            Ok(()) => {}
            // The answer may be lost where the restart of the node ends the connection.
            Err(Error::Failed(error)) if is_unknown(&error) && self.restarts(step, id).await => {}
            Err(Error::Failed(error)) => {
                self.show(UpgradeStep::Failed, step, &error.message)?;
                return Err(UpgradeError::Refused { node: name, error }.into());
            }
            Err(error) => return Err(error),
        }
        self.show(UpgradeStep::Restarting, step, "")?;
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
                let last = Cell::new(Instant::now());
                let sending = session.send_stream(&mut chunks, |bytes| {
                    bar.inc(bytes);
                    last.set(Instant::now());
                });
                let sent = tokio::select! {
                    sent = sending => Some(sent),
                    () = idle(&last, IDLE_TIMEOUT) => None,
                };
                bar.finish_and_clear();
                let Some(sent) = sent else {
                    let seconds = IDLE_TIMEOUT.as_secs();
                    let message = format!("it took nothing of the program for {seconds} s");
                    return Err(ApiError::new(ErrorCode::DeadlineExceeded, message).into());
                };
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
        self.link.close().await;
        sent.map(drop)
    }

    /// Returns whether a node that may have taken a program does not go on with the one that it ran.
    async fn restarts(&mut self, step: &Planned, id: &ProgramId) -> bool {
        let deadline = Instant::now() + RESTART_TIMEOUT;
        loop {
            let runs_on = match self.link.program(step.node()).await {
                Ok(program) if has_tried(&step.candidate, &program, id) => return true,
                Ok(_) => true,
                Err(_) => false,
            };
            if Instant::now() >= deadline {
                return !runs_on;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
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
                Err(error) => Some(error.to_string()),
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

/// Returns whether a node may have taken a program although the client got an error.
fn is_unknown(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded)
}

/// Returns whether a node runs a program, or went back from it since it was looked at `before`: an earlier failure says nothing of this
/// attempt.
fn has_tried(before: &Candidate, now: &ProgramRow, id: &ProgramId) -> bool {
    let earlier = before.program.as_ref().ok().and_then(|program| program.failed.as_ref());
    let failed = now.failed.as_ref().filter(|failed| Some(*failed) != earlier);
    now.digest == id.digest || failed.is_some_and(|failed| failed.digest == id.digest)
}

/// Completes when nothing was sent for a time. `last` is when something was.
async fn idle(last: &Cell<Instant>, limit: Duration) {
    while let Some(left) = limit.checked_sub(last.get().elapsed()) {
        tokio::time::sleep(left).await;
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
        UpgradeStep::Planned if from == to => {
            format!("{node_name}: {from} -> another build of {to}")
        }
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

#[cfg(test)]
mod tests {
    use vc_protocol::control::{FailedUpgrade, NodeStatus};

    use super::*;
    use crate::render::golden;

    #[test]
    fn an_earlier_failure_of_the_same_program_is_not_taken_for_this_attempt() {
        let row = golden::node(1, "n1", NodeStatus::Up);
        let program = |digest: &str, reason: Option<&str>| ProgramRow {
            node: row.id,
            node_name: row.name.clone(),
            version: "0.1.0".to_owned(),
            digest: digest.to_owned(),
            path: "/usr/bin/vc-node".to_owned(),
            package: String::new(),
            previous: None,
            refuses: String::new(),
            failed: reason.map(|reason| FailedUpgrade {
                version: "0.2.0".to_owned(),
                digest: "sha256:new".to_owned(),
                reason: reason.to_owned(),
            }),
        };
        let old = |reason| program("sha256:old", reason);
        let before = Candidate { row: row.clone(), program: Ok(old(Some("it hung"))) };
        let id = ProgramId { digest: "sha256:new".to_owned(), size: 7 };
        assert!(!has_tried(&before, &old(None), &id));
        assert!(!has_tried(&before, &old(Some("it hung")), &id));
        assert!(has_tried(&before, &old(Some("it ended")), &id));
        assert!(has_tried(&before, &program("sha256:new", None), &id));
    }
}
