//! Logs of a service's instances, from whichever nodes hold them, merged by time.

mod merge;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use vc_protocol::control::{InstanceLogRequest, LogRequest, LogRow, Reply};
use vc_protocol::wire::{LOGS_PROTOCOL, MAX_FRAME};
use vc_protocol::{ApiError, ErrorCode, InstanceId, NodeId};

use crate::frames::{Duplex, FrameError, Frames};
use crate::network::inbound::Incoming;
use crate::runtime::{LogQuery, Runtime, RuntimeError};
use crate::snapshot::Snapshot;

/// Logs that other members read here at a time.
const MAX_READERS: usize = 256;
/// Another member begins to answer within this time.
const ANSWER: Duration = Duration::from_secs(10);

/// Reads logs here and elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    pub(crate) node: NodeId,
    pub(crate) runtime: Runtime,
    pub(crate) members: libp2p_stream::Control,
}

/// The rows of one instance; an error is their end.
type Rows = BoxStream<'static, Result<LogRow, String>>;

impl Logs {
    /// Sends the lines of all instances that the request names, in the order in which they were written.
    pub(crate) async fn stream(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        request: LogRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let logs = self.clone();
        let open = move |node, request: InstanceLogRequest| {
            let logs = logs.clone();
            async move {
                match node == logs.node {
                    true => logs.local(request).await,
                    false => logs.remote(node, request).await,
                }
            }
        };
        reading::read(snapshot.clone(), request, open, frames).await
    }

    /// Of an instance here; `None`: there is none.
    async fn local(&self, request: InstanceLogRequest) -> Result<Option<Rows>, String> {
        let InstanceLogRequest { slot, digest, follow, tail, since } = request;
        let query = LogQuery { digest, follow, tail, since };
        let lines = match self.runtime.logs(&slot, query).await {
            Ok(lines) => lines,
            Err(RuntimeError::NoInstance(_)) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let node = self.node;
        let row = move |line: crate::runtime::LogLine| LogRow {
            service: slot.service.clone(),
            replica: slot.replica,
            node,
            time: line.time,
            stream: line.stream,
            line: line.line,
        };
        Ok(Some(lines.map(move |line| Ok(row(line))).boxed()))
    }

    /// Of an instance of another member; `None`: it has none.
    async fn remote(
        &self,
        node: NodeId,
        request: InstanceLogRequest,
    ) -> Result<Option<Rows>, String> {
        let mut control = self.members.clone();
        let ask = async {
            let stream = control
                .open_stream(node.peer_id(), StreamProtocol::new(LOGS_PROTOCOL))
                .await
                .map_err(|error| format!("it cannot be reached ({error})"))?;
            let mut frames = Frames::new(stream, MAX_FRAME);
            frames.send(&request).await.map_err(|error| error.to_string())?;
            match frames.receive::<Reply>().await.map_err(|error| error.to_string())? {
                Reply::Ready => Ok(Some(frames)),
                Reply::End => Ok(None),
                Reply::Error(error) => Err(error.to_string()),
                _ => Err("it gave no answer that makes sense: is it older?".to_owned()),
            }
        };
        let late = |_| format!("it did not answer within {} s", ANSWER.as_secs());
        let Some(frames) = timeout(ANSWER, ask).await.map_err(late)?? else { return Ok(None) };
        let read = futures::stream::unfold(Some(frames), move |frames| {
            let slot = request.slot.clone();
            async move {
                let mut frames = frames?;
                let broken = match frames.receive::<Reply>().await {
                    // Whose line it is was asked, not told.
                    Ok(Reply::Log(row)) if row.line.len() <= MAX_FRAME => {
                        let (service, replica) = (slot.service, slot.replica);
                        let row = LogRow { service, replica, node, ..row };
                        return Some((Ok(row), Some(frames)));
                    }
                    Ok(Reply::End) => return None,
                    Ok(Reply::Error(error)) => error.to_string(),
                    Ok(_) => "it sent something else".to_owned(),
                    Err(error) => error.to_string(),
                };
                Some((Err(broken), None))
            }
        });
        Ok(Some(read.boxed()))
    }

    /// Answers other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        let room = Arc::new(Semaphore::new(MAX_READERS));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(%peer, "too many readers of logs; this one is turned away");
                continue;
            };
            let logs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(Ok(request)) = timeout(ANSWER, frames.receive()).await {
                    let _ = logs.send(request, &mut frames).await;
                }
                drop(permit);
            });
        }
    }

    async fn send(
        &self,
        request: InstanceLogRequest,
        frames: &mut Frames<Stream>,
    ) -> Result<(), FrameError> {
        let mut rows = match self.local(request).await {
            Ok(Some(rows)) => rows,
            Ok(None) => return frames.send(&Reply::End).await,
            Err(reason) => {
                return frames
                    .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                    .await;
            }
        };
        frames.send(&Reply::Ready).await?;
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                _ = frames.receive::<serde_json::Value>() => return Ok(()),
            };
            match next {
                Some(Ok(row)) => frames.send(&Reply::Log(row)).await?,
                Some(Err(reason)) => {
                    return frames
                        .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                        .await;
                }
                None => return frames.send(&Reply::End).await,
            }
        }
    }
}

/// What to ask of the node that has an instance.
fn of_instance(id: &InstanceId, request: &LogRequest) -> InstanceLogRequest {
    InstanceLogRequest {
        slot: id.slot.clone(),
        digest: Some(id.digest.clone()),
        follow: request.follow,
        tail: request.tail,
        since: request.since,
    }
}
