//! The task of a connection: owns its DTLS and SCTP, authenticates the peer by Noise, and moves bytes between streams and the
//! network. It ends with the connection.

mod authentication;
mod channels;

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, OptionFuture};
use libp2p::{PeerId, identity::Keypair};
use sctp_proto::{Event, StreamEvent};
use tokio::sync::{mpsc, oneshot};

use crate::{
    certificate::Fingerprint,
    channel::Channel,
    connection::{self, Connection, ConnectionError, Handle},
    link::{Failure, Link, LinkConfig},
    socket::{Path, Socket},
    stream::{Attention, Stream},
    window::Window,
};

/// Streams that the browser may have open at once; further ones are closed as they come.
pub(crate) const INBOUND_STREAMS: usize = 32;
/// Streams that this node may have open at once; further ones wait.
const OUTBOUND_STREAMS: usize = 64;
/// Streams of SCTP, of whatever state. SCTP remembers one until both sides have closed it; browsers do that at once, and a
/// client that does not has its connection closed.
const STREAMS: usize = 512;
/// Messages that one stream may send before it is another's turn.
const TURN: usize = 8;
/// Datagrams that wait for the kernel before no more are made.
const BACKLOG: usize = 1024;
/// Bursts of datagrams from the listener that are looked at before anything is sent.
const BURSTS: usize = 32;
/// Chunks of SCTP that are received before what they brought is read and acknowledged, and before it is another task's turn: all
/// connections share a thread.
const SLICE: usize = 256;
/// What a peer may send before it has authenticated itself, in bytes. The handshake takes less than one thousand; the rest is for
/// a peer that goes on before this side has noticed that it may.
const UNAUTHENTICATED: u64 = 32 * 1024;
/// How long a closed stream's last bytes may go unacknowledged.
const LINGER: Duration = Duration::from_secs(10);

/// How long the browser has to close a channel that is over, before this side does. Browsers' libp2p closes every such channel
/// at once, and it takes only one side. It had better be the browser: when this side has begun, sctp-proto resets the channel
/// once more in answer to the browser's answer, and that can hit the next channel of the same number.
const LEAVE: Duration = Duration::from_secs(2);

/// The channel on which Noise runs.
const NOISE_CHANNEL: u16 = 0;

/// What the listener hands to the task.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Datagrams, each `stride` bytes long, but the last, which may be shorter.
    Datagrams { bytes: Bytes, stride: usize },
    /// A signed check of the client came over a path. `nominated`: it is the one to use.
    Checked { path: Path, nominated: bool },
}

/// What all connections of a listener share.
pub(crate) struct Shared {
    pub socket: Socket,
    pub link: LinkConfig,
    pub key: Keypair,
    pub fingerprint: Fingerprint,
    pub handshake: Duration,
    pub silence: Duration,
}

/// What the task tells the listener.
#[derive(Debug)]
pub(crate) enum Report {
    /// DTLS is complete: the client is where it says it is.
    Secured,
    Established(Box<Established>),
}

/// A browser has authenticated itself.
#[derive(Debug)]
pub(crate) struct Established {
    pub peer: PeerId,
    pub connection: Connection,
    pub remote: SocketAddr,
    pub local: Option<IpAddr>,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    link: Link,
    path: Path,
    /// The client has chosen the path; until then the first one that works is used.
    nominated: bool,
    inbound: mpsc::Receiver<Inbound>,
    attention: Arc<Attention>,
    channels: BTreeMap<u16, Channel>,
    /// Streams of SCTP that the peer has begun without having asked for a channel yet.
    unasked: HashSet<u16>,
    /// Channels that this side has closed and the peer has not.
    closing: HashSet<u16>,
    /// Channels with messages to send, in turn.
    sending: Vec<u16>,
    /// How much may be under way, and what was written so far, in bytes.
    window: Window,
    written: u64,
    handle: Handle,
    /// For the application, once the peer is known.
    connection: Option<Connection>,
    /// The application waits for a stream that there was no room for.
    wanted: Option<oneshot::Sender<Stream>>,
    noise: Option<BoxFuture<'static, Result<PeerId, String>>>,
    established: bool,
    id: u64,
    report: mpsc::Sender<(u64, Report)>,
    born: Instant,
    heard: Instant,
}

enum Wake {
    Inbound(usize),
    Attention,
    Open(oneshot::Sender<Stream>),
    Noise(Result<PeerId, String>),
    Writable,
    Clock,
    Close,
}

impl From<Failure> for ConnectionError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Closed,
            failure => Self::Failed(failure.to_string()),
        }
    }
}

fn failed(why: impl ToString) -> ConnectionError {
    ConnectionError::Failed(why.to_string())
}

/// However the task ends, also by a fault or because it is aborted: nobody waits for its streams any more.
impl Drop for Driver {
    fn drop(&mut self) {
        for channel in self.channels.values() {
            channel.pipe.break_off(io::ErrorKind::ConnectionReset);
        }
    }
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
        let (connection, handle) = connection::connection(INBOUND_STREAMS);
        Ok(Self {
            link: Link::new(&shared.link, now)?,
            shared,
            path,
            nominated,
            inbound,
            attention: Arc::default(),
            channels: BTreeMap::new(),
            unasked: HashSet::new(),
            closing: HashSet::new(),
            sending: Vec::new(),
            window: Window::default(),
            written: 0,
            handle,
            connection: Some(connection),
            wanted: None,
            noise: None,
            established: false,
            id,
            report,
            born: now,
            heard: now,
        })
    }

    /// Drives the connection until it is over.
    pub(crate) async fn run(mut self) -> ConnectionError {
        let error = match self.drive().await {
            Ok(()) => ConnectionError::Closed,
            Err(error) => error,
        };
        if self.link.close(Instant::now()).is_ok() {
            self.send();
        }
        if let Some(end) = self.handle.end.take() {
            let _ = end.send(error.clone());
        }
        error
    }

    async fn drive(&mut self) -> Result<(), ConnectionError> {
        let mut bursts = Vec::with_capacity(BURSTS);
        loop {
            let deadline = self.deadline();
            let blocked = self.link.outbox.len() > 0;
            let wake = tokio::select! {
                count = self.inbound.recv_many(&mut bursts, BURSTS) => Wake::Inbound(count),
                () = self.attention.wanted() => Wake::Attention,
                Some(stream) = self.handle.open.recv(), if self.wanted.is_none() => Wake::Open(stream),
                Some(result) = OptionFuture::from(self.noise.as_mut()) => Wake::Noise(result),
                _ = self.shared.socket.writable(), if blocked => Wake::Writable,
                () = tokio::time::sleep_until(deadline.into()) => Wake::Clock,
                _ = &mut self.handle.close => Wake::Close,
            };
            match wake {
                // The listener has gone.
                Wake::Inbound(0) | Wake::Close => return Ok(()),
                Wake::Inbound(_) => {
                    for burst in bursts.drain(..) {
                        self.receive(burst).await?;
                    }
                }
                Wake::Attention => {
                    // Whoever has begun to write probably goes on: better one full message than two.
                    tokio::task::yield_now().await;
                }
                Wake::Open(stream) => self.wanted = Some(stream),
                Wake::Noise(result) => self.authenticated(result.map_err(failed)?).await?,
                Wake::Writable | Wake::Clock => {}
            }
            let now = Instant::now();
            self.link.tick(now)?;
            self.check_limits(now)?;
            self.pump(now)?;
        }
    }

    fn deadline(&self) -> Instant {
        let limit = if self.established {
            self.heard + self.shared.silence
        } else {
            self.born + self.shared.handshake
        };
        let linger = self.channels.values().filter_map(|channel| channel.linger).min();
        [self.link.deadline(), linger].into_iter().flatten().fold(limit, Instant::min)
    }

    fn check_limits(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.established {
            if now >= self.heard + self.shared.silence {
                return Err(ConnectionError::Silent(self.shared.silence.as_secs()));
            }
        } else if now >= self.born + self.shared.handshake {
            return Err(failed("no handshake in time"));
        }
        if self.channels.len() + self.unasked.len() + self.closing.len() > STREAMS {
            return Err(failed("too many streams that the browser does not close"));
        }
        let late: Vec<u16> = self
            .channels
            .iter()
            .filter(|(_, c)| c.linger.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.close_channel(id);
        }
        Ok(())
    }

    async fn receive(&mut self, inbound: Inbound) -> Result<(), ConnectionError> {
        // Others may have had their turn since the last burst.
        let now = Instant::now();
        match inbound {
            Inbound::Datagrams { bytes, stride } => {
                let before = self.link.received();
                for datagram in bytes.chunks(stride) {
                    let secured = self.link.secured();
                    self.link.receive(now, datagram)?;
                    if self.link.secured() && !secured {
                        self.report(Report::Secured).await?;
                    }
                    if !self.established && self.link.received() > UNAUTHENTICATED {
                        return Err(failed("too much came before the handshake was over"));
                    }
                    if self.link.intake.turn(SLICE) {
                        self.pump(now)?;
                        self.check_limits(now)?;
                        tokio::task::yield_now().await;
                    }
                }
                if self.link.received() != before {
                    self.heard = now;
                }
            }
            Inbound::Checked { path, nominated } => {
                self.heard = now;
                if nominated || !self.nominated {
                    self.path = path;
                    self.nominated |= nominated;
                }
            }
        }
        Ok(())
    }

    /// Moves what can be moved, in both directions, until nothing moves any more.
    fn pump(&mut self, now: Instant) -> Result<(), ConnectionError> {
        loop {
            self.link.write_records(now)?;
            self.send();
            let mut moved = false;
            while let Some(event) = self.link.event() {
                moved = true;
                self.event(event)?;
            }
            let mut listed = Vec::new();
            self.attention.take(&mut listed);
            for id in listed {
                moved = true;
                if let Some(channel) = self.channels.get(&id) {
                    channel.pipe.unlist();
                }
                self.list(id);
            }
            moved |= self.read_channels()?;
            moved |= self.write_channels(now)?;
            self.open_wanted()?;
            if !moved {
                self.link.write_records(now)?;
                self.send();
                if self.closing.is_empty() {
                    self.link.intake.settled();
                }
                return Ok(());
            }
        }
    }

    fn send(&mut self) {
        let most = self.shared.socket.batch();
        while let Some((bytes, count, segment)) = self.link.outbox.batch(most) {
            match self.shared.socket.send(self.path, bytes, segment) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                _ => self.link.outbox.sent(count),
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), ConnectionError> {
        tracing::trace!(?event, "SCTP");
        match event {
            Event::Connected => self.begin_noise(),
            Event::HandshakeFailed { reason } => Err(failed(reason)),
            Event::AssociationLost { reason } => Err(failed(reason)),
            Event::Stream(StreamEvent::Opened { id }) => {
                let association = self.link.association().ok_or(ConnectionError::Closed)?;
                while association.accept_stream().is_some() {}
                self.unasked.insert(id);
                Ok(())
            }
            Event::Stream(StreamEvent::Readable { id }) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.readable = true;
                }
                Ok(())
            }
            Event::Stream(StreamEvent::Finished { id }) => {
                self.unasked.remove(&id);
                // Until the handshake is complete the id cannot be used again.
                self.closing.insert(id);
                if let Some(channel) = self.channels.remove(&id) {
                    channel.pipe.break_off(io::ErrorKind::ConnectionReset);
                }
                Ok(())
            }
            // The number of that stream is lost.
            Event::Stream(StreamEvent::ResetFailed { .. }) => {
                Err(failed("the browser does not let a stream end"))
            }
            Event::Stream(StreamEvent::ResetComplete { id }) => {
                self.closing.remove(&id);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
