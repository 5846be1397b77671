//! The facts about this node for its document.

use std::collections::BTreeMap;

use vc_crdt::KnownVersions;
use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::{Multiaddr, Name, Resources};

use crate::host;
use crate::settings::{RuntimeChoice, Settings};

/// Returns a name made of the host name.
pub(crate) fn default_name() -> Name {
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let label = host.split('.').next().unwrap_or_default();
    let plain: String =
        label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    #[allow(clippy::expect_used, reason = "a constant that is a name")]
    plain.parse().unwrap_or_else(|_| "node".parse().expect("a name"))
}

/// Collects the facts about this node for its document.
pub(crate) fn info(settings: &Settings, addresses: Vec<Multiaddr>) -> NodeInfo {
    let mut capacity = host::capacity();
    capacity.cpu_millis = settings.cpus.unwrap_or(capacity.cpu_millis);
    capacity.memory_bytes = settings.memory.unwrap_or(capacity.memory_bytes);
    if settings.is_witness() {
        capacity = Resources::default();
    }
    NodeInfo {
        name: settings.name.clone().unwrap_or_else(default_name),
        version: crate::VERSION.to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        runtime: match settings.runtime() {
            RuntimeChoice::Docker => RuntimeKind::Docker,
            RuntimeChoice::Process => RuntimeKind::Process,
        },
        capacity,
        volume_room: 0,
        generic_resources: settings.resources.iter().cloned().collect(),
        labels: settings.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        addresses,
        epoch: 0,
        mdns: !settings.no_mdns,
        notify_commands: settings.allow_notify_commands,
        dns_problem: String::new(),
        problems: Vec::new(),
        backups: None,
        failed_upgrade: String::new(),
        witness: settings.is_witness(),
        supports: KnownVersions::default().supports(),
    }
}
