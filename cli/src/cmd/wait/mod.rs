//! Waits for services and nodes: the node streams the state of the instances, a `Condition` evaluates it, and a
//! `Display` shows the `Progress`.

mod display;
mod moving;
mod progress;
mod running;

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use vc_client::text::list;
use vc_client::{Session, SessionError};
use vc_protocol::control::{InstanceRow, Reply, Request, ServiceRow};
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use self::display::Display;
use self::progress::{Condition, Status};
use crate::app::App;
use crate::args::duration;
use crate::error::{Error, Result, Stop, SystemError};
use crate::render::short_duration;

pub(super) use moving::{Departure, explain};
pub(super) use running::{ServiceTarget, change, until_running};

/// A node that sends nothing for this long may be down: connect to another.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most instances that an error names.
const MAX_NAMED: usize = 8;

/// Arguments of commands with `--wait`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct WaitArgs {
    /// Return when every instance runs the new version and is available: healthy, or running for the monitor period
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

/// The result of a wait.
#[derive(Debug)]
pub(super) struct Waited {
    /// The last count, `5/5 running`.
    pub(super) count: String,
    /// How long it took.
    pub(super) took: Duration,
}

/// The condition was not met in time.
#[derive(Debug, thiserror::Error)]
#[error("{count} after {limit}: {missing}")]
struct WaitTimedOut {
    count: String,
    limit: String,
    missing: String,
}

impl From<WaitTimedOut> for ApiError {
    fn from(error: WaitTimedOut) -> Self {
        Self::new(ErrorCode::DeadlineExceeded, error.to_string())
    }
}

/// Waits until the condition is met, also across the loss of a node. The session takes no more requests afterwards: see
/// [`App::renew`]. Fails when the condition can no longer be met, after `limit`, or on Ctrl-C.
pub(super) async fn until(
    app: &App,
    session: &mut Session,
    services: Vec<ServiceKey>,
    condition: &mut impl Condition,
    limit: Duration,
) -> Result<Waited> {
    let mut display = Display::new(app);
    let started = Instant::now();
    let mut last = None;
    let request = Request::Watch { services };
    let watching = async {
        loop {
            let result = watch(session, &request, |services, rows| {
                let progress = last.insert(condition.evaluate(services, rows));
                display.show(progress)?;
                match std::mem::replace(&mut progress.status, Status::Wait) {
                    Status::Wait => Ok(false),
                    Status::Done => Ok(true),
                    Status::Failed(error) => Err(error.into()),
                }
            });
            match result.await {
                Ok(()) => return Ok(()),
                // The change is durable: only the view of it was lost with the node.
                Err(WatchError::Session(SessionError::Lost(_) | SessionError::TimedOut)) => {
                    *session = app.connect().await?;
                }
                Err(WatchError::Session(error)) => return Err(error.into()),
                Err(WatchError::Ended(error)) => return Err(error),
            }
        }
    };
    let result = tokio::select! {
        result = timeout_at(started + limit, watching) => result,
        result = tokio::signal::ctrl_c() => Ok(match result {
            Ok(()) => Err(Stop::Interrupted.into()),
            Err(error) => Err(SystemError::doing("wait for signals")(error).into()),
        }),
    };
    display.clear();
    let (count, missing) = last.map_or_else(
        || ("nothing known".to_owned(), vec!["no node has answered".to_owned()]),
        |progress| (progress.count, progress.missing),
    );
    match result {
        Ok(Ok(())) => Ok(Waited { count, took: started.elapsed() }),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let limit = short_duration(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
            Err(WaitTimedOut { count, limit, missing: list(missing, MAX_NAMED) }.into())
        }
    }
}

/// Why watching on one node ended before the condition was met.
enum WatchError {
    /// The session failed.
    Session(SessionError),
    /// The condition failed, or the output.
    Ended(Error),
}

impl From<SessionError> for WatchError {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

/// Watches the services on one node until `take` returns `true`.
async fn watch(
    session: &mut Session,
    request: &Request,
    mut take: impl FnMut(Vec<ServiceRow>, Vec<InstanceRow>) -> Result<bool>,
) -> std::result::Result<(), WatchError> {
    session.send(request).await?;
    loop {
        let reply = timeout(IDLE_TIMEOUT, session.receive()).await;
        match reply.unwrap_or(Err(SessionError::TimedOut))? {
            Reply::Watched { services, instances } => {
                if take(services, instances).map_err(WatchError::Ended)? {
                    return Ok(());
                }
            }
            // The node is shutting down.
            Reply::End => return Err(SessionError::Lost("closed by the node".to_owned()).into()),
            _ => return Err(SessionError::Unexpected.into()),
        }
    }
}

#[cfg(test)]
fn row(
    service: &str,
    replica: u32,
    node: Option<u8>,
    state: vc_protocol::instance::InstanceState,
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
        monitor_ms: 0,
        digest: String::new(),
        terminal: false,
        ended: false,
        cpu_millis: None,
        memory_bytes: None,
    }
}
