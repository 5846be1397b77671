//! A libp2p transport that accepts browsers over
//! [WebRTC-direct](https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md): a browser dials a node by its address
//! and the hash of its certificate, without a domain name, a certificate authority or a signalling server.
//!
//! Implements the listening side only, with both handshakes of the specification: version 1 needs SDP munging, which Chromium is
//! removing; version 2 does not. Nodes dial each other over TCP and QUIC.
//!
//! # How a connection is established
//!
//! 1. **ICE** (`stun`): the browser sends connectivity checks whose `USERNAME` carries its credentials. `listener` answers them
//!    and maps addresses to clients; `limiter` bounds pending connections.
//! 2. **DTLS and SCTP** (`association`) by [`dimpl`] and [`sctp_proto`], which do no I/O and read no clock. DTLS verifies the
//!    client's address with a cookie first, so a spoofed source receives only short answers. Later the path follows the client's
//!    signed checks, as in ICE.
//! 3. **Noise** on channel 0 (`driver`) authenticates both peers and binds both DTLS certificates.
//! 4. Streams are data channels (`channel`, `stream`); `message` frames them.
//!
//! Each connection is one task that owns all protocol state. A panic in it closes this connection only.
//!
//! # Bounds
//!
//! Pending and established connections: [`Limits`]. Per connection: 32 inbound streams; 1 MiB in at most 3072 chunks that SCTP
//! has received and no stream has read, and 512 streams that the browser resets with data unread (`sctp_guard`); 256 KiB buffered
//! per stream and direction; two bandwidth-delay products and at most 1 MiB in flight, sent evenly over the round trip
//! (`congestion`).

mod address;
mod association;
mod certificate;
mod channel;
mod congestion;
mod connection;
mod driver;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limiter;
mod listener;
mod message;
mod sctp;
mod sctp_guard;
mod socket;
mod stream;
mod stun;
mod transmit_queue;
mod transport;

pub use certificate::{Certificate, CertificateError, Fingerprint};
pub use connection::Connection;
pub use error::{ConnectionError, ProtocolViolation};
pub use limiter::{Limits, Source};
pub use stream::Stream;
pub use transport::{Config, Error, Transport};
