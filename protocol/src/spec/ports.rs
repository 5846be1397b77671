//! Ports: what an instance offers, and where.

use serde::{Deserialize, Serialize};

/// A port of an instance that is named, not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expose {
    /// Port of the instance.
    pub target: u16,
    /// Protocol.
    pub protocol: PortProtocol,
}

/// A port of an instance that nodes publish.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Address of the nodes to bind; `None`: all.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port of the node.
    pub published: u16,
    /// Port of the instance.
    pub target: u16,
    /// Protocol.
    pub protocol: PortProtocol,
    /// Which nodes.
    #[serde(default)]
    pub publish: Publish,
}

impl Port {
    /// Whether a node cannot publish both for two services: the same port of the same addresses, and not each only
    /// beside its own instances.
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = [self.host_ip, other.host_ip];
        (self.published, self.protocol) == (other.published, other.protocol)
            && (addresses.contains(&None) || self.host_ip == other.host_ip)
            && (self.publish == Publish::Cluster || other.publish == Publish::Cluster)
    }

    /// The nodes' side of it, as `8080/tcp`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.published, self.protocol.as_str())
    }
}

impl std::fmt::Display for Port {
    /// As Docker writes it: `8080:80/tcp`, `127.0.0.1:8080:80/tcp`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(std::net::IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.published, self.target, self.protocol.as_str())
    }
}

/// Which nodes publish a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// All of them: each forwards to an instance, wherever it is.
    #[default]
    Cluster,
    /// Those that run an instance, to that instance.
    Node,
}

/// Protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl PortProtocol {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}
