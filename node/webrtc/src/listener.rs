//! The task that owns a UDP socket: answers checks, tells clients apart, and hands each client's datagrams to its connection.
//!
//! A client is the `USERNAME` of its checks, whatever address they come from, so that one whose address changes stays the same
//! client. Until the first datagram of DTLS comes, a client is an entry of a table; only then it gets a task.

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
    admission::{Admission, Limits, Source, Verdict},
    driver::{Driver, Established, Inbound, Report, Shared},
    socket::{Buffers, Path},
    stun::{self, Check},
};

/// Bursts of datagrams that wait for a connection's task; what comes beyond is lost, as on any network.
const QUEUE: usize = 128;
/// Addresses that a client may have at once: with a new one, the oldest is forgotten.
const PATHS: usize = 8;
/// How long a client that is gone is not answered, so that its browser notices.
const FORGET: Duration = Duration::from_secs(60);
/// Clients that are gone and not answered, at most.
const GONE: usize = 1024;

/// How long a client that has a task keeps an address of which only somebody else lets hear. Checks can be forged in another's
/// name, but a NAT may also give an address to another browser.
const KEEP: Duration = Duration::from_secs(5);

/// The type of a DTLS record that carries a handshake in the clear: what a new session begins with.
const HANDSHAKE_RECORD: u8 = 22;

pub(crate) struct Listener {
    shared: Arc<Shared>,
    limits: Limits,
    admission: Admission,
    clients: HashMap<u64, Client>,
    by_username: HashMap<Arc<str>, u64>,
    by_address: HashMap<SocketAddr, u64>,
    /// Clients whose connection is over, and when.
    gone: VecDeque<(Arc<str>, Instant)>,
    next_id: u64,
    tasks: JoinSet<u64>,
    reports: mpsc::Receiver<(u64, Report)>,
    reporter: mpsc::Sender<(u64, Report)>,
    accepted: mpsc::Sender<Established>,
}

struct Client {
    username: Arc<str>,
    since: Instant,
    /// When it last showed that it is there: by a check, or by what only an open session sends.
    heard: Instant,
    paths: VecDeque<SocketAddr>,
    stage: Stage,
}

enum Stage {
    /// Has sent checks, no more. `nominated`: with the path chosen.
    Checked {
        path: Path,
        nominated: bool,
    },
    /// Has a task.
    Connecting(mpsc::Sender<Inbound>),
    Established(mpsc::Sender<Inbound>),
}

impl Client {
    /// Whether its addresses are its own, though another client sends checks from one.
    fn keeps_addresses(&self, now: Instant) -> bool {
        !matches!(self.stage, Stage::Checked { .. }) && now < self.heard + KEEP
    }
}

impl Listener {
    pub(crate) fn new(
        shared: Arc<Shared>,
        limits: Limits,
        accepted: mpsc::Sender<Established>,
    ) -> Self {
        let (reporter, reports) = mpsc::channel(16);
        Self {
            shared,
            limits,
            admission: Admission::new(limits),
            clients: HashMap::new(),
            by_username: HashMap::new(),
            by_address: HashMap::new(),
            gone: VecDeque::new(),
            next_id: 0,
            tasks: JoinSet::new(),
            reports,
            reporter,
            accepted,
        }
    }

    /// Serves the socket for ever.
    pub(crate) async fn run(mut self) {
        let shared = self.shared.clone();
        let mut buffers = shared.socket.buffers();
        let mut sweep = interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = shared.socket.receive(&mut buffers) => match received {
                    Ok(()) => self.receive(&buffers, Instant::now()),
                    // An answer of the network's to something that was sent; it says nothing of the socket itself.
                    Err(error) => tracing::debug!(%error, "the socket reports an error"),
                },
                Some((id, report)) = self.reports.recv() => match report {
                    Report::Secured => self.admission.answered(id),
                    Report::Established(established) => self.establish(id, *established),
                },
                Some(ended) = self.tasks.join_next() => if let Ok(id) = ended {
                    self.forget(id, Instant::now());
                },
                _ = sweep.tick() => self.sweep(Instant::now()),
            }
        }
    }

    fn receive(&mut self, buffers: &Buffers, now: Instant) {
        for (path, bytes, stride) in buffers.iter() {
            // Several datagrams of one sender. Checks come alone, and only they have to be looked at one by one.
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
                return tracing::debug!(remote = %path.remote, %error, "a check is not answered");
            }
        };
        let id = match self.by_username.get(check.username) {
            Some(id) => *id,
            None => match self.admit(&check, path, now) {
                Some(id) => id,
                None => return,
            },
        };
        self.learn(id, path, check.nominated, now);
        if let Some(answer) = check.answer(path.remote) {
            // Lost if the kernel's buffer is full: the browser asks again.
            let _ = self.shared.socket.send(path, &answer, answer.len());
        }
    }

    fn admit(&mut self, check: &Check<'_>, path: Path, now: Instant) -> Option<u64> {
        if self.gone.iter().any(|(username, _)| **username == *check.username) {
            return None;
        }
        let id = self.next_id;
        match self.admission.begin(id, Source::of(path.remote.ip()), now) {
            Verdict::Refuse => {
                tracing::debug!(remote = %path.remote, "too many handshakes");
                None
            }
            Verdict::Admit { displace } => {
                if let Some(other) = displace {
                    self.remove(other);
                }
                self.next_id += 1;
                let username: Arc<str> = check.username.into();
                let stage = Stage::Checked { path, nominated: check.nominated };
                self.by_username.insert(username.clone(), id);
                let client =
                    Client { username, since: now, heard: now, paths: VecDeque::new(), stage };
                self.clients.insert(id, client);
                Some(id)
            }
        }
    }

    /// A client can be reached over a path.
    fn learn(&mut self, id: u64, path: Path, nominated: bool, now: Instant) {
        let holder = self.by_address.get(&path.remote).filter(|holder| **holder != id);
        let taken = holder
            .and_then(|holder| self.clients.get(holder))
            .is_some_and(|holder| holder.keeps_addresses(now));
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.heard = now;
        if !client.paths.contains(&path.remote) {
            if client.paths.len() == PATHS
                && let Some(oldest) = client.paths.pop_front()
                && self.by_address.get(&oldest) == Some(&id)
            {
                self.by_address.remove(&oldest);
            }
            client.paths.push_back(path.remote);
        }
        if !taken {
            self.by_address.insert(path.remote, id);
        }
        match &mut client.stage {
            Stage::Checked { path: known, nominated: chosen } => {
                if nominated || !*chosen {
                    (*known, *chosen) = (path, nominated);
                }
            }
            // Full: the next check says the same.
            Stage::Connecting(inbound) | Stage::Established(inbound) => {
                let _ = inbound.try_send(Inbound::Checked { path, nominated });
            }
        }
    }

    fn deliver(&mut self, path: Path, bytes: &[u8], stride: usize, now: Instant) {
        let Some(id) = self.by_address.get(&path.remote).copied() else { return };
        if let Some(Stage::Checked { path, nominated }) =
            self.clients.get(&id).map(|client| &client.stage)
        {
            if bytes.first() != Some(&HANDSHAKE_RECORD) {
                // A session of before this node was started: no answer to its checks tells the browser that it is over.
                tracing::debug!(remote = %path.remote, "a client goes on with a session that is no more");
                return self.forget(id, now);
            }
            let (path, nominated) = (*path, *nominated);
            let inbound = self.spawn(id, path, nominated);
            if let Some(client) = self.clients.get_mut(&id) {
                client.stage = Stage::Connecting(inbound);
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        if bytes.first() != Some(&HANDSHAKE_RECORD) {
            client.heard = now;
        }
        if let Stage::Connecting(inbound) | Stage::Established(inbound) = &client.stage {
            let _ = inbound
                .try_send(Inbound::Datagrams { bytes: Bytes::copy_from_slice(bytes), stride });
        }
    }

    fn spawn(&mut self, id: u64, path: Path, nominated: bool) -> mpsc::Sender<Inbound> {
        let (sender, inbound) = mpsc::channel(QUEUE);
        let (shared, reporter) = (self.shared.clone(), self.reporter.clone());
        self.tasks.spawn(async move {
            let connection = async {
                match Driver::new(shared, path, nominated, inbound, id, reporter) {
                    Ok(driver) => driver.run().await,
                    Err(error) => error,
                }
            };
            // A fault in what reads a stranger's bytes ends that stranger's connection and no other.
            match AssertUnwindSafe(connection).catch_unwind().await {
                Ok(error) => tracing::debug!(remote = %path.remote, %error, "a connection is over"),
                Err(_) => tracing::warn!(remote = %path.remote, "a connection is over: a fault of its task"),
            }
            id
        });
        sender
    }

    fn establish(&mut self, id: u64, established: Established) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Stage::Connecting(inbound) = &client.stage {
            if !self.admission.establish(id) {
                tracing::debug!(remote = %established.remote, "too many connections");
                return self.forget(id, Instant::now());
            }
            client.stage = Stage::Established(inbound.clone());
            if self.accepted.try_send(established).is_err() {
                tracing::debug!("a connection is dropped: nobody takes it");
            }
        }
    }

    /// A client is over, and is not answered for a while.
    fn forget(&mut self, id: u64, now: Instant) {
        if let Some(username) = self.remove(id) {
            if self.gone.len() == GONE {
                self.gone.pop_front();
            }
            self.gone.push_back((username, now));
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<str>> {
        let client = self.clients.remove(&id)?;
        self.admission.end(id);
        self.by_username.remove(&client.username);
        for address in client.paths {
            if self.by_address.get(&address) == Some(&id) {
                self.by_address.remove(&address);
            }
        }
        Some(client.username)
    }

    /// Forgets those that sent a check and then nothing. (The others' tasks end by themselves.)
    fn sweep(&mut self, now: Instant) {
        while self.gone.front().is_some_and(|(_, since)| *since + FORGET <= now) {
            self.gone.pop_front();
        }
        let late = |client: &Client| {
            matches!(client.stage, Stage::Checked { .. })
                && client.since + self.limits.handshake <= now
        };
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| late(client)).map(|(id, _)| *id).collect();
        for id in late {
            self.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_by_a_client_that_has_a_task_until_it_falls_silent() {
        let now = Instant::now();
        let path = Path { remote: ([127, 0, 0, 1], 1).into(), local: None };
        let stage = Stage::Checked { path, nominated: true };
        let paths = VecDeque::new();
        let mut client = Client { username: "".into(), since: now, heard: now, paths, stage };
        assert!(!client.keeps_addresses(now));
        client.stage = Stage::Connecting(mpsc::channel(1).0);
        assert!(client.keeps_addresses(now));
        assert!(!client.keeps_addresses(now + KEEP));
    }
}
