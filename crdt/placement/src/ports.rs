//! Host ports: a machine has each only once.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vc_protocol::ServiceKey;
use vc_protocol::spec::{Port, PortProtocol};

/// The host ports that a service takes. Port 0 is left out: it lets the machine pick a free one.
pub(crate) fn taken(ports: &[Port]) -> impl Iterator<Item = &Port> {
    ports.iter().filter(|port| port.published != 0)
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

/// The host ports in use on one machine.
#[derive(Default)]
pub(crate) struct HostPorts<'a>(BTreeMap<(PortProtocol, u16), Bound<'a>>);

impl<'a> HostPorts<'a> {
    /// Takes the ports for a slot. The ports of one slot may overlap: the runtime has its say on that.
    pub(crate) fn take(&mut self, ports: &'a [Port], holder: Holder<'a>) {
        for port in taken(ports) {
            self.0.entry((port.protocol, port.published)).or_default().push((port.host_ip, holder));
        }
    }

    /// The first of the ports that is in use, and by whom.
    pub(crate) fn conflict(&self, ports: &'a [Port]) -> Option<(&'a Port, Holder<'a>)> {
        taken(ports).find_map(|port| {
            let held = self.0.get(&(port.protocol, port.published))?;
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

    #[test]
    fn protocols_and_port_zero_do_not_clash() {
        let port = |published, protocol| Port { host_ip: None, published, target: 80, protocol };
        let held = [port(53, PortProtocol::Udp), port(0, PortProtocol::Tcp)];
        let key = "shop/dns".parse().unwrap_or_else(|_| unreachable!());
        let mut ports = HostPorts::default();
        ports.take(&held, (&key, 1));
        assert!(
            ports.conflict(&[port(53, PortProtocol::Tcp), port(0, PortProtocol::Tcp)]).is_none()
        );
        let wanted = [port(80, PortProtocol::Tcp), port(53, PortProtocol::Udp)];
        assert_eq!(ports.conflict(&wanted).map(|(p, h)| (p.published, h.1)), Some((53, 1)));
    }
}
