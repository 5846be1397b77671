//! Exposed and published ports.

use std::net::IpAddr;
use std::ops::RangeInclusive;

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

/// The ports from which a deployment chooses those of [`DynamicPort`]s: Nomad's range, below the ports that Linux gives to clients.
pub const DYNAMIC_PORTS: RangeInclusive<u16> = 20_000..=32_000;

/// A port that is published on a port of the hosts which the deployment chooses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DynamicPort {
    /// Host address to bind; `None` for all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_ip: Option<IpAddr>,
    /// Port of the instance.
    pub target: u16,
    /// Transport protocol of the port.
    pub protocol: PortProtocol,
    /// The nodes that publish it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish: Publish,
    /// The header with the client's address that connections to the instance begin with; TCP only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl DynamicPort {
    /// Returns the port with its published side.
    pub fn published_as(&self, published: u16) -> Port {
        let Self { host_ip, target, protocol, publish, proxy_protocol } = self.clone();
        Port { host_ip, published, target, protocol, publish, proxy_protocol }
    }

    /// Returns whether a port may be the one that was chosen for this one.
    pub fn is_published_as(&self, port: &Port) -> bool {
        DYNAMIC_PORTS.contains(&port.published) && self.published_as(port.published) == *port
    }
}

/// A port that is published on hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Host address to bind; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub published: u16,
    /// Port of the instance.
    pub target: u16,
    /// Transport protocol of the port.
    pub protocol: PortProtocol,
    /// The nodes that publish it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub publish: Publish,
    /// The header with the client's address that connections to the instance begin with; TCP only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Port {
    /// Returns whether two services conflict with these ports: same port, protocol and address, and at least one of them is
    /// published on every node.
    pub fn overlaps(&self, other: &Self) -> bool {
        (self.published, self.protocol) == (other.published, other.protocol)
            && share_an_address(self.host_ip, other.host_ip)
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
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}:{}/{}", self.published, self.target, self.protocol.as_str())
    }
}

/// Returns the name of a port of one address, as `8080/tcp of 10.0.0.9`. A node reports it where it lacks the address.
pub fn port_of_address(port: &str, address: IpAddr) -> String {
    format!("{port}{OF}{address}")
}

/// Splits a name into the port and the address, if it is that of [`port_of_address`].
pub fn split_port_of_address(name: &str) -> (&str, Option<&str>) {
    name.split_once(OF).map_or((name, None), |(port, address)| (port, Some(address)))
}

/// Between the two.
const OF: &str = " of ";

/// Returns whether two addresses to bind have one in common: `None` is every address, `0.0.0.0` every one of IPv4, and `::`
/// every one of IPv6.
pub fn share_an_address(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return true };
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
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

/// The version of a PROXY protocol header (haproxy.org/download/3.2/doc/proxy-protocol.txt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// A binary header.
    V2,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_all_of_its_family() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        let share = |a, b| {
            let both = (share_an_address(a, b), share_an_address(b, a));
            assert_eq!(both.0, both.1);
            both.0
        };
        assert!(share(None, None) && share(None, ip("10.0.0.1")) && share(None, ip("::")));
        assert!(share(ip("0.0.0.0"), ip("10.0.0.1")) && share(ip("::"), ip("fd00::1")));
        assert!(!share(ip("0.0.0.0"), ip("::")) && !share(ip("::"), ip("10.0.0.1")));
        assert!(!share(ip("127.0.0.1"), ip("10.0.0.1")));
    }
}
