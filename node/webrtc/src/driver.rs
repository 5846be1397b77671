//! The task of a connection: owns its DTLS and SCTP, authenticates the peer by Noise, and moves bytes between streams and the
//! network. It ends with the connection.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    AsyncWriteExt, FutureExt,
    future::{BoxFuture, OptionFuture},
};
use libp2p::{PeerId, core::upgrade::OutboundConnectionUpgrade, identity::Keypair, noise};
use sctp_proto::{Event, PayloadProtocolIdentifier, StreamEvent};
use tokio::sync::{mpsc, oneshot};

use crate::{
    certificate::Fingerprint,
    channel::{self, Channel, Due},
    connection::{self, Connection, ConnectionError, Handle},
    link::{FRAME_DATA, Failure, Link, LinkConfig},
    message,
    socket::{Path, Socket},
    stream::{Attention, Stream, stream},
};

/// Streams that the browser may have open at once; further ones are closed as they come.
pub(crate) const INBOUND_STREAMS: usize = 32;
/// Streams that this node may have open at once; further ones wait.
const OUTBOUND_STREAMS: usize = 64;
/// Streams of SCTP, of whatever state. SCTP remembers one until both sides have closed it; browsers do that at once, and a
/// client that does not has its connection closed.
const STREAMS: usize = 512;
/// What SCTP holds of a connection's data until the peer acknowledges it, in bytes. Enough for 10 MB/s over 100 ms; more only
/// makes what comes behind it wait.
const SEND_WINDOW: usize = 1024 * 1024;
/// Messages that one stream may send before it is another's turn.
const TURN: usize = 8;
/// Datagrams that wait for the kernel before no more are made.
const BACKLOG: usize = 1024;
/// Bursts of datagrams from the listener that are looked at before anything is sent.
const BURSTS: usize = 32;
/// What a peer may send before it has authenticated itself, in bytes. The handshake takes less than one thousand.
const UNAUTHENTICATED: u64 = 256 * 1024;
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
    /// The client has shown that it can be reached over a path. `nominated`: it is the one to use.
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
    handle: Handle,
    /// For the application, once the peer is known.
    connection: Option<Connection>,
    /// The application waits for a stream that there was no room for.
    wanted: Option<oneshot::Sender<Stream>>,
    noise: Option<BoxFuture<'static, Result<PeerId, String>>>,
    established: bool,
    id: u64,
    report: mpsc::Sender<(u64, Established)>,
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

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: Path,
        nominated: bool,
        inbound: mpsc::Receiver<Inbound>,
        id: u64,
        report: mpsc::Sender<(u64, Established)>,
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
        for channel in self.channels.values() {
            channel.pipe.break_off(io::ErrorKind::ConnectionReset);
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
            let now = Instant::now();
            match wake {
                // The listener has gone.
                Wake::Inbound(0) | Wake::Close => return Ok(()),
                Wake::Inbound(_) => {
                    for burst in bursts.drain(..) {
                        self.receive(now, burst)?;
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
        } else if self.link.received() > UNAUTHENTICATED {
            return Err(failed("too much came before the handshake was over"));
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

    fn receive(&mut self, now: Instant, inbound: Inbound) -> Result<(), ConnectionError> {
        match inbound {
            Inbound::Datagrams { bytes, stride } => {
                let before = self.link.received();
                for datagram in bytes.chunks(stride) {
                    self.link.receive(now, datagram)?;
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
                self.list(id);
            }
            moved |= self.read_channels()?;
            moved |= self.write_channels(now)?;
            self.open_wanted()?;
            if !moved {
                self.link.write_records(now)?;
                self.send();
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
            Event::Stream(StreamEvent::ResetComplete { id }) => {
                self.closing.remove(&id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin_noise(&mut self) -> Result<(), ConnectionError> {
        let peer = self.link.peer().ok_or_else(|| failed("no certificate"))?;
        let stream = self
            .open_channel(NOISE_CHANNEL)
            .ok_or_else(|| failed("the channel of the handshake is taken"))?;
        let prologue = [
            b"libp2p-webrtc-noise:",
            &peer.multihash().to_bytes()[..],
            &self.shared.fingerprint.multihash().to_bytes(),
        ]
        .concat();
        let config = noise::Config::new(&self.shared.key).map_err(failed)?.with_prologue(prologue);
        self.noise = Some(
            async move {
                // The server is the initiator: it can speak first.
                let (peer, mut stream) = config
                    .upgrade_outbound(stream, "/noise")
                    .await
                    .map_err(|error| error.to_string())?;
                // Nothing but the handshake runs over this channel.
                let _ = stream.close().await;
                Ok(peer)
            }
            .boxed(),
        );
        Ok(())
    }

    async fn authenticated(&mut self, peer: PeerId) -> Result<(), ConnectionError> {
        self.noise = None;
        self.established = true;
        self.heard = Instant::now();
        let connection = self.connection.take().ok_or(ConnectionError::Closed)?;
        let established =
            Established { peer, connection, remote: self.path.remote, local: self.path.local };
        self.report.send((self.id, established)).await.map_err(|_| ConnectionError::Closed)
    }

    /// Opens a channel of SCTP's and takes it in.
    fn open_channel(&mut self, id: u16) -> Option<Stream> {
        self.link.association()?.open_stream(id, PayloadProtocolIdentifier::Binary).ok()?;
        let (stream, pipe) = stream(id, &self.attention, FRAME_DATA);
        self.channels.insert(id, Channel::new(pipe, false));
        Some(stream)
    }

    /// Opens the stream that the application waits for, if there is room.
    fn open_wanted(&mut self) -> Result<(), ConnectionError> {
        let outbound =
            self.channels.values().filter(|channel| !channel.inbound && !channel.is_over()).count();
        if !self.established || self.wanted.is_none() || outbound >= OUTBOUND_STREAMS {
            return Ok(());
        }
        // The DTLS server's channels are the odd ones.
        let free = (1..u16::MAX).step_by(2).find(|id| {
            !self.channels.contains_key(id)
                && !self.unasked.contains(id)
                && !self.closing.contains(id)
        });
        let Some((id, stream)) = free.and_then(|id| Some((id, self.open_channel(id)?))) else {
            return Ok(());
        };
        self.write(id, &Bytes::from_static(&channel::OPEN), PayloadProtocolIdentifier::Dcep);
        if let Some(wanted) = self.wanted.take() {
            // Nobody waits any more: the stream goes, and with it the channel.
            let _ = wanted.send(stream);
        }
        Ok(())
    }

    fn read_channels(&mut self) -> Result<bool, ConnectionError> {
        let mut moved = false;
        for id in self.unasked.iter().copied().collect::<Vec<_>>() {
            moved |= self.answer(id)?;
        }
        let readable: Vec<u16> =
            self.channels.iter().filter(|(_, c)| c.readable).map(|(id, _)| *id).collect();
        for id in readable {
            while let Some(channel) = self.channels.get_mut(&id)
                && channel.readable
                && channel.pipe.has_room()
            {
                let Some(message) = read(&mut self.link, id) else {
                    channel.readable = false;
                    break;
                };
                moved = true;
                match message {
                    (PayloadProtocolIdentifier::Binary, bytes) => match channel.receive(bytes) {
                        Ok(acknowledgements) => {
                            for _ in 0..acknowledgements {
                                self.write_flag(id, message::Flag::FinAck);
                            }
                            self.list(id);
                        }
                        Err(error) => {
                            tracing::debug!(id, %error, "a stream is reset");
                            channel.refuse();
                            self.list(id);
                        }
                    },
                    // The confirmation of a channel that this side opened.
                    (PayloadProtocolIdentifier::Dcep, bytes) if bytes[..] == channel::ACK => {}
                    // What browsers send for a message without bytes.
                    (PayloadProtocolIdentifier::BinaryEmpty, _) => {}
                    _ => {
                        tracing::debug!(id, "a stream has messages of another kind");
                        channel.refuse();
                        self.list(id);
                    }
                }
            }
        }
        Ok(moved)
    }

    /// Reads the first message of a stream that the peer began: it has to ask for a channel.
    fn answer(&mut self, id: u16) -> Result<bool, ConnectionError> {
        if self.closing.contains(&id) {
            // The stream that had this number before: SCTP lets nothing through until that is done with.
            return Ok(false);
        }
        let Some((kind, bytes)) = read(&mut self.link, id) else { return Ok(false) };
        self.unasked.remove(&id);
        if kind != PayloadProtocolIdentifier::Dcep || !channel::asks_for_channel(&bytes) {
            tracing::debug!(id, "a stream begins with something else than a channel");
            self.close_sctp(id);
            return Ok(true);
        }
        self.write(id, &Bytes::from_static(&channel::ACK), PayloadProtocolIdentifier::Dcep);
        let (stream, pipe) = stream(id, &self.attention, FRAME_DATA);
        let mut channel = Channel::new(pipe, true);
        channel.readable = true;
        let open =
            self.channels.values().filter(|channel| channel.inbound && !channel.is_over()).count();
        if open >= INBOUND_STREAMS || self.handle.inbound.try_send(stream).is_err() {
            tracing::debug!(id, "the browser opens too many streams");
            channel.refuse();
            self.list(id);
        }
        self.channels.insert(id, channel);
        Ok(true)
    }

    fn list(&mut self, id: u16) {
        if !self.sending.contains(&id) {
            self.sending.push(id);
        }
    }

    /// Hands to SCTP what the streams have for the peer, as much as it should hold.
    fn write_channels(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        if self.sending.is_empty() || self.link.outbox.len() > BACKLOG {
            return Ok(false);
        }
        let Some(association) = self.link.association() else { return Ok(false) };
        let mut held = 0;
        for id in self.channels.keys() {
            held +=
                association.stream(*id).and_then(|stream| stream.buffered_amount()).unwrap_or(0);
        }
        let mut moved = false;
        let mut again = Vec::new();
        for id in std::mem::take(&mut self.sending) {
            let mut turn = 0;
            let more = loop {
                let Some(channel) = self.channels.get(&id) else { break false };
                if held >= SEND_WINDOW || turn >= TURN {
                    break true;
                }
                let Some(frame) = channel.pipe.next_frame() else { break false };
                held += frame.len();
                turn += 1;
                moved = true;
                self.write(id, &frame, PayloadProtocolIdentifier::Binary);
            };
            if more {
                again.push(id);
            }
            moved |= self.settle(id, now);
        }
        // Whoever had its turn goes behind those that had none.
        let rest = std::mem::take(&mut self.sending);
        self.sending = again;
        for id in rest {
            self.list(id);
        }
        Ok(moved)
    }

    /// Does what is due for a channel beside its data.
    fn settle(&mut self, id: u16, now: Instant) -> bool {
        let mut moved = false;
        while let Some(channel) = self.channels.get_mut(&id)
            && let Some(due) = channel.due()
        {
            moved = true;
            tracing::trace!(id, ?due, "a stream");
            match due {
                // It stays, so that nothing has to take its number: see LEAVE.
                Due::Linger | Due::Close if id == NOISE_CHANNEL && !channel.inbound => {
                    return moved;
                }
                Due::Send(flag) => self.write_flag(id, flag),
                Due::Linger => channel.linger = Some(now + LINGER),
                Due::Close => channel.linger = Some(now + LEAVE),
            }
        }
        moved
    }

    fn write_flag(&mut self, id: u16, flag: message::Flag) {
        self.write(id, &message::flag(flag), PayloadProtocolIdentifier::Binary);
    }

    fn write(&mut self, id: u16, bytes: &Bytes, kind: PayloadProtocolIdentifier) {
        if let Some(association) = self.link.association()
            && let Ok(mut stream) = association.stream(id)
            && let Err(error) = stream.write_sctp(bytes, kind)
        {
            // The peer has closed the channel, or the association ends: the event of that is on its way.
            tracing::debug!(id, %error, "a message is not sent");
        }
    }

    fn close_channel(&mut self, id: u16) {
        if let Some(channel) = self.channels.remove(&id) {
            channel.pipe.break_off(io::ErrorKind::ConnectionReset);
            self.close_sctp(id);
        }
    }

    fn close_sctp(&mut self, id: u16) {
        if let Some(association) = self.link.association()
            && let Ok(mut stream) = association.stream(id)
            && stream.close().is_ok()
        {
            self.closing.insert(id);
        }
    }
}

/// The next whole message of a stream.
fn read(link: &mut Link, id: u16) -> Option<(PayloadProtocolIdentifier, Bytes)> {
    let chunks = link.association()?.stream(id).ok()?.read_sctp().ok()??;
    let mut bytes = vec![0; chunks.len()];
    chunks.read(&mut bytes).ok()?;
    Some((chunks.ppi, bytes.into()))
}
