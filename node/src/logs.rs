//! Logs of a service's instances, from whichever machines hold them.

use futures::stream::{BoxStream, SelectAll, StreamExt as _};
use libp2p::{Stream, StreamProtocol};
use tokio::sync::watch;
use vc_protocol::NodeId;
use vc_protocol::control::{InstanceLogRequest, LogRequest, LogRow, Reply};
use vc_protocol::wire::{LOGS_PROTOCOL, MAX_FRAME};

use crate::drive::Snapshot;
use crate::frames::{FrameError, Frames};
use crate::network::inbound::Incoming;
use crate::runtime::{LogQuery, Runtime};

/// Logs that other members read here at a time.
const MAX_READERS: usize = 64;

/// Reads logs here and elsewhere. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    pub(crate) node: NodeId,
    pub(crate) runtime: Runtime,
    pub(crate) members: libp2p_stream::Control,
}

type Rows = BoxStream<'static, Result<LogRow, String>>;

impl Logs {
    /// Sends the lines of all instances that the request names, as they come.
    pub(crate) async fn stream(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        request: LogRequest,
        frames: &mut Frames<Stream>,
    ) -> Result<(), FrameError> {
        let mut rows = match self.open(snapshot, &request).await {
            Ok(rows) => rows,
            Err(reason) => return frames.send(&Reply::Error(reason)).await,
        };
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                // A user who reads says nothing more: the end of his stream ends the reading.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            };
            match next {
                Some(Ok(row)) => frames.send(&Reply::Log(row)).await?,
                Some(Err(reason)) => frames.send(&Reply::Error(reason)).await?,
                None => return frames.send(&Reply::End).await,
            }
        }
    }

    async fn open(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        request: &LogRequest,
    ) -> Result<SelectAll<Rows>, String> {
        let view = std::sync::Arc::clone(&snapshot.borrow().view);
        let service = vc_engine::find_service(&view.cluster, &request.service)?;
        let claims: std::collections::BTreeSet<_> = view
            .nodes
            .iter()
            .filter(|(node, _)| view.up.contains(node))
            .flat_map(|(&node, state)| {
                state
                    .claims
                    .keys()
                    .filter(|id| id.slot.service == service)
                    .map(move |id| (node, id.slot.clone()))
            })
            .collect();
        let wanted: Vec<_> = claims
            .into_iter()
            .filter(|(_, slot)| request.replica.is_none_or(|replica| slot.replica == replica))
            .collect();
        if wanted.is_empty() {
            return Err(format!(
                "{service} has no such instance that has started; see 'vc ps {service}'"
            ));
        }
        let mut rows = SelectAll::new();
        for (node, slot) in wanted {
            let request = InstanceLogRequest {
                slot,
                follow: request.follow,
                tail: request.tail,
                since: request.since,
            };
            let opened = if node == self.node {
                self.local(request).await
            } else {
                self.remote(node, request).await
            };
            rows.push(opened.map_err(|reason| format!("logs from {}: {reason}", view.name(node)))?);
        }
        Ok(rows)
    }

    async fn local(&self, request: InstanceLogRequest) -> Result<Rows, String> {
        let InstanceLogRequest { slot, follow, tail, since } = request;
        let query = LogQuery { follow, tail, since };
        let lines = self.runtime.logs(&slot, query).await.map_err(|error| error.to_string())?;
        let node = self.node;
        Ok(lines
            .map(move |line| {
                Ok(LogRow {
                    service: slot.service.clone(),
                    replica: slot.replica,
                    node,
                    time: line.time,
                    stream: line.stream,
                    line: line.line,
                })
            })
            .boxed())
    }

    async fn remote(&self, node: NodeId, request: InstanceLogRequest) -> Result<Rows, String> {
        let mut control = self.members.clone();
        let stream = control
            .open_stream(node.peer_id(), StreamProtocol::new(LOGS_PROTOCOL))
            .await
            .map_err(|error| format!("it cannot be reached ({error})"))?;
        let mut frames = Frames::new(stream, MAX_FRAME);
        frames.send(&request).await.map_err(|error| error.to_string())?;
        let read = futures::stream::unfold(Some(frames), |frames| async {
            let mut frames = frames?;
            match frames.receive::<Reply>().await {
                Ok(Reply::Log(row)) => Some((Ok(row), Some(frames))),
                Ok(Reply::Error(reason)) => Some((Err(reason), None)),
                _ => None,
            }
        });
        Ok(read.boxed())
    }

    /// Answers other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        let room = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_READERS));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = std::sync::Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(%peer, "too many readers of logs; this one is turned away");
                continue;
            };
            let logs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(request) = frames.receive::<InstanceLogRequest>().await {
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
            Ok(rows) => rows,
            Err(reason) => return frames.send(&Reply::Error(reason)).await,
        };
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                _ = frames.receive::<serde_json::Value>() => return Ok(()),
            };
            match next {
                Some(Ok(row)) => frames.send(&Reply::Log(row)).await?,
                Some(Err(reason)) => frames.send(&Reply::Error(reason)).await?,
                None => return frames.send(&Reply::End).await,
            }
        }
    }
}
