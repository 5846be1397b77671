//! NAT and filter rules of the host, set with iptables: packets of containers to virtual IPs are redirected to this node.
//!
//! Only packets from the bridges of this node's networks match, and only with a source in the network that they come
//! from: a container must not query as another. Each node has one chain in the tables `raw`, `nat` and `filter`, which
//! is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::virtual_ips::{DNS_SERVER_IP, VIRTUAL_IPS};
use crate::iptables::{self, IptablesError, iptables};

/// The tables and built-in chains that jump to this node's chain.
const JUMPS: [(&str, &str); 2] = [("nat", "PREROUTING"), ("filter", "INPUT")];
/// The same for packets before routing, which the rule against forged sources needs.
const RAW_JUMP: (&str, &str) = ("raw", "PREROUTING");
/// The same for forwarded packets: before Docker's own rules, which accept everything that leaves a bridge; or at the
/// start of `FORWARD` where Docker does not manage iptables.
const FORWARD_JUMPS: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// The rules of a node.
#[derive(Debug, Clone)]
pub(super) struct NatRules {
    chain: String,
    /// The interfaces whose packets match, as iptables names a prefix: `vcxyz+`.
    bridges: String,
    /// Those from which nothing but virtual IPs is reached.
    internal: String,
}

/// Local ports that packets are redirected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) resolver_udp: u16,
    pub(super) resolver_tcp: u16,
    pub(super) proxy: u16,
    /// By virtual IP and port of the service.
    pub(super) udp: BTreeMap<(Ipv4Addr, u16), u16>,
    /// Bridges and the virtual IPs for which this host answers echo requests (ping) that come from there.
    pub(super) echo: BTreeSet<(String, Ipv4Addr)>,
}

impl NatRules {
    /// Returns the rules of a node for packets from bridges whose names begin with `bridge_prefix`. Those of internal networks begin
    /// with `internal_prefix`.
    pub(super) fn new(node: &str, bridge_prefix: &str, internal_prefix: &str) -> Self {
        let (bridges, internal) = (format!("{bridge_prefix}+"), format!("{internal_prefix}+"));
        Self { chain: format!("VC-{node}"), bridges, internal }
    }

    /// Replaces the node's chains and makes sure that the built-in chains jump to them. Idempotent. Returns whether queries with forged
    /// sources are dropped.
    pub(super) async fn apply(&self, ports: &Ports) -> Result<bool, IptablesError> {
        self.replace(ports).await?;
        for (table, from) in JUMPS {
            iptables::ensure(table, from, &self.jump()).await?;
        }
        if iptables::ensure("filter", FORWARD_JUMPS[0], &self.jump()).await.is_err() {
            iptables::ensure("filter", FORWARD_JUMPS[1], &self.jump()).await?;
        }
        // Names work without it, on a kernel without the match.
        let dropped = self.drop_forged_sources().await;
        if let Err(error) = &dropped {
            tracing::warn!(%error, "containers can forge the sources of their DNS queries");
        }
        Ok(dropped.is_ok())
    }

    /// Replaces the chains that depend on the ports; the jumps to them are there since [`Self::apply`]. One process instead of six:
    /// every node does this whenever a service begins or ceases to answer, most of all while containers start.
    pub(super) async fn replace(&self, ports: &Ports) -> Result<(), IptablesError> {
        iptables::restore(&self.chains(ports)).await
    }

    async fn drop_forged_sources(&self) -> Result<(), IptablesError> {
        iptables::restore(&self.source_chain()).await?;
        iptables::ensure(RAW_JUMP.0, RAW_JUMP.1, &self.jump()).await
    }

    /// Returns whether all jumps exist, with that to the rule against forged sources if there was one: a firewall that restarts removes
    /// rules that it did not set.
    pub(super) async fn are_in_place(&self, drops_forged: bool) -> bool {
        if drops_forged && !self.jumps(RAW_JUMP.0, RAW_JUMP.1).await {
            return false;
        }
        for (table, from) in JUMPS {
            if !self.jumps(table, from).await {
                return false;
            }
        }
        self.jumps("filter", FORWARD_JUMPS[0]).await || self.jumps("filter", FORWARD_JUMPS[1]).await
    }

    async fn jumps(&self, table: &str, from: &str) -> bool {
        iptables(table, &[&["-C", from], &self.jump()[..]].concat()).await.is_ok()
    }

    /// Removes the redirections. The rules that reject stay, so that running containers get an error at once.
    pub(super) async fn remove(&self) {
        let _ = iptables("nat", &[&["-D", "PREROUTING"], &self.jump()[..]].concat()).await;
        iptables::remove_chain("nat", &self.chain).await;
    }

    /// Returns the rule of a built-in chain that jumps to the node's.
    fn jump(&self) -> [&str; 4] {
        ["-i", &self.bridges, "-j", &self.chain]
    }

    /// Returns the chain that drops packets whose source is not routed to the bridge that they come from (RFC 3704, 2.2).
    fn source_chain(&self) -> String {
        let chain = &self.chain;
        format!(
            "*raw\n:{chain} - [0:0]\n-A {chain} -d {VIRTUAL_IPS} -m rpfilter --invert -j DROP\nCOMMIT\n"
        )
    }

    /// Returns the chains as input of `iptables-restore`, which empties a chain that is declared there.
    fn chains(&self, ports: &Ports) -> String {
        let Self { chain, internal, .. } = self;
        let mut text = format!("*nat\n:{chain} - [0:0]\n");
        let mut redirect = |to: &str, protocol: &str, port: Option<u16>, local: u16| {
            let port = port.map(|port| format!(" --dport {port}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "-A {chain} -d {to} -p {protocol} -m {protocol}{port} -j REDIRECT --to-ports {local}"
            );
        };
        let dns = format!("{DNS_SERVER_IP}/32");
        redirect(&dns, "udp", Some(53), ports.resolver_udp);
        redirect(&dns, "tcp", Some(53), ports.resolver_tcp);
        for (&(address, port), &local) in &ports.udp {
            redirect(&format!("{address}/32"), "udp", Some(port), local);
        }
        redirect(&VIRTUAL_IPS.to_string(), "tcp", None, ports.proxy);
        for (bridge, address) in &ports.echo {
            let _ = writeln!(
                text,
                "-A {chain} -i {bridge} -d {address}/32 -p icmp -m icmp --icmp-type 8 -j REDIRECT"
            );
        }
        let _ = write!(text, "COMMIT\n*filter\n:{chain} - [0:0]\n");
        // Packets that were not redirected must not leave the host.
        let _ = writeln!(
            text,
            "-A {chain} -d {VIRTUAL_IPS} -p tcp -m tcp -j REJECT --reject-with tcp-reset"
        );
        let _ = writeln!(text, "-A {chain} -d {VIRTUAL_IPS} -j REJECT");
        // Packets that were redirected must pass a firewall whose default is to drop.
        let _ = writeln!(text, "-A {chain} -m conntrack --ctorigdst {VIRTUAL_IPS} -j ACCEPT");
        // Whatever internal networks there are: a rule must not come later than a container, nor go before it. Docker keeps bridges
        // apart.
        let _ = writeln!(
            text,
            "-A {chain} -i {internal} ! -o {internal} -m conntrack --ctstate NEW -j REJECT\nCOMMIT"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_a_source_outside_of_their_bridge_are_dropped() {
        let expected = "\
*raw
:VC-abc - [0:0]
-A VC-abc -d 198.18.0.0/15 -m rpfilter --invert -j DROP
COMMIT
";
        assert_eq!(NatRules::new("abc", "vcxyz", "vcxyz-").source_chain(), expected);
    }

    #[test]
    fn rules_for_dns_and_udp_ports_precede_the_rule_for_all_virtual_ips() {
        let ports = Ports {
            resolver_udp: 1001,
            resolver_tcp: 1002,
            proxy: 1003,
            udp: [((Ipv4Addr::new(198, 18, 7, 7), 514), 1004)].into(),
            echo: [("vcxyzabc".to_owned(), Ipv4Addr::new(198, 18, 7, 7))].into(),
        };
        let text = NatRules::new("abc", "vcxyz", "vcxyz-").chains(&ports);
        let expected = "\
*nat
:VC-abc - [0:0]
-A VC-abc -d 198.18.0.53/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 1001
-A VC-abc -d 198.18.0.53/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 1002
-A VC-abc -d 198.18.7.7/32 -p udp -m udp --dport 514 -j REDIRECT --to-ports 1004
-A VC-abc -d 198.18.0.0/15 -p tcp -m tcp -j REDIRECT --to-ports 1003
-A VC-abc -i vcxyzabc -d 198.18.7.7/32 -p icmp -m icmp --icmp-type 8 -j REDIRECT
COMMIT
*filter
:VC-abc - [0:0]
-A VC-abc -d 198.18.0.0/15 -p tcp -m tcp -j REJECT --reject-with tcp-reset
-A VC-abc -d 198.18.0.0/15 -j REJECT
-A VC-abc -m conntrack --ctorigdst 198.18.0.0/15 -j ACCEPT
-A VC-abc -i vcxyz-+ ! -o vcxyz-+ -m conntrack --ctstate NEW -j REJECT
COMMIT
";
        assert_eq!(text, expected);
    }
}
