//! NAT rules for the ports that a node publishes for its own instances, set with iptables.
//!
//! One chain in the tables `nat` and `filter`. In `nat` it redirects what comes from other hosts to an instance. In `filter` it
//! lets redirected connections pass, which stays when the redirection ends: open ones go on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use vc_protocol::spec::PortProtocol;

use crate::iptables::{self, IptablesError, iptables};

/// What the names of the chains begin with, those of other nodes on the same host too.
const PREFIX: &str = "VC-PORTS-";
/// The chain for the user's rules, which Docker jumps to first; without Docker's, `FORWARD`. What they drop stays dropped.
const FORWARD_JUMPS: [&str; 2] = ["DOCKER-USER", "FORWARD"];
/// What a user's chain may end with.
const RETURN: &str = "-j RETURN";

/// A port of the host; no `address` means all IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) protocol: PortProtocol,
    pub(crate) port: u16,
    pub(crate) address: Option<Ipv4Addr>,
}

/// The rules of a node.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    chain: String,
    /// The interfaces of the node's networks, as iptables names a prefix: `vcxyz+`.
    bridges: String,
}

impl Rules {
    /// Returns the rules of a node whose bridges have names that begin with `bridge_prefix`.
    pub(super) fn new(node: &str, bridge_prefix: &str) -> Self {
        Self { chain: format!("{PREFIX}{node}"), bridges: format!("{bridge_prefix}+") }
    }

    /// Replaces the node's chains and makes sure that they are jumped to. Idempotent.
    pub(super) async fn apply(
        &self,
        redirects: &BTreeMap<HostPort, SocketAddrV4>,
    ) -> Result<(), IptablesError> {
        iptables::restore(&self.chains(redirects)).await?;
        // Before connections are redirected, they must pass.
        if self.ensure_last(FORWARD_JUMPS[0]).await.is_err() {
            self.ensure_last(FORWARD_JUMPS[1]).await?;
        }
        iptables::ensure("nat", "PREROUTING", &self.nat_jump()).await
    }

    /// Returns whether all jumps exist: a firewall that restarts removes rules that it did not set.
    pub(super) async fn are_in_place(&self) -> bool {
        let nat = iptables("nat", &[&["-C", "PREROUTING"], &self.nat_jump()[..]].concat()).await;
        for chain in FORWARD_JUMPS {
            if let Ok(listed) = iptables("filter", &["-S", chain]).await
                && self.place(chain, &listed) == Place::Right
            {
                return nat.is_ok();
            }
        }
        false
    }

    /// Removes the redirections.
    pub(super) async fn remove(&self) {
        let _ = iptables("nat", &[&["-D", "PREROUTING"], &self.nat_jump()[..]].concat()).await;
        iptables::remove_chain("nat", &self.chain).await;
    }

    /// Makes sure that a chain jumps to the node's at its end: the rules of users come first.
    async fn ensure_last(&self, chain: &str) -> Result<(), IptablesError> {
        let listed = iptables("filter", &["-S", chain]).await?;
        let jump = ["-j", &self.chain];
        match self.place(chain, &listed) {
            Place::Right => return Ok(()),
            Place::Wrong => drop(iptables("filter", &["-D", chain, jump[0], jump[1]]).await?),
            Place::None => {}
        }
        let listed = iptables("filter", &["-S", chain]).await?;
        match rules(chain, &listed).iter().position(|rule| rule == &RETURN) {
            Some(returns) => {
                let number = (returns + 1).to_string();
                iptables("filter", &["-I", chain, &number, jump[0], jump[1]]).await.map(drop)
            }
            None => iptables("filter", &["-A", chain, jump[0], jump[1]]).await.map(drop),
        }
    }

    /// Returns where the jump is in a chain, as `iptables -S` lists it.
    fn place(&self, chain: &str, listed: &str) -> Place {
        let rules = rules(chain, listed);
        let jump = format!("-j {}", self.chain);
        let Some(at) = rules.iter().position(|rule| *rule == jump) else { return Place::None };
        // Those of other nodes on this host want to be last too.
        let is_ours = |rule: &str| rule.starts_with(&format!("-j {PREFIX}"));
        let after = rules.iter().skip(at + 1);
        let returns_before = rules.iter().take(at).any(|rule| rule == &RETURN);
        match !returns_before && after.into_iter().all(|rule| *rule == RETURN || is_ours(rule)) {
            true => Place::Right,
            false => Place::Wrong,
        }
    }

    /// Returns the rule of `PREROUTING` that jumps to the node's chain.
    fn nat_jump(&self) -> [&str; 6] {
        ["-m", "addrtype", "--dst-type", "LOCAL", "-j", &self.chain]
    }

    /// Returns the chains as input of `iptables-restore`, which empties a chain that is declared there.
    fn chains(&self, redirects: &BTreeMap<HostPort, SocketAddrV4>) -> String {
        let Self { chain, bridges } = self;
        let mut text = format!(
            "*filter\n:{chain} - [0:0]\n\
             -A {chain} -o {bridges} -m conntrack --ctstate DNAT --ctdir ORIGINAL -j ACCEPT\n\
             -A {chain} -i {bridges} -m conntrack --ctstate DNAT --ctdir REPLY -j ACCEPT\nCOMMIT\n\
             *nat\n:{chain} - [0:0]\n"
        );
        // A bridge passes answers on to clients of the same network itself, past the rules: they would come from an address
        // that these have not asked.
        let _ = writeln!(text, "-A {chain} -i {bridges} -j RETURN");
        for (HostPort { protocol, port, address }, to) in redirects {
            let protocol = protocol.as_str();
            let address = address.map(|ip| format!(" -d {ip}/32")).unwrap_or_default();
            let _ = writeln!(
                text,
                "-A {chain}{address} -p {protocol} -m {protocol} --dport {port} -j DNAT --to-destination {to}"
            );
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Where a jump is in a chain.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Right,
    Wrong,
    None,
}

/// Returns the rules of a chain, as `iptables -S` lists them.
fn rules<'a>(chain: &str, listed: &'a str) -> Vec<&'a str> {
    let rule = |line: &'a str| Some(line.strip_prefix("-A ")?.strip_prefix(chain)?.trim());
    listed.lines().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_other_hosts_is_redirected_and_passes() {
        let port = |protocol, port, address| HostPort { protocol, port, address };
        let to = |text: &str| text.parse().expect("an address");
        let redirects = BTreeMap::from([
            (port(PortProtocol::Tcp, 80, None), to("172.20.0.2:8080")),
            (port(PortProtocol::Udp, 53, Some(Ipv4Addr::new(10, 0, 0, 1))), to("172.20.0.3:5353")),
        ]);
        let expected = "\
*filter
:VC-PORTS-abc - [0:0]
-A VC-PORTS-abc -o vcxyz+ -m conntrack --ctstate DNAT --ctdir ORIGINAL -j ACCEPT
-A VC-PORTS-abc -i vcxyz+ -m conntrack --ctstate DNAT --ctdir REPLY -j ACCEPT
COMMIT
*nat
:VC-PORTS-abc - [0:0]
-A VC-PORTS-abc -i vcxyz+ -j RETURN
-A VC-PORTS-abc -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.20.0.2:8080
-A VC-PORTS-abc -d 10.0.0.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 172.20.0.3:5353
COMMIT
";
        assert_eq!(Rules::new("abc", "vcxyz").chains(&redirects), expected);
    }

    #[test]
    fn the_jump_follows_the_rules_of_users() {
        let rules = Rules::new("abc", "vcxyz");
        let place = |lines: &[&str]| {
            let lines: Vec<String> =
                lines.iter().map(|it| format!("-A DOCKER-USER {it}")).collect();
            rules.place("DOCKER-USER", &format!("-N DOCKER-USER\n{}\n", lines.join("\n")))
        };
        assert_eq!(place(&[]), Place::None);
        assert_eq!(place(&["-i vcxyz+ -j VC-abc", "-j RETURN"]), Place::None);
        let (own, other) = ("-j VC-PORTS-abc", "-j VC-PORTS-def");
        for right in [&[own][..], &["-s 10.0.0.9/32 -j DROP", own, other, "-j RETURN"]] {
            assert_eq!(place(right), Place::Right, "{right:?}");
        }
        for wrong in [&[own, "-s 10.0.0.9/32 -j DROP"][..], &["-j RETURN", own]] {
            assert_eq!(place(wrong), Place::Wrong, "{wrong:?}");
        }
    }
}
