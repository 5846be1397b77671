//! The channels of a connection: opens, accepts, reads, writes and closes them.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use sctp_proto::{PayloadProtocolIdentifier, StreamEvent};
use tokio::sync::{mpsc, oneshot};

use crate::{
    association::{Association, FRAME_DATA},
    channel::{self, Action, Channel},
    congestion::CongestionWindow,
    error::{ConnectionError, ProtocolViolation},
    message::{self, Flag},
    stream::{Readiness, Stream, stream},
};

/// Maximum open streams of the browser; more are reset.
pub(super) const MAX_INBOUND_STREAMS: usize = 32;
/// Maximum open streams of this node; more wait.
const MAX_OUTBOUND_STREAMS: usize = 64;
/// Maximum SCTP streams in any state. SCTP remembers a stream until both sides have reset it; browsers do that at once, and a
/// client that does not has its connection closed.
const MAX_SCTP_STREAMS: usize = 512;
/// Frames that one stream sends before the next stream's turn.
const FRAMES_PER_TURN: usize = 8;
/// Datagrams waiting for the kernel at which no more frames are written.
const MAX_QUEUED_DATAGRAMS: usize = 1024;
/// How long the peer may take to acknowledge a FIN after the application dropped the stream.
const FIN_ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the browser may take to close a finished channel before this side does. Browsers' libp2p closes it at once, and one
/// side suffices. The browser should do it: after a reset by this side, sctp-proto answers the browser's reset with another one,
/// which can hit the next channel of the same id.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The channel of the Noise handshake.
pub(super) const NOISE_CHANNEL: u16 = 0;

/// The channels of a connection and the order in which they send.
pub(super) struct Channels {
    channels: BTreeMap<u16, Channel>,
    /// SCTP streams of the peer before their DATA_CHANNEL_OPEN.
    unopened: HashSet<u16>,
    /// SCTP streams with a reset in progress, whose ids cannot be reused yet.
    resetting: HashSet<u16>,
    /// Channels that may have frames to send, in round-robin order.
    send_queue: Vec<u16>,
    readiness: Arc<Readiness>,
    pub(super) congestion: CongestionWindow,
    /// Bytes handed to SCTP so far.
    written: u64,
    /// Takes the browser's streams to the application.
    inbound: mpsc::Sender<Stream>,
    /// The application's request for an outbound stream that is not open yet.
    requested: Option<oneshot::Sender<Stream>>,
}

/// Runs however the task ends, including panic and abort, so that no stream waits forever.
impl Drop for Channels {
    fn drop(&mut self) {
        for channel in self.channels.values() {
            channel.pipe.reset(io::ErrorKind::ConnectionReset);
        }
    }
}

impl Channels {
    pub(super) fn new(inbound: mpsc::Sender<Stream>) -> Self {
        Self {
            channels: BTreeMap::new(),
            unopened: HashSet::new(),
            resetting: HashSet::new(),
            send_queue: Vec::new(),
            readiness: Arc::default(),
            congestion: CongestionWindow::default(),
            written: 0,
            inbound,
            requested: None,
        }
    }

    /// Returns the list of streams that need service, to wait on.
    pub(super) fn readiness(&self) -> Arc<Readiness> {
        self.readiness.clone()
    }

    /// Returns whether the application waits for an outbound stream.
    pub(super) fn has_request(&self) -> bool {
        self.requested.is_some()
    }

    /// Opens an outbound stream for the application as soon as the limit allows.
    pub(super) fn request(&mut self, reply: oneshot::Sender<Stream>) {
        self.requested = Some(reply);
    }

    /// Returns whether no stream reset is in progress.
    pub(super) fn resets_complete(&self) -> bool {
        self.resetting.is_empty()
    }

    /// Returns when [`Channels::close_expired`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.channels.values().filter_map(|channel| channel.linger).min()
    }

    /// Fails if the peer holds too many SCTP streams.
    pub(super) fn check_limit(&self) -> Result<(), ProtocolViolation> {
        if self.channels.len() + self.unopened.len() + self.resetting.len() > MAX_SCTP_STREAMS {
            return Err(ProtocolViolation::TooManyStreams);
        }
        Ok(())
    }

    /// Closes channels that the peer has not closed in time.
    pub(super) fn close_expired(&mut self, association: &mut Association, now: Instant) {
        let expired = |channel: &Channel| channel.linger.is_some_and(|at| at <= now);
        let expired: Vec<u16> =
            self.channels.iter().filter(|(_, c)| expired(c)).map(|(id, _)| *id).collect();
        for id in expired {
            if let Some(channel) = self.channels.remove(&id) {
                channel.pipe.reset(io::ErrorKind::ConnectionReset);
                self.reset_stream(association, id);
            }
        }
    }

    /// Handles an event of an SCTP stream.
    pub(super) fn on_event(
        &mut self,
        association: &mut Association,
        event: StreamEvent,
    ) -> Result<(), ConnectionError> {
        match event {
            StreamEvent::Opened { id } => {
                let sctp = association.sctp().ok_or(ConnectionError::Closed)?;
                while sctp.accept_stream().is_some() {}
                self.unopened.insert(id);
            }
            StreamEvent::Readable { id } => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.readable = true;
                }
            }
            StreamEvent::Finished { id } => {
                self.unopened.remove(&id);
                self.resetting.insert(id);
                if let Some(channel) = self.channels.remove(&id) {
                    channel.pipe.reset(io::ErrorKind::ConnectionReset);
                }
            }
            // The id can never be used again.
            StreamEvent::ResetFailed { .. } => return Err(ProtocolViolation::ResetFailed.into()),
            StreamEvent::ResetComplete { id } => {
                self.resetting.remove(&id);
                association.guard().on_reset_complete(id);
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens an SCTP stream and its channel, without DATA_CHANNEL_OPEN.
    pub(super) fn open(&mut self, association: &mut Association, id: u16) -> Option<Stream> {
        association.sctp()?.open_stream(id, PayloadProtocolIdentifier::Binary).ok()?;
        let (stream, pipe) = stream(id, &self.readiness, FRAME_DATA);
        self.channels.insert(id, Channel::new(pipe, false));
        Some(stream)
    }

    /// Opens the stream that the application requested, if the limit allows.
    pub(super) fn open_requested(&mut self, association: &mut Association) {
        let outbound = self.channels.values().filter(|c| !c.inbound && !c.is_finished()).count();
        if self.requested.is_none() || outbound >= MAX_OUTBOUND_STREAMS {
            return;
        }
        // The DTLS server opens odd ids (RFC 8832).
        let free = (1..u16::MAX).step_by(2).find(|id| {
            !self.channels.contains_key(id)
                && !self.unopened.contains(id)
                && !self.resetting.contains(id)
        });
        let Some((id, stream)) = free.and_then(|id| Some((id, self.open(association, id)?))) else {
            return;
        };
        association.write(id, &Bytes::from_static(&channel::OPEN), PayloadProtocolIdentifier::Dcep);
        if let Some(reply) = self.requested.take() {
            // If the application no longer waits, this drops the stream, which resets the channel.
            let _ = reply.send(stream);
        }
    }

    /// Reads from SCTP and writes to it as buffers and windows allow. Returns whether anything moved.
    pub(super) fn service(&mut self, association: &mut Association, now: Instant) -> bool {
        let mut moved = false;
        for id in self.readiness.take() {
            moved = true;
            if let Some(channel) = self.channels.get(&id) {
                channel.pipe.clear_ready();
            }
            self.enqueue(id);
        }
        moved |= self.read(association);
        moved |= self.write(association, now);
        moved
    }

    fn read(&mut self, association: &mut Association) -> bool {
        let mut moved = false;
        for id in self.unopened.iter().copied().collect::<Vec<_>>() {
            moved |= self.accept(association, id);
        }
        let readable: Vec<u16> =
            self.channels.iter().filter(|(_, c)| c.readable).map(|(id, _)| *id).collect();
        for id in readable {
            while let Some(channel) = self.channels.get_mut(&id)
                && channel.readable
                && channel.pipe.has_capacity()
            {
                let Some(message) = association.read(id) else {
                    channel.readable = false;
                    break;
                };
                moved = true;
                match message {
                    (PayloadProtocolIdentifier::Binary, bytes) => {
                        match channel.receive(bytes) {
                            Ok(true) => write_flag(association, id, Flag::FinAck),
                            Ok(false) => {}
                            Err(error) => {
                                tracing::debug!(id, %error, "stream reset: invalid frame");
                                channel.abort();
                            }
                        }
                        self.enqueue(id);
                    }
                    (PayloadProtocolIdentifier::Dcep, bytes) if bytes[..] == channel::ACK => {}
                    // Browsers send it for an empty message.
                    (PayloadProtocolIdentifier::BinaryEmpty, _) => {}
                    (kind, _) => {
                        tracing::debug!(id, ?kind, "stream reset: unexpected message type");
                        channel.abort();
                        self.enqueue(id);
                    }
                }
            }
        }
        moved
    }

    /// Reads the first message of a stream that the peer started, which must be DATA_CHANNEL_OPEN.
    fn accept(&mut self, association: &mut Association, id: u16) -> bool {
        if self.resetting.contains(&id) {
            // The reset of the previous stream with this id is in progress; SCTP delivers nothing until it completes.
            return false;
        }
        let Some((kind, bytes)) = association.read(id) else { return false };
        self.unopened.remove(&id);
        if kind != PayloadProtocolIdentifier::Dcep || !channel::is_open(&bytes) {
            tracing::debug!(id, ?kind, "stream reset: no DATA_CHANNEL_OPEN");
            self.reset_stream(association, id);
            return true;
        }
        association.write(id, &Bytes::from_static(&channel::ACK), PayloadProtocolIdentifier::Dcep);
        let (stream, pipe) = stream(id, &self.readiness, FRAME_DATA);
        let mut channel = Channel::new(pipe, true);
        channel.readable = true;
        let open = self.channels.values().filter(|c| c.inbound && !c.is_finished()).count();
        if open >= MAX_INBOUND_STREAMS || self.inbound.try_send(stream).is_err() {
            tracing::debug!(
                id,
                max = MAX_INBOUND_STREAMS,
                "stream reset: too many inbound streams"
            );
            channel.abort();
            self.enqueue(id);
        }
        self.channels.insert(id, channel);
        true
    }

    fn enqueue(&mut self, id: u16) {
        if !self.send_queue.contains(&id) {
            self.send_queue.push(id);
        }
    }

    /// Hands frames to SCTP up to the congestion window, in turns.
    fn write(&mut self, association: &mut Association, now: Instant) -> bool {
        let Some(sctp) = association.sctp() else { return false };
        let mut in_flight = 0;
        for id in self.channels.keys() {
            in_flight += sctp.stream(*id).and_then(|stream| stream.buffered_amount()).unwrap_or(0);
        }
        self.congestion.observe(now, self.written, self.written.saturating_sub(in_flight as u64));
        if self.send_queue.is_empty() || association.queue.len() > MAX_QUEUED_DATAGRAMS {
            return false;
        }
        let window = self.congestion.size();
        let mut moved = false;
        let (mut waiting, mut served) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.send_queue) {
            let mut turn = 0;
            let more = loop {
                let Some(channel) = self.channels.get(&id) else { break false };
                if in_flight >= window || turn >= FRAMES_PER_TURN {
                    break true;
                }
                let Some(frame) = channel.pipe.next_frame() else { break false };
                in_flight += frame.len();
                self.written += frame.len() as u64;
                turn += 1;
                moved = true;
                association.write(id, &frame, PayloadProtocolIdentifier::Binary);
            };
            if more {
                if turn == 0 { &mut waiting } else { &mut served }.push(id);
            }
            moved |= self.act(association, id, now);
        }
        waiting.append(&mut served);
        self.send_queue = waiting;
        moved
    }

    /// Carries out the actions of a channel's state machine.
    fn act(&mut self, association: &mut Association, id: u16, now: Instant) -> bool {
        let mut moved = false;
        while let Some(channel) = self.channels.get_mut(&id)
            && let Some(action) = channel.next_action()
        {
            tracing::trace!(id, ?action, "channel action");
            match action {
                // Stays open, so that its id is not reused: see CLOSE_GRACE.
                Action::Linger | Action::Close if id == NOISE_CHANNEL && !channel.inbound => {
                    return moved;
                }
                Action::Send(flag) => {
                    write_flag(association, id, flag);
                    moved = true;
                }
                Action::Linger => channel.linger = Some(now + FIN_ACK_TIMEOUT),
                Action::Close => channel.linger = Some(now + CLOSE_GRACE),
            }
        }
        moved
    }

    fn reset_stream(&mut self, association: &mut Association, id: u16) {
        if let Some(sctp) = association.sctp()
            && let Ok(mut stream) = sctp.stream(id)
            && stream.close().is_ok()
        {
            self.resetting.insert(id);
        }
    }
}

fn write_flag(association: &mut Association, id: u16, flag: Flag) {
    association.write(id, &message::encode_flag(flag), PayloadProtocolIdentifier::Binary);
}
