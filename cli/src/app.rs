//! What every command has at hand: where to connect, and how to print.

use std::time::{SystemTime, UNIX_EPOCH};

use vc_client::{Candidates, ConnectError, Session, SessionError};
use vc_protocol::control::{Reply, Request};
use vc_protocol::{ApiError, Millis};

use crate::args::Global;
use crate::credentials::{self, Credential};
use crate::known_peers;
use crate::render::Output;

/// Ends a command without anything left to say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Whoever read the output has left.
    #[error("the output was closed")]
    OutputClosed,
    /// What ran for the user ended with this code, and has said what there is to say.
    #[error("exit code {0}")]
    Exit(u8),
}

/// The settings that all commands share.
pub(crate) struct App {
    global: Global,
    /// Where results go.
    pub(crate) out: Output,
}

impl App {
    /// With what the user gave.
    pub(crate) fn new(global: Global) -> Self {
        let out = Output::new(global.output);
        Self { global, out }
    }

    /// The user's token.
    pub(crate) fn credential(&self) -> anyhow::Result<Credential> {
        Ok(credentials::find(self.global.token.as_deref(), now())?)
    }

    /// A session with the first member that welcomes the user's token.
    pub(crate) async fn connect(&self) -> anyhow::Result<Session> {
        let credential = self.credential()?;
        let given: Vec<_> = self.global.peers.iter().flat_map(|list| list.0.clone()).collect();
        let candidates = if given.is_empty() {
            let remembered = known_peers::load(credential.claims.aud);
            Candidates::known(remembered.into_iter().chain(credential.claims.peers.clone()))
        } else {
            Candidates::only(given)
        };
        Ok(connect(&credential, candidates).await.map_err(ApiError::from)?)
    }

    /// Puts a new session in the place of one that takes no more requests: with the same member, which knows what it has
    /// told us, or with another when that is gone.
    pub(crate) async fn renew(&self, session: &mut Session) -> anyhow::Result<()> {
        let credential = self.credential()?;
        let same = Candidates::only(vec![session.address().clone()]);
        let fresh = match connect(&credential, same).await {
            Ok(fresh) => fresh,
            Err(_) => self.connect().await?,
        };
        std::mem::replace(session, fresh).close().await;
        Ok(())
    }

    /// Runs `body` in a session and ends it properly, whatever comes of it.
    pub(crate) async fn in_session<T>(
        &self,
        body: impl AsyncFnOnce(&mut Session) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut session = self.connect().await?;
        let result = body(&mut session).await;
        session.close().await;
        result
    }

    /// One request, one answer.
    pub(crate) async fn ask(&self, request: Request) -> anyhow::Result<Reply> {
        self.in_session(async |session| Ok(session.ask(&request).await?)).await
    }

    /// Requests that change something, one after another; prints what changed. The first refusal ends it.
    pub(crate) async fn change(&self, requests: Vec<Request>) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        let result = self
            .in_session(async |session| Ok(change_all(session, &requests, &mut lines).await?))
            .await;
        // What was done before a refusal is done.
        if result.is_ok() || !lines.is_empty() {
            self.out.lines(&lines)?;
        }
        result
    }
}

/// Connects to the first member that accepts the token, and remembers the members that it names.
async fn connect(credential: &Credential, candidates: Candidates) -> Result<Session, ConnectError> {
    let cluster = credential.claims.aud;
    let (session, peers) = vc_client::connect(cluster, &credential.token, candidates).await?;
    // The command works without it: a read-only home is no reason to fail.
    let _ = known_peers::remember(cluster, session.address(), &peers);
    Ok(session)
}

/// Sends requests that change something, one after another, and adds what each changed to `lines`. Stops at the first
/// refusal; what was done before stays done.
pub(crate) async fn change_all(
    session: &mut Session,
    requests: &[Request],
    lines: &mut Vec<String>,
) -> Result<(), SessionError> {
    for request in requests {
        lines.extend(session.change(request).await?);
    }
    Ok(())
}

/// The clock of this computer.
pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}
