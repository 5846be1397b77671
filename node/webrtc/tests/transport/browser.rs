//! A browser, as far as the transport can tell: checks, DTLS, SCTP, channels and Noise over a UDP socket of its own, made of the
//! same libraries but not of the crate's code. It can also misbehave in ways that no browser would.

mod hostile;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use dimpl::{Dtls, DtlsCertificate, Output};
use is::{
    DefaultSha1HmacProvider, Sha1HmacProvider,
    stun::{StunMessage, TransId},
};
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

/// Which way of dialling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    One,
    Two,
}

pub const FIN: u8 = 0;
pub const STOP_SENDING: u8 = 1;
pub const RESET: u8 = 2;
pub const FIN_ACK: u8 = 3;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Browser {
    pub socket: UdpSocket,
    server: SocketAddr,
    username: String,
    password: String,
    fingerprint: Fingerprint,
    dtls: Dtls,
    dtls_deadline: Instant,
    connected: bool,
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    associated: bool,
    received: HashMap<u16, VecDeque<(PayloadProtocolIdentifier, Vec<u8>)>>,
    /// The connection's end was announced, or the association lost.
    pub closed: bool,
    /// Channels that the other side has closed.
    pub finished: Vec<u16>,
    /// What a packet of SCTP's begins with, but for the checksum.
    header: [u8; 8],
    /// The number of the next chunk of data.
    pub tsn: u32,
}

fn random(length: usize) -> String {
    use libp2p::identity::ed25519::SecretKey;
    SecretKey::generate()
        .as_ref()
        .iter()
        .cycle()
        .take(length)
        .map(|b| char::from(b'a' + b % 26))
        .collect()
}

pub fn check(username: &str, password: &str) -> Vec<u8> {
    let mut buffer = vec![0; 1024];
    let hmac = |key: &[u8], parts: &[&[u8]]| DefaultSha1HmacProvider.sha1_hmac(key, parts);
    let length = StunMessage::binding_request(username, TransId::new(), true, 7, 1, true)
        .to_bytes(Some(password.as_bytes()), &mut buffer, hmac)
        .unwrap();
    buffer.truncate(length);
    buffer
}

/// A user name and its password.
pub fn credentials(version: Version) -> (String, String) {
    match version {
        Version::One => {
            let name = format!("libp2p+webrtc+v1/{}", random(20));
            (format!("{name}:{name}"), name)
        }
        Version::Two => {
            let name = format!("libp2p+webrtc+v2/{}", random(24));
            (format!("{name}:{}", random(4)), name)
        }
    }
}

impl Browser {
    /// A browser that has not sent anything yet.
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

    /// A check, and the answer to it.
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

    /// A check, and the first packet of DTLS.
    pub async fn hello(&mut self) {
        assert!(self.check().await, "no answer to a check");
        self.dtls.handle_timeout(Instant::now()).unwrap();
        self.read_records().await;
    }

    /// From the first check to an association.
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

    /// Noise over channel 0. Gives who the server is.
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
                    self.settle().await;
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

    /// All the way.
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

    /// A message of any bytes. Lost if the connection is over.
    pub async fn write(&mut self, id: u16, bytes: &[u8], kind: PayloadProtocolIdentifier) {
        let written =
            self.association().stream(id).and_then(|mut stream| stream.write_with_ppi(bytes, kind));
        assert!(written.is_ok() || self.closed || self.association().is_closed(), "{written:?}");
        self.flush().await;
    }

    /// A message with data.
    pub async fn send(&mut self, id: u16, data: &[u8]) {
        let mut inner = vec![0x12];
        put_varint(&mut inner, data.len());
        inner.extend_from_slice(data);
        let mut message = Vec::new();
        put_varint(&mut message, inner.len());
        message.extend_from_slice(&inner);
        self.write(id, &message, PayloadProtocolIdentifier::Binary).await;
    }

    pub async fn send_flag(&mut self, id: u16, flag: u8) {
        self.write(id, &[2, 8, flag], PayloadProtocolIdentifier::Binary).await;
    }

    /// What the application of the other side wrote next on a channel.
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
        let mut message = &message[..];
        get_varint(&mut message);
        assert_eq!(message.get_u8(), 0x12);
        let length = get_varint(&mut message);
        assert_eq!(length, message.len());
        Some(message.to_vec())
    }

    /// Goes on until something holds.
    pub async fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        timeout(PATIENCE, async {
            while !holds(self) {
                self.step().await;
            }
        })
        .await
        .expect("the other side does what is expected");
    }

    /// Sends what is left to be sent.
    async fn settle(&mut self) {
        self.flush().await;
    }

    /// One datagram or one tick.
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

    async fn read_records(&mut self) {
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
                self.note_numbers(&packet[12..]);
                if self.dtls.send_application_data(&packet).is_err() {
                    self.closed = true;
                    return;
                }
                self.read_records().await;
            }
        }
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get_varint(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes.get_u8();
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}
