//! A data channel as the task of a connection sees it: what has been said in which direction, and what is due.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    message::{Decoder, Flag, Malformed, Message},
    stream::Pipe,
};

/// The message that opens a channel (RFC 8832): reliable, ordered, no label, no protocol.
pub(crate) const OPEN: [u8; 12] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The answer to it.
pub(crate) const ACK: [u8; 1] = [2];

/// Whether a message of the channel protocol asks for a channel. Its label and protocol mean nothing to libp2p, and with
/// the other kinds of channel (unordered, unreliable) the streams above would not work.
pub(crate) fn asks_for_channel(message: &[u8]) -> bool {
    message.len() >= OPEN.len() && message[..2] == OPEN[..2]
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub pipe: Arc<Pipe>,
    /// The peer opened it.
    pub inbound: bool,
    /// SCTP may hold messages that were not read.
    pub readable: bool,
    /// When the channel goes even if the peer has not acknowledged the end.
    pub linger: Option<Instant>,
    decoder: Decoder,
    halves: Halves,
}

/// How far the two directions are.
#[derive(Debug, Default)]
struct Halves {
    /// We said that nothing more comes from us, and the peer has it all.
    fin_sent: bool,
    fin_acked: bool,
    /// The peer said that it reads no more.
    stopped: bool,
    /// We said that we read no more.
    stop_sent: bool,
    /// The peer said that nothing more comes from it.
    fin_received: bool,
    /// This side gives up, and has not said so yet.
    refused: bool,
    /// Either side gave up.
    reset: bool,
    /// Nothing is left to be said.
    over: bool,
}

/// What a channel has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Tell the peer.
    Send(Flag),
    /// Wait for the peer's acknowledgement, but not for ever.
    Linger,
    /// Nothing is left to be said: the channel is to be closed.
    Close,
}

impl Channel {
    pub(crate) fn new(pipe: Arc<Pipe>, inbound: bool) -> Self {
        Self {
            pipe,
            inbound,
            readable: false,
            linger: None,
            decoder: Decoder::default(),
            halves: Halves::default(),
        }
    }

    /// A message of the channel came. Gives how many acknowledgements the peer is owed.
    pub(crate) fn receive(&mut self, bytes: Bytes) -> Result<usize, Malformed> {
        let Self { decoder, halves, pipe, .. } = self;
        let mut acknowledgements = 0;
        if halves.refused {
            return Ok(0);
        }
        decoder.push(bytes, |Message { flag, data }| {
            pipe.receive(&data);
            match flag {
                None => {}
                Some(Flag::Fin) => {
                    // The first alone: whoever repeats it would have as many answers wait for him.
                    acknowledgements += usize::from(!halves.fin_received);
                    halves.fin_received = true;
                    pipe.finish_read();
                }
                Some(Flag::FinAck) => halves.fin_acked = halves.fin_sent,
                Some(Flag::StopSending) => {
                    halves.stopped = true;
                    pipe.stop_write();
                }
                Some(Flag::Reset) => {
                    halves.reset = true;
                    pipe.break_off(io::ErrorKind::ConnectionReset);
                }
            }
        })?;
        Ok(acknowledgements)
    }

    /// Gives up the stream: what is due tells the peer.
    pub(crate) fn refuse(&mut self) {
        self.pipe.break_off(io::ErrorKind::ConnectionReset);
        self.halves.refused = true;
    }

    /// Whether nothing is left to be said: the channel is there only because it is not closed yet.
    pub(crate) fn is_over(&self) -> bool {
        self.halves.over
    }

    /// What is due, given what the application has done; to be asked again after it was done.
    pub(crate) fn due(&mut self) -> Option<Due> {
        let wishes = self.pipe.wishes();
        let halves = &mut self.halves;
        if halves.over {
            return None;
        }
        if halves.refused && !halves.reset {
            halves.reset = true;
            return Some(Due::Send(Flag::Reset));
        }
        if halves.reset {
            halves.over = true;
            return Some(Due::Close);
        }
        // Also to a peer that reads no more: js-libp2p closes the channel only when both have said so.
        if (wishes.finished || halves.stopped) && !halves.fin_sent {
            halves.fin_sent = true;
            return Some(Due::Send(Flag::Fin));
        }
        let written = halves.fin_acked || halves.stopped;
        if written && halves.fin_received {
            halves.over = true;
            return Some(Due::Close);
        }
        if !wishes.dropped {
            return None;
        }
        if !halves.fin_sent {
            if wishes.pending {
                return None;
            }
            halves.reset = true;
            return Some(Due::Send(Flag::Reset));
        }
        if written && halves.stop_sent {
            halves.over = true;
            return Some(Due::Close);
        }
        if !halves.fin_received && !halves.stop_sent {
            halves.stop_sent = true;
            return Some(Due::Send(Flag::StopSending));
        }
        self.linger.is_none().then_some(Due::Linger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        message,
        stream::{Stream, stream},
    };
    use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

    fn new() -> (Stream, Channel) {
        let (stream, pipe) = stream(1, &Arc::default(), 1000);
        (stream, Channel::new(pipe, true))
    }

    /// All that is due, as far as it goes without the peer.
    fn due(channel: &mut Channel) -> Vec<Due> {
        let mut all = Vec::new();
        while let Some(due) = channel.due() {
            all.push(due);
            if due == Due::Linger {
                channel.linger = Some(Instant::now());
            }
        }
        all
    }

    #[test]
    fn both_ends_close_and_acknowledge_and_the_channel_goes() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        assert_eq!(due(&mut channel), [Due::Send(Flag::Fin)]);
        assert_eq!(channel.receive(message::flag(Flag::FinAck)), Ok(0));
        assert_eq!(due(&mut channel), []);
        assert_eq!(channel.receive(message::flag(Flag::Fin)), Ok(1));
        assert_eq!(due(&mut channel), [Due::Close]);
    }

    #[test]
    fn an_end_that_is_said_again_and_again_is_answered_once() {
        let (_stream, mut channel) = new();
        let again: Vec<u8> = message::flag(Flag::Fin).repeat(5000);
        assert_eq!(channel.receive(again.into()), Ok(1));
        assert_eq!(channel.receive(message::flag(Flag::Fin)), Ok(0));
    }

    #[test]
    fn a_half_closed_stream_still_reads() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        due(&mut channel);
        channel.receive(Bytes::from_static(b"\x06\x12\x04late")).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).now_or_never().unwrap().unwrap();
        assert_eq!(&bytes, b"late");
        assert_eq!(due(&mut channel), []);
    }

    #[test]
    fn a_peer_that_closes_after_the_application_has_gone_is_still_answered() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        drop(stream);
        due(&mut channel);
        channel.receive(message::flag(Flag::FinAck)).unwrap();
        assert_eq!(due(&mut channel), [Due::Close]);
        assert_eq!(channel.receive(message::flag(Flag::Fin)), Ok(1));
    }

    #[test]
    fn a_stream_dropped_unclosed_is_reset() {
        let (stream, mut channel) = new();
        drop(stream);
        assert_eq!(due(&mut channel), [Due::Send(Flag::Reset), Due::Close]);
    }

    #[test]
    fn a_stream_dropped_half_closed_says_that_it_reads_no_more_and_waits_for_the_acknowledgement() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        drop(stream);
        assert_eq!(
            due(&mut channel),
            [Due::Send(Flag::Fin), Due::Send(Flag::StopSending), Due::Linger]
        );
        channel.receive(message::flag(Flag::FinAck)).unwrap();
        assert_eq!(due(&mut channel), [Due::Close]);
    }

    /// What a message carries beside its data counts for nothing, so nothing of it may stay.
    #[test]
    fn of_a_message_that_was_received_only_its_data_is_kept() {
        let (mut stream, mut channel) = new();
        let unknown = [&[0x96, 0x4e, 0x22, 0x90, 0x4e][..], &[7; 10_000]].concat();
        let message = Bytes::from([&unknown[..], &[0x12, 1, b'x']].concat());
        channel.receive(message.clone()).unwrap();
        assert!(message.is_unique());
        assert_eq!(stream.read(&mut [0; 9]).now_or_never().unwrap().unwrap(), 1);
    }

    #[test]
    fn an_acknowledgement_of_nothing_closes_nothing() {
        let (_stream, mut channel) = new();
        channel.receive(message::flag(Flag::FinAck)).unwrap();
        channel.receive(message::flag(Flag::Fin)).unwrap();
        assert_eq!(due(&mut channel), []);
    }

    #[test]
    fn a_peer_that_stops_reading_breaks_the_writer_only() {
        let (mut stream, mut channel) = new();
        channel.receive(message::flag(Flag::StopSending)).unwrap();
        let write = stream.write(b"x").now_or_never().unwrap();
        assert_eq!(write.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        channel.receive(Bytes::from_static(b"\x06\x12\x04more")).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).now_or_never().unwrap().unwrap();
        assert_eq!(due(&mut channel), [Due::Send(Flag::Fin)]);
        channel.receive(message::flag(Flag::Fin)).unwrap();
        assert_eq!(due(&mut channel), [Due::Close]);
    }

    #[test]
    fn a_reset_breaks_both_directions() {
        let (mut stream, mut channel) = new();
        channel.receive(message::flag(Flag::Reset)).unwrap();
        assert_eq!(due(&mut channel), [Due::Close]);
        let mut byte = [0];
        let read = stream.read(&mut byte).now_or_never().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_refused_stream_is_reset_and_takes_no_more() {
        let (mut stream, mut channel) = new();
        channel.refuse();
        assert_eq!(due(&mut channel), [Due::Send(Flag::Reset), Due::Close]);
        assert!(channel.is_over());
        assert_eq!(
            channel.receive(Bytes::from_static(b"\xff\xff\xff\xff")),
            Ok(0),
            "not even looked at"
        );
        let mut byte = [0];
        let read = stream.read(&mut byte).now_or_never().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn only_reliable_ordered_channels_are_opened() {
        assert!(asks_for_channel(&OPEN));
        assert!(asks_for_channel(&[&OPEN[..], b"label"].concat()));
        for refused in [
            &OPEN[..11],
            &ACK,
            b"",
            b"\x03\x80\0\0\0\0\0\0\0\0\0\0",
            b"\x03\x01\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(!asks_for_channel(refused));
        }
    }
}
