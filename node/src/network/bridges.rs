//! The bridges of container engines and hypervisors: other hosts do not reach the addresses that this host has on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::TryStreamExt as _;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

/// An interface of this host, as the kernel describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Interface {
    name: String,
    is_bridge: bool,
    /// The bridge that it is a port of.
    bridge: Option<u32>,
}

/// Returns the host's addresses on internal bridges. If the kernel does not answer, the names of interfaces decide.
pub(super) async fn addresses() -> BTreeSet<IpAddr> {
    let interfaces = interfaces().await.unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot list the interfaces of this host");
        BTreeMap::new()
    });
    let internal = internal(&interfaces);
    let is_internal = |name: &str| internal.contains(name) || is_named_internal(name);
    let addresses = if_addrs::get_if_addrs().unwrap_or_default();
    addresses.into_iter().filter(|it| is_internal(&it.name)).map(|it| it.ip()).collect()
}

/// Lists the interfaces by their indexes.
async fn interfaces() -> Result<BTreeMap<u32, Interface>, rtnetlink::Error> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let connection = tokio::spawn(connection);
    let listed = handle.link().get().execute().map_ok(interface).try_collect().await;
    connection.abort();
    listed
}

fn interface(link: LinkMessage) -> (u32, Interface) {
    let mut found = Interface::default();
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Controller(bridge) => found.bridge = Some(bridge),
            LinkAttribute::LinkInfo(infos) => {
                found.is_bridge |= infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    (link.header.index, found)
}

/// Returns the names of the bridges that lead to containers and virtual machines of this host alone: no port of theirs is
/// anything else. A bridge that an operator made has a network card as a port.
fn internal(interfaces: &BTreeMap<u32, Interface>) -> BTreeSet<&str> {
    let leads_out = |bridge: u32| {
        let mut ports = interfaces.values().filter(|it| it.bridge == Some(bridge));
        ports.any(|port| !is_virtual_port(&port.name))
    };
    let bridges = interfaces.iter().filter(|(_, it)| it.is_bridge);
    bridges.filter(|(index, _)| !leads_out(**index)).map(|(_, it)| it.name.as_str()).collect()
}

fn is_virtual_port(name: &str) -> bool {
    ["veth", "tap", "vnet", "dummy"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns whether an engine names its bridges, or its ends of pairs, so.
fn is_named_internal(name: &str) -> bool {
    let of_docker = name
        .strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    of_docker
        || ["docker", "veth", "virbr", "cni", "podman", "lxcbr", "lxdbr"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_with_a_network_card_is_not_internal() {
        let bridge =
            |name: &str| Interface { name: name.to_owned(), is_bridge: true, bridge: None };
        let port = |name: &str, of| Interface {
            name: name.to_owned(),
            is_bridge: false,
            bridge: Some(of),
        };
        let interfaces = BTreeMap::from([
            (1, Interface { name: "lo".to_owned(), ..Interface::default() }),
            (2, port("eth0", 3)),
            (3, bridge("br0")),
            (4, port("vnet1", 3)),
            (5, bridge("vcabcde01234567")),
            (6, port("veth12ab", 5)),
            (7, bridge("empty")),
            (8, Interface { name: "wlan0".to_owned(), ..Interface::default() }),
        ]);
        let found: Vec<&str> = internal(&interfaces).into_iter().collect();
        assert_eq!(found, ["empty", "vcabcde01234567"]);
    }

    #[test]
    fn interfaces_of_engines_are_known_by_their_names() {
        for name in
            ["docker0", "br-0123456789ab", "docker_gwbridge", "virbr0", "cni0", "podman1", "veth1"]
        {
            assert!(is_named_internal(name), "{name}");
        }
        for name in
            ["br0", "br-lan", "br-0123456789", "eth0", "vmbr0", "enp3s0", "wg0", "tailscale0"]
        {
            assert!(!is_named_internal(name), "{name}");
        }
    }

    #[tokio::test]
    async fn the_kernel_lists_the_loopback_interface() {
        let found = interfaces().await.expect("listed");
        assert!(found.values().any(|it| it.name == "lo" && !it.is_bridge), "{found:?}");
    }
}
