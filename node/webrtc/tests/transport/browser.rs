//! Simulates a browser: checks, DTLS, SCTP, channels and Noise over its own UDP socket, with the same libraries as the crate but
//! none of its code.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use dimpl::{Dtls, DtlsCertificate, Output};
use libp2p::{PeerId, core::upgrade::InboundConnectionUpgrade, identity::Keypair, noise};
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier, TransportConfig,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    time::timeout,
};
use tokio_util::compat::TokioAsyncReadCompatExt;
use vc_webrtc::Fingerprint;

use crate::wire::{Version, check, credentials, frame, frame_data};

/// Timeout for any expected event.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A simulated browser with one connection.
pub struct Browser {
    pub socket: UdpSocket,
    server: SocketAddr,
    username: String,
    password: String,
    fingerprint: Fingerprint,
    pub(crate) dtls: Dtls,
    dtls_deadline: Instant,
    connected: bool,
    endpoint: Endpoint,
    pub(crate) association: Option<(AssociationHandle, Association)>,
    associated: bool,
    received: HashMap<u16, VecDeque<(PayloadProtocolIdentifier, Vec<u8>)>>,
    /// The node sent `close_notify`, or the association is lost.
    pub closed: bool,
    /// Channels that the node has reset.
    pub finished: Vec<u16>,
    /// The SCTP common header without its checksum.
    pub(crate) header: [u8; 8],
    /// The TSN of the next DATA chunk.
    pub tsn: u32,
}

impl Browser {
    /// Creates a browser that has not sent anything yet.
    pub async fn new(server: SocketAddr, version: Version) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (username, password) = credentials(version);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate =
            rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let fingerprint = Fingerprint::of(certificate.der());
        let now = Instant::now();
        let certificate = DtlsCertificate {
            certificate: certificate.der().to_vec(),
            private_key: key.serialize_der(),
        };
        let mut dtls = Dtls::new_12(Arc::new(dimpl::Config::default()), certificate, now);
        dtls.set_active(true);
        let mut config = EndpointConfig::new();
        config.max_payload_size(1100);
        Self {
            socket,
            server,
            username,
            password,
            fingerprint,
            dtls,
            dtls_deadline: now,
            connected: false,
            endpoint: Endpoint::new(Arc::new(config), None),
            association: None,
            associated: false,
            received: HashMap::new(),
            closed: false,
            finished: Vec::new(),
            header: [0; 8],
            tsn: 0,
        }
    }

    /// Sends a check and returns whether it is answered.
    pub async fn check(&mut self) -> bool {
        let request = check(&self.username, &self.password);
        self.socket.send_to(&request, self.server).await.unwrap();
        let mut answer = [0; 1500];
        let Ok(received) =
            timeout(Duration::from_secs(1), self.socket.recv_from(&mut answer)).await
        else {
            return false;
        };
        answer[0] == 1 && answer[8..20] == request[8..20] && received.unwrap().1 == self.server
    }

    /// Sends a check and the DTLS ClientHello.
    pub async fn hello(&mut self) {
        assert!(self.check().await, "no answer to a check");
        self.dtls.handle_timeout(Instant::now()).unwrap();
        self.read_records().await;
    }

    /// Connects up to the SCTP association.
    pub async fn connect(&mut self) {
        self.hello().await;
        self.until(|browser| browser.connected).await;
        let transport = TransportConfig::default().with_rto_initial_ms(200).with_rto_min_ms(200);
        let mut config = ClientConfig::new();
        config.transport = Arc::new(transport);
        self.association = Some(self.endpoint.connect(config, self.server).unwrap());
        self.flush().await;
        self.until(|browser| browser.associated).await;
        self.association().open_stream(0, PayloadProtocolIdentifier::Binary).unwrap();
    }

    /// Runs Noise over channel 0 and returns the node's peer id.
    pub async fn authenticate(&mut self, key: &Keypair, server: &Fingerprint) -> PeerId {
        let prologue = [
            b"libp2p-webrtc-noise:",
            &self.fingerprint.multihash().to_bytes()[..],
            &server.multihash().to_bytes(),
        ]
        .concat();
        let noise = noise::Config::new(key).unwrap().with_prologue(prologue);
        let (near, mut far) = tokio::io::duplex(65536);
        let mut handshake = Box::pin(noise.upgrade_inbound(near.compat(), "/noise"));
        let mut buffer = vec![0; 4096];
        loop {
            tokio::select! {
                result = &mut handshake => {
                    let peer = result.unwrap().0;
                    self.flush().await;
                    return peer;
                }
                length = far.read(&mut buffer) => {
                    let length = length.unwrap();
                    self.send(0, &buffer[..length]).await;
                }
                () = self.step() => {
                    while let Some(data) = self.take_data(0) {
                        far.write_all(&data).await.unwrap();
                    }
                }
            }
        }
    }

    /// Connects and authenticates.
    pub async fn dial(
        server: SocketAddr,
        version: Version,
        fingerprint: &Fingerprint,
    ) -> (Self, PeerId) {
        let mut browser = Self::new(server, version).await;
        browser.connect().await;
        let peer = browser.authenticate(&Keypair::generate_ed25519(), fingerprint).await;
        (browser, peer)
    }

    pub fn association(&mut self) -> &mut Association {
        &mut self.association.as_mut().unwrap().1
    }

    /// Opens a channel.
    pub async fn open(&mut self, id: u16) {
        self.association().open_stream(id, PayloadProtocolIdentifier::Binary).unwrap();
        self.write(id, &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], PayloadProtocolIdentifier::Dcep)
            .await;
    }

    /// Sends an SCTP message. Has no effect if the connection has ended.
    pub async fn write(&mut self, id: u16, bytes: &[u8], kind: PayloadProtocolIdentifier) {
        let written =
            self.association().stream(id).and_then(|mut stream| stream.write_with_ppi(bytes, kind));
        assert!(written.is_ok() || self.closed || self.association().is_closed(), "{written:?}");
        self.flush().await;
    }

    /// Sends a frame with data.
    pub async fn send(&mut self, id: u16, data: &[u8]) {
        self.write(id, &frame(data), PayloadProtocolIdentifier::Binary).await;
    }

    pub async fn send_flag(&mut self, id: u16, flag: u8) {
        self.write(id, &[2, 8, flag], PayloadProtocolIdentifier::Binary).await;
    }

    /// Waits for the data of the next frame on a channel.
    pub async fn data(&mut self, id: u16) -> Vec<u8> {
        let mut data = None;
        self.until(|browser| {
            data = browser.take_data(id);
            data.is_some()
        })
        .await;
        data.unwrap()
    }

    /// Waits for a flag on a channel.
    pub async fn flag(&mut self, id: u16, flag: u8) {
        self.until(|browser| {
            let queue = browser.received.entry(id).or_default();
            let at = queue.iter().position(|(kind, m)| {
                *kind == PayloadProtocolIdentifier::Binary && m[..] == [2, 8, flag]
            });
            at.map(|at| queue.remove(at)).is_some()
        })
        .await;
    }

    pub fn take_data(&mut self, id: u16) -> Option<Vec<u8>> {
        let queue = self.received.get_mut(&id)?;
        let at = queue.iter().position(|(kind, m)| {
            *kind == PayloadProtocolIdentifier::Binary && m.contains(&0x12) && m[..2] != [2, 8]
        })?;
        let (_, message) = queue.remove(at)?;
        Some(frame_data(&message))
    }

    /// Drives the connection until `holds` returns true.
    pub async fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        timeout(TIMEOUT, async {
            while !holds(self) {
                self.step().await;
            }
        })
        .await
        .expect("the node does what is expected in time");
    }

    /// Processes one datagram or one timeout.
    pub async fn step(&mut self) {
        let now = Instant::now();
        let sctp = self.association.as_ref().and_then(|(_, a)| a.poll_timeout());
        let deadline = sctp
            .map_or(self.dtls_deadline, |at| at.min(self.dtls_deadline))
            .min(now + Duration::from_millis(200));
        let mut buffer = [0; 2048];
        match tokio::time::timeout_at(deadline.into(), self.socket.recv_from(&mut buffer)).await {
            Ok(received) => {
                let (length, _) = received.unwrap();
                if matches!(buffer[0], 20..=63)
                    && self.dtls.handle_packet(&buffer[..length]).is_err()
                {
                    self.closed = true;
                }
            }
            Err(_) => {
                self.dtls.handle_timeout(Instant::now()).unwrap();
                if let Some((_, association)) = &mut self.association {
                    association.handle_timeout(Instant::now());
                }
            }
        }
        self.read_records().await;
        self.flush().await;
    }

    pub(crate) async fn read_records(&mut self) {
        let mut record = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut record) {
                Output::Packet(packet) => {
                    self.socket.send_to(packet, self.server).await.unwrap();
                }
                Output::Connected => self.connected = true,
                Output::ApplicationData(data) => {
                    let packet = Bytes::copy_from_slice(data);
                    if let Some((_, DatagramEvent::AssociationEvent(event))) =
                        self.endpoint.handle(Instant::now(), self.server, None, None, packet)
                        && let Some((_, association)) = &mut self.association
                    {
                        association.handle_event(event);
                    }
                }
                Output::CloseNotify => self.closed = true,
                Output::Timeout(at) => {
                    self.dtls_deadline = at;
                    return;
                }
                _ => {}
            }
        }
    }

    async fn flush(&mut self) {
        loop {
            let Some((handle, association)) = &mut self.association else { return };
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            while association.accept_stream().is_some() {}
            while let Some(event) = association.poll() {
                match event {
                    Event::Connected => self.associated = true,
                    Event::AssociationLost { .. } => self.closed = true,
                    Event::Stream(sctp_proto::StreamEvent::Finished { id }) => {
                        self.finished.push(id)
                    }
                    _ => {}
                }
            }
            for id in association.stream_ids() {
                while let Ok(mut stream) = association.stream(id)
                    && let Ok(Some(chunks)) = stream.read_sctp()
                {
                    let mut bytes = vec![0; chunks.len()];
                    chunks.read(&mut bytes).unwrap();
                    self.received.entry(id).or_default().push_back((chunks.ppi, bytes));
                }
            }
            let Some(transmit) =
                self.endpoint.poll_transmit().or_else(|| association.poll_transmit(Instant::now()))
            else {
                return;
            };
            let Payload::RawEncode(packets) = transmit.payload else { return };
            for packet in packets {
                self.header.copy_from_slice(&packet[..8]);
                self.record_tsn(&packet[12..]);
                if self.dtls.send_application_data(&packet).is_err() {
                    self.closed = true;
                    return;
                }
                self.read_records().await;
            }
        }
    }

    /// Records the TSN that follows the sent chunks.
    fn record_tsn(&mut self, mut chunks: &[u8]) {
        while let [kind, _, high, low, rest @ ..] = chunks {
            match kind {
                0 => self.tsn = u32::from_be_bytes(rest[..4].try_into().unwrap()).wrapping_add(1),
                1 => self.tsn = u32::from_be_bytes(rest[12..16].try_into().unwrap()),
                _ => {}
            }
            let length = usize::from(u16::from_be_bytes([*high, *low])).next_multiple_of(4);
            chunks = &chunks[length.min(chunks.len())..];
        }
    }
}
