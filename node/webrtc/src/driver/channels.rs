//! The channels of a connection: opened, answered, read, written and closed.

use std::{io, time::Instant};

use bytes::Bytes;
use sctp_proto::PayloadProtocolIdentifier;

use super::{
    BACKLOG, Driver, INBOUND_STREAMS, LEAVE, LINGER, NOISE_CHANNEL, OUTBOUND_STREAMS, TURN,
};
use crate::{
    channel::{self, Channel, Due},
    connection::ConnectionError,
    link::FRAME_DATA,
    message,
    stream::{Stream, stream},
};

impl Driver {
    /// Opens a channel of SCTP's and takes it in.
    pub(super) fn open_channel(&mut self, id: u16) -> Option<Stream> {
        self.link.association()?.open_stream(id, PayloadProtocolIdentifier::Binary).ok()?;
        let (stream, pipe) = stream(id, &self.attention, FRAME_DATA);
        self.channels.insert(id, Channel::new(pipe, false));
        Some(stream)
    }

    /// Opens the stream that the application waits for, if there is room.
    pub(super) fn open_wanted(&mut self) -> Result<(), ConnectionError> {
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

    pub(super) fn read_channels(&mut self) -> Result<bool, ConnectionError> {
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
                let Some(message) = self.link.read(id) else {
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
        let Some((kind, bytes)) = self.link.read(id) else { return Ok(false) };
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

    pub(super) fn list(&mut self, id: u16) {
        if !self.sending.contains(&id) {
            self.sending.push(id);
        }
    }

    /// Hands to SCTP what the streams have for the peer, as much as it should hold.
    pub(super) fn write_channels(&mut self, now: Instant) -> Result<bool, ConnectionError> {
        let Some(association) = self.link.association() else { return Ok(false) };
        let mut held = 0;
        for id in self.channels.keys() {
            held +=
                association.stream(*id).and_then(|stream| stream.buffered_amount()).unwrap_or(0);
        }
        self.window.observe(now, self.written, self.written.saturating_sub(held as u64));
        if self.sending.is_empty() || self.link.outbox.len() > BACKLOG {
            return Ok(false);
        }
        let room = self.window.size();
        let mut moved = false;
        let (mut again, mut had) = (Vec::new(), Vec::new());
        for id in std::mem::take(&mut self.sending) {
            let mut turn = 0;
            let more = loop {
                let Some(channel) = self.channels.get(&id) else { break false };
                if held >= room || turn >= TURN {
                    break true;
                }
                let Some(frame) = channel.pipe.next_frame() else { break false };
                held += frame.len();
                self.written += frame.len() as u64;
                turn += 1;
                moved = true;
                self.write(id, &frame, PayloadProtocolIdentifier::Binary);
            };
            if more {
                if turn == 0 { &mut again } else { &mut had }.push(id);
            }
            moved |= self.settle(id, now);
        }
        // Whoever had its turn goes behind those that had none.
        again.append(&mut had);
        self.sending = again;
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

    pub(super) fn close_channel(&mut self, id: u16) {
        if let Some(channel) = self.channels.remove(&id) {
            channel.pipe.break_off(io::ErrorKind::ConnectionReset);
            self.close_sctp(id);
        }
    }

    pub(super) fn close_sctp(&mut self, id: u16) {
        if let Some(association) = self.link.association()
            && let Ok(mut stream) = association.stream(id)
            && stream.close().is_ok()
        {
            self.closing.insert(id);
        }
    }
}
