//! Which virtual address stands for which service.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sha2::{Digest as _, Sha256};
use vc_protocol::ServiceKey;

/// All virtual addresses: the range that is set aside for benchmarks (RFC 2544), which is routed nowhere.
pub const VIRTUAL_IPS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);
/// Where containers send their questions.
pub const DNS_SERVER_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// The first block of 256 is the resolver's; of the others, what could be taken for a network or a broadcast is left
/// out.
const BLOCKS: u32 = 511;
const HOSTS: u32 = 254;
const SERVICES: u32 = BLOCKS * HOSTS;

/// The addresses of services. They mean something on this node only, but follow from the service's name (two names
/// of 130,000 addresses seldom meet), so that a program that looked a service up once still reaches it when the node
/// was restarted.
#[derive(Debug, Clone, Default)]
pub(super) struct VirtualIps {
    of: BTreeMap<ServiceKey, Ipv4Addr>,
    services: BTreeMap<Ipv4Addr, ServiceKey>,
}

impl VirtualIps {
    /// Gives every wanted service an address and takes those of the others back. A service keeps the address that it
    /// has; of new ones that meet, the first in order gets its own and the other the next.
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

    /// The address of a service.
    pub(super) fn of(&self, service: &ServiceKey) -> Option<Ipv4Addr> {
        self.of.get(service).copied()
    }

    /// The service of an address.
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
    fn every_address_is_in_the_range_and_none_is_the_resolvers_or_looks_like_a_network() {
        let all: BTreeSet<Ipv4Addr> = (0..SERVICES).map(address).collect();
        assert_eq!(all.len(), SERVICES as usize);
        for address in all {
            assert!(VIRTUAL_IPS.contains(&address) && address != DNS_SERVER_IP, "{address}");
            assert!(!matches!(address.octets()[3], 0 | 255), "{address}");
        }
    }

    #[test]
    fn an_address_survives_a_restart_and_the_coming_and_going_of_others() {
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
    fn of_two_that_meet_the_one_that_has_the_address_keeps_it() {
        let all = keys(0..2000);
        let mut taken = BTreeMap::new();
        let meeting = all.iter().find_map(|key| Some((taken.insert(start(key), key)?, key)));
        let (one, other) = meeting.expect("two of 2000 meet");
        let mut addresses = VirtualIps::default();
        addresses.assign([other].into_iter());
        assert_eq!(addresses.of(other), Some(address(start(other))));
        addresses.assign([one, other].into_iter());
        assert_eq!(addresses.of(other), Some(address(start(other))));
        assert_eq!(addresses.of(one), Some(address((start(one) + 1) % SERVICES)));
    }
}
