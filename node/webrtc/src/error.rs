//! Why connections end.

use std::{sync::Arc, time::Duration};

use libp2p::noise;

/// Why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The browser, the application or the listener closed the connection.
    #[error("the connection is closed")]
    Closed,
    /// The browser sent nothing for [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    #[error("no packet from the browser for {0:?}")]
    IdleTimeout(Duration),
    /// The browser did not authenticate within [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    #[error("the browser did not authenticate within {0:?}")]
    HandshakeTimeout(Duration),
    /// The DTLS session failed.
    #[error("DTLS failed: {0}")]
    Dtls(#[from] dimpl::Error),
    /// The SCTP association failed.
    #[error("SCTP failed: {0}")]
    Sctp(#[from] sctp_proto::AssociationError),
    /// The Noise handshake failed.
    #[error("the Noise handshake failed: {0}")]
    Noise(#[from] Arc<noise::Error>),
    /// The browser violated a protocol or exceeded a bound of this crate.
    #[error("protocol violation: {0}")]
    Violation(#[from] ProtocolViolation),
}

/// A violation by the browser that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// A DATA chunk has no data.
    #[error("the browser sent a DATA chunk without data")]
    EmptyChunk,
    /// Too many received chunks cannot be delivered to a stream.
    #[error("the browser sent too many chunks that cannot be read")]
    TooManyUnread,
    /// The browser's packets cost more to process than their size allows.
    #[error("the browser's packets cost too much to process for their size")]
    WorkExceeded,
    /// Too many streams were reset with data unread.
    #[error("the browser reset too many streams with data unread")]
    TooManyResets,
    /// A reset of a stream was denied or not answered.
    #[error("the browser did not confirm the reset of a stream")]
    ResetFailed,
    /// Too many SCTP streams are open or half closed.
    #[error("the browser does not close its streams")]
    TooManyStreams,
    /// The browser sent too much data before it was authenticated.
    #[error("the browser sent too much data before it authenticated")]
    UnauthenticatedData,
    /// DTLS completed without a client certificate.
    #[error("the browser presented no certificate")]
    NoCertificate,
    /// The channel reserved for Noise is in use.
    #[error("the browser uses the channel reserved for the Noise handshake")]
    NoiseChannelInUse,
}
