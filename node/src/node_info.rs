//! The facts about this node for its document.

use std::collections::BTreeMap;

use vc_protocol::node::{NodeInfo, RuntimeKind};
use vc_protocol::{Multiaddr, Name};

use crate::args::{Options, RuntimeChoice};
use crate::host;

/// Returns the name given, or one made of the host name.
pub(crate) fn name(options: &Options) -> Name {
    options.name.clone().unwrap_or_else(|| {
        let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
        let label = host.split('.').next().unwrap_or_default();
        let plain: String =
            label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
        #[allow(clippy::expect_used, reason = "a constant that is a name")]
        plain.parse().unwrap_or_else(|_| "node".parse().expect("a name"))
    })
}

/// Collects the facts about this node for its document.
pub(crate) fn info(options: &Options, addresses: Vec<Multiaddr>) -> NodeInfo {
    let mut capacity = host::capacity();
    capacity.cpu_millis = options.cpus.unwrap_or(capacity.cpu_millis);
    capacity.memory_bytes = options.memory.unwrap_or(capacity.memory_bytes);
    NodeInfo {
        name: name(options),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        runtime: match options.runtime {
            RuntimeChoice::Docker => RuntimeKind::Docker,
            RuntimeChoice::Process => RuntimeKind::Process,
        },
        capacity,
        labels: options.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        addresses,
    }
}
