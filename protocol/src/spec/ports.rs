//! Exposed and published ports.

use serde::{Deserialize, Serialize};

use super::is_default;

/// A port that is reachable inside the project only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expose {
    /// Port of the instance.
    pub target: u16,
    /// Transport protocol of the port.
    pub protocol: PortProtocol,
}

/// A port that is published on hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Host address to bind; `None` for all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port of the host.
    pub published: u16,
    /// Port of the instance.
    pub target: u16,
    /// Transport protocol of the port.
    pub protocol: PortProtocol,
    /// The nodes that publish it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish: Publish,
}

impl Port {
    /// Returns whether two services conflict with these ports: same port, protocol and address, and at least one of them is
    /// published on every node.
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = [self.host_ip, other.host_ip];
        (self.published, self.protocol) == (other.published, other.protocol)
            && (addresses.contains(&None) || self.host_ip == other.host_ip)
            && (self.publish == Publish::Cluster || other.publish == Publish::Cluster)
    }

    /// Returns host port and protocol, as `8080/tcp`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.published, self.protocol.as_str())
    }
}

impl std::fmt::Display for Port {
    /// Writes Docker's form: `8080:80/tcp`, `127.0.0.1:8080:80/tcp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(std::net::IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.published, self.target, self.protocol.as_str())
    }
}

/// The nodes that publish a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// Every node; each forwards to an instance on any node.
    #[default]
    Cluster,
    /// The nodes that run an instance, each for its own.
    Node,
}

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// Transmission Control Protocol (`tcp`).
    Tcp,
    /// User Datagram Protocol (`udp`).
    Udp,
}

impl PortProtocol {
    /// Returns the lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
