//! SCTP of one connection, behind its guard, without DTLS.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, TransportConfig,
};

use crate::{
    association::FRAGMENT,
    error::ProtocolViolation,
    message,
    sctp_guard::{RECEIVE_WINDOW, SctpGuard},
};

/// Initial and minimum retransmission timeout, in milliseconds: what browsers use, instead of RFC 9260's second.
const RTO_MS: u64 = 400;

/// SCTP requires a remote address; over DTLS there is only one.
pub(crate) const PLACEHOLDER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The configuration shared by all associations of a listener.
pub(crate) struct SctpConfig {
    endpoint: Arc<EndpointConfig>,
    server: Arc<ServerConfig>,
}

impl SctpConfig {
    pub(crate) fn new() -> Self {
        let mut endpoint = EndpointConfig::new();
        endpoint.max_payload_size(FRAGMENT as u32);
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(RECEIVE_WINDOW)
            .with_max_send_message_size(message::MAX_FRAME as u32)
            .with_max_receive_message_size(message::MAX_FRAME as u32)
            .with_max_init_retransmits(None)
            .with_max_data_retransmits(None)
            .with_rto_initial_ms(RTO_MS)
            .with_rto_min_ms(RTO_MS);
        let mut server = ServerConfig::new();
        server.transport = Arc::new(transport);
        Self { endpoint: Arc::new(endpoint), server: Arc::new(server) }
    }
}

/// The SCTP association of a connection, server side.
pub(crate) struct Sctp {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    /// Limits the peer's packets.
    pub(crate) guard: SctpGuard,
}

impl Sctp {
    pub(crate) fn new(config: &SctpConfig) -> Self {
        Self {
            endpoint: Endpoint::new(config.endpoint.clone(), Some(config.server.clone())),
            association: None,
            guard: SctpGuard::new(),
        }
    }

    /// Processes a packet of the peer, unless the guard drops it.
    pub(crate) fn receive(&mut self, now: Instant, packet: &[u8]) -> Result<(), ProtocolViolation> {
        if !self.guard.on_receive(packet)? {
            return Ok(());
        }
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(now, PLACEHOLDER, None, None, packet) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // One association per connection: others would only cost memory.
                self.endpoint.reject_new_associations();
                self.association.get_or_insert((handle, association));
            }
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                if let Some(association) = self.association() {
                    association.handle_event(event);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Fires the timers that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(association) = self.association()
            && association.poll_timeout().is_some_and(|deadline| deadline <= now)
        {
            association.handle_timeout(now);
        }
    }

    /// Returns when [`Sctp::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.association.as_ref().and_then(|(_, association)| association.poll_timeout())
    }

    /// Returns the next packets to send. The caller shows those that it sends to the guard.
    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<Bytes>> {
        if let Some((handle, association)) = &mut self.association {
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
        }
        // Without an association there are only answers to the first packets of the handshake.
        let association = self.association.as_mut();
        let transmit = self
            .endpoint
            .poll_transmit()
            .or_else(|| association.and_then(|(_, association)| association.poll_transmit(now)))?;
        match transmit.payload {
            Payload::RawEncode(packets) => Some(packets),
            _ => Some(Vec::new()),
        }
    }

    /// Returns the next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.association()?.poll()
    }

    /// Returns the association, once the peer has started one.
    pub(crate) fn association(&mut self) -> Option<&mut Association> {
        self.association.as_mut().map(|(_, association)| association)
    }

    /// Reads the next complete message of a stream.
    pub(crate) fn read(&mut self, id: u16) -> Option<(PayloadProtocolIdentifier, Bytes)> {
        let message = self.association()?.stream(id).ok()?.read_sctp().ok()??;
        self.guard.on_read(message.chunks.len());
        let mut bytes = vec![0; message.len()];
        message.read(&mut bytes).ok()?;
        Some((message.ppi, bytes.into()))
    }
}
