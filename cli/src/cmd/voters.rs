//! `vc voters`: the nodes that grant leases of exclusive services.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use vc_client::text::one_line;
use vc_client::{Session, SessionError, expect_reply};
use vc_protocol::control::{Change, NodeStatus, Request, VoterReport, VoterRow};
use vc_protocol::{ApiError, ErrorCode, NodeId};

use crate::app::App;
use crate::args::duration;
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::{self, note, print, short_duration};
use crate::terminal::{Confirmation, confirmed};

/// Pause between looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What becomes of a wish that was not carried out in time.
const WISH_STAYS: &str = "the wish stays until 'vc voters auto'";

/// Arguments of `vc voters`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the servers, and which of them are voters
    #[command(after_help = "\
Examples:
  vc voters ls
  vc voters ls --output json | jq -r '.nodes[] | select(.votes).name'

Exclusive services run while a majority of the voters is up and reachable. The cluster chooses voters among its servers: one of two,
three of three or four, at most seven.")]
    Ls,
    /// Make a server a voter
    #[command(after_help = "\
Examples:
  vc voters add attic                        returns when it is a voter
  vc voters add attic --no-wait              returns at once

The present voters decide on the change; each one takes up to a lease time (6 s). The wish stays until 'vc voters auto'.")]
    Add(Wish),
    /// Make a node no voter
    #[command(after_help = "\
Examples:
  vc voters remove attic                     returns when it is no voter

The present voters decide on the change; each one takes up to a lease time (6 s). The wish stays until 'vc voters auto'.")]
    Remove(Wish),
    /// Leave it to the cluster whether a server is a voter
    #[command(after_help = "\
Examples:
  vc voters auto attic                       takes back 'vc voters add' or 'vc voters remove'")]
    Auto {
        /// Name or id of the node
        node: String,
    },
    /// Make servers the voters without the present ones, as when a majority of them is gone for good
    #[command(after_help = "\
Examples:
  vc voters force attic                      attic alone grants leases from now on
  vc voters force attic desk barn

The risk: former voters that still run somewhere, cut off from here, know nothing of it. They can let a second instance of an exclusive
service run there, which writes the same data. Make sure that they are off, or cannot come back, before you confirm. Where a majority of
the voters is up, 'vc voters add' and 'vc voters remove' change them without a risk.")]
    Force {
        /// Names or ids of the nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// Arguments of `vc voters add` and `vc voters remove`.
#[derive(Debug, clap::Args)]
struct Wish {
    /// Name or id of the node
    node: String,
    /// Return at once
    #[arg(long)]
    no_wait: bool,
    /// Stop waiting after this time, and fail
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration, conflicts_with = "no_wait")]
    timeout: Duration,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        match self.command {
            None | Some(Command::Ls) => {
                let report = expect_reply!(app.ask(Request::Voters).await?, Voters)?;
                app.out.show(&report, render::voters)
            }
            Some(Command::Add(wish)) => wish.run(app, true).await,
            Some(Command::Remove(wish)) => wish.run(app, false).await,
            Some(Command::Auto { node }) => {
                app.change(vec![Request::SetVoter { node, votes: None }]).await
            }
            Some(Command::Force { nodes, confirmation }) => {
                if confirmation.is_needed() && !confirms_force(app, &nodes).await? {
                    note("nothing was changed");
                    return Ok(());
                }
                app.change(vec![Request::ForceVoters { nodes }]).await
            }
        }
    }
}

/// Says what is at stake, and asks.
async fn confirms_force(app: &App, nodes: &[String]) -> Result<bool> {
    let report = expect_reply!(app.ask(Request::Voters).await?, Voters)?;
    let named = |row: &VoterRow| {
        nodes.iter().any(|it| *it == row.name || *it == row.id.to_string() || *it == row.id.short())
    };
    let others: Vec<&VoterRow> =
        report.nodes.iter().filter(|row| row.votes && !named(row)).collect();
    let names: Vec<&str> = others.iter().map(|row| row.name.as_str()).collect();
    if !names.is_empty() {
        note(&format!(
            "{} are voters that are not asked: if one of them still runs, out of reach, a second instance of an exclusive service may run \
             there and write the same data",
            names.join(", ")
        ));
    }
    let (voters, up) = report.reachable();
    if up * 2 > voters {
        note(
            "a majority of the voters is up: 'vc voters add' and 'vc voters remove' change them without this risk",
        );
    }
    confirmed(&format!("Make {} the voters all the same?", nodes.join(", ")))
}

impl Wish {
    async fn run(self, app: &App, votes: bool) -> Result {
        app.in_session(async |session| {
            let request = Request::SetVoter { node: self.node, votes: Some(votes) };
            let changes = session.change(&request).await?;
            app.out.changes(&changes)?;
            let Some(Change::VoterWished { node, .. }) = changes.first() else { return Ok(()) };
            if self.no_wait {
                return Ok(());
            }
            until_votes(app, session, *node, votes, self.timeout).await
        })
        .await
    }
}

/// Has the voters go on without a node, and waits until they do. Returns what has changed.
pub(super) async fn hand_over(
    app: &App,
    session: &mut Session,
    node: &str,
    limit: Duration,
) -> Result<Vec<Change>> {
    let request = Request::SetVoter { node: node.to_owned(), votes: Some(false) };
    let changes = session.change(&request).await?;
    if let Some(Change::VoterWished { node, .. }) = changes.first() {
        until_votes(app, session, *node, false, limit).await?;
    }
    Ok(changes)
}

/// Waits, with progress, until a node is a voter, or is none, also across the loss of the node that answers.
async fn until_votes(
    app: &App,
    session: &mut Session,
    node: NodeId,
    votes: bool,
    limit: Duration,
) -> Result {
    let end = Instant::now() + limit;
    let mut last: Option<VoterReport> = None;
    let mut told = None;
    let waiting = async {
        loop {
            let report = match session.ask(&Request::Voters).await {
                Ok(reply) => expect_reply!(reply, Voters)?,
                Err(SessionError::Lost(_) | SessionError::TimedOut) => {
                    *session = app.connect().await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let is_done = report.nodes.iter().any(|row| row.id == node && row.votes) == votes;
            if !app.out.is_json() && last.as_ref().is_some_and(|it| it.number != report.number) {
                print(&format!("{}\n", describe(&report)))?;
            }
            let obstacle = obstacle(&report, node, votes).map(|(why, _)| why);
            last = Some(report);
            if is_done {
                return Ok(());
            }
            if obstacle.is_some() && obstacle != told && !app.out.is_json() {
                print(&format!("waits: {}\n", obstacle.as_deref().unwrap_or_default()))?;
            }
            told = obstacle;
            sleep(INTERVAL).await;
        }
    };
    let result = tokio::select! {
        result = timeout_at(end, waiting) => result,
        result = tokio::signal::ctrl_c() => Ok(match result {
            Ok(()) => Err(Stop::Interrupted.into()),
            Err(error) => Err(SystemError::doing("wait for signals")(error).into()),
        }),
    };
    result.unwrap_or_else(|_| Err(timed_out(last.as_ref(), node, votes, limit)))
}

/// Describes the present voters: `the voters are attic, desk, barn (set 4)`.
fn describe(report: &VoterReport) -> String {
    let voters: Vec<&str> =
        report.nodes.iter().filter(|row| row.votes).map(|row| row.name.as_str()).collect();
    one_line(&format!("the voters are {} (set {})", voters.join(", "), report.number))
}

/// Says what keeps the voters from changing, and what to do.
fn obstacle(report: &VoterReport, node: NodeId, votes: bool) -> Option<(String, &'static str)> {
    let (voters, up) = report.reachable();
    let row = report.nodes.iter().find(|row| row.id == node);
    match row.filter(|row| votes && row.state != NodeStatus::Up) {
        _ if !report.waits_for.is_empty() => {
            Some((format!("the choice of voters waits for {}", one_line(&report.waits_for)), ""))
        }
        _ if up * 2 <= voters => Some((
            format!("{up} of {voters} voters reachable, which cannot decide"),
            "start the others, or see 'vc voters force --help'",
        )),
        Some(row) => Some((format!("{} is down", one_line(&row.name)), WISH_STAYS)),
        None => None,
    }
}

/// Says why the voters have not changed in time.
fn timed_out(report: Option<&VoterReport>, node: NodeId, votes: bool, limit: Duration) -> Error {
    let limit = short_duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let row = report.and_then(|it| it.nodes.iter().find(|row| row.id == node));
    let name = row.map_or_else(|| node.short(), |row| one_line(&row.name));
    let obstacle = report.and_then(|it| obstacle(it, node, votes));
    let undecided = || ("the voters have not decided".to_owned(), WISH_STAYS);
    let (why, hint) = obstacle.unwrap_or_else(undecided);
    let what = if votes { "no voter yet" } else { "still a voter" };
    let message = format!("{name} is {what} after {limit}: {why}");
    Error::Failed(ApiError::new(ErrorCode::DeadlineExceeded, message).with_hint(hint))
}
