//! `ports:` of a service. Every port is published on the machine that runs the instance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::walk::At;
use super::yaml::Node;
use crate::spec::{Port, PortProtocol, Publish};

/// The largest number of ports one service may publish.
const MAX_PORTS: usize = 2048;

/// Reads the list: short (`[ip:]published:target[/protocol]`, also with ranges) and long items.
pub(super) fn read(at: &At<'_>) -> Vec<Port> {
    let mut ports = Vec::new();
    for item in at.items() {
        match item.node {
            Node::Map(_) => ports.extend(long(&item)),
            _ => ports.extend(item.read(short).unwrap_or_default()),
        }
        if ports.len() > MAX_PORTS {
            at.refuse(format!("publishes more than {MAX_PORTS} ports"));
            return Vec::new();
        }
    }
    ports.sort_unstable();
    ports.dedup();
    let mut taken = BTreeMap::<_, Vec<Option<IpAddr>>>::new();
    for port in &ports {
        let bound = taken.entry((port.published, port.protocol)).or_default();
        let any = |ip: &Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
        if bound.iter().any(|ip| *ip == port.host_ip || any(ip) || any(&port.host_ip)) {
            at.refuse(format!(
                "publishes port {}/{} twice",
                port.published,
                port.protocol.as_str()
            ));
        }
        bound.push(port.host_ip);
    }
    ports
}

/// The ports of a short item.
fn short(text: &str) -> Result<Vec<Port>, String> {
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol_of(protocol)?;
    let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
    let targets = range(target)?;
    let (ip, published) =
        rest.rsplit_once(':').map_or((None, rest), |(ip, published)| (Some(ip), published));
    if published.is_empty() {
        return Err(format!(
            "'{text}' publishes no port: write published:target, as in 8080:{target}"
        ));
    }
    let host_ip = ip.map(address).transpose()?;
    let published = range(published)?;
    if published.len() != targets.len() {
        return Err(format!("'{text}' has ranges of different lengths"));
    }
    Ok(published
        .zip(targets)
        .map(|(published, target)| Port {
            host_ip,
            published,
            target,
            protocol,
            publish: Publish::Cluster,
        })
        .collect())
}

/// The port of a long item.
fn long(at: &At<'_>) -> Option<Port> {
    let mut fields = at.fields();
    let [target, published, protocol, host_ip, mode] =
        ["target", "published", "protocol", "host_ip", "mode"].map(|key| fields.take(key));
    fields.finish(&[]);
    match mode.as_ref().and_then(At::text) {
        None | Some("host") => {}
        Some("ingress") => mode?.invalid(
            "ingress is not supported yet: ports are published on the node that runs the instance; write mode: host",
        ),
        Some(other) => mode?.invalid(format!("'{other}' is no mode: write host")),
    }
    if target.is_none() {
        at.refuse("has no target: name the port of the instance");
    }
    if published.is_none() {
        at.refuse("has no published: name the port of the machine");
    }
    Some(Port {
        protocol: protocol.map_or(Some(PortProtocol::Tcp), |at| at.read(protocol_of))?,
        host_ip: host_ip.map(|at| at.read(address)).unwrap_or_default(),
        published: published?.read(port)?,
        target: target?.read(port)?,
        publish: Publish::Cluster,
    })
}

fn protocol_of(text: &str) -> Result<PortProtocol, String> {
    match text {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        _ => Err(format!("'{text}' is not supported: write tcp or udp")),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.parse().map_err(|_| format!("'{text}' is no IP address"))
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    number
        .filter(|&port| port > 0)
        .ok_or_else(|| format!("'{text}' is no port: write a number from 1 to 65535"))
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first)?..=port(last)?;
    if range.is_empty() { Err(format!("'{text}' ends before it begins")) } else { Ok(range) }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn short_ports_are_read_as_compose_reads_them() {
        for (text, expected) in [
            ("8080:80", &["- 8080 80 tcp"] as &[&str]),
            ("22:22", &["- 22 22 tcp"]),
            ("53:53/udp", &["- 53 53 udp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1 8080 80 tcp"]),
            ("[::1]:8080:80", &["::1 8080 80 tcp"]),
            ("::1:8080:80/udp", &["::1 8080 80 udp"]),
            ("3000-3002:4000-4002", &["- 3000 4000 tcp", "- 3001 4001 tcp", "- 3002 4002 tcp"]),
            ("65535:65535", &["- 65535 65535 tcp"]),
        ] {
            let ports = short(text).expect(text);
            let ports: Vec<String> = ports
                .iter()
                .map(|p| {
                    let ip = p.host_ip.map_or("-".to_owned(), |ip| ip.to_string());
                    format!("{ip} {} {} {}", p.published, p.target, p.protocol.as_str())
                })
                .collect();
            assert_eq!(ports, expected, "{text}");
        }
    }

    #[test]
    fn what_publishes_nothing_or_is_no_port_is_refused() {
        for text in [
            "80",
            "80/udp",
            "127.0.0.1::80",
            ":80",
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
