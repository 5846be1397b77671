//! Assigns virtual IPs to services, like Kubernetes' cluster IPs but local to this node.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};
use vc_protocol::ServiceKey;

/// The range of virtual IPs: reserved for benchmarks (RFC 2544), so that no network routes it.
pub const VIRTUAL_IPS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// The virtual IP of the DNS server, to which Docker's resolver forwards queries of containers.
pub const DNS_SERVER_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// Blocks of 256 addresses for services: all but the first, which has the DNS server's.
const BLOCKS: u32 = 511;
/// Addresses for services in a block: .0 and .255 look like a network and a broadcast address.
const HOSTS: u32 = 254;
const SERVICES: u32 = BLOCKS * HOSTS;

/// The virtual IPs of services. An address is derived from the hash of the service's name, so that clients that cached it
/// still reach the service after a restart of the node; collisions among 130,000 addresses are rare.
#[derive(Debug, Clone, Default)]
pub(super) struct VirtualIps {
    of: BTreeMap<ServiceKey, Ipv4Addr>,
    services: BTreeMap<Ipv4Addr, ServiceKey>,
}

impl VirtualIps {
    /// Assigns an address to each wanted service and frees the others. Services keep their address; of new services with
    /// the same hash, the first in order gets the address and the other the next free one (linear probing).
    pub(super) fn assign<'a>(&mut self, wanted: impl Iterator<Item = &'a ServiceKey> + Clone) {
        let kept: BTreeMap<_, _> =
            wanted.clone().filter_map(|key| Some((key.clone(), *self.of.get(key)?))).collect();
        self.services = kept.iter().map(|(key, &address)| (address, key.clone())).collect();
        self.of = kept;
        for key in wanted {
            if self.of.contains_key(key) {
                continue;
            }
            let first = start(key);
            let all = (0..SERVICES).map(|step| address((first + step) % SERVICES));
            let Some(free) = all.into_iter().find(|it| !self.services.contains_key(it)) else {
                continue;
            };
            self.of.insert(key.clone(), free);
            self.services.insert(free, key.clone());
        }
    }

    /// Returns the virtual IP of a service.
    pub(super) fn of(&self, service: &ServiceKey) -> Option<Ipv4Addr> {
        self.of.get(service).copied()
    }

    /// Returns the service that has a virtual IP.
    pub(super) fn service(&self, address: Ipv4Addr) -> Option<&ServiceKey> {
        self.services.get(&address)
    }
}

fn start(key: &ServiceKey) -> u32 {
    let hash = Sha256::digest(key.to_string());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) % SERVICES
}

fn address(index: u32) -> Ipv4Addr {
    let (block, host) = (1 + index / HOSTS, 1 + index % HOSTS);
    Ipv4Addr::from(u32::from(VIRTUAL_IPS.network()) + block * 256 + host)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys(names: impl Iterator<Item = u32>) -> BTreeSet<ServiceKey> {
        names.map(|n| format!("shop/s{n}").parse().expect("a service")).collect()
    }

    #[test]
    fn addresses_are_in_the_range_and_differ_from_the_dns_server_and_network_addresses() {
        let all: BTreeSet<Ipv4Addr> = (0..SERVICES).map(address).collect();
        assert_eq!(all.len(), SERVICES as usize);
        for address in all {
            assert!(VIRTUAL_IPS.contains(&address) && address != DNS_SERVER_IP, "{address}");
            assert!(!matches!(address.octets()[3], 0 | 255), "{address}");
        }
    }

    #[test]
    fn an_address_is_stable_across_restarts_and_changes_of_other_services() {
        let (few, many) = (keys(0..10), keys(0..2000));
        let mut addresses = VirtualIps::default();
        addresses.assign(few.iter());
        let before: Vec<_> = few.iter().map(|key| addresses.of(key).expect("an address")).collect();
        addresses.assign(many.iter());
        let all: BTreeSet<_> = many.iter().map(|key| addresses.of(key).expect("one")).collect();
        assert_eq!(all.len(), many.len(), "no two services share an address");
        let now: Vec<_> = few.iter().map(|key| addresses.of(key).expect("an address")).collect();
        assert_eq!(before, now);

        let mut restarted = VirtualIps::default();
        restarted.assign(few.iter());
        assert_eq!(restarted.of, {
            addresses.assign(few.iter());
            addresses.of.clone()
        });
        assert_eq!(addresses.service(before[0]), few.first());
        addresses.assign(std::iter::empty());
        assert_eq!(addresses.service(before[0]), None);
    }

    #[test]
    fn on_a_hash_collision_the_service_that_has_the_address_keeps_it() {
        let all = keys(0..2000);
        let mut taken = BTreeMap::new();
        let collision = all.iter().find_map(|key| Some((taken.insert(start(key), key)?, key)));
        let (one, other) = collision.expect("a collision among 2000");
        let mut addresses = VirtualIps::default();
        addresses.assign([other].into_iter());
        assert_eq!(addresses.of(other), Some(address(start(other))));
        addresses.assign([one, other].into_iter());
        assert_eq!(addresses.of(other), Some(address(start(other))));
        assert_eq!(addresses.of(one), Some(address((start(one) + 1) % SERVICES)));
    }
}
