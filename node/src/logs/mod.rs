//! Reads the logs of a service's instances from the nodes that hold them, merged by time.

mod error;
mod line_sender;
mod merge;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use libp2p::{PeerId, Stream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use vc_engine::find_service;
use vc_protocol::audit::AuditAction;
use vc_protocol::auth::Delegated;
use vc_protocol::control::{LogRequest, LogRow, Reply};
use vc_protocol::log::InstanceLogRequest;
use vc_protocol::wire::{LOGS_PROTOCOL, MAX_FRAME};
use vc_protocol::{InstanceId, NodeId, Slot};

use crate::audit::Origin;
use crate::auth::{Rights, TokenVerifier, User};
use crate::frames::{Duplex, FrameError, Frames};
use crate::member_request::{self, MemberError};
use crate::network::inbound::Incoming;
use crate::snapshot::Snapshot;
use error::LogError;
use line_sender::LineSender;
use vc_runtime::{LogLine, LogQuery, Runtime, RuntimeError};

/// Log streams that other members read from this node at once.
const MAX_READERS: usize = 256;
/// Lines that are sent together to another member.
const MAX_TOGETHER: usize = 256;
/// Time for another member to answer a request for logs, and for its request to arrive here.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads logs on this node and from other members. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    pub(crate) node: NodeId,
    pub(crate) verifier: TokenVerifier,
    pub(crate) runtime: Runtime,
    pub(crate) members: libp2p_stream::Control,
}

/// The rows of one instance; an error is the last item.
type Rows = BoxStream<'static, Result<LogRow, LogError>>;

impl Logs {
    /// Sends the lines of all instances that the request names, in the order in which they were written.
    pub(crate) async fn stream(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        user: &User,
        request: LogRequest,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let service = find_service(&snapshot.borrow().view.cluster, &request.service).ok();
        let text = format!("read the logs of {}", request.service);
        self.verifier.audit.record(AuditAction::LogsRead, user, service, text);
        let (logs, credential) = (self.clone(), Arc::clone(&user.credential));
        let address = user.address.clone();
        let open = move |node, request: InstanceLogRequest| {
            let (logs, token, address) = (logs.clone(), credential.to_string(), address.clone());
            async move {
                if node == logs.node {
                    logs.open_local(request).await
                } else {
                    logs.open_remote(node, Delegated::new(token, address, request)).await
                }
            }
        };
        reading::read(snapshot.clone(), request, open, frames).await
    }

    /// Opens the log of an instance on this node; `None` when there is no such instance.
    async fn open_local(&self, request: InstanceLogRequest) -> Result<Option<Rows>, LogError> {
        let InstanceLogRequest { slot, digest, follow, tail, since, batched: _ } = request;
        let query = LogQuery { digest, follow, tail, since };
        let lines = match self.runtime.logs(&slot, query).await {
            Ok(lines) => lines,
            Err(RuntimeError::NoInstance(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let node = self.node;
        let row = move |line: LogLine| LogRow {
            service: slot.service.clone(),
            replica: slot.replica,
            node,
            time: line.time,
            stream: line.stream,
            line: line.line,
            lost: line.lost,
        };
        Ok(Some(lines.map(move |line| Ok(row(line))).boxed()))
    }

    /// Opens the log of an instance on another member; `None` when it has no such instance.
    async fn open_remote(
        &self,
        node: NodeId,
        request: Delegated<InstanceLogRequest>,
    ) -> Result<Option<Rows>, LogError> {
        let members = self.members.clone();
        let opened =
            member_request::request(members, node, LOGS_PROTOCOL, &request, OPEN_TIMEOUT).await?;
        let frames = match opened {
            (Reply::Ready, frames) => frames,
            (Reply::End, _) => return Ok(None),
            _ => return Err(MemberError::Unexpected.into()),
        };
        let slot = request.request.slot;
        // The member's claim of whose lines they are does not count.
        let of_slot = move |row: LogRow| -> Result<LogRow, LogError> {
            let Slot { service, replica } = slot.clone();
            Ok(LogRow { service, replica, node, ..row })
        };
        let rows = futures::stream::unfold(Some(frames), move |frames| {
            let of_slot = of_slot.clone();
            async move {
                let mut frames = frames?;
                let error = match frames.receive::<Reply>().await {
                    Ok(Reply::Log(row)) => return Some((vec![of_slot(row)], Some(frames))),
                    Ok(Reply::Logs(batch)) => {
                        return Some((batch.into_rows().map(of_slot).collect(), Some(frames)));
                    }
                    Ok(Reply::End) => return None,
                    Ok(Reply::Error(error)) => MemberError::Refused(error),
                    Ok(_) => MemberError::Unexpected,
                    Err(error) => error.into(),
                };
                Some((vec![Err(error.into())], None))
            }
        });
        let rows = rows.flat_map(futures::stream::iter);
        Ok(Some(rows.boxed()))
    }

    /// Answers the requests of other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = Arc::clone(&readers).try_acquire_owned() else {
                tracing::warn!(%peer, limit = MAX_READERS, "log stream closed: too many readers");
                continue;
            };
            let logs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(Ok(delegated)) = timeout(OPEN_TIMEOUT, frames.receive()).await {
                    let _ = logs.send_delegated(peer, delegated, &mut frames).await;
                }
                drop(permit);
            });
        }
    }

    /// Sends the log that another member asks for, if its user may read it: a member alone may not.
    async fn send_delegated(
        &self,
        peer: PeerId,
        Delegated { token, address, request }: Delegated<InstanceLogRequest>,
        frames: &mut Frames<Stream>,
    ) -> Result<(), FrameError> {
        let may = |rights: &Rights| {
            rights.check_logs()?;
            rights.check_project(&request.slot.service.project)
        };
        match self.verifier.delegated(peer, &token, may) {
            Ok(user) => {
                // The word of a worker that passes on a request is not enough.
                if let Ok(via) = NodeId::try_from(peer)
                    && !self.verifier.is_server(via)
                {
                    let (text, service) =
                        (format!("read the logs of {}", request.slot), &request.slot.service);
                    let origin = Origin { address, via: Some(via), ..user.origin() };
                    let (audit, service) = (&self.verifier.audit, Some(service.clone()));
                    audit.record(AuditAction::LogsRead, origin, service, text);
                }
                self.send(request, frames).await
            }
            Err(error) => frames.send(&Reply::Error(error)).await,
        }
    }

    /// Sends the log of an instance on this node to another member.
    async fn send(
        &self,
        request: InstanceLogRequest,
        frames: &mut Frames<Stream>,
    ) -> Result<(), FrameError> {
        let mut lines = LineSender::new(request.batched);
        let mut rows = match self.open_local(request).await {
            Ok(Some(rows)) => rows.ready_chunks(MAX_TOGETHER),
            Ok(None) => return frames.send(&Reply::End).await,
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        frames.send(&Reply::Ready).await?;
        loop {
            let next = tokio::select! {
                next = rows.next() => next,
                _ = frames.receive::<serde_json::Value>() => return Ok(()),
            };
            let Some(rows) = next else { return frames.send(&Reply::End).await };
            for row in rows {
                match row {
                    Ok(row) => lines.feed(row, frames).await?,
                    Err(error) => {
                        lines.finish(frames).await?;
                        return frames.send(&Reply::Error(error.into())).await;
                    }
                }
            }
            lines.finish(frames).await?;
            frames.flush().await?;
        }
    }
}

/// Returns the request for one instance's part of a client's request.
fn instance_request(id: &InstanceId, request: &LogRequest) -> InstanceLogRequest {
    InstanceLogRequest {
        slot: id.slot.clone(),
        digest: Some(id.digest.clone()),
        follow: request.follow,
        tail: request.tail,
        since: request.since,
        batched: true,
    }
}
