//! A user's session: requests in, answers out, checked against what his token allows.

mod compose;
mod live;
mod multiplex;
mod peers;
mod plan;
mod quota;
mod roles;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use vc_engine::{Mutation, report};
use vc_protocol::change::Subject;
use vc_protocol::control::{ImagePush, Reply, Request, TokenRequest, TokenSubject};
use vc_protocol::exec::KEEPALIVE_INTERVAL;
use vc_protocol::token::{Issuer, Scope, UserRole};
use vc_protocol::wire::MAX_FRAME;
use vc_protocol::{ApiError, ErrorCode, Millis, Multiaddr};

use crate::driver::{Event, Snapshot};
use crate::events::Events;
use crate::exec::{Execs, UserRequest};
use crate::frames::{Duplex, FrameError, Frames};
use crate::http::Http;
use crate::identity::Membership;
use crate::images::{Images, Pushed};
use crate::logs::Logs;
use crate::prepare::{Prepared, prepare};

pub(crate) use peers::Audience;
pub(crate) use quota::Quota;

/// The longest life of a token: ten years.
const MAX_TTL: Millis = 10 * 365 * 24 * 3_600_000;
/// A user who asks for nothing for so long has gone, and only his node has not said so.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A request of somebody who may only look, in bytes: as many as he has streams may be under way at once.
const MAX_LOOKING: usize = 256 * 1024;

/// Who asks.
#[derive(Debug, Clone)]
pub struct User {
    /// Name in the token.
    pub name: String,
    /// The token's id.
    pub token: String,
    /// What he may do.
    pub role: UserRole,
    /// When the token ends.
    pub expires: Millis,
    /// What his token may have here.
    pub(crate) quota: Arc<Quota>,
}

impl User {
    /// The largest frame that is taken of him, in bytes.
    fn max_frame(&self) -> usize {
        if self.role < UserRole::Deployer { MAX_LOOKING } else { MAX_FRAME }
    }
}

/// What becomes of a stream whose session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Over,
    /// It carries many sessions.
    Multiplex,
}

/// Answers users. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    pub(crate) membership: Arc<Membership>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) driver: mpsc::Sender<Event>,
    pub(crate) logs: Logs,
    pub(crate) execs: Execs,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) http: Http,
    /// Whose turn it is to have something planned.
    pub(crate) planning: Arc<Semaphore>,
    pub(crate) reports: live::Reports,
}

/// Why a part of this node does not answer any more.
fn stopping(_: impl std::error::Error) -> String {
    "this node is stopping: use another with --peer".to_owned()
}

impl Session {
    /// Answers a user on a stream until he goes or his token ends.
    pub(crate) async fn serve(&self, user: User, mut frames: Frames<impl Duplex>) {
        frames.set_max(user.max_frame());
        let left = user.expires.saturating_sub(crate::now());
        let serve = async {
            if self.answer_all(&user, &mut frames).await == Next::Multiplex
                && frames.send(&Reply::Ready).await.is_ok()
            {
                multiplex::serve(self, &user, frames.into_inner()).await;
            }
        };
        if timeout(Duration::from_millis(left), serve).await.is_err() {
            tracing::info!(user = user.name, "a session ended with its token");
        }
    }

    /// Answers one request after another.
    async fn answer_all(&self, user: &User, frames: &mut Frames<impl Duplex>) -> Next {
        loop {
            let received = timeout(IDLE, frames.receive::<Request>()).await;
            let request = match received.unwrap_or(Err(FrameError::Closed)) {
                Ok(request) => request,
                Err(FrameError::Json(error)) => {
                    let reason = format!(
                        "this node does not understand the request ({error}): is it older than vc?"
                    );
                    let _ = frames
                        .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                        .await;
                    return Next::Over;
                }
                Err(_) => return Next::Over,
            };
            if request == Request::Multiplex {
                return Next::Multiplex;
            }
            user.quota.turn().await;
            if let Err(error) = self.answer(user, request, frames).await {
                tracing::debug!(%error, "session ended");
                return Next::Over;
            }
        }
    }

    async fn answer(
        &self,
        user: &User,
        request: Request,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let needed = roles::needs(&request);
        if user.role < needed {
            let reason = format!(
                "'{}' is a {}; this needs a {}: ask for a token with --role {}",
                user.name,
                user.role.as_str(),
                needed.as_str(),
                needed.as_str()
            );
            return frames
                .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                .await;
        }
        match request {
            Request::Watch { services } => self.watch(services, frames).await,
            Request::Live => self.live(frames).await,
            Request::Events { follow } => self.events(follow, frames).await,
            Request::Fetch(request) => self.http.fetch(request, frames).await,
            Request::Socket(request) => self.http.socket(request, frames).await,
            Request::Logs(request) => self.logs.stream(&self.snapshot, request, frames).await,
            Request::Exec(it) => self.exec(user, UserRequest::Exec(it), frames).await,
            Request::CopyOut(it) => self.exec(user, UserRequest::CopyOut(it), frames).await,
            Request::CopyIn(it) => self.exec(user, UserRequest::CopyIn(it), frames).await,
            Request::PushImage(push) => self.push_image(user, &push, frames).await,
            request => {
                let reply = self.reply(user, request).await.unwrap_or_else(|reason| {
                    Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason))
                });
                frames.send(&reply).await
            }
        }
    }

    async fn exec(
        &self,
        user: &User,
        request: UserRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        self.execs.exec(&self.snapshot, &user.name, request, frames).await
    }

    async fn reply(&self, user: &User, request: Request) -> Result<Reply, String> {
        let Snapshot { view, usage, .. } = self.snapshot.borrow().clone();
        Ok(match request {
            Request::Services => Reply::Services(report::services(&view)),
            Request::Nodes => Reply::Nodes(report::nodes(&view, &usage)),
            Request::Status => {
                let (cluster, node) = (self.membership.cluster, self.membership.node);
                Reply::Status(report::status(&view, &usage, cluster, node))
            }
            Request::Plan { deployments } => self.plan(view, deployments).await?,
            Request::Instances { service } => {
                let mut rows = report::instances(&view);
                if let Some(service) = service {
                    let keys = vc_engine::find_services(&view.cluster, &service)?;
                    rows.retain(|row| keys.contains(&row.service));
                }
                Reply::Instances(rows)
            }
            Request::Images => Reply::Images(self.images.rows(&view, self.membership.node).await),
            Request::Deploy { mut deployments, files } => {
                plan::check(&deployments)?;
                self.images.pin(&view, self.membership.node, &mut deployments).await;
                let Membership { seal, cluster, .. } = &*self.membership;
                let Prepared { deployments, files } = prepare(seal, *cluster, deployments, &files)?;
                self.mutate(user, Mutation::Deploy { deployments, files }).await?
            }
            Request::Scale { service, replicas } => {
                self.mutate(user, Mutation::Scale { service, replicas }).await?
            }
            Request::Remove { service } => self.mutate(user, Mutation::Remove(service)).await?,
            Request::Drain { node, drain } => {
                self.mutate(user, Mutation::Drain { node, drain }).await?
            }
            Request::Restart { service } => {
                self.mutate(user, Mutation::Restart { service }).await?
            }
            Request::Rollback { service } => {
                self.mutate(user, Mutation::Rollback { service }).await?
            }
            Request::Rebalance { apply: false } => Reply::Moves(report::rebalance(&view)),
            Request::Rebalance { apply: true } => self.mutate(user, Mutation::Rebalance).await?,
            Request::Leave { node, force } => {
                self.mutate(user, Mutation::Leave { node, force }).await?
            }
            Request::RemoveVolume { volume } => {
                self.mutate(user, Mutation::RemoveVolume { volume }).await?
            }
            Request::Volumes => Reply::Volumes(report::volumes(&view)),
            Request::Diff { mut deployments, files } => {
                plan::check(&deployments)?;
                // As a deployment would be, or each would seem to unpin its image.
                self.images.pin(&view, self.membership.node, &mut deployments).await;
                let Membership { seal, cluster, .. } = &*self.membership;
                let Prepared { deployments, .. } = prepare(seal, *cluster, deployments, &files)?;
                Reply::Diff(vc_engine::diff(&view, &deployments))
            }
            Request::Inspect { service } => {
                let key = vc_engine::find_service(&view.cluster, &service)?;
                let none = || format!("no service '{service}'; see 'vc services'");
                Reply::Service(Box::new(report::inspect(&view, &key).ok_or_else(none)?))
            }
            Request::Compose { text, project } => self.compose(text, project).await?,
            Request::CreateToken(request) => Reply::Token(self.create_token(user, &request)?),
            _ => return Err("not a single answer".to_owned()),
        })
    }

    async fn mutate(&self, user: &User, mutation: Mutation) -> Result<Reply, String> {
        let (answer, result) = oneshot::channel();
        let by = Subject { name: user.name.clone(), token_id: user.token.clone() };
        self.ask(Event::Mutate { by, mutation, answer }, result).await.map(Reply::Done)
    }

    /// Takes an image, then lets its reference mean it.
    async fn push_image(
        &self,
        user: &User,
        push: &ImagePush,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let pushed = match self.images.receive(push, frames).await? {
            Ok(pushed) => pushed,
            Err(why) => {
                frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, why)))
                    .await?;
                // What the user still sends is no request.
                return Err(FrameError::Closed);
            }
        };
        let Pushed { reference, id, size } = pushed;
        let mutation = Mutation::Image { reference, id: id.into(), size };
        let reply = self.mutate(user, mutation).await.unwrap_or_else(|reason| {
            Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason))
        });
        frames.send(&reply).await
    }

    async fn ask(
        &self,
        event: Event,
        result: oneshot::Receiver<Result<Vec<String>, String>>,
    ) -> Result<Vec<String>, String> {
        self.driver.send(event).await.map_err(stopping)?;
        result.await.map_err(stopping)?
    }

    /// Takes up a node's certificate: all certificates, and the addresses of members, for the node.
    pub(crate) async fn introduce(
        &self,
        certificate: String,
    ) -> Result<(Vec<String>, Vec<Multiaddr>), String> {
        let (answer, result) = oneshot::channel();
        let certificates = self.ask(Event::Admit { certificate, answer }, result).await?;
        Ok((certificates, self.peer_addresses(Audience::Node)))
    }

    fn create_token(&self, user: &User, request: &TokenRequest) -> Result<String, String> {
        if self.membership.root.is_none() {
            return Err(
                "this node is a worker and cannot make tokens: use a server with --peer".to_owned()
            );
        }
        if request.ttl_ms < 1000 || request.ttl_ms > MAX_TTL {
            return Err(
                "a token lives between a second and ten years: choose another --ttl".to_owned()
            );
        }
        let issuer = Issuer {
            cluster: self.membership.cluster,
            key: &self.membership.key,
            certificate: &self.membership.certificate,
        };
        let (scope, name) = match &request.subject {
            TokenSubject::Node { name, role } => (Scope::Join(*role), name.to_string()),
            TokenSubject::User { name, role } => (Scope::User(*role), name.to_string()),
        };
        let id = crate::random().map_err(|error| error.to_string())?;
        let audience = match request.subject {
            TokenSubject::Node { .. } => Audience::Node,
            TokenSubject::User { .. } if request.browser => Audience::Browser,
            TokenSubject::User { .. } => Audience::User,
        };
        let peers = self.peer_addresses(audience);
        if audience == Audience::Browser && peers.is_empty() {
            return Err(
                "no node that is up can be dialled by browsers: see 'vc nodes --addresses'"
                    .to_owned(),
            );
        }
        let token = issuer
            .issue(scope, &name, peers, id, crate::now(), request.ttl_ms)
            .map_err(|error| error.to_string())?;
        tracing::info!(
            by = user.name,
            id = format!("{id:016x}"),
            kind = scope.kind(),
            subject = name,
            "token made"
        );
        Ok(token)
    }

    /// Where members are, for this audience.
    pub(crate) fn peer_addresses(&self, audience: Audience) -> Vec<Multiaddr> {
        let view = Arc::clone(&self.snapshot.borrow().view);
        peers::choose(audience, &view, self.membership.node)
    }

    /// What happened lately, and what happens until the user goes.
    async fn events(
        &self,
        follow: bool,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let mut events = self.events.clone();
        loop {
            for row in events.take(usize::MAX) {
                frames.send(&Reply::Event(row)).await?;
            }
            if !follow {
                return frames.send(&Reply::End).await;
            }
            tokio::select! {
                more = events.more() => if !more {
                    return frames.send(&Reply::End).await;
                },
                () = sleep(KEEPALIVE_INTERVAL) => frames.send(&Reply::KeepAlive).await?,
                // A user who follows says nothing more: a frame or the end of the stream ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }
}
