//! Host ports: each can be bound once per node. A port that every node publishes is bound by the node's ingress and
//! conflicts with no instance; a process binds its port itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vc_protocol::ServiceKey;
use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{Port, PortProtocol, Publish};

/// Returns the host ports that an instance binds. Port 0 is left out: the node picks a free one.
pub(crate) fn bound_ports(ports: &[Port], runtime: RuntimeKind) -> impl Iterator<Item = &Port> {
    let binds = move |port: &Port| port.publish == Publish::Node || runtime == RuntimeKind::Process;
    ports.iter().filter(move |port| port.published != 0 && binds(port))
}

/// Returns whether two sockets of the same protocol and port cannot be bound at once; `None` is every address.
fn conflicts(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let all = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    all(a) || all(b) || a == b
}

/// The slot that holds a port: service and replica.
pub(crate) type PortHolder<'a> = (&'a ServiceKey, u32);

/// The addresses on which one port is bound (`None`: all), with the holders.
type Bound<'a> = Vec<(Option<IpAddr>, PortHolder<'a>)>;

/// The host ports in use on one node.
pub(crate) struct HostPorts<'a> {
    runtime: RuntimeKind,
    held: BTreeMap<(PortProtocol, u16), Bound<'a>>,
}

impl<'a> HostPorts<'a> {
    pub(crate) fn new(runtime: RuntimeKind) -> Self {
        Self { runtime, held: BTreeMap::new() }
    }

    /// Reserves the ports for a slot. Overlaps within one slot are left to the runtime to reject.
    pub(crate) fn reserve(&mut self, ports: &'a [Port], holder: PortHolder<'a>) {
        for port in bound_ports(ports, self.runtime) {
            self.held
                .entry((port.protocol, port.published))
                .or_default()
                .push((port.host_ip, holder));
        }
    }

    /// Returns the first of the ports that is in use, with its holder.
    pub(crate) fn conflict(&self, ports: &'a [Port]) -> Option<(&'a Port, PortHolder<'a>)> {
        bound_ports(ports, self.runtime).find_map(|port| {
            let held = self.held.get(&(port.protocol, port.published))?;
            held.iter()
                .find(|(ip, _)| conflicts(*ip, port.host_ip))
                .map(|(_, holder)| (port, *holder))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_conflict_only_on_the_same_address() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert!(conflicts(None, None));
        assert!(conflicts(None, ip("10.0.0.1")));
        assert!(conflicts(ip("0.0.0.0"), ip("10.0.0.1")));
        assert!(conflicts(ip("10.0.0.1"), ip("::")));
        assert!(conflicts(ip("10.0.0.1"), ip("10.0.0.1")));
        assert!(!conflicts(ip("127.0.0.1"), ip("10.0.0.1")));
    }

    const KEY: &str = "shop/dns";

    fn port(published: u16, protocol: PortProtocol, publish: Publish) -> Port {
        Port { host_ip: None, published, target: 80, protocol, publish, proxy_protocol: None }
    }

    #[test]
    fn protocols_and_port_zero_do_not_conflict() {
        let node = |published, protocol| port(published, protocol, Publish::Node);
        let held = [node(53, PortProtocol::Udp), node(0, PortProtocol::Tcp)];
        let key = KEY.parse().unwrap_or_else(|_| unreachable!());
        let mut ports = HostPorts::new(RuntimeKind::Docker);
        ports.reserve(&held, (&key, 1));
        assert!(
            ports.conflict(&[node(53, PortProtocol::Tcp), node(0, PortProtocol::Tcp)]).is_none()
        );
        let ports_80_and_53 = [node(80, PortProtocol::Tcp), node(53, PortProtocol::Udp)];
        assert_eq!(
            ports.conflict(&ports_80_and_53).map(|(p, h)| (p.published, h.1)),
            Some((53, 1))
        );
    }

    #[test]
    fn a_cluster_port_conflicts_only_on_the_process_runtime() {
        let key = KEY.parse().unwrap_or_else(|_| unreachable!());
        let cluster = [port(80, PortProtocol::Tcp, Publish::Cluster)];
        let node = [port(80, PortProtocol::Tcp, Publish::Node)];
        for (runtime, both) in [(RuntimeKind::Docker, false), (RuntimeKind::Process, true)] {
            let mut ports = HostPorts::new(runtime);
            ports.reserve(&cluster, (&key, 1));
            assert_eq!(ports.conflict(&cluster).is_some(), both);
            assert_eq!(ports.conflict(&node).is_some(), both);
            ports.reserve(&node, (&key, 2));
            assert_eq!(ports.conflict(&cluster).is_some(), both);
            assert!(ports.conflict(&node).is_some());
        }
    }
}
