//! Commands in instances, and copies of their files, wherever they run: here, or on another member, whose frames are passed on.
//!
//! Nothing is read before there is room for it further on, in either direction: a user who does not read halts the
//! command, one who does not write costs nothing. Who is silent for longer than a sign of life takes is gone.

mod choose;
mod copy;
mod local;
mod relay;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use vc_protocol::NodeId;
use vc_protocol::control::{CopyRequest, ExecRequest, InstanceRequest, Reply};
use vc_protocol::exec::{ExecFrame, MAX_EXEC_CHUNK};
use vc_protocol::wire::{EXEC_PROTOCOL, MAX_FRAME};
use vc_protocol::{ApiError, ErrorCode};

use crate::frames::{Duplex, FrameError, Frames};
use crate::network::inbound::Incoming;
use crate::runtime::Runtime;
use crate::snapshot::Snapshot;

/// Commands that run here at a time, for users of any node.
const MAX_HERE: usize = 64;
/// Commands elsewhere that users of this node follow at a time.
const MAX_RELAYED: usize = 64;
/// Another member answers within this time whether it does it.
const ANSWER: Duration = Duration::from_secs(25);
/// After its last frame a side waits so long for the other to close the stream: what is on its way is not cut off.
const GOODBYE: Duration = Duration::from_secs(10);

/// What a user wants of an instance.
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

/// For the log. A command's arguments may hold secrets: they are left out.
impl fmt::Display for UserRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec(exec) => write!(f, "exec {}", exec.command.first().map_or("", |it| it)),
            Self::CopyOut(copy) => write!(f, "copy out {}", copy.path),
            Self::CopyIn(copy) => write!(f, "copy in {}", copy.path),
        }
    }
}

/// Runs commands here and elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Execs {
    node: NodeId,
    runtime: Runtime,
    members: libp2p_stream::Control,
    here: Arc<Semaphore>,
    relayed: Arc<Semaphore>,
}

impl Execs {
    pub(crate) fn new(node: NodeId, runtime: Runtime, members: libp2p_stream::Control) -> Self {
        let room = |most| Arc::new(Semaphore::new(most));
        Self { node, runtime, members, here: room(MAX_HERE), relayed: room(MAX_RELAYED) }
    }

    /// Runs a user's command in the instance that he means, or copies its files. The session ends with it.
    pub(crate) async fn exec(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        user: &str,
        request: UserRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let view = Arc::clone(&snapshot.borrow().view);
        let (service, replica) = request.target();
        let (node, instance) = match choose::instance(&view, self.node, service, replica) {
            Ok(chosen) => chosen,
            Err(reason) => {
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
        };
        tracing::info!(by = user, %instance, what = request.to_string(), "a user works in an instance");
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
        match self.open(node, &request).await {
            Ok((mut there, _permit)) => {
                frames.send(&Reply::Ready).await?;
                relay::relay(frames, &mut there, relay::lost(snapshot.clone(), node), &name).await
            }
            Err(reason) => {
                frames
                    .send(&Reply::Error(ApiError::new(
                        ErrorCode::FailedPrecondition,
                        format!("{name}: {reason}"),
                    )))
                    .await
            }
        }
    }

    /// Asks another member.
    async fn open(
        &self,
        node: NodeId,
        request: &InstanceRequest,
    ) -> Result<(Frames<Stream>, OwnedSemaphorePermit), String> {
        let permit = room(&self.relayed, "this node follows", MAX_RELAYED)?;
        let mut control = self.members.clone();
        let ask = async {
            let stream = control
                .open_stream(node.peer_id(), StreamProtocol::new(EXEC_PROTOCOL))
                .await
                .map_err(|error| format!("it cannot be reached ({error})"))?;
            let mut frames = Frames::new(stream, MAX_FRAME);
            frames.send(request).await.map_err(|error| error.to_string())?;
            match frames.receive().await {
                Ok(Reply::Ready) => Ok(frames),
                Ok(Reply::Error(error)) => Err(error.to_string()),
                Ok(_) => Err("it gave no answer that makes sense: is it older?".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let late = || format!("it did not answer within {} s", ANSWER.as_secs());
        Ok((timeout(ANSWER, ask).await.map_err(|_| late())??, permit))
    }

    /// Answers other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        while let Some((_, stream)) = streams.recv().await {
            let execs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(Ok(request)) = timeout(ANSWER, frames.receive()).await {
                    let _ = execs.perform(request, &mut frames).await;
                }
            });
        }
    }

    /// Does here what was asked, and tells whoever asked.
    async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        request: InstanceRequest,
        frames: &mut Frames<S>,
    ) -> Result<(), FrameError> {
        let _permit = match room(&self.here, "it runs", MAX_HERE) {
            Ok(permit) => permit,
            Err(reason) => {
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
        };
        let refused = match request {
            InstanceRequest::Exec { instance, exec } => {
                match self.runtime.exec(&instance, &exec).await {
                    Ok(running) => {
                        begin(frames).await?;
                        return local::attend(running, exec.tty, frames).await;
                    }
                    Err(error) => error,
                }
            }
            InstanceRequest::CopyOut { instance, copy } => {
                match self.runtime.copy_out(&instance, &copy.path).await {
                    Ok(archive) => {
                        begin(frames).await?;
                        return copy::out(archive, frames).await;
                    }
                    Err(error) => error,
                }
            }
            InstanceRequest::CopyIn { instance, copy } => {
                match self.runtime.copy_in(&instance, &copy.path, &copy.name).await {
                    Ok(upload) => {
                        begin(frames).await?;
                        return copy::take(upload, frames).await;
                    }
                    Err(error) => error,
                }
            }
        };
        frames
            .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, refused.to_string())))
            .await
    }
}

/// Says that it goes on in frames of bytes.
async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    frames.send(&Reply::Ready).await?;
    frames.set_max(MAX_EXEC_CHUNK + 1);
    Ok(())
}

fn room(of: &Arc<Semaphore>, who: &str, most: usize) -> Result<OwnedSemaphorePermit, String> {
    let full = |_| format!("{who} {most} commands already: try again when one has ended");
    Arc::clone(of).try_acquire_owned().map_err(full)
}

/// Sends the last frame and waits a moment for the other side to close.
async fn say_goodbye<S: AsyncRead + AsyncWrite + Unpin>(
    last: ExecFrame,
    frames: &mut Frames<S>,
) -> Result<(), FrameError> {
    frames.send_bytes(last.encode()).await?;
    let _ = timeout(GOODBYE, frames.split().1.closed()).await;
    Err(FrameError::Closed)
}
