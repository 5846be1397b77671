//! The task that owns a UDP socket: answers connectivity checks and dispatches datagrams to the connections.
//!
//! A client is identified by the `USERNAME` of its checks, so it stays the same client when its address changes. It is a table
//! entry until its first DTLS datagram, which starts its task.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    driver::{Driver, Established, Inbound, Report, Shared},
    limiter::{ConnectionLimiter, Decision, Limits, Source},
    socket::{Buffers, Path},
    stun::{self, Check},
};

/// Batches of datagrams queued for a connection's task; more are dropped.
const INBOUND_QUEUE: usize = 128;
/// Maximum addresses of a client; a new one replaces the oldest.
const MAX_PATHS: usize = 8;
/// Reports of the connections' tasks waiting for this task; more make those wait.
const REPORT_QUEUE: usize = 16;
/// How long the checks of a closed client are ignored, so that its browser notices the end.
const CLOSED_LIFETIME: Duration = Duration::from_secs(60);
/// Maximum closed clients remembered.
const MAX_CLOSED: usize = 1024;

/// How long an active client keeps an address after its last authenticated packet, while another client's checks arrive from the
/// same address: checks can be spoofed, but a NAT may also reassign an address.
const ADDRESS_HOLD: Duration = Duration::from_secs(5);

/// The DTLS content type of a plaintext handshake record, with which a session starts.
const HANDSHAKE_RECORD: u8 = 22;

/// The state of the listener's task.
pub(crate) struct Listener {
    shared: Arc<Shared>,
    limits: Limits,
    limiter: ConnectionLimiter,
    clients: HashMap<u64, Client>,
    by_username: HashMap<Arc<str>, u64>,
    by_address: HashMap<SocketAddr, u64>,
    /// Clients whose connection ended, and when.
    closed: VecDeque<(Arc<str>, Instant)>,
    next_id: u64,
    tasks: JoinSet<u64>,
    reports: mpsc::Receiver<(u64, Report)>,
    reporter: mpsc::Sender<(u64, Report)>,
    accepted: mpsc::Sender<Established>,
}

/// A browser that has sent a signed check.
struct Client {
    username: Arc<str>,
    started: Instant,
    /// When it last sent a signed check or a record of an open session.
    last_activity: Instant,
    paths: VecDeque<SocketAddr>,
    stage: Stage,
}

/// How far the connection of a client is.
enum Stage {
    /// Has sent checks only. `nominated`: the client has selected `path`.
    Checked {
        path: Path,
        nominated: bool,
    },
    /// Has a task and is not authenticated.
    Connecting(mpsc::Sender<Inbound>),
    Established(mpsc::Sender<Inbound>),
}

impl Client {
    /// Returns whether checks of another client from one of its addresses leave that address with this client.
    fn holds_addresses(&self, now: Instant) -> bool {
        !matches!(self.stage, Stage::Checked { .. }) && now < self.last_activity + ADDRESS_HOLD
    }
}

impl Listener {
    pub(crate) fn new(
        shared: Arc<Shared>,
        limits: Limits,
        accepted: mpsc::Sender<Established>,
    ) -> Self {
        let (reporter, reports) = mpsc::channel(REPORT_QUEUE);
        Self {
            shared,
            limits,
            limiter: ConnectionLimiter::new(limits),
            clients: HashMap::new(),
            by_username: HashMap::new(),
            by_address: HashMap::new(),
            closed: VecDeque::new(),
            next_id: 0,
            tasks: JoinSet::new(),
            reports,
            reporter,
            accepted,
        }
    }

    /// Serves the socket until the task is aborted.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut buffers = shared.socket.buffers();
        let mut sweep = interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = shared.socket.receive(&mut buffers) => match received {
                    Ok(()) => self.receive(&buffers, Instant::now()),
                    // An ICMP error about a sent datagram; the socket itself keeps working.
                    Err(error) => tracing::debug!(%error, "UDP receive failed"),
                },
                Some((id, report)) = self.reports.recv() => match report {
                    Report::Secured => self.limiter.validate(id),
                    Report::Established(established) => self.establish(id, *established),
                },
                Some(result) = self.tasks.join_next() => if let Ok(id) = result {
                    self.close(id, Instant::now());
                },
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn receive(&mut self, buffers: &Buffers, now: Instant) {
        for (path, bytes, stride) in buffers.iter() {
            // Only checks need to be looked at one by one.
            if bytes.len() > stride && bytes.chunks(stride).all(stun::is_dtls) {
                self.deliver(path, bytes, stride, now);
                continue;
            }
            for datagram in bytes.chunks(stride) {
                if stun::is_dtls(datagram) {
                    self.deliver(path, datagram, datagram.len(), now);
                } else if stun::is_stun(datagram) {
                    self.check(path, datagram, now);
                }
            }
        }
    }

    fn check(&mut self, path: Path, datagram: &[u8], now: Instant) {
        let check = match Check::read(datagram) {
            Ok(check) => check,
            Err(error) => {
                return tracing::debug!(remote = %path.remote, %error, "connectivity check ignored");
            }
        };
        let id = match self.by_username.get(check.username) {
            Some(id) => *id,
            None => match self.accept(&check, path, now) {
                Some(id) => id,
                None => return,
            },
        };
        self.update_path(id, path, check.nominated, now);
        if let Some(answer) = check.answer(path.remote) {
            // Lost if the kernel's buffer is full; the browser retransmits.
            let _ = self.shared.socket.send(path, &answer, answer.len());
        }
    }

    /// Adds a client, within the limits.
    fn accept(&mut self, check: &Check<'_>, path: Path, now: Instant) -> Option<u64> {
        if self.closed.iter().any(|(username, _)| **username == *check.username) {
            return None;
        }
        let id = self.next_id;
        match self.limiter.start(id, Source::of(path.remote.ip()), now) {
            Decision::Reject => {
                tracing::debug!(remote = %path.remote, "connection rejected: too many pending or established connections");
                None
            }
            Decision::Accept { evict } => {
                if let Some(other) = evict {
                    self.remove(other);
                }
                self.next_id += 1;
                let username: Arc<str> = check.username.into();
                let stage = Stage::Checked { path, nominated: check.nominated };
                self.by_username.insert(username.clone(), id);
                let client = Client {
                    username,
                    started: now,
                    last_activity: now,
                    paths: VecDeque::new(),
                    stage,
                };
                self.clients.insert(id, client);
                Some(id)
            }
        }
    }

    /// Records that a signed check of client `id` arrived over a path.
    fn update_path(&mut self, id: u64, path: Path, nominated: bool, now: Instant) {
        let holder = self.by_address.get(&path.remote).filter(|holder| **holder != id);
        let held = holder
            .and_then(|holder| self.clients.get(holder))
            .is_some_and(|holder| holder.holds_addresses(now));
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.last_activity = now;
        if !client.paths.contains(&path.remote) {
            if client.paths.len() == MAX_PATHS
                && let Some(oldest) = client.paths.pop_front()
                && self.by_address.get(&oldest) == Some(&id)
            {
                self.by_address.remove(&oldest);
            }
            client.paths.push_back(path.remote);
        }
        if !held {
            self.by_address.insert(path.remote, id);
        }
        match &mut client.stage {
            Stage::Checked { path: known, nominated: chosen } => {
                if nominated || !*chosen {
                    (*known, *chosen) = (path, nominated);
                }
            }
            // Dropped if the queue is full; the next check repeats it.
            Stage::Connecting(inbound) | Stage::Established(inbound) => {
                let _ = inbound.try_send(Inbound::Checked { path, nominated });
            }
        }
    }

    /// Passes DTLS datagrams to the connection of their source address.
    fn deliver(&mut self, path: Path, bytes: &[u8], stride: usize, now: Instant) {
        let Some(id) = self.by_address.get(&path.remote).copied() else { return };
        if let Some(Stage::Checked { path, nominated }) =
            self.clients.get(&id).map(|client| &client.stage)
        {
            if bytes.first() != Some(&HANDSHAKE_RECORD) {
                // A session from before this node started. Ignoring the client's checks makes its browser notice.
                tracing::debug!(remote = %path.remote, "client ignored: unknown DTLS session");
                return self.close(id, now);
            }
            let (path, nominated) = (*path, *nominated);
            let inbound = self.spawn(id, path, nominated);
            if let Some(client) = self.clients.get_mut(&id) {
                client.stage = Stage::Connecting(inbound);
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        if bytes.first() != Some(&HANDSHAKE_RECORD) {
            client.last_activity = now;
        }
        if let Stage::Connecting(inbound) | Stage::Established(inbound) = &client.stage {
            let _ = inbound
                .try_send(Inbound::Datagrams { bytes: Bytes::copy_from_slice(bytes), stride });
        }
    }

    fn spawn(&mut self, id: u64, path: Path, nominated: bool) -> mpsc::Sender<Inbound> {
        let (sender, inbound) = mpsc::channel(INBOUND_QUEUE);
        let (shared, reporter) = (self.shared.clone(), self.reporter.clone());
        self.tasks.spawn(async move {
            let connection = async {
                match Driver::new(shared, path, nominated, inbound, id, reporter) {
                    Ok(driver) => driver.run().await,
                    Err(error) => error,
                }
            };
            // A panic while parsing a peer's bytes must not end other connections.
            match AssertUnwindSafe(connection).catch_unwind().await {
                Ok(error) => tracing::debug!(remote = %path.remote, %error, "connection closed"),
                Err(_) => {
                    tracing::warn!(remote = %path.remote, "connection closed: its task panicked")
                }
            }
            id
        });
        sender
    }

    /// Hands an authenticated connection to the transport, within the limits.
    fn establish(&mut self, id: u64, established: Established) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Stage::Connecting(inbound) = &client.stage {
            if !self.limiter.establish(id) {
                tracing::debug!(remote = %established.remote, "connection rejected: too many established connections");
                return self.close(id, Instant::now());
            }
            client.stage = Stage::Established(inbound.clone());
            if self.accepted.try_send(established).is_err() {
                tracing::debug!("connection dropped: accept queue full");
            }
        }
    }

    /// Removes a client and ignores its checks for [`CLOSED_LIFETIME`].
    fn close(&mut self, id: u64, now: Instant) {
        if let Some(username) = self.remove(id) {
            if self.closed.len() == MAX_CLOSED {
                self.closed.pop_front();
            }
            self.closed.push_back((username, now));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<str>> {
        let client = self.clients.remove(&id)?;
        self.limiter.remove(id);
        self.by_username.remove(&client.username);
        for address in client.paths {
            if self.by_address.get(&address) == Some(&id) {
                self.by_address.remove(&address);
            }
        }
        Some(client.username)
    }

    /// Removes clients that sent checks but did not start DTLS. The tasks of others time out by themselves.
    fn sweep(&mut self, now: Instant) {
        while self.closed.front().is_some_and(|(_, since)| *since + CLOSED_LIFETIME <= now) {
            self.closed.pop_front();
        }
        let expired = |client: &Client| {
            matches!(client.stage, Stage::Checked { .. })
                && client.started + self.limits.handshake_timeout <= now
        };
        let expired: Vec<u64> =
            self.clients.iter().filter(|(_, client)| expired(client)).map(|(id, _)| *id).collect();
        for id in expired {
            self.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_with_a_task_holds_its_addresses_until_it_is_inactive() {
        let now = Instant::now();
        let path = Path { remote: ([127, 0, 0, 1], 1).into(), local: None };
        let stage = Stage::Checked { path, nominated: true };
        let paths = VecDeque::new();
        let mut client =
            Client { username: "".into(), started: now, last_activity: now, paths, stage };
        assert!(!client.holds_addresses(now));
        client.stage = Stage::Connecting(mpsc::channel(1).0);
        assert!(client.holds_addresses(now));
        assert!(!client.holds_addresses(now + ADDRESS_HOLD));
    }
}
