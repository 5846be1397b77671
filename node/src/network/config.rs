//! Configuration and errors of the network.

use std::net::IpAddr;

use vc_protocol::Name;

/// Where to listen, and how members are found.
#[derive(Clone)]
pub(crate) struct Config {
    /// Display name of the node.
    pub(crate) name: Name,
    /// Address to listen on; unspecified for all.
    pub(crate) listen: IpAddr,
    /// TCP and QUIC port; WebRTC-direct is at the next one.
    pub(crate) port: u16,
    /// Certificate of WebRTC-direct, whose hash is in the addresses that browsers dial.
    pub(crate) certificate: vc_webrtc::Certificate,
    /// Address to publish instead of those listened on.
    pub(crate) advertise: Option<IpAddr>,
    /// Whether to discover members on the local network by mDNS.
    pub(crate) mdns: bool,
}

/// Why the network could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// A port is taken.
    #[error("{protocol} port {port} of {ip} is in use: choose another with --port")]
    PortInUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The address.
        ip: IpAddr,
        /// The port.
        port: u16,
    },
    /// The address does not belong to this host.
    #[error("{0} is not an address of this host: choose another with --listen")]
    NotOurAddress(IpAddr),
    /// Another error of a listener: address and cause.
    #[error("cannot listen on {0}")]
    Listen(String),
    /// mDNS cannot be started.
    #[error("cannot start mDNS: {0}; try --no-mdns")]
    Mdns(std::io::Error),
    /// The operating system has no random numbers.
    #[error("cannot read random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// A part of the libp2p stack cannot be set up.
    #[error("cannot set up {part}: {reason}")]
    Setup {
        /// The part.
        part: &'static str,
        /// The cause.
        reason: String,
    },
}

impl NetworkError {
    pub(super) fn setup(part: &'static str, reason: impl ToString) -> Self {
        Self::Setup { part, reason: reason.to_string() }
    }
}
