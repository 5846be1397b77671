//! NAT and filter rules of the host, set with iptables: packets of containers to virtual IPs are redirected to this node.
//!
//! Only packets from the bridges of this node's networks match, and only with a source in the network that they come
//! from: a container must not query as another. Each node has one chain in the tables `raw`, `nat` and `filter`, which
//! is replaced as a whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::NatError;
use super::virtual_ips::{DNS_SERVER_IP, VIRTUAL_IPS};

/// How long `iptables` may run, waiting for the xtables lock included.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds that `iptables` waits for the xtables lock.
const LOCK_TIMEOUT: &str = "10";
/// Limit of characters of a command's error output that an error carries.
const MAX_MESSAGE: usize = 200;

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
}

/// Local ports that packets are redirected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) resolver_udp: u16,
    pub(super) resolver_tcp: u16,
    pub(super) proxy: u16,
    /// By virtual IP and port of the service.
    pub(super) udp: BTreeMap<(Ipv4Addr, u16), u16>,
}

impl NatRules {
    /// Returns the rules of a node for packets from bridges whose names begin with `bridge_prefix`.
    pub(super) fn new(node: &str, bridge_prefix: &str) -> Self {
        Self { chain: format!("VC-{node}"), bridges: format!("{bridge_prefix}+") }
    }

    /// Replaces the node's chains and makes sure that the built-in chains jump to them. Idempotent.
    pub(super) async fn apply(&self, ports: &Ports) -> Result<(), NatError> {
        let restore = ["--noflush", "--wait", LOCK_TIMEOUT];
        run("iptables-restore", &restore, &self.chains(ports)).await?;
        for (table, from) in JUMPS {
            self.ensure_jump(table, from).await?;
        }
        if self.ensure_jump("filter", FORWARD_JUMPS[0]).await.is_err() {
            self.ensure_jump("filter", FORWARD_JUMPS[1]).await?;
        }
        // Names work without it, on a kernel without the match.
        if let Err(error) = self.drop_forged_sources().await {
            tracing::warn!(%error, "containers can forge the sources of their DNS queries");
        }
        Ok(())
    }

    async fn drop_forged_sources(&self) -> Result<(), NatError> {
        let restore = ["--noflush", "--wait", LOCK_TIMEOUT];
        run("iptables-restore", &restore, &self.source_chain()).await?;
        self.ensure_jump(RAW_JUMP.0, RAW_JUMP.1).await
    }

    /// Returns whether all jumps exist: a firewall that restarts removes rules that it did not set.
    pub(super) async fn are_in_place(&self) -> bool {
        for (table, from) in JUMPS {
            if self.jump(table, "-C", from).await.is_err() {
                return false;
            }
        }
        self.jump("filter", "-C", FORWARD_JUMPS[0]).await.is_ok()
            || self.jump("filter", "-C", FORWARD_JUMPS[1]).await.is_ok()
    }

    async fn ensure_jump(&self, table: &str, from: &str) -> Result<(), NatError> {
        match self.jump(table, "-C", from).await {
            Ok(()) => Ok(()),
            Err(_) => self.jump(table, "-I", from).await,
        }
    }

    /// Removes the redirections. The rules that reject stay, so that running containers get an error at once.
    pub(super) async fn remove(&self) {
        let _ = self.jump("nat", "-D", "PREROUTING").await;
        for action in ["-F", "-X"] {
            let arguments = ["--wait", LOCK_TIMEOUT, "-t", "nat", action, &self.chain];
            if let Err(error) = run("iptables", &arguments, "").await {
                tracing::debug!(%error, "cannot remove a chain");
            }
        }
    }

    /// Checks (`-C`), inserts (`-I`) or deletes (`-D`) a jump from a built-in chain to the node's.
    async fn jump(&self, table: &str, action: &str, from: &str) -> Result<(), NatError> {
        let (bridges, chain) = (self.bridges.as_str(), self.chain.as_str());
        let arguments =
            ["--wait", LOCK_TIMEOUT, "-t", table, action, from, "-i", bridges, "-j", chain];
        run("iptables", &arguments, "").await
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
        let chain = &self.chain;
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
        let _ = write!(text, "COMMIT\n*filter\n:{chain} - [0:0]\n");
        // Packets that were not redirected must not leave the host.
        let _ = writeln!(
            text,
            "-A {chain} -d {VIRTUAL_IPS} -p tcp -m tcp -j REJECT --reject-with tcp-reset"
        );
        let _ = writeln!(text, "-A {chain} -d {VIRTUAL_IPS} -j REJECT");
        // Packets that were redirected must pass a firewall whose default is to drop.
        let _ =
            writeln!(text, "-A {chain} -m conntrack --ctorigdst {VIRTUAL_IPS} -j ACCEPT\nCOMMIT");
        text
    }
}

async fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<(), NatError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|source| match source.kind() {
        ErrorKind::NotFound => NatError::NotInstalled { program },
        _ => NatError::Run { program, source },
    })?;
    let stdin = child.stdin.take();
    let exit = async move {
        if let Some(mut stdin) = stdin {
            // A program that exits before it has read everything explains itself on stderr.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match timeout(COMMAND_TIMEOUT, exit).await {
        Ok(output) => output.map_err(|source| NatError::Run { program, source })?,
        Err(_) => return Err(NatError::Timeout { program, limit: COMMAND_TIMEOUT }),
    };
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = stderr.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let message = match line {
        Some(line) => line.chars().take(MAX_MESSAGE).collect(),
        None => output.status.to_string(),
    };
    Err(NatError::Failed { program, message })
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
        assert_eq!(NatRules::new("abc", "vcxyz").source_chain(), expected);
    }

    #[test]
    fn rules_for_dns_and_udp_ports_precede_the_rule_for_all_virtual_ips() {
        let ports = Ports {
            resolver_udp: 1001,
            resolver_tcp: 1002,
            proxy: 1003,
            udp: [((Ipv4Addr::new(198, 18, 7, 7), 514), 1004)].into(),
        };
        let text = NatRules::new("abc", "vcxyz").chains(&ports);
        let expected = "\
*nat
:VC-abc - [0:0]
-A VC-abc -d 198.18.0.53/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 1001
-A VC-abc -d 198.18.0.53/32 -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 1002
-A VC-abc -d 198.18.7.7/32 -p udp -m udp --dport 514 -j REDIRECT --to-ports 1004
-A VC-abc -d 198.18.0.0/15 -p tcp -m tcp -j REDIRECT --to-ports 1003
COMMIT
*filter
:VC-abc - [0:0]
-A VC-abc -d 198.18.0.0/15 -p tcp -m tcp -j REJECT --reject-with tcp-reset
-A VC-abc -d 198.18.0.0/15 -j REJECT
-A VC-abc -m conntrack --ctorigdst 198.18.0.0/15 -j ACCEPT
COMMIT
";
        assert_eq!(text, expected);
    }
}
