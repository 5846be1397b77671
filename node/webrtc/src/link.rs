//! DTLS and SCTP of one connection, without sockets and clocks: datagrams in, datagrams and events out.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use dimpl::{Dtls, Output};
use sctp_proto::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, TransportConfig,
};

use crate::{
    certificate::{Certificate, Fingerprint},
    intake::{Abuse, Intake},
    message,
};

/// The longest datagram that is sent, in bytes: passes every path that QUIC passes.
const DATAGRAM: usize = 1200;

/// The longest datagram that is looked at, in bytes: longer ones pass no path that is not the peer's own, and a few of them
/// would be much work at once.
const LONGEST: usize = 2048;

/// What DTLS 1.2 adds to a record (1.3 adds less), in bytes: header, explicit nonce, tag.
const RECORD_OVERHEAD: usize = 13 + 8 + 16;

/// The headers of an SCTP packet with one DATA chunk, in bytes.
const PACKET_OVERHEAD: usize = 12 + 16;

/// How much of a message one packet carries, in bytes: a multiple of 4, for SCTP pads to that.
const FRAGMENT: usize = (DATAGRAM - RECORD_OVERHEAD - PACKET_OVERHEAD) / 4 * 4;

/// How long the data of a message is at most: as long as a browser takes, and filling its packets, so that all of them have
/// one length and leave in one system call.
pub(crate) const FRAME_DATA: usize = message::MAX_MESSAGE / FRAGMENT * FRAGMENT - message::HEADER;

/// How much SCTP holds of what the peer sent and no stream has room for, in bytes.
pub(crate) const RECEIVE_WINDOW: u32 = 1024 * 1024;

/// How long a lost packet is waited for at least, in milliseconds. SCTP's second is for the Internet of its time; browsers
/// wait 400.
const RETRANSMIT_AFTER: u64 = 400;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The DTLS session failed.
    #[error("DTLS: {0}")]
    Dtls(#[from] dimpl::Error),
    /// The peer said good-bye.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer sends what SCTP had better not see.
    #[error("SCTP: {0}")]
    Abuse(#[from] Abuse),
}

/// What all connections of a listener have in common.
pub(crate) struct LinkConfig {
    dtls: Arc<dimpl::Config>,
    certificate: Certificate,
    endpoint: Arc<EndpointConfig>,
    server: Arc<ServerConfig>,
}

/// Datagrams on their way out, one behind the other in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: BytesMut,
    lengths: VecDeque<usize>,
}

pub(crate) struct Link {
    dtls: Dtls,
    dtls_deadline: Option<Instant>,
    secured: bool,
    peer: Option<Fingerprint>,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    pub intake: Intake,
    /// Where records are put together.
    record: Vec<u8>,
    /// Payload that came out of DTLS so far, in bytes.
    received: u64,
    pub outbox: Outbox,
}

/// SCTP wants an address; below DTLS there is none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl LinkConfig {
    pub(crate) fn new(certificate: Certificate, handshake: Duration) -> Result<Self, dimpl::Error> {
        let dtls = dimpl::Config::builder().mtu(DATAGRAM).handshake_timeout(handshake).build()?;
        let mut endpoint = EndpointConfig::new();
        endpoint.max_payload_size(FRAGMENT as u32);
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(RECEIVE_WINDOW)
            .with_max_send_message_size(message::MAX_MESSAGE as u32)
            .with_max_receive_message_size(message::MAX_MESSAGE as u32)
            .with_max_init_retransmits(None)
            .with_max_data_retransmits(None)
            .with_rto_initial_ms(RETRANSMIT_AFTER)
            .with_rto_min_ms(RETRANSMIT_AFTER);
        let mut server = ServerConfig::new();
        server.transport = Arc::new(transport);
        Ok(Self {
            dtls: Arc::new(dtls),
            certificate,
            endpoint: Arc::new(endpoint),
            server: Arc::new(server),
        })
    }
}

impl Outbox {
    fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.lengths.push_back(datagram.len());
    }

    /// How many datagrams wait.
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// The first datagrams that can go in one system call: all of one length but the last, which may be shorter. Their bytes,
    /// how many they are, and that length.
    pub(crate) fn batch(&self, most: usize) -> Option<(&[u8], usize, usize)> {
        let first = *self.lengths.front()?;
        let (mut count, mut bytes) = (0, 0);
        for &length in self.lengths.iter().take(most.max(1)) {
            // A UDP datagram of the kernel's holds no more.
            if length > first || bytes + length > 65_000 {
                break;
            }
            (count, bytes) = (count + 1, bytes + length);
            if length < first {
                break;
            }
        }
        Some((&self.bytes[..bytes], count, first))
    }

    /// Forgets the first datagrams.
    pub(crate) fn sent(&mut self, count: usize) {
        let bytes: usize = self.lengths.drain(..count).sum();
        if self.lengths.is_empty() {
            self.bytes.clear();
        } else {
            bytes::Buf::advance(&mut self.bytes, bytes);
        }
    }
}

impl Link {
    pub(crate) fn new(config: &LinkConfig, now: Instant) -> Result<Self, Failure> {
        let mut dtls = Dtls::new_auto(config.dtls.clone(), config.certificate.dtls(), now);
        // The session begins with the clock.
        dtls.handle_timeout(now)?;
        let mut link = Self {
            dtls,
            dtls_deadline: None,
            secured: false,
            peer: None,
            endpoint: Endpoint::new(config.endpoint.clone(), Some(config.server.clone())),
            association: None,
            intake: Intake::new(),
            record: vec![0; 2048],
            received: 0,
            outbox: Outbox::default(),
        };
        link.read_records(now)?;
        Ok(link)
    }

    /// A datagram came.
    pub(crate) fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Failure> {
        if datagram.len() > LONGEST {
            return Ok(());
        }
        if !self.secured {
            // What it answers is sent again by this clock.
            self.dtls.handle_timeout(now)?;
        }
        self.dtls.handle_packet(datagram)?;
        self.read_records(now)
    }

    /// The clock says what [`Link::deadline`] asked for, or anything else.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), Failure> {
        if self.dtls_deadline.is_none_or(|deadline| deadline <= now) {
            self.dtls.handle_timeout(now)?;
            self.read_records(now)?;
        }
        if let Some((_, association)) = &mut self.association
            && association.poll_timeout().is_some_and(|deadline| deadline <= now)
        {
            association.handle_timeout(now);
        }
        Ok(())
    }

    /// When [`Link::tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let sctp =
            self.association.as_ref().and_then(|(_, association)| association.poll_timeout());
        match (self.dtls_deadline, sctp) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Takes what DTLS has: records for the peer, and payload from it.
    fn read_records(&mut self, now: Instant) -> Result<(), Failure> {
        loop {
            match self.dtls.poll_output(&mut self.record) {
                Output::Packet(packet) => self.outbox.push(packet),
                Output::BufferTooSmall { needed } => self.record.resize(needed, 0),
                Output::PeerCert(certificate) => self.peer = Some(Fingerprint::of(certificate)),
                Output::Connected => self.secured = true,
                Output::ApplicationData(packet) => {
                    self.received += packet.len() as u64;
                    if !self.intake.arrives(packet)? {
                        continue;
                    }
                    let packet = Bytes::copy_from_slice(packet);
                    match self.endpoint.handle(now, NOWHERE, None, None, packet) {
                        Some((handle, DatagramEvent::NewAssociation(association))) => {
                            // One association a connection: further ones would only cost memory.
                            self.endpoint.reject_new_associations();
                            self.association.get_or_insert((handle, association));
                        }
                        Some((_, DatagramEvent::AssociationEvent(event))) => {
                            if let Some((_, association)) = &mut self.association {
                                association.handle_event(event);
                            }
                        }
                        None => {}
                    }
                }
                Output::CloseNotify => return Err(Failure::Closed),
                Output::Timeout(deadline) => {
                    self.dtls_deadline = Some(deadline);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Puts into the outbox what SCTP has to send.
    pub(crate) fn write_records(&mut self, now: Instant) -> Result<(), Failure> {
        loop {
            let Some((handle, association)) = &mut self.association else {
                // The answers to the first packets of an association to be.
                let Some(transmit) = self.endpoint.poll_transmit() else { return Ok(()) };
                self.seal(now, transmit.payload)?;
                continue;
            };
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            let Some(transmit) =
                self.endpoint.poll_transmit().or_else(|| association.poll_transmit(now))
            else {
                return Ok(());
            };
            self.seal(now, transmit.payload)?;
        }
    }

    fn seal(&mut self, now: Instant, payload: Payload) -> Result<(), Failure> {
        let Payload::RawEncode(packets) = payload else { return Ok(()) };
        if !self.secured {
            return Ok(());
        }
        for packet in packets {
            self.intake.leaves(&packet);
            self.dtls.send_application_data(&packet)?;
            self.read_records(now)?;
        }
        Ok(())
    }

    /// The next event of the association.
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.association.as_mut()?.1.poll()
    }

    /// The association, once the peer has begun one.
    pub(crate) fn association(&mut self) -> Option<&mut Association> {
        self.association.as_mut().map(|(_, association)| association)
    }

    /// The next whole message of a stream.
    pub(crate) fn read(&mut self, id: u16) -> Option<(PayloadProtocolIdentifier, Bytes)> {
        let message = self.association()?.stream(id).ok()?.read_sctp().ok()??;
        self.intake.read(message.chunks.len());
        let mut bytes = vec![0; message.len()];
        message.read(&mut bytes).ok()?;
        Some((message.ppi, bytes.into()))
    }

    /// The fingerprint of the peer's certificate, once it has shown that it has the key.
    pub(crate) fn peer(&self) -> Option<Fingerprint> {
        self.peer.filter(|_| self.secured)
    }

    /// Whether DTLS is complete.
    pub(crate) fn secured(&self) -> bool {
        self.secured
    }

    /// Payload that came so far, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Says good-bye.
    pub(crate) fn close(&mut self, now: Instant) -> Result<(), Failure> {
        if self.secured {
            self.dtls.close()?;
            self.read_records(now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_of_one_length_leave_together_with_a_shorter_last() {
        let mut outbox = Outbox::default();
        for length in [100, 100, 100, 40, 100, 120] {
            outbox.push(&vec![length as u8; length]);
        }
        let mut sent = Vec::new();
        while let Some((bytes, count, length)) = outbox.batch(64) {
            sent.push((bytes.len(), count, length));
            outbox.sent(count);
        }
        assert_eq!(sent, [(340, 4, 100), (100, 1, 100), (120, 1, 120)]);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn no_batch_is_longer_than_the_kernel_takes() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(&[0; 1200]);
        }
        assert_eq!(outbox.batch(64).map(|(_, count, _)| count), Some(54));
        assert_eq!(outbox.batch(1).map(|(_, count, _)| count), Some(1));
    }

    #[test]
    fn a_full_message_fills_its_packets() {
        assert_eq!((FRAME_DATA + message::HEADER) % FRAGMENT, 0);
        const { assert!(FRAME_DATA + message::HEADER <= message::MAX_MESSAGE) };
    }
}
