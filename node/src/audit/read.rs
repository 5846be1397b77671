//! Reads the logs of all servers, merged by time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use vc_protocol::audit::{AuditCheck, AuditQuery, AuditRequest, AuditRow, MAX_REPORT};
use vc_protocol::auth::Delegated;
use vc_protocol::control::Reply;
use vc_protocol::exec::KEEPALIVE_INTERVAL;
use vc_protocol::token::UserRole;
use vc_protocol::wire::{AUDIT_PROTOCOL, MAX_FRAME};
use vc_protocol::{ApiError, ErrorCode, NodeId};

use super::MAX_TEXT;
use super::{Audit, Batch, log};
use crate::auth::{Rights, TokenVerifier, User};
use crate::frames::{Duplex, FrameError, Frames};
use crate::member_request::{self, MemberError};
use crate::network::inbound::Incoming;
use crate::snapshot::Snapshot;

/// Logs that this node reads at once, and requests of members that it answers.
const MAX_READERS: usize = 16;
/// Time for another server to answer, to read its log, and for a request of a member to arrive.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of another server while it sends records.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);
/// Time for which new records wait for earlier ones of other servers.
const WINDOW: Duration = Duration::from_millis(200);
/// Records that are remembered while new ones are followed: the copies of other servers are left out.
const MAX_SENT: usize = 4096;
/// Records that may wait for the client.
const QUEUE: usize = 256;

/// The logs of all servers, and this node's own. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AuditLogs {
    audit: Audit,
    /// The log of this node, and its changes; `None` on a worker.
    own: Option<(PathBuf, watch::Receiver<u64>)>,
    verifier: TokenVerifier,
    members: libp2p_stream::Control,
    readers: Arc<Semaphore>,
}

/// What one server sends.
enum Item {
    Row(Box<AuditRow>),
    /// The end of what was there.
    Check(AuditCheck),
    Failed(String),
}

impl AuditLogs {
    pub(crate) fn new(
        audit: Audit,
        own: Option<(PathBuf, watch::Receiver<u64>)>,
        verifier: TokenVerifier,
        members: libp2p_stream::Control,
    ) -> Self {
        Self { audit, own, verifier, members, readers: Arc::new(Semaphore::new(MAX_READERS)) }
    }

    /// Sends the records of all servers that a query selects, and names the servers that do not answer.
    pub(crate) async fn stream(
        &self,
        snapshot: &watch::Receiver<Snapshot>,
        user: &User,
        query: AuditQuery,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let view = Arc::clone(&snapshot.borrow().view);
        let (items, mut received) = mpsc::channel(QUEUE);
        let mut names = Vec::new();
        for &server in view.servers.iter().filter(|it| !view.left.contains_key(it)) {
            let name = view.name(server);
            if !view.up.contains(&server) && server != self.audit.0.node {
                let note = format!("{name} is down: what only its log has is missing");
                frames.send(&Reply::Note(note)).await?;
                continue;
            }
            let (logs, items) = (self.clone(), items.clone());
            let (index, query) = (names.len(), query.clone());
            let (token, address) = (user.credential.to_string(), user.address.clone());
            let of = name.clone();
            tokio::spawn(async move {
                let done = if server == logs.audit.0.node {
                    logs.read_own(query, &items, index).await
                } else {
                    let request = AuditRequest::Read(Delegated::new(token, address, query));
                    logs.read_remote((server, of), request, &items, index).await
                };
                if let Err(error) = done {
                    let _ = items.send((index, Item::Failed(error.message))).await;
                }
            });
            names.push(name);
        }
        drop(items);

        let (mut rows, mut checks) = (BTreeMap::new(), Vec::new());
        let mut waiting: BTreeSet<usize> = (0..names.len()).collect();
        while !waiting.is_empty() {
            let Some((index, item)) = received.recv().await else { break };
            match item {
                Item::Row(mut row) => {
                    row.via_name = row.via.map(|via| view.name(via));
                    rows.insert((row.time, row.key()), row);
                }
                Item::Check(check) => {
                    waiting.remove(&index);
                    if check.left_out > 0 {
                        let note = format!(
                            "{} has {} older records: see them with --since, or --user and --service",
                            names[index], check.left_out
                        );
                        frames.send(&Reply::Note(note)).await?;
                    }
                    checks.push(check);
                }
                Item::Failed(error) => {
                    waiting.remove(&index);
                    let note = format!("{} does not answer: {error}", names[index]);
                    frames.send(&Reply::Note(note)).await?;
                }
            }
        }
        let mut sent: VecDeque<_> = rows.keys().map(|(_, key)| key.clone()).collect();
        for row in rows.into_values() {
            frames.send(&Reply::Audit(row)).await?;
        }
        checks.sort_by(|a, b| a.node_name.cmp(&b.node_name));
        for check in checks {
            frames.send(&Reply::AuditCheck(check)).await?;
        }
        if !query.follow {
            return frames.send(&Reply::End).await;
        }
        loop {
            sent.drain(..sent.len().saturating_sub(MAX_SENT));
            let first = tokio::select! {
                item = received.recv() => item,
                () = tokio::time::sleep(KEEPALIVE_INTERVAL) => {
                    frames.send(&Reply::KeepAlive).await?;
                    continue;
                }
                // A client that follows sends nothing: any frame, or the end of the stream, ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            };
            let Some(first) = first else { return frames.send(&Reply::End).await };
            let (mut items, until) = (vec![first], Instant::now() + WINDOW);
            while let Ok(Some(item)) = timeout_at(until, received.recv()).await {
                items.push(item);
            }
            let mut rows = BTreeMap::new();
            for (index, item) in items {
                match item {
                    Item::Row(mut row) => {
                        row.via_name = row.via.map(|via| view.name(via));
                        rows.insert((row.time, row.key()), row);
                    }
                    Item::Check(_) => {}
                    Item::Failed(error) => {
                        let note = format!("{} no longer answers: {error}", names[index]);
                        frames.send(&Reply::Note(note)).await?;
                    }
                }
            }
            for ((_, key), row) in rows {
                if !sent.contains(&key) {
                    sent.push_back(key);
                    frames.send(&Reply::Audit(row)).await?;
                }
            }
        }
    }

    /// Reads the log of this node. Returns when it is read; with `follow` when the items have no receiver any more.
    async fn read_own(
        &self,
        query: AuditQuery,
        items: &mpsc::Sender<(usize, Item)>,
        index: usize,
    ) -> Result<(), ApiError> {
        let Some((dir, mut changed)) = self.own.clone() else {
            return Err(ApiError::new(
                ErrorCode::FailedPrecondition,
                "a worker keeps no audit log",
            ));
        };
        let Ok(permit) = Arc::clone(&self.readers).try_acquire_owned() else {
            return Err(ApiError::new(ErrorCode::ResourceExhausted, "too many readers"));
        };
        // What this node has just answered is in.
        self.audit.flush().await;
        changed.mark_unchanged();
        let failed = |error: log::LogError| ApiError::new(ErrorCode::Internal, error.to_string());
        let read = blocking({
            let (dir, query) = (dir.clone(), query.clone());
            move || log::read(&dir, &query)
        });
        let (read, mut at) = read.await?.map_err(failed)?;
        drop(permit);
        let check = AuditCheck {
            node: self.audit.0.node,
            node_name: self.audit.0.name.clone(),
            records: read.records,
            left_out: read.left_out,
            since: read.since,
            problem: read.problem,
        };
        if !check.problem.is_empty() {
            tracing::warn!(problem = check.problem, "the audit log was altered");
        }
        for row in read.rows {
            if items.send((index, Item::Row(Box::new(row)))).await.is_err() {
                return Ok(());
            }
        }
        let sent = items.send((index, Item::Check(check))).await;
        while sent.is_ok() && query.follow {
            tokio::select! {
                () = items.closed() => return Ok(()),
                changed = changed.changed() => if changed.is_err() {
                    return Ok(());
                },
            }
            let (dir, query) = (dir.clone(), query.clone());
            let read = blocking(move || log::read_from(&dir, at, &query));
            let (rows, end) = read.await?.map_err(failed)?;
            at = end;
            for row in rows {
                if items.send((index, Item::Row(Box::new(row)))).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the log of another server.
    async fn read_remote(
        &self,
        (server, name): (NodeId, String),
        request: AuditRequest,
        items: &mpsc::Sender<(usize, Item)>,
        index: usize,
    ) -> Result<(), ApiError> {
        let members = self.members.clone();
        let opened =
            member_request::request(members, server, AUDIT_PROTOCOL, &request, OPEN_TIMEOUT).await;
        let (Reply::Ready, mut frames) = opened? else {
            return Err(MemberError::Unexpected.into());
        };
        loop {
            let reply = tokio::select! {
                () = items.closed() => return Ok(()),
                reply = timeout(IDLE_TIMEOUT, frames.receive::<Reply>()) => reply,
            };
            let item = match reply.map_err(|_| MemberError::TimedOut(IDLE_TIMEOUT))? {
                Ok(Reply::Audit(row)) => Item::Row(row),
                // Its name of itself does not count.
                Ok(Reply::AuditCheck(check)) => {
                    Item::Check(AuditCheck { node: server, node_name: name.clone(), ..check })
                }
                Ok(Reply::KeepAlive) => continue,
                Ok(Reply::End) => return Ok(()),
                Ok(Reply::Error(error)) => return Err(error),
                Ok(_) => return Err(MemberError::Unexpected.into()),
                Err(error) => return Err(MemberError::from(error).into()),
            };
            if items.send((index, item)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Answers the requests of other members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        let requests = Arc::new(Semaphore::new(MAX_READERS));
        while let Some((peer, stream)) = streams.recv().await {
            let Ok(permit) = Arc::clone(&requests).try_acquire_owned() else {
                tracing::warn!(%peer, limit = MAX_READERS, "audit stream closed: too many");
                continue;
            };
            let logs = self.clone();
            tokio::spawn(async move {
                let mut frames = Frames::new(stream, MAX_FRAME);
                if let Ok(Ok(request)) = timeout(OPEN_TIMEOUT, frames.receive()).await {
                    let _ = logs.answer(peer, request, &mut frames).await;
                }
                drop(permit);
            });
        }
    }

    async fn answer(
        &self,
        peer: PeerId,
        request: AuditRequest,
        frames: &mut Frames<Stream>,
    ) -> Result<(), FrameError> {
        let query = match request {
            AuditRequest::Report { rows } => {
                let reply = match NodeId::try_from(peer) {
                    Ok(node) if self.own.is_some() => self.take(node, rows).await,
                    _ => Reply::Error(ApiError::new(
                        ErrorCode::FailedPrecondition,
                        "a worker keeps no audit log",
                    )),
                };
                return frames.send(&reply).await;
            }
            AuditRequest::Read(Delegated { token, request, .. }) => {
                let may = |rights: &Rights| {
                    rights.check_role(UserRole::Admin)?;
                    rights.check_unlimited()
                };
                match self.verifier.delegated(peer, &token, may) {
                    Ok(_) => request,
                    Err(error) => return frames.send(&Reply::Error(error)).await,
                }
            }
        };
        frames.send(&Reply::Ready).await?;
        let (items, mut received) = mpsc::channel(QUEUE);
        let logs = self.clone();
        tokio::spawn(async move {
            if let Err(error) = logs.read_own(query, &items, 0).await {
                let _ = items.send((0, Item::Failed(error.message))).await;
            }
        });
        loop {
            let item = tokio::select! {
                item = received.recv() => item,
                () = tokio::time::sleep(KEEPALIVE_INTERVAL) => {
                    frames.send(&Reply::KeepAlive).await?;
                    continue;
                }
                _ = frames.receive::<serde_json::Value>() => return Ok(()),
            };
            let reply = match item {
                Some((_, Item::Row(row))) => Reply::Audit(row),
                Some((_, Item::Check(check))) => Reply::AuditCheck(check),
                Some((_, Item::Failed(error))) => {
                    Reply::Error(ApiError::new(ErrorCode::Internal, error))
                }
                None => return frames.send(&Reply::End).await,
            };
            frames.send(&reply).await?;
        }
    }

    /// Records what a worker says that it saw. It counts as the worker's word, and is no change of the cluster document.
    async fn take(&self, node: NodeId, rows: Vec<AuditRow>) -> Reply {
        let name = self.verifier.name(node);
        let is_valid = |row: &AuditRow| !row.action.is_change() && row.text.len() <= MAX_TEXT;
        let rows = rows.into_iter().take(MAX_REPORT).filter(is_valid);
        let rows = rows.map(|row| AuditRow { node, node_name: name.clone(), change: None, ..row });
        let rows: Vec<AuditRow> = rows.collect();
        let sent = self.audit.0.queue.try_send(Batch::Rows(rows));
        match sent {
            Ok(()) => Reply::Ready,
            Err(_) => Reply::Error(ApiError::new(ErrorCode::ResourceExhausted, "too many records")),
        }
    }
}

/// Runs a function that blocks on the disk.
async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let run = tokio::task::spawn_blocking(run).await;
    run.map_err(|_| ApiError::new(ErrorCode::Unavailable, "this node is stopping"))
}
