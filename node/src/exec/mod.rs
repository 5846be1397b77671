//! Runs commands in instances and copies their files, on this node or through the member that runs the instance.
//!
//! Backpressure goes end to end: a frame is read only when there is room for it downstream, so a client that does not read
//! stops the command, and one that does not write costs nothing. A side that sends nothing for longer than
//! [`IDLE_TIMEOUT`](vc_protocol::exec::IDLE_TIMEOUT) is disconnected.

mod attach;
mod copy;
mod error;
mod relay;
mod target;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, Stream};
use libp2p::PeerId;
use libp2p::bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use vc_protocol::audit::AuditAction;
use vc_protocol::auth::Delegated;
use vc_protocol::control::{CopyRequest, ExecRequest, Reply};
use vc_protocol::exec::{ExecFrame, InstanceRequest, MAX_EXEC_CHUNK};
use vc_protocol::token::UserRole;
use vc_protocol::wire::{EXEC_PROTOCOL, MAX_FRAME};
use vc_protocol::{ApiError, InstanceId, NodeId};

use crate::audit::Origin;
use crate::auth::privileges::check_instance;
use crate::auth::{Rights, TokenVerifier, User};
use crate::frames::{Duplex, FrameError, Frames};
use crate::member_request::{self, MemberError};
use crate::network::inbound::Incoming;
use crate::snapshot::Snapshot;
use error::ExecError;
pub(crate) use relay::{node_down, relay};
use vc_runtime::Runtime;

/// Commands and copies that run on this node at once, for clients of any node.
const MAX_LOCAL: usize = 64;
/// Commands and copies on other members that clients of this node follow at once.
const MAX_RELAYED: usize = 64;
/// Time for another member to start or refuse a command, and for its request to arrive here.
const START_TIMEOUT: Duration = Duration::from_secs(25);
/// Time after the last frame for the other side to close the stream, so that frames in flight arrive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client's request about one instance.
pub(crate) enum UserRequest {
    Exec(ExecRequest),
    CopyOut(CopyRequest),
    CopyIn(CopyRequest),
}

impl UserRequest {
    fn target(&self) -> (&str, Option<u32>) {
        match self {
            Self::Exec(exec) => (&exec.service, exec.replica),
            Self::CopyOut(copy) | Self::CopyIn(copy) => (&copy.service, copy.replica),
        }
    }
}

impl UserRequest {
    /// Returns what the audit log says of it. A command's arguments may hold secrets.
    fn audited(&self, instance: &InstanceId, node: &str) -> (AuditAction, String) {
        let slot = &instance.slot;
        match self {
            Self::Exec(exec) if exec.attach => {
                (AuditAction::Exec, format!("attached to {slot} on {node}"))
            }
            Self::Exec(exec) => {
                let program = exec.command.first().map_or("", |it| it);
                (AuditAction::Exec, format!("ran {program} in {slot} on {node}"))
            }
            Self::CopyOut(copy) => {
                (AuditAction::CopyOut, format!("copied {} out of {slot} on {node}", copy.path))
            }
            Self::CopyIn(copy) => {
                (AuditAction::CopyIn, format!("copied files to {} in {slot} on {node}", copy.path))
            }
        }
    }
}

impl From<&InstanceRequest> for UserRequest {
    fn from(request: &InstanceRequest) -> Self {
        match request {
            InstanceRequest::Exec { exec, .. } => Self::Exec(exec.clone()),
            InstanceRequest::CopyOut { copy, .. } => Self::CopyOut(copy.clone()),
            InstanceRequest::CopyIn { copy, .. } => Self::CopyIn(copy.clone()),
        }
    }
}

/// For the log: leaves out a command's arguments, which may hold secrets.
impl fmt::Display for UserRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(exec) if exec.attach => f.write_str("attach"),
            Self::Exec(exec) => write!(f, "exec {}", exec.command.first().map_or("", |it| it)),
            Self::CopyOut(copy) => write!(f, "copy out {}", copy.path),
            Self::CopyIn(copy) => write!(f, "copy in {}", copy.path),
        }
    }
}

/// Runs commands and copies. Cheap to clone.
#[derive(Clone)]
pub struct Execs {
    node: NodeId,
    verifier: TokenVerifier,
    runtime: Runtime,
    members: libp2p_stream::Control,
    local: Arc<Semaphore>,
    relayed: Arc<Semaphore>,
}

impl Execs {
    pub(crate) fn new(
        node: NodeId,
        verifier: TokenVerifier,
        runtime: Runtime,
        members: libp2p_stream::Control,
    ) -> Self {
        let (local, relayed) =
            (Arc::new(Semaphore::new(MAX_LOCAL)), Arc::new(Semaphore::new(MAX_RELAYED)));
        Self { node, verifier, runtime, members, local, relayed }
    }

    /// Runs a client's command or copy in the instance that the request names, wherever it runs.
    ///
    /// # Errors
    /// The stream is closed; always so after a command has started.
    pub(crate) async fn exec(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        user: &User,
        request: UserRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let view = Arc::clone(&snapshot.borrow().view);
        let (service, replica) = request.target();
        let starts = matches!(&request, UserRequest::Exec(exec) if exec.attach);
        let (node, instance) = match target::choose(&view, service, replica, starts) {
            Ok(chosen) => chosen,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        if let Err(error) = check_instance(&user.rights, &view, &instance) {
            let error = ApiError::from(error);
            self.verifier.audit.refused(user, &error.message);
            return frames.send(&Reply::Error(error)).await;
        }
        // On a worker, the member that performs the request records it: it has verified the user's token.
        if self.verifier.is_server(self.node) || node == self.node {
            let done = request.audited(&instance, &view.name(node));
            self.record(user, &instance, done);
        }
        tracing::info!(user = user.name, %instance, request = request.to_string(), "instance request");
        let request = match request {
            UserRequest::Exec(exec) => InstanceRequest::Exec { instance, exec },
            UserRequest::CopyOut(copy) => InstanceRequest::CopyOut { instance, copy },
            UserRequest::CopyIn(copy) => InstanceRequest::CopyIn { instance, copy },
        };
        if node == self.node {
            return self.perform(request, frames).await;
        }
        let name = view.name(node);
        drop(view);
        let token = user.credential.to_string();
        let delegated = Delegated::new(token, user.address.clone(), request);
        match self.open(node, &name, &delegated).await {
            Ok((mut member, _permit)) => {
                frames.send(&Reply::Ready).await?;
                let down = node_down(snapshot.clone(), node);
                relay(frames, &mut member, down, &name).await
            }
            Err(error) => frames.send(&Reply::Error(error.into())).await,
        }
    }

    fn record(
        &self,
        origin: impl Into<Origin>,
        instance: &InstanceId,
        (action, text): (AuditAction, String),
    ) {
        let service = Some(instance.slot.service.clone());
        self.verifier.audit.record(action, origin, service, text);
    }

    /// Starts a request on another member. Returns the stream of its frames.
    async fn open(
        &self,
        node: NodeId,
        name: &str,
        request: &Delegated<InstanceRequest>,
    ) -> Result<(Frames<libp2p::Stream>, OwnedSemaphorePermit), ExecError> {
        let permit = Arc::clone(&self.relayed).try_acquire_owned();
        let permit = permit.map_err(|_| ExecError::TooManyRelayed)?;
        let members = self.members.clone();
        let started =
            member_request::request(members, node, EXEC_PROTOCOL, request, START_TIMEOUT).await;
        let source = match started {
            Ok((Reply::Ready, frames)) => return Ok((frames, permit)),
            Ok(_) => MemberError::Unexpected,
            Err(error) => error,
        };
        Err(ExecError::Member { node: name.to_owned(), source })
    }

    /// Answers the requests of other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        while let Some((peer, stream)) = streams.recv().await {
            let execs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(Ok(delegated)) = timeout(START_TIMEOUT, frames.receive()).await {
                    let _ = execs.perform_delegated(peer, delegated, &mut frames).await;
                }
            });
        }
    }

    /// Performs a request that another member passes on, if its user may make it: a member alone may not.
    async fn perform_delegated(
        &self,
        peer: PeerId,
        Delegated { token, address, request }: Delegated<InstanceRequest>,
        frames: &mut Frames<libp2p::Stream>,
    ) -> Result<(), FrameError> {
        let instance = request.instance();
        let view = Arc::clone(&self.verifier.snapshot.borrow().view);
        let may = |rights: &Rights| -> Result<(), ApiError> {
            rights.check_role(UserRole::Deployer)?;
            rights.check_project(&instance.slot.service.project)?;
            Ok(check_instance(rights, &view, instance)?)
        };
        match self.verifier.delegated(peer, &token, may) {
            Ok(user) => {
                if let Ok(via) = NodeId::try_from(peer)
                    && !self.verifier.is_server(via)
                {
                    let done = UserRequest::from(&request);
                    let done = done.audited(instance, &self.verifier.name(self.node));
                    let origin = Origin { address, via: Some(via), ..user.origin() };
                    self.record(origin, instance, done);
                }
                tracing::info!(user = user.name, through = %peer, %instance, "instance request");
                self.perform(request, frames).await
            }
            Err(error) => frames.send(&Reply::Error(error)).await,
        }
    }

    /// Performs a request on an instance of this node.
    async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        request: InstanceRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let Ok(_permit) = Arc::clone(&self.local).try_acquire_owned() else {
            return frames.send(&Reply::Error(ExecError::TooManyLocal.into())).await;
        };
        let error = match request {
            InstanceRequest::Exec { instance, exec } => {
                match self.runtime.exec(&instance, &exec).await {
                    Ok(running) => {
                        begin(frames).await?;
                        return attach::attach(running, (exec.tty, exec.attach), frames).await;
                    }
                    Err(error) => error,
                }
            }
            InstanceRequest::CopyOut { instance, copy } => {
                match self.runtime.copy_out(&instance, &copy.path).await {
                    Ok(archive) => {
                        begin(frames).await?;
                        return copy::send(archive, frames).await;
                    }
                    Err(error) => error,
                }
            }
            InstanceRequest::CopyIn { instance, copy } => {
                match self.runtime.copy_in(&instance, &copy.path, &copy.name).await {
                    Ok(upload) => {
                        begin(frames).await?;
                        return copy::receive(upload, frames).await;
                    }
                    Err(error) => error,
                }
            }
        };
        frames.send(&Reply::Error(ExecError::from(error).into())).await
    }
}

/// Sends an archive that this node makes, as files of an instance are sent.
///
/// # Errors
/// The stream is closed; always so at the end.
pub(crate) async fn send_archive<E: Into<ApiError>>(
    archive: impl Stream<Item = Result<Bytes, E>> + Unpin,
    frames: &mut Frames<impl Duplex>,
) -> Result<(), FrameError> {
    begin(frames).await?;
    copy::send(archive, frames).await
}

/// Announces that frames of bytes follow.
async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    frames.send(&Reply::Ready).await?;
    frames.set_max(MAX_EXEC_CHUNK + 1);
    Ok(())
}

/// Sends the last frame and waits up to [`CLOSE_TIMEOUT`] for the other side to close the stream.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
    last: ExecFrame,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    frames.send_bytes(last.encode()).await?;
    let _ = timeout(CLOSE_TIMEOUT, frames.split().1.closed()).await;
    Err(FrameError::Closed)
}
