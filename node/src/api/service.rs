//! The control service: serves a stream's requests, and dispatches each to its group.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::timeout;
use tracing::Instrument as _;
use vc_crdt::RevocationKey;
use vc_engine::{Mutation, find_service};
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Reply, Request};
use vc_protocol::{ApiError, ErrorCode, TraceId};

use super::forward::Forwarder;
use super::plan::Planner;
use super::services::DeployOptions;
use super::volume_error::VolumeError;
use super::{Cluster, adopt, roles, scope};
use crate::alerts::AlertSender;
use crate::audit::{Audit, AuditLogs};
use crate::auth::User;
use crate::events::Events;
use crate::exec::{Execs, UserRequest};
use crate::frames::{Duplex, FrameError, Frames};
use crate::http::Http;
use crate::logs::Logs;
use crate::upgrade::Upgrades;
use crate::usage::Usages;
use crate::volumes::Volumes;
use vc_runtime::Runtime;
use vc_runtime::images::Images;

/// A session without a request for this long is closed.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How often a client that waits for an answer is sent a frame.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the id by which the logs of all nodes name what a request causes.
fn trace_of(request: &Request) -> Option<TraceId> {
    match request {
        Request::Deploy { trace, .. } => *trace,
        _ => None,
    }
}

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
    pub(crate) cluster: Cluster,
    pub(crate) forwarder: Forwarder,
    pub(crate) planner: Planner,
    pub(crate) logs: Logs,
    pub(crate) execs: Execs,
    pub(crate) images: Images,
    pub(crate) runtime: Runtime,
    pub(crate) events: Events,
    pub(crate) audit: Audit,
    pub(crate) audit_logs: AuditLogs,
    pub(crate) http: Http,
    pub(crate) volumes: Volumes,
    pub(crate) usages: Usages,
    pub(crate) alerts: AlertSender,
    pub(crate) upgrades: Upgrades,
}

impl ControlService {
    /// Answers one request after another, and calls `first` when the first arrives. Returns [`Next::Multiplex`] when the stream is
    /// to carry many, else [`Next::Close`].
    pub(super) async fn serve_requests(
        &self,
        user: &User,
        frames: &mut Frames<impl Duplex>,
        first: impl FnOnce(),
    ) -> Next {
        let mut first = Some(first);
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
            if let Some(first) = first.take() {
                first();
            }
            user.quota.acquire().await;
            let span = tracing::info_span!(
                "request",
                op = roles::name(&request),
                trace = trace_of(&request).map(tracing::field::display),
                via = user.via.map(tracing::field::display),
            );
            match self.answer(user, request, frames).instrument(span).await {
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
        mut request: Request,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        let allowed = roles::check(&user.rights, &request).map_err(ApiError::from);
        let view = || self.cluster.latest().view;
        if let Err(error) =
            allowed.and_then(|()| scope::restrict(&user.rights, &view(), &mut request))
        {
            let reason = format!("{}: {}", roles::name(&request), error.message);
            self.audit.refused(user, &reason);
            frames.send(&Reply::Error(error)).await?;
            return Ok(Next::Request);
        }
        if roles::needs_server(&request) && !self.cluster.is_server() {
            return self.forwarder.forward(user, &request, frames).await.map(|()| Next::Request);
        }
        match self.volume_node(&mut request) {
            Ok(None) => {}
            // Each of two nodes takes the other for the one.
            Ok(Some(at)) if user.via == Some(at) => {
                frames.send(&Reply::Error(VolumeError::Moving.into())).await?;
                return Ok(Next::Request);
            }
            Ok(Some(at)) => {
                let unreachable = format!("{} cannot be reached", view().name(at));
                self.forwarder.forward_to(&[at], &unreachable, user, &request, frames).await?;
                return Ok(Next::Request);
            }
            Err(error) => {
                frames.send(&Reply::Error(error)).await?;
                return Ok(Next::Request);
            }
        }
        let reply = match request {
            Request::Multiplex => return Ok(Next::Multiplex),

            // Streams of replies, or of bytes after the first reply.
            Request::Watch { services } => {
                return self.watch(user, services, frames).await.map(|()| Next::Request);
            }
            Request::Live => return self.live(user, frames).await.map(|()| Next::Request),
            Request::Events(query) => {
                return self.events(user, query, frames).await.map(|()| Next::Request);
            }
            Request::Audit(query) => {
                let done = self.audit_logs.stream(self.cluster.snapshots(), user, query, frames);
                return done.await.map(|()| Next::Request);
            }
            Request::Logs(request) => {
                let done = self.logs.stream(self.cluster.snapshots(), user, request, frames).await;
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
                self.opens(user, &request.service);
                return self.http.fetch(user, request, frames).await.map(|()| Next::Request);
            }
            Request::Socket(request) => {
                self.opens(user, &request.service);
                return self.http.socket(user, request, frames).await.map(|()| Next::Request);
            }
            Request::Usage { service, node } => {
                self.usage(user, service.as_deref(), node.as_deref(), frames).await?
            }
            Request::PushImage(push) => self.push_image(user, &push, frames).await?,
            Request::UploadVolume { volume, upload } => {
                self.upload_volume(user, volume, upload, frames).await?
            }
            Request::CopyIntoVolume { volume, path, name } => {
                self.copy_into_volume(user, volume, path, name, frames).await?
            }
            Request::StagedUpload { volume, directory, .. } => {
                return self.staged_upload(volume, directory, frames).await.map(|()| Next::Request);
            }
            Request::VolumeFiles { volume } => {
                return self.volume_files(user, volume, frames).await.map(|()| Next::Request);
            }
            Request::ImportVolume { volume, .. } => {
                self.import_volume(user, volume, frames).await?
            }
            Request::ExportVolume { volume, snapshot, path, .. } => {
                let exported = self.export_volume(user, volume, snapshot, path, frames).await;
                return exported.map(|()| Next::Request);
            }

            Request::UpgradeNode { program, .. } => {
                return self.upgrade(user, program, frames).await;
            }

            Request::Backup => return self.backup(user, frames).await.map(|()| Next::Request),

            // Single replies.
            Request::Services => Ok(self.services(user)),
            Request::Instances { service, usage } => {
                self.instances(user, service.as_deref(), usage).await
            }
            Request::Inspect { service, show_values } => self.inspect(user, &service, show_values),
            Request::Plan { deployments } => self.plan(user, deployments).await,
            Request::Diff { deployments, files, pull, force, data_from } => {
                let options = DeployOptions { pull, force, data_from };
                keep_alive(frames, pull, self.diff(user, deployments, &files, &options)).await?
            }
            Request::Compose { text, project } => self.compose(user, text, project).await,
            Request::Deploy { deployments, files, pull, force, data_from, trace } => {
                let options = DeployOptions { pull, force, data_from };
                let deployed = self.deploy(user, deployments, &files, &options, trace);
                keep_alive(frames, pull, deployed).await?
            }
            Request::Scale { service, replicas, force } => {
                self.scale(user, service, replicas, force).await
            }
            Request::Restart { service, force } => self.restart(user, service, force).await,
            Request::Rollback { service, force } => self.rollback(user, service, None, force).await,
            Request::RollbackTo { service, version, force } => {
                self.rollback(user, service, Some(version), force).await
            }
            Request::History { service } => self.history(user, &service),
            Request::Jobs => Ok(self.jobs(user)),
            Request::Runs { service } => self.runs(user, &service),
            Request::RunJob { service } => self.run_job(user, service).await,
            Request::StopRun { service, run } => self.stop_run(user, service, run).await,
            Request::Remove { service } => {
                self.cluster.mutate(user, Mutation::Remove(service)).await
            }
            Request::Rebalance { apply } => self.rebalance(user, apply).await,
            Request::DiskUsage { .. } => keep_alive(frames, true, self.disk_usage()).await?,
            Request::NodeProgram { .. } => keep_alive(frames, true, self.program()).await?,
            Request::Nodes => Ok(self.nodes()),
            Request::Status => Ok(self.status(user)),
            Request::Drain { node, drain } => {
                self.cluster.mutate(user, Mutation::Drain { node, drain }).await
            }
            Request::Leave { node, force } => {
                self.cluster.mutate(user, Mutation::Leave { node, force }).await
            }
            Request::Adopt { node, stop } => match adopt::find(&view(), &node) {
                Ok((former, at)) if at == self.cluster.membership().node => {
                    keep_alive(frames, true, self.adopt(user, former, stop)).await?
                }
                Ok((former, at)) => {
                    let name = view().name(at);
                    let unreachable = format!("{name}, the node on that host, cannot be reached");
                    let request = Request::Adopt { node: former.to_string(), stop };
                    self.forwarder.forward_to(&[at], &unreachable, user, &request, frames).await?;
                    return Ok(Next::Request);
                }
                Err(error) => Err(error),
            },
            Request::Images => Ok(self.images(user).await),
            Request::RemoveImages { references } => self.remove_images(user, &references).await,
            Request::PruneImages { apply } => self.prune_images(user, apply).await,
            Request::Volumes => Ok(self.volumes(user)),
            Request::Snapshots { volume, .. } => self.snapshots(volume).await,
            Request::UndeleteVolume { volume, .. } => self.undelete(user, volume).await,
            Request::SnapshotVolume { volume } => {
                keep_alive(frames, true, self.snapshot_volume(user, volume)).await?
            }
            Request::RestoreVolume { volume, snapshot, conflict } => {
                keep_alive(frames, true, self.restore(user, volume, snapshot, conflict)).await?
            }
            Request::ReplaceVolume { volume, directory } => {
                let (service, user) = (self.clone(), user.clone());
                let replaced =
                    async move { service.replace_volume(&user, volume, &directory).await };
                to_the_end(frames, replaced).await?
            }
            Request::CloneVolume { volume, snapshot, to, .. } => {
                let (service, user) = (self.clone(), user.clone());
                let cloned = async move { service.clone_volume(&user, volume, snapshot, to).await };
                to_the_end(frames, cloned).await?
            }
            Request::AdoptVolume { volume, source, .. } => {
                let (service, user) = (self.clone(), user.clone());
                let adopted = async move { service.adopt_volume(&user, volume, &source).await };
                to_the_end(frames, adopted).await?
            }
            Request::MoveVolume { volume, to } => {
                self.cluster.mutate(user, Mutation::MoveVolume { volume, to }).await
            }
            Request::RemoveVolume { volume } => {
                self.cluster.mutate(user, Mutation::RemoveVolume { volume }).await
            }
            Request::ForgetVolume { volume } => {
                self.cluster.mutate(user, Mutation::ForgetVolume { volume }).await
            }
            Request::CreateToken(request) => self.create_token(user, &request).await,
            Request::Tokens => Ok(self.tokens()),
            Request::Trust => self.trust(),
            Request::Voters => Ok(self.voters()),
            Request::SetVoter { node, votes } => {
                self.cluster.mutate(user, Mutation::SetVoter { node, votes }).await
            }
            Request::ForceVoters { nodes } => {
                self.cluster.mutate(user, Mutation::ForceVoters { nodes }).await
            }
            Request::RotateTrust { members } => self.rotate_trust(user, members).await,
            Request::Projects => Ok(self.projects(user)),
            Request::AllowProject { project, policy } => {
                self.cluster.mutate(user, Mutation::AllowProject { project, policy }).await
            }
            Request::DenyProject { project, policy } => {
                self.cluster.mutate(user, Mutation::DenyProject { project, policy }).await
            }
            Request::Receivers => Ok(self.receivers()),
            Request::AddReceiver { name, target, format, filter } => {
                self.add_receiver(user, name, (target, format, filter)).await
            }
            Request::RemoveReceiver { name } => {
                self.cluster.mutate(user, Mutation::RemoveReceiver { name }).await
            }
            Request::TestReceiver { name } => match Self::receiver_sender(&view(), &name) {
                Ok(at) if at == self.cluster.membership().node || user.via.is_some() => {
                    keep_alive(frames, true, self.test_receiver(name)).await?
                }
                Ok(at) => {
                    let unreachable =
                        format!("{}, which sends to it, cannot be reached", view().name(at));
                    let request = Request::TestReceiver { name };
                    self.forwarder.forward_to(&[at], &unreachable, user, &request, frames).await?;
                    return Ok(Next::Request);
                }
                Err(error) => Err(error),
            },
            Request::RevokeToken { token, force } => {
                let key = RevocationKey::Token(token);
                self.cluster.mutate(user, Mutation::Revoke { key, force }).await
            }
            Request::RevokeUser { user: name, force } => {
                let key = RevocationKey::User(name);
                self.cluster.mutate(user, Mutation::Revoke { key, force }).await
            }
        };
        if let Err(error) = &reply
            && error.code == ErrorCode::PermissionDenied
        {
            self.audit.refused(user, &error.message);
        }
        frames.send(&reply.unwrap_or_else(Reply::Error)).await?;
        Ok(Next::Request)
    }

    /// Records that a session sends HTTP requests to a service, once for each.
    fn opens(&self, user: &User, service: &str) {
        let view = self.cluster.latest().view;
        let Ok(service) = find_service(&view.cluster, service) else { return };
        let is_new = {
            let mut opened = user.opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.insert(service.clone())
        };
        if is_new {
            let text = format!("opened {service}");
            self.audit.record(AuditAction::ServiceOpened, user, Some(service), text);
        }
    }

    async fn exec(
        &self,
        user: &User,
        request: UserRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        let done = self.execs.exec(self.cluster.snapshots(), user, request, frames).await;
        done.map(|()| Next::Request)
    }
}

/// As [`keep_alive`], for what goes on to its end when the client is gone.
async fn to_the_end(
    frames: &mut Frames<impl Duplex>,
    answer: impl Future<Output = Result<Reply, ApiError>> + Send + 'static,
) -> Result<Result<Reply, ApiError>, FrameError> {
    let joined = keep_alive(frames, true, tokio::spawn(answer)).await?;
    Ok(joined.unwrap_or_else(|_| Err(VolumeError::Stopping.into())))
}

/// Waits for an answer. With `enabled`, sends the client frames meanwhile; older ones do not expect them.
pub(super) async fn keep_alive<T>(
    frames: &mut Frames<impl Duplex>,
    enabled: bool,
    answer: impl Future<Output = T>,
) -> Result<T, FrameError> {
    tokio::pin!(answer);
    loop {
        match timeout(KEEPALIVE_INTERVAL, &mut answer).await {
            Ok(answer) => return Ok(answer),
            Err(_) if enabled => frames.send(&Reply::KeepAlive).await?,
            Err(_) => {}
        }
    }
}
