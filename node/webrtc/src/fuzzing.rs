//! What a browser's bytes reach, without sockets and DTLS: for fuzz targets.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};
use is::{DefaultSha1HmacProvider, Sha1HmacProvider as _};
use sctp_proto::PayloadProtocolIdentifier;

use crate::{
    channel::{self, Action, Channel},
    sctp::{Sctp, SctpConfig},
    sctp_guard::RECEIVE_WINDOW,
    stream::{RECEIVE_BUFFER, stream},
    stun::Check,
};

/// Returns the answer to a datagram of an unknown client, if it is a connectivity check.
pub fn answer_check(datagram: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    Check::read(datagram).ok()?.answer(source)
}

/// Returns a connectivity check with these attributes after its username, with the signature that a client makes.
pub fn sign_check(username: &str, attributes: &[u8]) -> Vec<u8> {
    let mut check = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    check.extend([7; 12]);
    check.extend([0, 6]);
    check.extend((username.len() as u16).to_be_bytes());
    check.extend(username.as_bytes());
    check.resize(check.len().next_multiple_of(4), 0);
    check.extend(attributes);
    let length = (check.len() - 20 + 24) as u16;
    check[2..4].copy_from_slice(&length.to_be_bytes());
    let password = username.split(':').next().unwrap_or_default();
    let mac = DefaultSha1HmacProvider.sha1_hmac(password.as_bytes(), &[&check]);
    check.extend([0, 8, 0, 20]);
    check.extend(mac);
    check
}

/// Bytes of an SCTP packet before its chunks.
const HEADER: [u8; 4] = [0x13, 0x88, 0x13, 0x88];
/// The client's first TSN.
const FIRST_TSN: u32 = 1;

/// An SCTP association with a client that sends any chunks.
pub struct SctpServer {
    sctp: Sctp,
    now: Instant,
    /// The verification tag that the server expects.
    tag: u32,
    /// The server's first TSN.
    tsn: u32,
}

impl SctpServer {
    /// Establishes an association.
    ///
    /// # Panics
    /// The server does not answer the client's handshake.
    #[expect(clippy::expect_used, reason = "a fuzz target")]
    pub fn connect() -> Self {
        let sctp = Sctp::new(&SctpConfig::new());
        let mut server = Self { sctp, now: Instant::now(), tag: 0, tsn: 0 };
        let init = [
            &[1, 0, 0, 20, 0, 0, 0, 1][..],
            &RECEIVE_WINDOW.to_be_bytes(),
            &[255; 4],
            &FIRST_TSN.to_be_bytes(),
        ];
        server.receive_packet(&init.concat());
        let answer = server.transmit().pop().expect("an INIT ACK");
        let number = |at: usize| answer.get(at..at + 4).and_then(|it| it.try_into().ok());
        server.tag = u32::from_be_bytes(number(16).expect("a tag"));
        server.tsn = u32::from_be_bytes(number(28).expect("a TSN"));
        let mut parameters = answer.get(32..).expect("parameters");
        let cookie = loop {
            let length = usize::from(u16::from_be_bytes([parameters[2], parameters[3]]));
            if parameters[..2] == [0, 7] {
                break &parameters[4..length];
            }
            parameters = &parameters[length.next_multiple_of(4)..];
        };
        let length = (4 + cookie.len()) as u16;
        let echo = [&[10, 0][..], &length.to_be_bytes(), cookie].concat();
        server.receive_packet(&echo);
        assert!(!server.transmit().is_empty(), "a COOKIE ACK");
        server
    }

    /// Receives chunks, whose TSNs count from the first ones of the association, and does what a connection does then. Returns
    /// whether the connection goes on.
    ///
    /// # Panics
    /// SCTP holds more than it may.
    pub fn receive(&mut self, chunks: &[u8]) -> bool {
        if !self.receive_packet(&self.with_tsns(chunks)) {
            return false;
        }
        while let Some(event) = self.sctp.poll_event() {
            if let sctp_proto::Event::Stream(sctp_proto::StreamEvent::Readable { id }) = event {
                self.read(id);
            }
        }
        self.transmit();
        true
    }

    /// Reads and answers what a stream has received.
    fn read(&mut self, id: u16) {
        while let Some((kind, bytes)) = self.sctp.read(id) {
            if kind == PayloadProtocolIdentifier::Dcep && channel::is_open(&bytes) {
                let ack = Bytes::from_static(&channel::ACK);
                let stream = self.sctp.association().and_then(|it| it.stream(id).ok());
                let _ = stream.map(|mut it| it.write_sctp(&ack, PayloadProtocolIdentifier::Dcep));
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.sctp.handle_timeout(self.now);
        self.transmit();
    }

    fn transmit(&mut self) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Some(packets) = self.sctp.poll_transmit(self.now) {
            packets.iter().for_each(|packet| self.sctp.guard.on_send(packet));
            all.extend(packets);
            assert!(all.len() < 10_000, "packets without end");
        }
        all
    }

    fn receive_packet(&mut self, chunks: &[u8]) -> bool {
        let mut packet = [&HEADER, &self.tag.to_be_bytes(), &[0; 4], chunks].concat();
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.sctp.receive(self.now, &packet).is_ok()
    }

    /// Adds the first TSNs to those in DATA and SACK chunks.
    fn with_tsns(&self, chunks: &[u8]) -> Vec<u8> {
        let mut all = chunks.to_vec();
        let mut at = 0;
        while let Some(&[kind, _, high, low, a, b, c, d]) =
            all.get(at..).and_then(|it| it.first_chunk::<8>())
        {
            let first = match kind {
                0 => Some(FIRST_TSN),
                3 | 7 => Some(self.tsn.wrapping_sub(1)),
                _ => None,
            };
            if let Some(first) = first {
                let tsn = u32::from_be_bytes([a, b, c, d]).wrapping_add(first);
                all[at + 4..at + 8].copy_from_slice(&tsn.to_be_bytes());
            }
            at += usize::from(u16::from_be_bytes([high, low])).max(4).next_multiple_of(4);
        }
        all
    }
}

/// Returns the CRC32c of a packet (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
        }
    }
    !crc
}

/// A data channel whose application reads and writes little.
///
/// # Panics
/// It buffers more than it may, or acts without end.
pub fn receive_messages<'a>(messages: impl Iterator<Item = (u8, &'a [u8])>) {
    let (stream, pipe) = stream(1, &Arc::default(), 1000);
    let (mut stream, mut channel) = (Some(stream), Channel::new(pipe, true));
    for (action, message) in messages {
        let full = !channel.pipe.has_capacity();
        if !full && channel.receive(Bytes::copy_from_slice(message)).is_err() {
            channel.abort();
        }
        let mut bytes = vec![0; message.len() * 2];
        match (&mut stream, action % 8) {
            (Some(stream), 0) => drop(stream.write(message).now_or_never()),
            (Some(stream), 1) => drop(stream.close().now_or_never()),
            (Some(_), 2) => stream = None,
            (Some(stream), 3..7) => {
                let read = stream.read(&mut bytes).now_or_never();
                assert!(!matches!(read, Some(Ok(count)) if count > RECEIVE_BUFFER + 64 * 1024));
            }
            _ => {}
        }
        let mut actions = 0;
        while let Some(action) = channel.next_action() {
            if action == Action::Linger {
                channel.linger = Some(Instant::now());
            }
            actions += 1;
            assert!(actions < 16, "actions without end");
        }
        while channel.pipe.next_frame().is_some() {}
    }
}
