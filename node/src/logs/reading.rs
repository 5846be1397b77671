//! One user's reading of the logs of a service: which instances there are, as the view has it, and their lines through
//! the [`Merge`] to him. Nothing is read from an instance before there is room for it.

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
use vc_protocol::control::{InstanceLogRequest, LogRequest, LogRow, Reply};
use vc_protocol::exec::KEEPALIVE_INTERVAL;
use vc_protocol::{ApiError, ErrorCode, InstanceId, Millis, NodeId, ServiceKey};

use super::merge::Merge;
use super::{Rows, of_instance};
use crate::frames::{FrameError, Frames};
use crate::snapshot::Snapshot;

/// Instances whose logs one reading merges at most.
const MAX_SOURCES: usize = 256;
/// Logs that broke off are asked for again after so long, in milliseconds.
const RETRY: Millis = 2000;

/// An instance, and where it is.
type Holder = (NodeId, InstanceId);
/// What a source gave, and the rest of it.
type Next = (usize, Option<Result<LogRow, String>>, Rows);

/// An instance that is read, or was.
struct Source {
    holder: Holder,
    /// The node's name.
    name: String,
    state: State,
    /// When the claim came into the state in which it was when this was opened.
    since: Millis,
    /// The time of the last line.
    last: Option<Millis>,
    /// Whether it has given any line.
    spoke: bool,
    /// Whether the user knows that it broke off.
    told: bool,
    /// Read from its beginning, as it came while others were read.
    late: bool,
}

enum State {
    Open(AbortHandle),
    /// It ended; when it runs again, it is read on.
    Ended,
    /// It broke off; it is asked for again at this time.
    Broken(Millis),
}

struct Reading<O> {
    request: LogRequest,
    service: ServiceKey,
    open: O,
    merge: Merge<LogRow>,
    sources: BTreeMap<usize, Source>,
    /// Of the next source.
    next: usize,
    /// Those that are asked for their next line.
    asked: FuturesUnordered<BoxFuture<'static, Next>>,
    /// Those whose next line has no room.
    parked: BTreeMap<usize, Rows>,
    /// What to tell beside the lines.
    notes: Vec<String>,
    crowded: bool,
    /// Whether any line was given.
    found: bool,
    /// Whether any instance broke off.
    broke: bool,
    /// Whether any instance was there, if only to say nothing.
    present: Arc<AtomicBool>,
}

/// Reads until all is read, or the user goes.
pub(super) async fn read<S, O, F>(
    mut snapshot: watch::Receiver<Snapshot>,
    request: LogRequest,
    open: O,
    frames: &mut Frames<S>,
) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    O: Fn(NodeId, InstanceLogRequest) -> F,
    F: Future<Output = Result<Option<Rows>, String>> + Send + 'static,
{
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    let service = match subject(&view, &request) {
        Ok(service) => service,
        Err(reason) => {
            return frames
                .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                .await;
        }
    };
    let mut reading = Reading {
        merge: Merge::new(request.follow),
        request,
        service,
        open,
        sources: BTreeMap::new(),
        next: 0,
        asked: FuturesUnordered::new(),
        parked: BTreeMap::new(),
        notes: Vec::new(),
        crowded: false,
        found: false,
        broke: false,
        present: Arc::default(),
    };
    reading.update(&view, crate::clock::now());
    let mut alive = interval_at(Instant::now() + KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL);
    loop {
        // Before a line is given, all who have one must have said so.
        while let Some(Some(next)) = reading.asked.next().now_or_never() {
            reading.take(next, crate::clock::now());
        }
        for note in std::mem::take(&mut reading.notes) {
            frames.feed(&Reply::Note(note)).await?;
        }
        let now = crate::clock::now();
        if let Some((id, row)) = reading.merge.pop(now) {
            reading.unpark(id);
            frames.feed(&Reply::Log(row)).await?;
            continue;
        }
        if let Some(last) = reading.over(&view) {
            return frames.send(&last).await;
        }
        frames.flush().await?;
        let due = [reading.merge.found_silent(now), reading.retry()].into_iter().flatten().min();
        let wake = Instant::now() + Duration::from_millis(due.unwrap_or(now).saturating_sub(now));
        tokio::select! {
            Some(next) = reading.asked.next() => reading.take(next, crate::clock::now()),
            () = sleep_until(wake), if due.is_some() => {}
            _ = alive.tick() => frames.feed(&Reply::KeepAlive).await?,
            changed = snapshot.changed() => {
                if changed.is_err() {
                    return frames.send(&Reply::End).await;
                }
            }
            // A user who reads says nothing more: the end of his stream ends the reading.
            _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
        }
        let latest = Arc::clone(&snapshot.borrow_and_update().view);
        let now = crate::clock::now();
        if !Arc::ptr_eq(&view, &latest) || reading.retry().is_some_and(|at| at <= now) {
            view = latest;
            reading.update(&view, now);
        }
    }
}

/// The service that is meant. Errors: there is no such; nothing of it has started, and nobody waits for it.
fn subject(view: &View, request: &LogRequest) -> Result<ServiceKey, String> {
    let service = vc_engine::find_service(&view.cluster, &request.service)?;
    if let Some(replica) = request.replica
        && replica > view.cluster.replicas(&service)
        && holders(view, &service, request.replica).is_empty()
    {
        return Err(format!("{service} has no replica {replica}: see 'vc ps {service}'"));
    }
    if !request.follow && holders(view, &service, request.replica).is_empty() {
        return Err(not_started(&service));
    }
    Ok(service)
}

fn not_started(service: &ServiceKey) -> String {
    format!("{service} has not started yet: wait for it with -f, or see 'vc ps {service}'")
}

/// The instances of a service on nodes that are up, by replica, with when they came into their state and whether they
/// run.
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
    F: Future<Output = Result<Option<Rows>, String>> + Send + 'static,
{
    /// Follows what the view says: opens what is new or runs again, lets go of what is lost.
    fn update(&mut self, view: &View, now: Millis) {
        let late = self.next > 0;
        for (holder, since, runs) in holders(view, &self.service, self.request.replica) {
            let known = self.sources.iter().find(|(_, source)| source.holder == holder);
            let again = known.map(|(&id, source)| match source.state {
                State::Open(_) => (id, false),
                State::Ended => (id, runs && source.since != since),
                State::Broken(at) => (id, at <= now),
            });
            match again {
                Some((id, again)) if again && self.request.follow => self.ask(id, since),
                Some(_) => {}
                None if late && !self.request.follow => {}
                None if self.open_now() >= MAX_SOURCES => self.crowd(),
                None => {
                    let (name, state) = (view.name(holder.0), State::Ended);
                    let (last, spoke, told) = (None, false, false);
                    let source = Source { holder, name, state, since, last, spoke, told, late };
                    self.sources.insert(self.next, source);
                    self.next += 1;
                    self.ask(self.next - 1, since);
                }
            }
        }
        let down = self.sources.iter().filter(|(_, source)| !view.up.contains(&source.holder.0));
        for id in down.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.let_go(id);
        }
        // Those of nodes that are down may be back.
        self.sources.retain(|_, source| {
            let (node, id) = &source.holder;
            let state = view.nodes.get(node).filter(|_| view.up.contains(node));
            matches!(source.state, State::Open(_))
                || state.is_none_or(|state| state.claims.contains_key(id))
        });
    }

    fn open_now(&self) -> usize {
        self.sources.values().filter(|source| matches!(source.state, State::Open(_))).count()
    }

    /// The node of a source is down, and a connection to it may not have noticed.
    fn let_go(&mut self, id: usize) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let state = std::mem::replace(&mut source.state, State::Ended);
        // When the node is back, it is read on, whatever its claim says.
        source.since = Millis::MAX;
        if let State::Open(abort) = state {
            abort.abort();
            self.parked.remove(&id);
            self.merge.end(id);
            self.broken(id, "the node is down");
        }
    }

    /// Tells that the lines of a source have ended before their time, once until more come.
    fn broken(&mut self, id: usize, reason: &str) {
        self.broke = true;
        let Some(source) = self.sources.get_mut(&id) else { return };
        let note = format!("logs from {} ended: {reason}", source.name);
        if !std::mem::replace(&mut source.told, true) && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn crowd(&mut self) {
        if !std::mem::replace(&mut self.crowded, true) {
            let service = &self.service;
            self.notes.push(format!(
                "{service} has more than {MAX_SOURCES} instances; the rest is left out: name one with --replica"
            ));
        }
    }

    /// Asks for the lines of an instance, of one that was read before from where that ended.
    fn ask(&mut self, id: usize, since: Millis) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let (node, instance) = &source.holder;
        let mut request = of_instance(instance, &self.request);
        if source.late || source.spoke {
            request.tail = None;
        }
        match source.last {
            Some(last) => request.since = Some(last + 1),
            // Nobody knows when its lines were written: what is there was read.
            None if source.spoke => request.tail = Some(0),
            None => {}
        }
        let opened = (self.open)(*node, request);
        let absent = futures::stream::empty().boxed();
        let present = Arc::clone(&self.present);
        let rows = opened.map(move |opened| match opened {
            Ok(None) => absent,
            Ok(Some(rows)) => {
                present.store(true, Relaxed);
                rows
            }
            Err(reason) => futures::stream::once(future::ready(Err(reason))).boxed(),
        });
        let (rows, abort) = abortable(rows.flatten_stream());
        source.since = since;
        source.state = State::Open(abort);
        self.merge.open(id, source.holder.1.slot.replica);
        self.next_of(id, rows.boxed());
    }

    fn next_of(&mut self, id: usize, rows: Rows) {
        self.asked.push(rows.into_future().map(move |(row, rows)| (id, row, rows)).boxed());
    }

    fn unpark(&mut self, id: usize) {
        if let Some(rows) = self.parked.remove(&id) {
            self.next_of(id, rows);
        }
    }

    /// What a source gave.
    fn take(&mut self, (id, row, rows): Next, now: Millis) {
        let source = self.sources.get_mut(&id);
        // Else it was let go meanwhile.
        let Some(source) = source.filter(|source| matches!(source.state, State::Open(_))) else {
            return;
        };
        match row {
            Some(Ok(row)) => {
                source.last = row.time.max(source.last);
                (source.spoke, source.told, self.found) = (true, false, true);
                let bytes = size_of::<LogRow>() + row.line.len();
                self.merge.push(id, row.time, bytes, row, now);
                if self.merge.takes(id) {
                    self.next_of(id, rows);
                } else {
                    self.parked.insert(id, rows);
                }
            }
            Some(Err(reason)) => {
                source.state = State::Broken(now + RETRY);
                self.merge.end(id);
                self.broken(id, &reason);
            }
            None => {
                source.state = State::Ended;
                self.merge.end(id);
            }
        }
    }

    /// When to ask again for what broke off.
    fn retry(&self) -> Option<Millis> {
        let times = self.sources.values().filter_map(|source| match source.state {
            State::Broken(at) if self.request.follow => Some(at),
            _ => None,
        });
        times.min()
    }

    /// The last reply, when nothing more can come.
    fn over(&self, view: &View) -> Option<Reply> {
        if !self.merge.is_empty() {
            return None;
        }
        if self.request.follow {
            let wanted = view.cluster.services.contains_key(&self.service)
                && self.request.replica.is_none_or(|it| it <= view.cluster.replicas(&self.service));
            let left = wanted || !holders(view, &self.service, self.request.replica).is_empty();
            return (!left).then_some(Reply::End);
        }
        if self.found {
            return Some(Reply::End);
        }
        // The notes said why.
        let reason = if self.broke {
            "no logs could be read".to_owned()
        } else {
            not_started(&self.service)
        };
        Some(if self.broke || !self.present.load(Relaxed) {
            Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason))
        } else {
            Reply::End
        })
    }
}
