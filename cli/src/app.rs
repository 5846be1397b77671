//! What every command uses: the connection to the cluster and the output.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::process::Command;
use vc_client::{Candidates, ConnectError, Session, SessionError, expect_reply};
use vc_protocol::Millis;
use vc_protocol::control::{Change, Reply, Request};

use crate::args::Global;
use crate::credentials::{self, Credential, CredentialError};
use crate::error::{Result, SystemError};
use crate::known_peers;
use crate::render::Output;

/// The global options, applied.
pub(crate) struct App {
    global: Global,
    /// Prints results.
    pub(crate) out: Output,
}

impl App {
    /// Applies the global options.
    pub(crate) fn new(global: Global) -> Self {
        let out = Output::new(global.output, now());
        Self { global, out }
    }

    /// Returns the user's token: the one given, else the one stored by `vc login`.
    pub(crate) fn credential(&self) -> std::result::Result<Credential, CredentialError> {
        credentials::find(self.global.token.as_deref(), now())
    }

    /// Returns a command of this program, with the same token and nodes.
    pub(crate) fn command(&self) -> Result<Command> {
        let program = std::env::current_exe().map_err(SystemError::doing("find this program"))?;
        let mut command = Command::new(program);
        // In the environment the token is not shown to other users.
        command.env("VC_TOKEN", self.credential()?.token);
        for peer in self.global.peers.iter().flat_map(|list| &list.0) {
            command.arg("--peer").arg(peer.to_string());
        }
        Ok(command)
    }

    /// Opens a session with the first member that accepts the user's token.
    pub(crate) async fn connect(&self) -> Result<Session> {
        let credential = self.credential()?;
        let given: Vec<_> = self.global.peers.iter().flat_map(|list| list.0.clone()).collect();
        let candidates = if given.is_empty() {
            let remembered = known_peers::load(credential.claims.aud);
            Candidates::known(remembered.into_iter().chain(credential.claims.peers.clone()))
        } else {
            Candidates::only(given)
        };
        Ok(connect(&credential, candidates).await?)
    }

    /// Replaces a session that takes no more requests, if possible by one with the same member, which knows of the
    /// changes that it reported.
    pub(crate) async fn renew(&self, session: &mut Session) -> Result {
        let credential = self.credential()?;
        let same = Candidates::only(vec![session.address().clone()]);
        let fresh = match connect(&credential, same).await {
            Ok(fresh) => fresh,
            Err(_) => self.connect().await?,
        };
        std::mem::replace(session, fresh).close().await;
        Ok(())
    }

    /// Runs `body` in a session, and closes the session whatever the result.
    pub(crate) async fn in_session<T>(
        &self,
        body: impl AsyncFnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let mut session = self.connect().await?;
        let result = body(&mut session).await;
        session.close().await;
        result
    }

    /// Sends one request in a session of its own; returns the reply.
    pub(crate) async fn ask(&self, request: Request) -> Result<Reply> {
        self.in_session(async |session| Ok(session.ask(&request).await?)).await
    }

    /// Sends a request that takes a node a while, and shows `what` it does meanwhile. Returns the changes.
    pub(crate) async fn await_change(
        &self,
        session: &mut Session,
        request: &Request,
        what: &str,
    ) -> Result<Vec<Change>> {
        session.send(request).await?;
        let spinner = self.out.spinner(what);
        let reply = session.receive_result().await;
        spinner.finish_and_clear();
        Ok(expect_reply!(reply?, Done)?)
    }

    /// Sends requests that change something, one after another, and prints the changes. Stops at the first refusal.
    pub(crate) async fn change(&self, requests: Vec<Request>) -> Result {
        let mut changes = Vec::new();
        let result = self
            .in_session(async |session| Ok(change_all(session, &requests, &mut changes).await?))
            .await;
        // What was done before a refusal stays done.
        if result.is_ok() || !changes.is_empty() {
            self.out.changes(&changes)?;
        }
        result
    }
}

/// Connects to the first member that accepts the token, and remembers the members that it names.
async fn connect(
    credential: &Credential,
    candidates: Candidates,
) -> std::result::Result<Session, ConnectError> {
    let cluster = credential.claims.aud;
    let (session, peers) = vc_client::connect(cluster, &credential.token, candidates).await?;
    // The command works without it: a read-only home is no reason to fail.
    let _ = known_peers::remember(cluster, session.address(), &peers);
    Ok(session)
}

/// Sends requests that change something, one after another, and appends the changes to `changes`. Stops at the first
/// refusal; what was done before stays done.
pub(crate) async fn change_all(
    session: &mut Session,
    requests: &[Request],
    changes: &mut Vec<Change>,
) -> std::result::Result<(), SessionError> {
    for request in requests {
        changes.extend(session.change(request).await?);
    }
    Ok(())
}

/// Returns the time that was `duration` ago, by this computer's clock.
pub(crate) fn ago(duration: Duration) -> Millis {
    now().saturating_sub(Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX))
}

/// Returns the time by this computer's clock.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
