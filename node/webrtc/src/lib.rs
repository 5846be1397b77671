//! A libp2p transport that lets browsers in over [WebRTC-direct](https://github.com/libp2p/specs/blob/master/webrtc/webrtc-direct.md):
//! a browser dials a node by its address and the hash of its certificate, without a name, a certificate authority or a
//! signalling server.
//!
//! It speaks both ways of dialling that the specification has (version 1, which browsers are about to forbid, and version 2),
//! and only the answering side: nodes dial each other over TCP and QUIC.
//!
//! # How a connection comes about
//!
//! 1. **ICE** (`stun`): the browser sends checks; their `USERNAME` carries all that there is to know. `listener` answers them
//!    and tells clients apart; `admission` says how many strangers there may be.
//! 2. **DTLS and SCTP** (`link`), by [`dimpl`] and [`sctp_proto`], neither of which knows sockets or clocks. DTLS asks the
//!    client for a cookie first, so nothing but short answers goes to an address that somebody else wrote into a packet. Later
//!    the path is the one that the client's signed checks come by, as ICE has it.
//! 3. **Noise** over channel 0 (`driver`): says who the browser is, and binds both certificates.
//! 4. Streams are data channels (`channel`, `stream`), their messages framed by `message`.
//!
//! A connection is a task that owns all its protocols' state. A fault in it ends this connection and no other.
//!
//! # Bounds
//!
//! Strangers: [`Limits`]. A connection: 32 streams that the browser opened, 1 MiB that SCTP has received and no stream had room
//! for, in at most 3072 chunks, 512 streams that the browser closes without an end (`intake`), 256 KiB a stream in either direction,
//! what the path holds twice (`window`) and at most 1 MiB that SCTP has to send.

mod address;
mod admission;
mod certificate;
mod channel;
mod connection;
mod driver;
mod intake;
mod link;
mod listener;
mod message;
mod socket;
mod stream;
mod stun;
mod transport;
mod window;

pub use admission::Limits;
pub use certificate::{Certificate, CertificateError, Fingerprint};
pub use connection::{Connection, ConnectionError};
pub use stream::Stream;
pub use transport::{Config, Error, Transport};
