//! DTLS and SCTP of one connection, without I/O or clocks: takes datagrams and the time, yields datagrams and events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dimpl::{Dtls, Output};
use sctp_proto::{Association as SctpAssociation, Event, PayloadProtocolIdentifier};

use crate::{
    certificate::{Certificate, Fingerprint},
    error::ConnectionError,
    message,
    sctp::{Sctp, SctpConfig},
    sctp_guard::SctpGuard,
    transmit_queue::TransmitQueue,
};

/// The longest datagram sent, in bytes: QUIC's minimum MTU.
pub(crate) const MAX_DATAGRAM: usize = 1200;

/// The longest datagram processed, in bytes. Longer ones fit no Internet path, and a few of them would be much work at once.
const MAX_RECEIVED_DATAGRAM: usize = 2048;

/// Bytes that DTLS 1.2 adds to a record (1.3 adds less): header, explicit nonce, tag.
const RECORD_OVERHEAD: usize = 13 + 8 + 16;

/// Headers of an SCTP packet with one DATA chunk, in bytes.
const PACKET_OVERHEAD: usize = 12 + 16;

/// Bytes of a message in one packet: a multiple of 4, to which SCTP pads.
pub(crate) const FRAGMENT: usize = (MAX_DATAGRAM - RECORD_OVERHEAD - PACKET_OVERHEAD) / 4 * 4;

/// Maximum data of a frame, in bytes: within what a browser receives, and filling its packets, so that all have one length and
/// leave in one system call.
pub(crate) const FRAME_DATA: usize = message::MAX_FRAME / FRAGMENT * FRAGMENT - message::HEADER;

/// The configuration shared by all associations of a listener.
pub(crate) struct AssociationConfig {
    dtls: Arc<dimpl::Config>,
    certificate: Certificate,
    sctp: SctpConfig,
}

/// The DTLS session and SCTP association of a connection, server side.
pub(crate) struct Association {
    dtls: Dtls,
    dtls_deadline: Option<Instant>,
    secured: bool,
    peer: Option<Fingerprint>,
    sctp: Sctp,
    /// Scratch space for one DTLS record.
    record: Vec<u8>,
    /// DTLS payload received so far, in bytes.
    received: u64,
    pub queue: TransmitQueue,
}

impl AssociationConfig {
    pub(crate) fn new(
        certificate: Certificate,
        handshake_timeout: Duration,
    ) -> Result<Self, dimpl::Error> {
        let dtls = dimpl::Config::builder()
            .mtu(MAX_DATAGRAM)
            .handshake_timeout(handshake_timeout)
            .build()?;
        Ok(Self { dtls: Arc::new(dtls), certificate, sctp: SctpConfig::new() })
    }
}

impl Association {
    pub(crate) fn new(config: &AssociationConfig, now: Instant) -> Result<Self, ConnectionError> {
        let mut dtls = Dtls::new_auto(config.dtls.clone(), config.certificate.dtls(), now);
        // Starts dimpl's clock.
        dtls.handle_timeout(now)?;
        let mut association = Self {
            dtls,
            dtls_deadline: None,
            secured: false,
            peer: None,
            sctp: Sctp::new(&config.sctp),
            record: vec![0; 2048],
            received: 0,
            queue: TransmitQueue::default(),
        };
        association.poll_dtls(now)?;
        Ok(association)
    }

    /// Processes a received datagram.
    pub(crate) fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), ConnectionError> {
        if datagram.len() > MAX_RECEIVED_DATAGRAM {
            return Ok(());
        }
        if !self.secured {
            // The retransmission timer of the answer starts at dimpl's last known time.
            self.dtls.handle_timeout(now)?;
        }
        self.dtls.handle_packet(datagram)?;
        self.poll_dtls(now)
    }

    /// Fires due timers. May be called at any time.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.dtls_deadline.is_none_or(|deadline| deadline <= now) {
            self.dtls.handle_timeout(now)?;
            self.poll_dtls(now)?;
        }
        self.sctp.handle_timeout(now);
        Ok(())
    }

    /// Returns when [`Association::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match (self.dtls_deadline, self.sctp.poll_timeout()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Drains DTLS: queues its records and passes payload to SCTP.
    fn poll_dtls(&mut self, now: Instant) -> Result<(), ConnectionError> {
        loop {
            match self.dtls.poll_output(&mut self.record) {
                Output::Packet(packet) => self.queue.push(packet),
                Output::BufferTooSmall { needed } => self.record.resize(needed, 0),
                Output::PeerCert(certificate) => self.peer = Some(Fingerprint::of(certificate)),
                Output::Connected => self.secured = true,
                Output::ApplicationData(packet) => {
                    self.received += packet.len() as u64;
                    self.sctp.receive(now, packet)?;
                }
                Output::CloseNotify => return Err(ConnectionError::Closed),
                Output::Timeout(deadline) => {
                    self.dtls_deadline = Some(deadline);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Drains SCTP: seals its packets and queues them.
    pub(crate) fn poll_sctp(&mut self, now: Instant) -> Result<(), ConnectionError> {
        while let Some(packets) = self.sctp.poll_transmit(now) {
            if !self.secured {
                continue;
            }
            for packet in packets {
                self.sctp.guard.on_send(&packet);
                self.dtls.send_application_data(&packet)?;
                self.poll_dtls(now)?;
            }
        }
        Ok(())
    }

    /// Returns the next SCTP event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.sctp.poll_event()
    }

    /// Returns the SCTP association, once the peer has started one.
    pub(crate) fn sctp(&mut self) -> Option<&mut SctpAssociation> {
        self.sctp.association()
    }

    /// Reads the next complete message of a stream.
    pub(crate) fn read(&mut self, id: u16) -> Option<(PayloadProtocolIdentifier, Bytes)> {
        self.sctp.read(id)
    }

    /// Returns the limits on the peer's packets.
    pub(crate) fn guard(&mut self) -> &mut SctpGuard {
        &mut self.sctp.guard
    }

    /// Writes a message to a stream. Has no effect if the peer closed the stream or the association is closing.
    pub(crate) fn write(&mut self, id: u16, bytes: &Bytes, kind: PayloadProtocolIdentifier) {
        if let Some(sctp) = self.sctp()
            && let Ok(mut stream) = sctp.stream(id)
            && let Err(error) = stream.write_sctp(bytes, kind)
        {
            tracing::debug!(id, %error, "SCTP message not sent");
        }
    }

    /// Returns the fingerprint of the peer's certificate, once DTLS has verified it.
    pub(crate) fn peer(&self) -> Option<Fingerprint> {
        self.peer.filter(|_| self.secured)
    }

    /// Returns whether the DTLS handshake is complete.
    pub(crate) fn secured(&self) -> bool {
        self.secured
    }

    /// Returns the DTLS payload received so far, in bytes.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Queues a `close_notify`.
    pub(crate) fn close(&mut self, now: Instant) -> Result<(), ConnectionError> {
        if self.secured {
            self.dtls.close()?;
            self.poll_dtls(now)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_frame_fills_its_packets() {
        assert_eq!((FRAME_DATA + message::HEADER) % FRAGMENT, 0);
        const { assert!(FRAME_DATA + message::HEADER <= message::MAX_FRAME) };
    }
}
