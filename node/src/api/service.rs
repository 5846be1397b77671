//! The control service: serves a stream's requests, and dispatches each to its group.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;
use vc_engine::Mutation;
use vc_protocol::control::{Reply, Request};
use vc_protocol::{ApiError, ErrorCode, Multiaddr};

use super::reports::ReportCache;
use super::{multiplex, roles};
use crate::auth::{Audience, User, peer_addresses};
use crate::driver_message::DriverMessage;
use crate::events::Events;
use crate::exec::{Execs, UserRequest};
use crate::frames::{Duplex, FrameError, Frames};
use crate::http::Http;
use crate::identity::Membership;
use crate::logs::Logs;
use crate::snapshot::Snapshot;
use vc_runtime::images::Images;

/// A session without a request for this long is closed.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What follows a request on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another request.
    Request,
    /// Nothing: the stream is closed.
    Close,
    /// Multiplexed streams, each with requests of its own.
    Multiplex,
}

/// Serves the control protocol. One a node; cheap to clone.
#[derive(Clone)]
pub struct ControlService {
    pub(crate) membership: Arc<Membership>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) driver: mpsc::Sender<DriverMessage>,
    pub(crate) logs: Logs,
    pub(crate) execs: Execs,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) http: Http,
    /// Admits one plan or Compose file at a time to the blocking pool.
    pub(crate) planning: Arc<Semaphore>,
    pub(crate) reports: ReportCache,
}

/// Makes an [`ApiError`] of an error that still comes as text.
pub(super) fn refused(reason: impl ToString) -> ApiError {
    ApiError::new(ErrorCode::FailedPrecondition, reason.to_string())
}

/// The error of a request whose answer was lost because the driver ended.
pub(super) fn stopping(_: impl std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "this node is stopping")
        .with_hint("use another node with --peer")
}

impl ControlService {
    /// Runs a session on an authenticated stream until the client closes it or the token expires.
    pub(crate) async fn serve(&self, user: User, mut frames: Frames<impl Duplex>) {
        frames.set_max(user.max_frame());
        let left = user.expires.saturating_sub(crate::clock::now());
        let serve = async {
            if self.serve_requests(&user, &mut frames).await == Next::Multiplex
                && frames.send(&Reply::Ready).await.is_ok()
            {
                multiplex::serve(self, &user, frames.into_inner()).await;
            }
        };
        if timeout(Duration::from_millis(left), serve).await.is_err() {
            tracing::info!(user = user.name, token = user.token, "session closed: token expired");
        }
    }

    /// Answers one request after another. Returns [`Next::Multiplex`] when the stream is to carry many, else [`Next::Close`].
    pub(super) async fn serve_requests(
        &self,
        user: &User,
        frames: &mut Frames<impl Duplex>,
    ) -> Next {
        loop {
            let received = timeout(IDLE_TIMEOUT, frames.receive::<Request>()).await;
            let request = match received.unwrap_or(Err(FrameError::Closed)) {
                Ok(request) => request,
                Err(FrameError::Json(error)) => {
                    let error = ApiError::new(
                        ErrorCode::Unimplemented,
                        format!("this node cannot read the request ({error})"),
                    );
                    let error = error.with_hint("upgrade the node to the version of vc");
                    let _ = frames.send(&Reply::Error(error)).await;
                    return Next::Close;
                }
                Err(_) => return Next::Close,
            };
            user.quota.acquire().await;
            match self.answer(user, request, frames).await {
                Ok(Next::Request) => {}
                Ok(next) => return next,
                Err(error) => {
                    tracing::debug!(%error, user = user.name, "session closed");
                    return Next::Close;
                }
            }
        }
    }

    /// Answers one request. Errors: the stream is closed, or carries nothing after this request.
    async fn answer(
        &self,
        user: &User,
        request: Request,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        if let Err(error) = roles::check(user, &request) {
            frames.send(&Reply::Error(error)).await?;
            return Ok(Next::Request);
        }
        let reply = match request {
            Request::Multiplex => return Ok(Next::Multiplex),

            // Streams of replies, or of bytes after the first reply.
            Request::Watch { services } => {
                return self.watch(services, frames).await.map(|()| Next::Request);
            }
            Request::Live => return self.live(frames).await.map(|()| Next::Request),
            Request::Events { follow } => {
                return self.events(follow, frames).await.map(|()| Next::Request);
            }
            Request::Logs(request) => {
                let done = self.logs.stream(&self.snapshot, request, frames).await;
                return done.map(|()| Next::Request);
            }
            Request::Exec(exec) => {
                return self.exec(user, UserRequest::Exec(exec), frames).await;
            }
            Request::CopyOut(copy) => {
                return self.exec(user, UserRequest::CopyOut(copy), frames).await;
            }
            Request::CopyIn(copy) => {
                return self.exec(user, UserRequest::CopyIn(copy), frames).await;
            }
            Request::Fetch(request) => {
                return self.http.fetch(request, frames).await.map(|()| Next::Request);
            }
            Request::Socket(request) => {
                return self.http.socket(request, frames).await.map(|()| Next::Request);
            }
            Request::PushImage(push) => self.push_image(user, &push, frames).await?,

            // Single replies.
            Request::Services => Ok(self.services()),
            Request::Instances { service } => self.instances(service.as_deref()),
            Request::Inspect { service } => self.inspect(&service),
            Request::Plan { deployments } => self.plan(deployments).await,
            Request::Diff { deployments, files } => self.diff(deployments, &files).await,
            Request::Compose { text, project } => self.compose(text, project).await,
            Request::Deploy { deployments, files } => self.deploy(user, deployments, &files).await,
            Request::Scale { service, replicas } => {
                self.mutate(user, Mutation::Scale { service, replicas }).await
            }
            Request::Restart { service } => self.mutate(user, Mutation::Restart { service }).await,
            Request::Rollback { service } => {
                self.mutate(user, Mutation::Rollback { service }).await
            }
            Request::Remove { service } => self.mutate(user, Mutation::Remove(service)).await,
            Request::Rebalance { apply } => self.rebalance(user, apply).await,
            Request::Nodes => Ok(self.nodes()),
            Request::Status => Ok(self.status()),
            Request::Drain { node, drain } => {
                self.mutate(user, Mutation::Drain { node, drain }).await
            }
            Request::Leave { node, force } => {
                self.mutate(user, Mutation::Leave { node, force }).await
            }
            Request::Images => Ok(self.images().await),
            Request::Volumes => Ok(self.volumes()),
            Request::RemoveVolume { volume } => {
                self.mutate(user, Mutation::RemoveVolume { volume }).await
            }
            Request::CreateToken(request) => self.create_token(user, &request),
        };
        frames.send(&reply.unwrap_or_else(Reply::Error)).await?;
        Ok(Next::Request)
    }

    async fn exec(
        &self,
        user: &User,
        request: UserRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        let done = self.execs.exec(&self.snapshot, &user.name, request, frames).await;
        done.map(|()| Next::Request)
    }

    /// Returns the latest view and usage.
    pub(super) fn latest(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Applies a change in the user's name. Returns once it is durable on this node.
    pub(super) async fn mutate(&self, user: &User, mutation: Mutation) -> Result<Reply, ApiError> {
        let (answer, result) = oneshot::channel();
        let by = user.subject();
        self.ask(DriverMessage::Mutate { by, mutation, answer }, result).await.map(Reply::Done)
    }

    async fn ask<T>(
        &self,
        message: DriverMessage,
        result: oneshot::Receiver<Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        self.driver.send(message).await.map_err(stopping)?;
        result.await.map_err(stopping)?
    }

    /// Returns members' addresses that this audience can dial.
    pub(crate) fn peer_addresses(&self, audience: Audience) -> Vec<Multiaddr> {
        let view = Arc::clone(&self.snapshot.borrow().view);
        peer_addresses(audience, &view, self.membership.node)
    }
}
