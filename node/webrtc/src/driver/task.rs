//! Drives one connection: moves datagrams, timers and stream data between the socket, the association and the channels.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use libp2p::{PeerId, identity::Keypair, noise};
use sctp_proto::Event;
use tokio::sync::{mpsc, oneshot};

use super::{
    authentication::authenticate,
    channels::{Channels, MAX_INBOUND_STREAMS, NOISE_CHANNEL},
};
use crate::{
    association::{Association, AssociationConfig, MAX_DATAGRAM},
    certificate::Fingerprint,
    connection::{self, Connection, Handle},
    error::{ConnectionError, ProtocolViolation},
    socket::{Path, Socket},
    stream::{Readiness, Stream},
};

/// Batches of datagrams from the listener that are processed before anything is sent.
const MAX_BATCHES: usize = 32;
/// SCTP chunks processed before their data is read and acknowledged and the task yields: all connections share a thread.
const CHUNKS_PER_SLICE: usize = 256;
/// Bytes that a peer may send before it is authenticated. The handshake takes less than 1000; the rest covers a peer that
/// continues before this side has processed its last message.
const MAX_UNAUTHENTICATED_BYTES: u64 = 32 * 1024;

/// A message from the listener to the task.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Datagrams of `stride` bytes each; the last may be shorter.
    Datagrams { bytes: Bytes, stride: usize },
    /// A signed check of the client arrived over a path. `nominated`: the client selects it.
    Checked { path: Path, nominated: bool },
}

/// What the connections of a listener share.
pub(crate) struct Shared {
    pub socket: Socket,
    pub association: AssociationConfig,
    pub key: Keypair,
    pub fingerprint: Fingerprint,
    pub handshake_timeout: Duration,
    pub idle_timeout: Duration,
}

/// A message from the task to the listener.
#[derive(Debug)]
pub(crate) enum Report {
    /// DTLS is complete, so the client's address is valid.
    Secured,
    Established(Box<Established>),
}

/// An authenticated connection.
#[derive(Debug)]
pub(crate) struct Established {
    pub peer: PeerId,
    pub connection: Connection,
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}

/// The task of a connection; ends with it.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    association: Association,
    channels: Channels,
    path: Path,
    /// The client has nominated the path; until then the first one that works is used.
    nominated: bool,
    inbound: mpsc::Receiver<Inbound>,
    readiness: Arc<Readiness>,
    handle: Handle,
    /// For the application, until the peer is authenticated.
    connection: Option<Connection>,
    noise: Option<NoiseHandshake>,
    established: bool,
    id: u64,
    report: mpsc::Sender<(u64, Report)>,
    started: Instant,
    last_activity: Instant,
}

type NoiseHandshake = BoxFuture<'static, Result<PeerId, Arc<noise::Error>>>;

enum Wake {
    Inbound(usize),
    Readiness,
    Open(oneshot::Sender<Stream>),
    Noise(Result<PeerId, Arc<noise::Error>>),
    Writable,
    Timeout,
    Close,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: Path,
        nominated: bool,
        inbound: mpsc::Receiver<Inbound>,
        id: u64,
        report: mpsc::Sender<(u64, Report)>,
    ) -> Result<Self, ConnectionError> {
        let now = Instant::now();
        let (connection, streams, handle) = connection::connection(MAX_INBOUND_STREAMS);
        let channels = Channels::new(streams);
        Ok(Self {
            association: Association::new(&shared.association, now)?,
            readiness: channels.readiness(),
            channels,
            shared,
            path,
            nominated,
            inbound,
            handle,
            connection: Some(connection),
            noise: None,
            established: false,
            id,
            report,
            started: now,
            last_activity: now,
        })
    }

    /// Drives the connection until it ends.
    pub(crate) async fn run(mut self) -> ConnectionError {
        let error = match self.drive().await {
            Ok(()) => ConnectionError::Closed,
            Err(error) => error,
        };
        if self.association.close(Instant::now()).is_ok() {
            self.flush();
        }
        if let Some(end) = self.handle.end.take() {
            let _ = end.send(error.clone());
        }
        error
    }

    async fn drive(&mut self) -> Result<(), ConnectionError> {
        let mut batches = Vec::with_capacity(MAX_BATCHES);
        loop {
            let paced = self.next_send(Instant::now());
            let blocked = self.association.queue.len() > 0 && paced.is_none();
            let deadline = paced.into_iter().fold(self.poll_timeout(), Instant::min);
            let wake = tokio::select! {
                count = self.inbound.recv_many(&mut batches, MAX_BATCHES) => Wake::Inbound(count),
                () = self.readiness.notified() => Wake::Readiness,
                Some(reply) = self.handle.open.recv(), if !self.channels.has_request() => Wake::Open(reply),
                Some(result) = OptionFuture::from(self.noise.as_mut()) => Wake::Noise(result),
                _ = self.shared.socket.writable(), if blocked => Wake::Writable,
                () = tokio::time::sleep_until(deadline.into()) => Wake::Timeout,
                _ = &mut self.handle.close => Wake::Close,
            };
            match wake {
                // 0: the listener was removed.
                Wake::Inbound(0) | Wake::Close => return Ok(()),
                Wake::Inbound(_) => {
                    for batch in batches.drain(..) {
                        self.receive(batch).await?;
                    }
                }
                Wake::Readiness => {
                    // Lets the writer continue: one full frame is better than two.
                    tokio::task::yield_now().await;
                }
                Wake::Open(reply) => self.channels.request(reply),
                Wake::Noise(result) => self.establish(result?).await?,
                Wake::Writable | Wake::Timeout => {}
            }
            let now = Instant::now();
            self.association.handle_timeout(now)?;
            self.handle_timeout(now)?;
            self.service(now)?;
        }
    }

    fn poll_timeout(&self) -> Instant {
        let limit = if self.established {
            self.last_activity + self.shared.idle_timeout
        } else {
            self.started + self.shared.handshake_timeout
        };
        [self.association.poll_timeout(), self.channels.poll_timeout()]
            .into_iter()
            .flatten()
            .fold(limit, Instant::min)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.established {
            if now >= self.last_activity + self.shared.idle_timeout {
                return Err(ConnectionError::IdleTimeout(self.shared.idle_timeout));
            }
        } else if now >= self.started + self.shared.handshake_timeout {
            return Err(ConnectionError::HandshakeTimeout(self.shared.handshake_timeout));
        }
        self.channels.check_limit()?;
        self.channels.close_expired(&mut self.association, now);
        Ok(())
    }

    async fn receive(&mut self, inbound: Inbound) -> Result<(), ConnectionError> {
        // Not the caller's: this task may have yielded since the last batch.
        let now = Instant::now();
        match inbound {
            Inbound::Datagrams { bytes, stride } => {
                let before = self.association.received();
                for datagram in bytes.chunks(stride) {
                    let secured = self.association.secured();
                    self.association.receive(now, datagram)?;
                    if self.association.secured() && !secured {
                        self.report(Report::Secured).await?;
                    }
                    if !self.established && self.association.received() > MAX_UNAUTHENTICATED_BYTES
                    {
                        return Err(ProtocolViolation::UnauthenticatedData.into());
                    }
                    if self.association.guard().take_slice(CHUNKS_PER_SLICE) {
                        self.service(now)?;
                        self.handle_timeout(now)?;
                        tokio::task::yield_now().await;
                    }
                }
                if self.association.received() != before {
                    self.last_activity = now;
                }
            }
            Inbound::Checked { path, nominated } => {
                self.last_activity = now;
                if nominated || !self.nominated {
                    self.path = path;
                    self.nominated |= nominated;
                }
            }
        }
        Ok(())
    }

    /// Moves data in both directions until nothing moves.
    fn service(&mut self, now: Instant) -> Result<(), ConnectionError> {
        loop {
            self.association.poll_sctp(now)?;
            self.send();
            let mut moved = false;
            while let Some(event) = self.association.poll_event() {
                moved = true;
                self.on_event(event)?;
            }
            moved |= self.channels.service(&mut self.association, now);
            if self.established {
                self.channels.open_requested(&mut self.association);
            }
            if !moved {
                self.association.poll_sctp(now)?;
                self.send();
                if self.channels.resets_complete() {
                    self.association.guard().on_resets_complete();
                }
                return Ok(());
            }
        }
    }

    /// Returns when waiting datagrams are due; `None`: none waits, or they are due.
    fn next_send(&self, now: Instant) -> Option<Instant> {
        let next = self.channels.congestion.next_send(now);
        next.filter(|_| self.association.queue.len() > 0)
    }

    /// Sends all datagrams, due or not, up to what the socket takes.
    fn flush(&mut self) {
        self.channels.congestion.stop_pacing();
        self.send();
    }

    /// Sends the datagrams that are due.
    fn send(&mut self) {
        let now = Instant::now();
        let congestion = &mut self.channels.congestion;
        let burst = congestion.burst().div_ceil(MAX_DATAGRAM).max(1);
        let max = self.shared.socket.max_batch().min(burst);
        while congestion.next_send(now).is_none()
            && let Some(batch) = self.association.queue.batch(max)
        {
            let (count, bytes) = (batch.count, batch.bytes.len());
            match self.shared.socket.send(self.path, batch.bytes, batch.segment) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Any other error loses the datagrams, as the network may.
                _ => {
                    congestion.sent(now, bytes);
                    self.association.queue.remove(count);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), ConnectionError> {
        tracing::trace!(?event, "SCTP event");
        match event {
            Event::Connected => self.start_noise(),
            Event::HandshakeFailed { reason } | Event::AssociationLost { reason } => {
                Err(reason.into())
            }
            Event::Stream(event) => self.channels.on_event(&mut self.association, event),
            _ => Ok(()),
        }
    }

    fn start_noise(&mut self) -> Result<(), ConnectionError> {
        let client = self.association.peer().ok_or(ProtocolViolation::NoCertificate)?;
        let stream = self
            .channels
            .open(&mut self.association, NOISE_CHANNEL)
            .ok_or(ProtocolViolation::NoiseChannelInUse)?;
        let Shared { key, fingerprint, .. } = &*self.shared;
        self.noise = Some(authenticate(key, fingerprint, &client, stream));
        Ok(())
    }

    async fn establish(&mut self, peer: PeerId) -> Result<(), ConnectionError> {
        self.noise = None;
        self.established = true;
        self.last_activity = Instant::now();
        let connection = self.connection.take().ok_or(ConnectionError::Closed)?;
        let Path { remote, local } = self.path;
        let established = Established { peer, connection, remote, local };
        self.report(Report::Established(Box::new(established))).await
    }

    async fn report(&mut self, report: Report) -> Result<(), ConnectionError> {
        self.report.send((self.id, report)).await.map_err(|_| ConnectionError::Closed)
    }
}
