//! The subnets of the project networks: small ones from a pool of the node's own. Docker's pools end at about 30 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

/// The prefix length of a project network: 125 containers and a gateway.
pub const SUBNET_LENGTH: u8 = 25;
/// The ranges by default, in this order: private ones that neither Docker's defaults nor common Kubernetes, VPN or home networks
/// use first.
const DEFAULT_RANGES: [&str; 3] = ["10.208.0.0/12", "172.24.0.0/13", "192.168.192.0/18"];
/// The virtual addresses of services.
const VIRTUAL: &str = "198.18.0.0/15";
/// A route to more than this is no reason against a subnet: default routes, also when split as VPNs do.
const LEAST_ROUTE_LENGTH: u8 = 8;

/// The range from which the networks of this node get their subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkPool(Option<Ipv4Net>);

/// Why a text is no range for networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkPoolError {
    /// It is no range of IPv4 addresses.
    #[error("'{0}' is not a range of IPv4 addresses: write it like 10.208.0.0/16")]
    Syntax(String),
    /// A network does not fit in.
    #[error("{0} is too small: each network takes a /{SUBNET_LENGTH}, so give at least that")]
    TooSmall(Ipv4Net),
    /// Services or this host have addresses in it.
    #[error("{0} overlaps {1}, which is used otherwise: choose a private range")]
    Reserved(Ipv4Net, Ipv4Net),
}

impl FromStr for NetworkPool {
    type Err = NetworkPoolError;
    fn from_str(text: &str) -> Result<Self, NetworkPoolError> {
        let range: Ipv4Net = text.parse().map_err(|_| NetworkPoolError::Syntax(text.to_owned()))?;
        let range = range.trunc();
        if range.prefix_len() > SUBNET_LENGTH {
            return Err(NetworkPoolError::TooSmall(range));
        }
        let reserved = [VIRTUAL, "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "0.0.0.0/8"];
        match reserved.iter().filter_map(|it| it.parse().ok()).find(|it| overlap(*it, range)) {
            Some(reserved) => Err(NetworkPoolError::Reserved(range, reserved)),
            None => Ok(Self(Some(range))),
        }
    }
}

impl fmt::Display for NetworkPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(range) => write!(f, "{range}"),
            None => f.write_str(&DEFAULT_RANGES.join(", ")),
        }
    }
}

impl NetworkPool {
    /// Returns a subnet that overlaps none of `taken`; `None` if there is none left. The search begins at a place that follows
    /// from `seed`, so that a network usually gets the same subnet again.
    pub(super) fn free(self, seed: u64, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
        let defaults = DEFAULT_RANGES.iter().filter_map(|range| range.parse().ok());
        let ranges: Vec<Ipv4Net> = self.0.map_or_else(|| defaults.collect(), |range| vec![range]);
        ranges.into_iter().find_map(|range| free_in(range, seed, taken))
    }

    /// Returns a range of `taken` that overlaps this one and is larger than a network of the node: a LAN, or another program's.
    pub(super) fn overlapping(self, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
        let range = self.0?;
        let is_foreign = |it: &&Ipv4Net| it.prefix_len() < SUBNET_LENGTH && overlap(**it, range);
        taken.iter().find(is_foreign).copied()
    }
}

fn free_in(range: Ipv4Net, seed: u64, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let size = 1_u64 << (32 - SUBNET_LENGTH);
    let count = 1_u64 << (SUBNET_LENGTH - range.prefix_len());
    let taken: Vec<_> = taken.iter().filter(|it| overlap(**it, range)).collect();
    let subnet = |number: u64| {
        let first = u64::from(u32::from(range.network())) + (seed % count + number) % count * size;
        let first = Ipv4Addr::from(u32::try_from(first).ok()?);
        Ipv4Net::new(first, SUBNET_LENGTH).ok()
    };
    let is_free = |subnet: &Ipv4Net| taken.iter().all(|it| !overlap(**it, *subnet));
    (0..count).filter_map(subnet).find(is_free)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Returns where the routes of this host lead, except default routes.
pub(super) fn routes() -> Vec<Ipv4Net> {
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Parses `/proc/net/route`: destinations and masks are hexadecimal, in the host's byte order.
fn parse_routes(text: &str) -> Vec<Ipv4Net> {
    let address = |field: &str| {
        let number = u32::from_str_radix(field, 16).ok()?;
        Some(Ipv4Addr::from(number.to_ne_bytes()))
    };
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        Ipv4Net::with_netmask(destination, mask).ok()
    };
    let routes = text.lines().skip(1).filter_map(route);
    routes.filter(|it| it.prefix_len() >= LEAST_ROUTE_LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().expect("a range")
    }

    #[test]
    fn a_pool_that_the_host_uses_otherwise_is_told_from_a_full_one() {
        let pool: NetworkPool = "10.77.0.0/24".parse().expect("a pool");
        let own = [net("10.77.0.0/25"), net("10.77.0.128/25"), net("172.17.0.0/16")];
        assert_eq!((pool.free(0, &own), pool.overlapping(&own)), (None, None));
        let lan = [net("172.17.0.0/16"), net("10.77.0.0/24")];
        assert_eq!((pool.free(0, &lan), pool.overlapping(&lan)), (None, Some(net("10.77.0.0/24"))));
    }

    #[test]
    fn subnets_are_small_and_avoid_what_is_taken() {
        let pool: NetworkPool = "10.9.0.0/23".parse().expect("a pool");
        let mut taken = vec![net("10.9.0.128/26")];
        let mut got = Vec::new();
        while let Some(subnet) = pool.free(6, &taken) {
            taken.push(subnet);
            got.push(subnet.to_string());
        }
        assert_eq!(got, ["10.9.1.0/25", "10.9.1.128/25", "10.9.0.0/25"]);
    }

    #[test]
    fn hundreds_of_networks_fit_beside_the_routes_of_a_vpn() {
        let vpn = parse_routes(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
             tun0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n",
        );
        assert_eq!(vpn, [net("10.0.0.0/8")], "default routes do not count");
        let (mut taken, pool) = (vpn, NetworkPool::default());
        for seed in 0..600 {
            let subnet = pool.free(seed * 7919, &taken).expect("a subnet");
            assert!(net("172.24.0.0/13").contains(&subnet), "{subnet}");
            taken.push(subnet);
        }
    }

    #[test]
    fn ranges_that_cannot_be_used_are_refused() {
        for (text, reason) in [
            ("10.9.0.0", "is not a range"),
            ("fd00::/64", "is not a range"),
            ("10.9.0.0/26", "at least that"),
            ("198.19.0.0/16", "198.18.0.0/15"),
            ("127.0.0.0/16", "127.0.0.0/8"),
            ("0.0.0.0/0", "overlaps"),
        ] {
            let refused = text.parse::<NetworkPool>().expect_err(text).to_string();
            assert!(refused.contains(reason), "{refused}");
        }
        let kept: NetworkPool = "10.9.7.1/16".parse().expect("a pool");
        assert_eq!(kept.to_string(), "10.9.0.0/16");
    }
}
