//! The node's packet filter: what containers send to the resolver and to virtual addresses comes to us.
//!
//! Only packets from the bridges of this node's own networks are touched. All rules are in one chain a node in the
//! tables `nat` and `filter`, replaced as a whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::virtual_ips::{DNS_SERVER_IP, VIRTUAL_IPS};

/// How long `iptables` may take; others may hold its lock.
const LIMIT: Duration = Duration::from_secs(20);
/// How many seconds it waits for the lock.
const LOCK: &str = "10";

/// From where our chain is entered: table and chain.
const ENTRIES: [(&str, &str); 2] = [("nat", "PREROUTING"), ("filter", "INPUT")];
/// The same, on the way through the node: before Docker's own rules, which would let everything out; where Docker
/// leaves the packet filter alone, from the beginning of that way.
const PASSING: [&str; 2] = ["DOCKER-USER", "FORWARD"];

/// The rules of a node.
#[derive(Debug, Clone)]
pub(super) struct NatRules {
    chain: String,
    bridges: String,
}

/// The ports of ours to which packets are redirected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) resolver_udp: u16,
    pub(super) resolver_tcp: u16,
    pub(super) proxy: u16,
    /// By virtual address and port.
    pub(super) udp: BTreeMap<(Ipv4Addr, u16), u16>,
}

impl NatRules {
    /// Those of a node, for packets from bridges whose names begin so.
    pub(super) fn new(node: &str, bridges: &str) -> Self {
        Self { chain: format!("VC-{node}"), bridges: format!("{bridges}+") }
    }

    /// Puts the rules in place, whatever was there of them. Errors: one line for people.
    pub(super) async fn apply(&self, ports: &Ports) -> Result<(), String> {
        let restore = ["--noflush", "--wait", LOCK];
        run("iptables-restore", &restore, &self.text(ports)).await?;
        for (table, from) in ENTRIES {
            self.enter(table, from).await?;
        }
        if self.enter("filter", PASSING[0]).await.is_err() {
            self.enter("filter", PASSING[1]).await?;
        }
        Ok(())
    }

    /// Whether they are still in place: firewalls that start anew forget others' rules.
    pub(super) async fn are_in_place(&self) -> bool {
        for (table, from) in ENTRIES {
            if self.entry(table, "-C", from).await.is_err() {
                return false;
            }
        }
        self.entry("filter", "-C", PASSING[0]).await.is_ok()
            || self.entry("filter", "-C", PASSING[1]).await.is_ok()
    }

    /// Makes sure that our chain is entered from there.
    async fn enter(&self, table: &str, from: &str) -> Result<(), String> {
        match self.entry(table, "-C", from).await {
            Ok(()) => Ok(()),
            Err(_) => self.entry(table, "-I", from).await,
        }
    }

    /// Redirects nothing any more. What rejects stays: containers go on, and must learn at once that nobody answers.
    pub(super) async fn remove(&self) {
        let _ = self.entry("nat", "-D", "PREROUTING").await;
        for action in ["-F", "-X"] {
            let arguments = ["--wait", LOCK, "-t", "nat", action, &self.chain];
            if let Err(error) = run("iptables", &arguments, "").await {
                tracing::debug!(error, "a chain is not removed");
            }
        }
    }

    async fn entry(&self, table: &str, action: &str, from: &str) -> Result<(), String> {
        let (bridges, chain) = (self.bridges.as_str(), self.chain.as_str());
        let arguments = ["--wait", LOCK, "-t", table, action, from, "-i", bridges, "-j", chain];
        run("iptables", &arguments, "").await
    }

    /// The chains, as `iptables-restore` reads them: naming a chain there empties it.
    fn text(&self, ports: &Ports) -> String {
        let chain = &self.chain;
        let mut text = format!("*nat\n:{chain} - [0:0]\n");
        let mut redirect = |to: &str, protocol: &str, port: Option<u16>, ours: u16| {
            let port = port.map(|port| format!(" --dport {port}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "-A {chain} -d {to} -p {protocol} -m {protocol}{port} -j REDIRECT --to-ports {ours}"
            );
        };
        let resolver = format!("{DNS_SERVER_IP}/32");
        redirect(&resolver, "udp", Some(53), ports.resolver_udp);
        redirect(&resolver, "tcp", Some(53), ports.resolver_tcp);
        for (&(address, port), &ours) in &ports.udp {
            redirect(&format!("{address}/32"), "udp", Some(port), ours);
        }
        redirect(&VIRTUAL_IPS.to_string(), "tcp", None, ports.proxy);
        let _ = write!(text, "COMMIT\n*filter\n:{chain} - [0:0]\n");
        // What was not redirected is for nobody, and must not leave the node.
        let _ = writeln!(
            text,
            "-A {chain} -d {VIRTUAL_IPS} -p tcp -m tcp -j REJECT --reject-with tcp-reset"
        );
        let _ = writeln!(text, "-A {chain} -d {VIRTUAL_IPS} -j REJECT");
        // What was, must not fall to a firewall that lets in only what it knows.
        let _ =
            writeln!(text, "-A {chain} -m conntrack --ctorigdst {VIRTUAL_IPS} -j ACCEPT\nCOMMIT");
        text
    }
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("there is no '{program}' on this node: install iptables"),
        _ => format!("cannot run {program}: {error}"),
    })?;
    let feed = child.stdin.take();
    let done = async move {
        if let Some(mut feed) = feed {
            // One that ends before it has read all says why.
            let _ = feed.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match timeout(LIMIT, done).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot run {program}: {error}")),
        Err(_) => return Err(format!("{program} does not end")),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let said: String = said.unwrap_or("it does not say why").chars().take(200).collect();
    Err(format!("{program} refuses: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_and_known_ports_come_before_the_whole_range() {
        let ports = Ports {
            resolver_udp: 1001,
            resolver_tcp: 1002,
            proxy: 1003,
            udp: [((Ipv4Addr::new(198, 18, 7, 7), 514), 1004)].into(),
        };
        let text = NatRules::new("abc", "vcxyz").text(&ports);
        let told = "\
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
        assert_eq!(text, told);
    }
}
