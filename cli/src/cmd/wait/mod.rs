//! Waiting for what was asked for: the member tells how the instances are whenever that changes, a [`Goal`] judges it, and
//! a [`Display`] shows it.

mod display;
mod moving;
mod running;

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, timeout, timeout_at};
use vc_protocol::control::{InstanceRow, Reply, Request, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::{ServiceKey, Slot};

use self::display::Display;
use crate::app::{App, Stop};
use crate::args::duration;
use crate::render::short_duration;
use vc_client::text::{list, one_line};
use vc_client::{Session, SessionError};

pub(super) use moving::{Departure, explain};
pub(super) use running::{Wanted, change, until_running};

/// A member that says nothing for so long may be gone: ask again, whoever is there.
const SILENCE: Duration = Duration::from_secs(10);
/// At most so many instances are named in an error.
const MAX_NAMED: usize = 8;

/// Arguments of commands that wait when they are told to.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct WaitArgs {
    /// Return when every instance runs what is wanted now and has proven itself: it passes its healthcheck if it has one
    #[arg(long)]
    pub(super) wait: bool,
    /// With --wait: fail after this time
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, requires = "wait")]
    pub(super) timeout: Duration,
}

/// Arguments of commands that wait until instances have moved.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct MoveArgs {
    /// Return at once
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Stop waiting after this time, and fail
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, conflicts_with = "no_wait")]
    pub(super) timeout: Duration,
}

/// What is waited for.
pub(super) trait Goal {
    /// Judges how things are now.
    fn look(&mut self, services: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Standing;
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Standing {
    /// `2/5 running`.
    count: String,
    /// What keeps it from being done, one entry an instance.
    missing: Vec<String>,
    /// How the instances are, where there is something to say.
    said: Vec<(Slot, String)>,
    verdict: Verdict,
}

/// Whether the wait is over.
#[derive(Debug)]
enum Verdict {
    Wait,
    Done,
    /// It has failed, and waiting makes nothing better.
    Failed(anyhow::Error),
}

/// What came of a wait.
#[derive(Debug)]
pub(super) struct Waited {
    /// `5/5 running`.
    pub(super) count: String,
    /// So long it took.
    pub(super) took: Duration,
}

/// Returns when the goal is reached. Afterwards the session takes no more requests: see [`App::renew`]. Errors: the goal
/// gives up; it is not reached within `limit`; Ctrl-C.
pub(super) async fn until(
    app: &App,
    session: &mut Session,
    services: Vec<ServiceKey>,
    goal: &mut impl Goal,
    limit: Duration,
) -> anyhow::Result<Waited> {
    let mut display = Display::new(app);
    let started = Instant::now();
    let mut last = None;
    let request = Request::Watch { services };
    let watching = async {
        loop {
            let turn = follow(session, &request, |services, rows| {
                let standing = last.insert(goal.look(services, rows));
                display.show(standing)?;
                match std::mem::replace(&mut standing.verdict, Verdict::Wait) {
                    Verdict::Wait => Ok(false),
                    Verdict::Done => Ok(true),
                    Verdict::Failed(why) => Err(why),
                }
            });
            match turn.await {
                Ok(()) => return Ok(()),
                Err(error) => match error.downcast_ref::<SessionError>() {
                    // What was asked for is safe: only our view of it was lost with the node.
                    Some(SessionError::Lost(_) | SessionError::TimedOut) => {
                        *session = app.connect().await?;
                    }
                    _ => return Err(error),
                },
            }
        }
    };
    let outcome = tokio::select! {
        outcome = timeout_at(started + limit, watching) => outcome,
        result = tokio::signal::ctrl_c() => Ok(match result {
            Ok(()) => Err(Stop::Interrupted.into()),
            Err(error) => Err(error.into()),
        }),
    };
    display.clear();
    let (count, missing) = last.map_or_else(
        || ("nothing is known".to_owned(), vec!["no node has answered".to_owned()]),
        |standing| (standing.count, standing.missing),
    );
    match outcome {
        Ok(Ok(())) => Ok(Waited { count, took: started.elapsed() }),
        Ok(Err(error)) => Err(error),
        Err(_) => bail!("{count} after {}: {}", brief(limit), list(missing, MAX_NAMED)),
    }
}

fn brief(limit: Duration) -> String {
    short_duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}

/// Follows the services on one member until `take` says that it is enough.
async fn follow(
    session: &mut Session,
    request: &Request,
    mut take: impl FnMut(Vec<ServiceRow>, Vec<InstanceRow>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    session.send(request).await?;
    loop {
        match timeout(SILENCE, session.receive()).await.unwrap_or(Err(SessionError::TimedOut))? {
            Reply::Watched { services, instances } => {
                if take(services, instances)? {
                    return Ok(());
                }
            }
            // The member is being stopped.
            Reply::End => return Err(SessionError::Lost("closed by the node".to_owned()).into()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

fn slot(row: &InstanceRow) -> Slot {
    Slot { service: row.service.clone(), replica: row.replica }
}

/// ` on alpha`; empty when it is nowhere.
fn place(row: &InstanceRow) -> String {
    row.node_name.as_deref().map(|name| format!(" on {}", one_line(name))).unwrap_or_default()
}

/// `failed (exited with code 1)`, `pulling (40%)`. `checked`: its service has a healthcheck.
fn condition(row: &InstanceRow, checked: bool) -> String {
    let state = match row.state {
        InstanceState::Running if checked => "running, not healthy yet",
        InstanceState::Running if !row.available => "running, to be proven",
        state => state.as_str(),
    };
    let reason = one_line(&row.reason);
    if reason.is_empty() { state.to_owned() } else { format!("{state} ({reason})") }
}

#[cfg(test)]
fn row(
    service: &str,
    replica: u32,
    node: Option<u8>,
    state: InstanceState,
    current: bool,
) -> InstanceRow {
    use vc_protocol::{Keypair, NodeId};
    let id = |n| {
        let key = Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    };
    InstanceRow {
        service: service.parse().expect("a service"),
        replica,
        node: node.map(id),
        node_name: node.map(|n| format!("n{n}")),
        state,
        reason: String::new(),
        address: String::new(),
        restarts: 0,
        since: 0,
        current,
        available: true,
        digest: String::new(),
    }
}
