//! `ports:` and `expose:` of a service, and conflicts between services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::model::Service;
use super::problem::Problem;
use super::walk::{At, Walk};
use super::yaml::Node;
use vc_protocol::Name;
use vc_protocol::spec::validate::MAX_PORTS;
use vc_protocol::spec::{
    DynamicPort, Expose, Port, PortProtocol, ProxyProtocol, Publish, share_an_address,
};

/// Ports of all services of a file: a range has a few bytes, and is expanded.
const MAX_FILE_PORTS: usize = 16 * 1024;

/// An item of `ports`. Both ranges have the same length.
struct Item {
    host_ip: Option<IpAddr>,
    published: Option<RangeInclusive<u16>>,
    targets: RangeInclusive<u16>,
    protocol: PortProtocol,
    mode: Option<Publish>,
    /// `None`: as the service says.
    proxy_protocol: Option<Option<ProxyProtocol>>,
}

/// The published and exposed ports of a service.
#[derive(Default)]
pub(super) struct PublishedPorts {
    ports: Vec<Port>,
    dynamic: Vec<DynamicPort>,
    expose: Vec<Expose>,
}

impl PublishedPorts {
    /// Reads `ports`: short (`[ip:]published:target[/protocol]`, also with ranges) and long items. They are published
    /// as `publish` says unless they have a `mode`; `None`: they are only exposed. TCP connections begin with the header
    /// `proxy_protocol` unless the item says it.
    pub(super) fn publish(
        &mut self,
        at: &At<'_>,
        publish: Option<Publish>,
        of_service: Option<ProxyProtocol>,
    ) {
        for at in at.items() {
            let item = match at.node {
                Node::Map(_) => long(&at),
                _ => at.read(short),
            };
            let Some(item) = item else { continue };
            let Item { host_ip, published, targets, protocol, mode, proxy_protocol } = item;
            if !self.has_room(&at, targets.len()) {
                return;
            }
            match (published, publish) {
                (_, None) if mode.is_some() => {
                    at.refuse("says its mode, but x-vc.publish is none: keep one");
                }
                (_, None) if proxy_protocol.flatten().is_some() => {
                    at.refuse("has x-vc.proxy_protocol, but x-vc.publish is none: keep one");
                }
                (_, None) => self.name(targets, protocol),
                (published, Some(publish)) => {
                    let publish = mode.unwrap_or(publish);
                    let of_service = of_service.filter(|_| protocol == PortProtocol::Tcp);
                    let proxy_protocol = proxy_protocol.unwrap_or(of_service);
                    let Some(published) = published else {
                        self.dynamic.extend(targets.map(|target| DynamicPort {
                            host_ip,
                            target,
                            protocol,
                            publish,
                            proxy_protocol,
                        }));
                        continue;
                    };
                    let ports = published.zip(targets);
                    self.ports.extend(ports.map(|(published, target)| Port {
                        host_ip,
                        published,
                        target,
                        protocol,
                        publish,
                        proxy_protocol,
                    }));
                }
            }
        }
        self.ports.sort_unstable();
        self.ports.dedup();
        self.dynamic.sort_unstable();
        self.dynamic.dedup();
        let mut taken = BTreeMap::<_, Vec<Option<IpAddr>>>::new();
        for port in &self.ports {
            let bound = taken.entry((port.published, port.protocol)).or_default();
            if bound.iter().any(|ip| share_an_address(*ip, port.host_ip)) {
                at.refuse(format!(
                    "publishes port {}/{} twice",
                    port.published,
                    port.protocol.as_str()
                ));
            }
            bound.push(port.host_ip);
        }
    }

    /// Reads `expose`: `target[/protocol]`, or ranges of them.
    pub(super) fn expose(&mut self, at: &At<'_>) {
        for item in at.items() {
            let named = item.read(|text| {
                let (target, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
                Ok::<_, Problem>((range(target)?, protocol_of(protocol)?))
            });
            let Some((targets, protocol)) = named else { continue };
            if !self.has_room(&item, targets.len()) {
                return;
            }
            self.name(targets, protocol);
        }
    }

    /// Returns the published ports, those whose published side is chosen later, and the exposed ones, sorted.
    pub(super) fn finish(mut self) -> (Vec<Port>, Vec<DynamicPort>, Vec<Expose>) {
        self.expose.sort_unstable();
        self.expose.dedup();
        (self.ports, self.dynamic, self.expose)
    }

    fn name(&mut self, targets: RangeInclusive<u16>, protocol: PortProtocol) {
        self.expose.extend(targets.map(|target| Expose { target, protocol }));
    }

    /// Takes `count` ports from the limits, or refuses them.
    fn has_room(&self, at: &At<'_>, count: usize) -> bool {
        let of_file = at.walk.ports.get() + count;
        let limit = if self.ports.len() + self.dynamic.len() + self.expose.len() + count > MAX_PORTS
        {
            format!("a service has {MAX_PORTS} ports at most")
        } else if of_file > MAX_FILE_PORTS {
            format!("the services of a file have {MAX_FILE_PORTS} ports at most")
        } else {
            at.walk.ports.set(of_file);
            return true;
        };
        at.refuse(format!("is one too many: {limit}"));
        false
    }
}

/// Refuses ports that two services publish on the same node.
pub(super) fn check(services: &[Service], walk: &Walk<'_>) {
    let mut taken = BTreeMap::<_, Vec<(&Port, &Name)>>::new();
    for service in services {
        let name = &service.deployment.service.service;
        for port in &service.deployment.spec.ports {
            let bound = taken.entry((port.published, port.protocol)).or_default();
            // Ports published only on the instance's node are kept apart by placement.
            let clash = bound.iter().find(|(other, _)| {
                share_an_address(other.host_ip, port.host_ip)
                    && (port.publish, other.publish) != (Publish::Node, Publish::Node)
            });
            if let Some((_, other)) = clash.filter(|(_, other)| *other != name) {
                walk.refuse(
                    &format!("services.{name}.ports"),
                    &format!(
                        " publishes port {}/{}, as services.{other} does",
                        port.published,
                        port.protocol.as_str()
                    ),
                );
            }
            // One entry for all equal bindings.
            let like = |(other, _): &(&Port, &Name)| {
                (other.host_ip, other.publish) == (port.host_ip, port.publish)
            };
            if !bound.iter().any(like) {
                bound.push((port, name));
            }
        }
    }
}

/// Parses a short item.
fn short(text: &str) -> Result<Item, Problem> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol_of(protocol)?;
    let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
    let targets = range(target)?;
    let (ip, published) =
        rest.rsplit_once(':').map_or((None, rest), |(ip, published)| (Some(ip), published));
    // An empty address is every one.
    let host_ip = ip.filter(|ip| !ip.is_empty()).map(address).transpose()?;
    let published = (!published.is_empty()).then(|| range(published)).transpose()?;
    if published.as_ref().is_some_and(|published| published.len() != targets.len()) {
        return Err(Problem::new(format!("'{text}' has ranges of different lengths")));
    }
    Ok(Item { host_ip, published, targets, protocol, mode: None, proxy_protocol: None })
}

/// Reads a long item.
fn long(at: &At<'_>) -> Option<Item> {
    let mut fields = at.fields();
    let [target, published, protocol, host_ip, mode] =
        ["target", "published", "protocol", "host_ip", "mode"].map(|key| fields.take(key));
    let extension = fields.take("x-vc");
    // For people, and without effect in Compose too.
    for key in ["name", "app_protocol"] {
        fields.take(key).and_then(|at| at.text());
    }
    fields.finish(&[]);
    let proxy_protocol = extension.and_then(|at| {
        let mut fields = at.fields();
        let found = fields.take("proxy_protocol").and_then(|at| at.read(proxy_protocol_of));
        fields.finish(&[]);
        found
    });
    let mode = mode.and_then(|at| {
        at.read(|text| match text {
            "ingress" => Ok(Publish::Cluster),
            "host" => Ok(Publish::Node),
            _ => Err(Problem::new(format!("'{text}' is not a mode: write ingress or host"))),
        })
    });
    if target.is_none() {
        at.refuse("has no target: name the port of the instance");
    }
    let one = |port: u16| port..=port;
    let published = match published {
        Some(at) => Some(one(at.read(port)?)),
        None => None,
    };
    let protocol = protocol.map_or(Some(PortProtocol::Tcp), |at| at.read(protocol_of))?;
    if protocol == PortProtocol::Udp && proxy_protocol.flatten().is_some() {
        at.refuse("is a UDP port, for which there is no x-vc.proxy_protocol");
    }
    Some(Item {
        protocol,
        host_ip: host_ip.map(|at| at.read(address)).unwrap_or_default(),
        published,
        targets: one(target?.read(port)?),
        mode,
        proxy_protocol,
    })
}

/// Parses `x-vc.proxy_protocol`.
pub(super) fn proxy_protocol_of(text: &str) -> Result<Option<ProxyProtocol>, Problem> {
    match text {
        "true" | "v2" => Ok(Some(ProxyProtocol::V2)),
        "v1" => Ok(Some(ProxyProtocol::V1)),
        "false" => Ok(None),
        _ => Err(Problem::new(format!("'{text}' is not known: write true, false, v1 or v2"))),
    }
}

fn protocol_of(text: &str) -> Result<PortProtocol, Problem> {
    match text {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        _ => Err(Problem::new(format!("'{text}' is not supported: write tcp or udp"))),
    }
}

fn address(text: &str) -> Result<IpAddr, Problem> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse().map_err(|_| Problem::new(format!("'{text}' is not an IP address")))
}

fn port(text: &str) -> Result<u16, Problem> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number.filter(|&port| port > 0).ok_or_else(|| {
        Problem::new(format!("'{text}' is not a port: write a number from 1 to 65535"))
    })
}

fn range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    if range.is_empty() {
        Err(Problem::new(format!("'{text}' ends before it begins")))
    } else {
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn short_ports_are_parsed_like_compose() {
        for (text, expected) in [
            ("8080:80", &["- 8080 80 tcp"] as &[&str]),
            ("22:22", &["- 22 22 tcp"]),
            (":22:22", &["- 22 22 tcp"]),
            ("53:53/udp", &["- 53 53 udp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1 8080 80 tcp"]),
            ("[::1]:8080:80", &["::1 8080 80 tcp"]),
            ("::1:8080:80/udp", &["::1 8080 80 udp"]),
            ("3000-3002:4000-4002", &["- 3000 4000 tcp", "- 3001 4001 tcp", "- 3002 4002 tcp"]),
            ("65535:65535", &["- 65535 65535 tcp"]),
        ] {
            let item = short(text).expect(text);
            let ip = item.host_ip.map_or("-".to_owned(), |ip| ip.to_string());
            let protocol = item.protocol.as_str();
            let ports: Vec<String> = (item.published.expect(text).zip(item.targets))
                .map(|(published, target)| format!("{ip} {published} {target} {protocol}"))
                .collect();
            assert_eq!(ports, expected, "{text}");
        }
    }

    #[test]
    fn a_target_alone_publishes_nothing() {
        for text in ["80", "80/udp", "127.0.0.1::80", ":80", "80-90"] {
            assert!(short(text).expect(text).published.is_none(), "{text}");
        }
    }

    #[test]
    fn invalid_ports_are_refused() {
        for text in [
            "80:",
            "0:80",
            "80:0",
            "65536:80",
            "80:80/sctp",
            "80:80/TCP",
            "a:80",
            "+80:80",
            "5-3:5-3",
            "1-3:1-2",
            "1-3:80",
            "host:80:80",
            "1.2.3:80:80",
            "80:80:",
            "-:80",
            "80-:80",
            "80:80/",
        ] {
            assert!(short(text).is_err(), "{text}");
        }
    }
}
