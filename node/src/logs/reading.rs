//! One client's reading of a service's logs: opens a source for each instance that the view shows, and passes their lines
//! through the [`Merge`] to the client. A source is read only while the merge has room for its next line.

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{AbortHandle, FuturesUnordered, StreamExt as _, abortable};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep_until};
use vc_crdt::View;
use vc_protocol::control::{LogRequest, LogRow, Reply};
use vc_protocol::exec::KEEPALIVE_INTERVAL;
use vc_protocol::log::InstanceLogRequest;
use vc_protocol::{InstanceId, Millis, NodeId, ServiceKey, Slot};

use super::error::LogError;
use super::line_sender::LineSender;
use super::merge::Merge;
use super::{Rows, instance_request};
use crate::clock::SteadyClock;
use crate::frames::{FrameError, Frames};
use crate::snapshot::Snapshot;

/// Instances whose logs one reading merges.
const MAX_SOURCES: usize = 256;
/// Time in milliseconds until a source that failed is opened again.
const RETRY_INTERVAL: Millis = 2000;

/// An instance and its node.
type Holder = (NodeId, InstanceId);
/// A source's number, its next item, and the items after that.
type Next = (usize, Option<Result<LogRow, LogError>>, Rows);

/// An instance that is read, or was.
struct Source {
    holder: Holder,
    node_name: String,
    state: State,
    /// When the claim came into the state that it had when this source was opened.
    since: Millis,
    /// Time of the last line.
    last: Option<Millis>,
    /// Whether any line has arrived.
    has_lines: bool,
    /// Whether the client has been notified of the failure; reset by the next line.
    notified: bool,
    /// Whether it appeared while others were read: it is read from its beginning.
    late: bool,
}

enum State {
    Open(AbortHandle),
    /// It ended, and is opened again when the instance runs again.
    Ended,
    /// It failed, and is opened again at this time.
    Failed(Millis),
}

struct Reading<O> {
    request: LogRequest,
    service: ServiceKey,
    open: O,
    merge: Merge<LogRow>,
    sources: BTreeMap<usize, Source>,
    /// Number of the next source.
    next: usize,
    /// Sources whose next line is awaited.
    pending: FuturesUnordered<BoxFuture<'static, Next>>,
    /// Sources whose next line has no room in the merge.
    parked: BTreeMap<usize, Rows>,
    /// Notes for the client that are not sent yet.
    notes: Vec<String>,
    /// Whether the client has been notified of [`MAX_SOURCES`].
    limit_notified: bool,
    /// Whether any line has arrived.
    has_lines: bool,
    /// Whether any source has failed.
    has_failures: bool,
    /// Whether any instance existed on its node, with lines or without.
    has_instances: Arc<AtomicBool>,
}

/// Sends a service's log lines until all are sent or the client closes the stream.
pub(super) async fn read<S, O, F>(
    mut snapshot: watch::Receiver<Snapshot>,
    request: LogRequest,
    open: O,
    frames: &mut Frames<S>,
) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Fn(NodeId, InstanceLogRequest) -> F,
    F: Future<Output = Result<Option<Rows>, LogError>> + Send + 'static,
{
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    let service = match find(&view, &request) {
        Ok(service) => service,
        Err(error) => return frames.send(&Reply::Error(error.into())).await,
    };
    let mut reading = Reading {
        merge: Merge::new(request.follow),
        request,
        service,
        open,
        sources: BTreeMap::new(),
        next: 0,
        pending: FuturesUnordered::new(),
        parked: BTreeMap::new(),
        notes: Vec::new(),
        limit_notified: false,
        has_lines: false,
        has_failures: false,
        has_instances: Arc::default(),
    };
    let mut lines = LineSender::new(reading.request.batched);
    let clock = SteadyClock::new();
    reading.update(&view, clock.now());
    let mut keepalive = interval_at(Instant::now() + KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL);
    loop {
        // All lines that have arrived enter the merge before it releases one.
        while let Some(Some(next)) = reading.pending.next().now_or_never() {
            reading.accept(next, clock.now());
        }
        for note in std::mem::take(&mut reading.notes) {
            lines.finish(frames).await?;
            frames.feed(&Reply::Note(note)).await?;
        }
        let now = clock.now();
        if let Some((id, row)) = reading.merge.pop(now) {
            if reading.merge.wants_lines(id) {
                reading.unpark(id);
            }
            lines.feed(row, frames).await?;
            continue;
        }
        lines.finish(frames).await?;
        if let Some(last) = reading.last_reply(&view) {
            return frames.send(&last).await;
        }
        frames.flush().await?;
        let due = [reading.merge.mark_silent(now), reading.retry_at()].into_iter().flatten().min();
        let wake = Instant::now() + Duration::from_millis(due.unwrap_or(now).saturating_sub(now));
        tokio::select! {
            Some(next) = reading.pending.next() => reading.accept(next, clock.now()),
            () = sleep_until(wake), if due.is_some() => {}
            _ = keepalive.tick() => frames.feed(&Reply::KeepAlive).await?,
            changed = snapshot.changed() => {
                if changed.is_err() {
                    return frames.send(&Reply::End).await;
                }
            }
            // A client that reads logs sends nothing: any frame, or the end of the stream, ends it.
            _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
        }
        let latest = Arc::clone(&snapshot.borrow_and_update().view);
        let now = clock.now();
        if !Arc::ptr_eq(&view, &latest) || reading.retry_at().is_some_and(|at| at <= now) {
            view = latest;
            reading.update(&view, now);
        }
    }
}

/// Returns the service that the request names, if it has anything to read or the request follows it.
fn find(view: &View, request: &LogRequest) -> Result<ServiceKey, LogError> {
    let service = vc_engine::find_service(&view.cluster, &request.service)?;
    let has_holders = !holders(view, &service, request.replica).is_empty();
    if let Some(replica) = request.replica
        && !view.plan.has_slot(&Slot { service: service.clone(), replica })
        && !has_holders
    {
        return Err(LogError::NoReplica { service, replica });
    }
    if !request.follow && !has_holders {
        return Err(LogError::NotStarted(service));
    }
    Ok(service)
}

/// Returns the instances of a service on nodes that are up, by replica, each with when its claim came into its state and
/// whether it runs.
fn holders(view: &View, service: &ServiceKey, replica: Option<u32>) -> Vec<(Holder, Millis, bool)> {
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let claims =
        up.flat_map(|(&node, state)| state.claims.iter().map(move |(id, claim)| (node, id, claim)));
    let mut found: Vec<_> = claims
        .filter(|(_, id, _)| id.slot.service == *service)
        .filter(|(_, id, _)| replica.is_none_or(|replica| id.slot.replica == replica))
        .map(|(node, id, claim)| ((node, id.clone()), claim.since, claim.state.is_running()))
        .collect();
    found.sort_by(|((a, x), ..), ((b, y), ..)| (x.slot.replica, a, x).cmp(&(y.slot.replica, b, y)));
    found
}

impl<O, F> Reading<O>
where
    O: Fn(NodeId, InstanceLogRequest) -> F,
    F: Future<Output = Result<Option<Rows>, LogError>> + Send + 'static,
{
    /// Follows the view: opens sources that are new or run again, closes those of nodes that are down.
    fn update(&mut self, view: &View, now: Millis) {
        let late = self.next > 0;
        for (holder, since, runs) in holders(view, &self.service, self.request.replica) {
            let known = self.sources.iter().find(|(_, source)| source.holder == holder);
            let reopen = known.map(|(&id, source)| match source.state {
                State::Open(_) => (id, false),
                State::Ended => (id, runs && source.since != since),
                State::Failed(at) => (id, at <= now),
            });
            match reopen {
                Some((id, true)) if self.request.follow => self.open(id, since),
                Some(_) => {}
                None if late && !self.request.follow => {}
                None if self.open_sources() >= MAX_SOURCES => self.notify_limit(),
                None => {
                    let source = Source {
                        node_name: view.name(holder.0),
                        holder,
                        state: State::Ended,
                        since,
                        last: None,
                        has_lines: false,
                        notified: false,
                        late,
                    };
                    self.sources.insert(self.next, source);
                    self.next += 1;
                    self.open(self.next - 1, since);
                }
            }
        }
        let down = self.sources.iter().filter(|(_, source)| !view.up.contains(&source.holder.0));
        for id in down.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.close(id);
        }
        // Sources of nodes that are down stay: the nodes may come back.
        self.sources.retain(|_, source| {
            let (node, id) = &source.holder;
            let state = view.nodes.get(node).filter(|_| view.up.contains(node));
            matches!(source.state, State::Open(_))
                || state.is_none_or(|state| state.claims.contains_key(id))
        });
    }

    fn open_sources(&self) -> usize {
        self.sources.values().filter(|source| matches!(source.state, State::Open(_))).count()
    }

    /// Closes a source whose node is down: its connection may not have noticed yet.
    fn close(&mut self, id: usize) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let state = std::mem::replace(&mut source.state, State::Ended);
        // No claim has this time, so the source is opened again when the node is back.
        source.since = Millis::MAX;
        if let State::Open(abort) = state {
            abort.abort();
            self.parked.remove(&id);
            self.merge.end(id);
            self.notify_failure(id, "the node is down");
        }
    }

    /// Notifies the client that a source failed, once until it gives lines again.
    fn notify_failure(&mut self, id: usize, reason: &str) {
        self.has_failures = true;
        let Some(source) = self.sources.get_mut(&id) else { return };
        let note = format!("logs from {} ended: {reason}", source.node_name);
        if !std::mem::replace(&mut source.notified, true) && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Notifies the client, once, that some instances are not read.
    fn notify_limit(&mut self) {
        if !std::mem::replace(&mut self.limit_notified, true) {
            let service = &self.service;
            self.notes.push(format!(
                "{service} has more than {MAX_SOURCES} instances, and the others are not read: choose one with --replica"
            ));
        }
    }

    /// Opens a source; one that was read before continues after its last line.
    fn open(&mut self, id: usize, since: Millis) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let (node, instance) = &source.holder;
        let mut request = instance_request(instance, &self.request);
        if source.late || source.has_lines {
            request.tail = None;
        }
        match source.last {
            Some(last) => request.since = Some(last + 1),
            // Lines without times: skips all that were there, as they have been read.
            None if source.has_lines => request.tail = Some(0),
            None => {}
        }
        let has_instances = Arc::clone(&self.has_instances);
        let rows = (self.open)(*node, request).map(move |opened| match opened {
            Ok(None) => futures::stream::empty().boxed(),
            Ok(Some(rows)) => {
                has_instances.store(true, Relaxed);
                rows
            }
            Err(error) => futures::stream::once(future::ready(Err(error))).boxed(),
        });
        let (rows, abort) = abortable(rows.flatten_stream());
        source.since = since;
        source.state = State::Open(abort);
        self.merge.open(id, source.holder.1.slot.replica);
        self.request_next(id, rows.boxed());
    }

    fn request_next(&mut self, id: usize, rows: Rows) {
        self.pending.push(rows.into_future().map(move |(row, rows)| (id, row, rows)).boxed());
    }

    fn unpark(&mut self, id: usize) {
        if let Some(rows) = self.parked.remove(&id) {
            self.request_next(id, rows);
        }
    }

    /// Takes the next item of a source. Ignores one that was closed meanwhile.
    fn accept(&mut self, (id, mut row, mut rows): Next, now: Millis) {
        let source = self.sources.get_mut(&id);
        let Some(source) = source.filter(|source| matches!(source.state, State::Open(_))) else {
            return;
        };
        // Lines that are there already are taken together: a flood of them costs no wait for each.
        while let Some(Ok(line)) = row {
            source.last = line.time.max(source.last);
            (source.has_lines, source.notified, self.has_lines) = (true, false, true);
            let bytes = size_of::<LogRow>() + line.line.len();
            self.merge.push(id, line.time, bytes, line, now);
            if !self.merge.has_room(id) {
                self.parked.insert(id, rows);
                return;
            }
            match rows.next().now_or_never() {
                Some(next) => row = next,
                None => return self.request_next(id, rows),
            }
        }
        match row {
            Some(Err(error)) => {
                source.state = State::Failed(now + RETRY_INTERVAL);
                self.merge.end(id);
                self.notify_failure(id, &error.to_string());
            }
            _ => {
                source.state = State::Ended;
                self.merge.end(id);
            }
        }
    }

    /// Returns when the next failed source is to be opened again.
    fn retry_at(&self) -> Option<Millis> {
        let times = self.sources.values().filter_map(|source| match source.state {
            State::Failed(at) if self.request.follow => Some(at),
            _ => None,
        });
        times.min()
    }

    /// Returns the last reply, when no more lines can come.
    fn last_reply(&self, view: &View) -> Option<Reply> {
        if !self.merge.is_empty() {
            return None;
        }
        if self.request.follow {
            let desired = view.cluster.services.contains_key(&self.service)
                && self.request.replica.is_none_or(|replica| {
                    view.plan.has_slot(&Slot { service: self.service.clone(), replica })
                });
            let left = desired || !holders(view, &self.service, self.request.replica).is_empty();
            return (!left).then_some(Reply::End);
        }
        if self.has_lines {
            return Some(Reply::End);
        }
        let error = if self.has_failures {
            LogError::Unreadable(self.service.clone())
        } else if !self.has_instances.load(Relaxed) {
            LogError::NotStarted(self.service.clone())
        } else {
            return Some(Reply::End);
        };
        Some(Reply::Error(error.into()))
    }
}
