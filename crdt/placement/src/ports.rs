//! Host ports: a node has each only once. A port that all nodes publish takes nothing from the one that runs an
//! instance: there it is the node that binds it, whoever runs what. But a process binds its port itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vc_protocol::ServiceKey;
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{Port, PortProtocol, Publish};

/// The host ports that an instance takes from its node. Port 0 is left out: it lets the node pick a free one.
pub(crate) fn taken(ports: &[Port], runtime: RuntimeKind) -> impl Iterator<Item = &Port> {
    let binds = move |port: &Port| port.publish == Publish::Node || runtime == RuntimeKind::Process;
    ports.iter().filter(move |port| port.published != 0 && binds(port))
}

/// Whether two sockets of the same protocol and port cannot be bound at once.
fn clash(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let all = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    all(a) || all(b) || a == b
}

/// Who holds a port: a slot, by its parts.
pub(crate) type Holder<'a> = (&'a ServiceKey, u32);

/// The addresses on which one port is bound (`None`: all), and by whom.
type Bound<'a> = Vec<(Option<IpAddr>, Holder<'a>)>;

/// The host ports in use on one node.
pub(crate) struct HostPorts<'a> {
    runtime: RuntimeKind,
    held: BTreeMap<(PortProtocol, u16), Bound<'a>>,
}

impl<'a> HostPorts<'a> {
    /// Of a node that gives none away yet.
    pub(crate) fn new(runtime: RuntimeKind) -> Self {
        Self { runtime, held: BTreeMap::new() }
    }

    /// Takes the ports for a slot. The ports of one slot may overlap: the runtime has its say on that.
    pub(crate) fn take(&mut self, ports: &'a [Port], holder: Holder<'a>) {
        for port in taken(ports, self.runtime) {
            self.held
                .entry((port.protocol, port.published))
                .or_default()
                .push((port.host_ip, holder));
        }
    }

    /// The first of the ports that is in use, and by whom.
    pub(crate) fn conflict(&self, ports: &'a [Port]) -> Option<(&'a Port, Holder<'a>)> {
        taken(ports, self.runtime).find_map(|port| {
            let held = self.held.get(&(port.protocol, port.published))?;
            held.iter().find(|(ip, _)| clash(*ip, port.host_ip)).map(|(_, holder)| (port, *holder))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_clash_only_where_both_would_bind_the_same_address() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert!(clash(None, None));
        assert!(clash(None, ip("10.0.0.1")));
        assert!(clash(ip("0.0.0.0"), ip("10.0.0.1")));
        assert!(clash(ip("10.0.0.1"), ip("::")));
        assert!(clash(ip("10.0.0.1"), ip("10.0.0.1")));
        assert!(!clash(ip("127.0.0.1"), ip("10.0.0.1")));
    }

    const KEY: &str = "shop/dns";

    fn port(published: u16, protocol: PortProtocol, publish: Publish) -> Port {
        Port { host_ip: None, published, target: 80, protocol, publish }
    }

    #[test]
    fn protocols_and_port_zero_do_not_clash() {
        let node = |published, protocol| port(published, protocol, Publish::Node);
        let held = [node(53, PortProtocol::Udp), node(0, PortProtocol::Tcp)];
        let key = KEY.parse().unwrap_or_else(|_| unreachable!());
        let mut ports = HostPorts::new(RuntimeKind::Docker);
        ports.take(&held, (&key, 1));
        assert!(
            ports.conflict(&[node(53, PortProtocol::Tcp), node(0, PortProtocol::Tcp)]).is_none()
        );
        let wanted = [node(80, PortProtocol::Tcp), node(53, PortProtocol::Udp)];
        assert_eq!(ports.conflict(&wanted).map(|(p, h)| (p.published, h.1)), Some((53, 1)));
    }

    #[test]
    fn a_port_of_the_cluster_is_taken_only_where_a_process_binds_it() {
        let key = KEY.parse().unwrap_or_else(|_| unreachable!());
        let cluster = [port(80, PortProtocol::Tcp, Publish::Cluster)];
        let node = [port(80, PortProtocol::Tcp, Publish::Node)];
        for (runtime, both) in [(RuntimeKind::Docker, false), (RuntimeKind::Process, true)] {
            let mut ports = HostPorts::new(runtime);
            ports.take(&cluster, (&key, 1));
            assert_eq!(ports.conflict(&cluster).is_some(), both);
            assert_eq!(ports.conflict(&node).is_some(), both);
            ports.take(&node, (&key, 2));
            assert_eq!(ports.conflict(&cluster).is_some(), both);
            assert!(ports.conflict(&node).is_some());
        }
    }
}
