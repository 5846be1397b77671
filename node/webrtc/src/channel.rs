//! The state machine of a data channel: which flags were exchanged in each direction, and what to do next.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    message::{Decoder, Flag, Frame, FrameError},
    stream::Pipe,
};

/// DATA_CHANNEL_OPEN (RFC 8832): reliable, ordered, no label, no protocol.
pub(crate) const OPEN: [u8; 12] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// DATA_CHANNEL_ACK.
pub(crate) const ACK: [u8; 1] = [2];

/// Returns whether a DCEP message opens a reliable, ordered channel, the only kind that can carry a stream. libp2p ignores the
/// label and protocol.
pub(crate) fn is_open(message: &[u8]) -> bool {
    message.len() >= OPEN.len() && message[..2] == OPEN[..2]
}

/// A data channel and the pipe to its stream.
#[derive(Debug)]
pub(crate) struct Channel {
    pub pipe: Arc<Pipe>,
    /// Opened by the peer.
    pub inbound: bool,
    /// SCTP may hold unread messages.
    pub readable: bool,
    /// When to close the channel without the peer's acknowledgement.
    pub linger: Option<Instant>,
    decoder: Decoder,
    halves: HalfStreams,
}

/// The flags exchanged so far.
#[derive(Debug, Default)]
struct HalfStreams {
    fin_sent: bool,
    fin_acked: bool,
    /// Received STOP_SENDING.
    stop_received: bool,
    stop_sent: bool,
    fin_received: bool,
    /// This side aborts; RESET may not be sent yet.
    aborted: bool,
    /// Either side sent RESET.
    reset: bool,
    /// No frame is left to send or to wait for.
    finished: bool,
}

/// What the task has to do next for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a flag.
    Send(Flag),
    /// Start the timeout for the peer's FIN_ACK.
    Linger,
    /// Close the channel.
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
            halves: HalfStreams::default(),
        }
    }

    /// Handles an SCTP message of the channel. Returns whether a FIN_ACK is owed.
    pub(crate) fn receive(&mut self, bytes: Bytes) -> Result<bool, FrameError> {
        let Self { decoder, halves, pipe, .. } = self;
        let mut owes_ack = false;
        if halves.aborted {
            return Ok(false);
        }
        decoder.push(bytes, |Frame { flag, data }| {
            pipe.push_data(&data);
            match flag {
                None => {}
                Some(Flag::Fin) => {
                    // Only the first is acknowledged, so that repeated FINs do not queue answers.
                    owes_ack |= !halves.fin_received;
                    halves.fin_received = true;
                    pipe.finish_read();
                }
                Some(Flag::FinAck) => halves.fin_acked = halves.fin_sent,
                Some(Flag::StopSending) => {
                    halves.stop_received = true;
                    pipe.stop_write();
                }
                Some(Flag::Reset) => {
                    halves.reset = true;
                    pipe.reset(io::ErrorKind::ConnectionReset);
                }
            }
        })?;
        Ok(owes_ack)
    }

    /// Aborts the stream; the next action sends RESET.
    pub(crate) fn abort(&mut self) {
        self.pipe.reset(io::ErrorKind::ConnectionReset);
        self.halves.aborted = true;
    }

    /// Returns whether the channel only waits to be closed.
    pub(crate) fn is_finished(&self) -> bool {
        self.halves.finished
    }

    /// Returns the next action, or `None` until the application or the peer does something. The caller carries it out and calls
    /// again.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        let local = self.pipe.local_half();
        let halves = &mut self.halves;
        if halves.finished {
            return None;
        }
        if halves.aborted && !halves.reset {
            halves.reset = true;
            return Some(Action::Send(Flag::Reset));
        }
        if halves.reset {
            halves.finished = true;
            return Some(Action::Close);
        }
        // Also in answer to STOP_SENDING: js-libp2p closes the channel only after a FIN in both directions.
        if (local.fin_due || halves.stop_received) && !halves.fin_sent {
            halves.fin_sent = true;
            return Some(Action::Send(Flag::Fin));
        }
        let write_done = halves.fin_acked || halves.stop_received;
        if write_done && halves.fin_received {
            halves.finished = true;
            return Some(Action::Close);
        }
        if !local.dropped {
            return None;
        }
        if !halves.fin_sent {
            if local.draining {
                return None;
            }
            halves.reset = true;
            return Some(Action::Send(Flag::Reset));
        }
        if write_done && halves.stop_sent {
            halves.finished = true;
            return Some(Action::Close);
        }
        if !halves.fin_received && !halves.stop_sent {
            halves.stop_sent = true;
            return Some(Action::Send(Flag::StopSending));
        }
        self.linger.is_none().then_some(Action::Linger)
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

    /// Takes all actions until the channel waits for the peer.
    fn actions(channel: &mut Channel) -> Vec<Action> {
        let mut all = Vec::new();
        while let Some(action) = channel.next_action() {
            all.push(action);
            if action == Action::Linger {
                channel.linger = Some(Instant::now());
            }
        }
        all
    }

    #[test]
    fn a_channel_closes_after_both_fins_are_acknowledged() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        assert_eq!(actions(&mut channel), [Action::Send(Flag::Fin)]);
        assert_eq!(channel.receive(message::encode_flag(Flag::FinAck)), Ok(false));
        assert_eq!(actions(&mut channel), []);
        assert_eq!(channel.receive(message::encode_flag(Flag::Fin)), Ok(true));
        assert_eq!(actions(&mut channel), [Action::Close]);
    }

    #[test]
    fn repeated_fins_are_acknowledged_once() {
        let (_stream, mut channel) = new();
        let again: Vec<u8> = message::encode_flag(Flag::Fin).repeat(5000);
        assert_eq!(channel.receive(again.into()), Ok(true));
        assert_eq!(channel.receive(message::encode_flag(Flag::Fin)), Ok(false));
    }

    #[test]
    fn a_stream_closed_for_writing_still_reads() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        actions(&mut channel);
        channel.receive(Bytes::from_static(b"\x06\x12\x04late")).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).now_or_never().unwrap().unwrap();
        assert_eq!(&bytes, b"late");
        assert_eq!(actions(&mut channel), []);
    }

    #[test]
    fn a_fin_after_the_stream_was_dropped_is_acknowledged() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        drop(stream);
        actions(&mut channel);
        channel.receive(message::encode_flag(Flag::FinAck)).unwrap();
        assert_eq!(actions(&mut channel), [Action::Close]);
        assert_eq!(channel.receive(message::encode_flag(Flag::Fin)), Ok(true));
    }

    #[test]
    fn a_stream_dropped_open_is_reset() {
        let (stream, mut channel) = new();
        drop(stream);
        assert_eq!(actions(&mut channel), [Action::Send(Flag::Reset), Action::Close]);
    }

    #[test]
    fn a_stream_dropped_after_close_sends_stop_sending_and_waits_for_fin_ack() {
        let (mut stream, mut channel) = new();
        stream.close().now_or_never().unwrap().unwrap();
        drop(stream);
        assert_eq!(
            actions(&mut channel),
            [Action::Send(Flag::Fin), Action::Send(Flag::StopSending), Action::Linger]
        );
        channel.receive(message::encode_flag(Flag::FinAck)).unwrap();
        assert_eq!(actions(&mut channel), [Action::Close]);
    }

    #[test]
    fn unknown_fields_of_a_frame_are_not_kept_in_memory() {
        let (mut stream, mut channel) = new();
        let unknown = [&[0x96, 0x4e, 0x22, 0x90, 0x4e][..], &[7; 10_000]].concat();
        let message = Bytes::from([&unknown[..], &[0x12, 1, b'x']].concat());
        channel.receive(message.clone()).unwrap();
        assert!(message.is_unique());
        assert_eq!(stream.read(&mut [0; 9]).now_or_never().unwrap().unwrap(), 1);
    }

    #[test]
    fn a_fin_ack_without_a_fin_is_ignored() {
        let (_stream, mut channel) = new();
        channel.receive(message::encode_flag(Flag::FinAck)).unwrap();
        channel.receive(message::encode_flag(Flag::Fin)).unwrap();
        assert_eq!(actions(&mut channel), []);
    }

    #[test]
    fn stop_sending_fails_writes_only() {
        let (mut stream, mut channel) = new();
        channel.receive(message::encode_flag(Flag::StopSending)).unwrap();
        let write = stream.write(b"x").now_or_never().unwrap();
        assert_eq!(write.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        channel.receive(Bytes::from_static(b"\x06\x12\x04more")).unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).now_or_never().unwrap().unwrap();
        assert_eq!(actions(&mut channel), [Action::Send(Flag::Fin)]);
        channel.receive(message::encode_flag(Flag::Fin)).unwrap();
        assert_eq!(actions(&mut channel), [Action::Close]);
    }

    #[test]
    fn a_received_reset_fails_both_directions() {
        let (mut stream, mut channel) = new();
        channel.receive(message::encode_flag(Flag::Reset)).unwrap();
        assert_eq!(actions(&mut channel), [Action::Close]);
        let mut byte = [0];
        let read = stream.read(&mut byte).now_or_never().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn an_aborted_channel_sends_reset_and_ignores_further_data() {
        let (mut stream, mut channel) = new();
        channel.abort();
        assert_eq!(actions(&mut channel), [Action::Send(Flag::Reset), Action::Close]);
        assert!(channel.is_finished());
        assert_eq!(
            channel.receive(Bytes::from_static(b"\xff\xff\xff\xff")),
            Ok(false),
            "the decoder is skipped"
        );
        let mut byte = [0];
        let read = stream.read(&mut byte).now_or_never().unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn only_reliable_ordered_channels_are_accepted() {
        assert!(is_open(&OPEN));
        assert!(is_open(&[&OPEN[..], b"label"].concat()));
        for rejected in [
            &OPEN[..11],
            &ACK,
            b"",
            b"\x03\x80\0\0\0\0\0\0\0\0\0\0",
            b"\x03\x01\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert!(!is_open(rejected));
        }
    }
}
