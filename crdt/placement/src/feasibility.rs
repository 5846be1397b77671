//! Which nodes can take a slot, and in words why the others cannot.

use std::fmt;

use vc_protocol::node::RuntimeKind;
use vc_protocol::spec::{Attribute, Constraint, ContainerSpec, FileKind, Mount, Port, Settings};
use vc_protocol::{ServiceKey, VolumeKey};

use crate::input::Node;
use crate::ledger::Account;
use crate::order::Demand;
use crate::ports::Holder;
use crate::volumes::{Home, Tie, Volumes};

/// Why a node cannot take a slot. Displayed with the node as the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle<'a> {
    Elsewhere { volume: &'a VolumeKey, home: &'a Home },
    Torn { one: (&'a VolumeKey, &'a Home), other: (&'a VolumeKey, &'a Home) },
    Companion { service: &'a ServiceKey },
    Down,
    Draining,
    Runtime(&'a str),
    Platform { needed: &'a str, node: &'a Node },
    Constraint { unmet: &'a Constraint, has: Option<&'a str> },
    Process { lacks: &'static str },
    NoCommand,
    Cpu { needed: u64, free: u64, of: u64 },
    Memory { needed: u64, free: u64, of: u64 },
    Port { port: &'a Port, holder: Holder<'a> },
}

/// Whether the node is where the volumes of the service are, as far as that is decided.
pub(crate) fn has_volumes<'a>(
    demand: &Demand<'_>,
    account: &Account<'_>,
    volumes: &'a Volumes<'_>,
) -> Result<(), Obstacle<'a>> {
    match volumes.tie(demand) {
        Tie::Torn(one, other) => Err(Obstacle::Torn { one, other }),
        Tie::To(volume, home) if home.node != account.id => {
            Err(Obstacle::Elsewhere { volume, home })
        }
        Tie::To(..) | Tie::Free => Ok(()),
    }
}

/// Whether the node may run the service at all, whatever else runs there and wherever its volumes are. The same for
/// all its slots.
pub(crate) fn eligible<'a>(
    demand: &Demand<'a>,
    account: &'a Account<'_>,
) -> Result<(), Obstacle<'a>> {
    let (node, container) = (account.node, demand.container());
    if !node.up {
        return Err(Obstacle::Down);
    }
    if node.draining {
        return Err(Obstacle::Draining);
    }
    if let Some(error) = &node.runtime_error {
        return Err(Obstacle::Runtime(error));
    }
    if let Some(needed) = container.platform.as_deref().filter(|needed| !is_platform(node, needed))
    {
        return Err(Obstacle::Platform { needed, node });
    }
    for unmet in &demand.wanted.spec.constraints {
        let has = property(account, &unmet.attribute);
        if (has == Some(unmet.value.as_str())) != unmet.equal {
            return Err(Obstacle::Constraint { unmet, has });
        }
    }
    if node.runtime == RuntimeKind::Process {
        if let Some(lacks) = beyond_a_process(container) {
            return Err(Obstacle::Process { lacks });
        }
        let empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
        if empty(&container.command) && empty(&container.entrypoint) {
            return Err(Obstacle::NoCommand);
        }
    }
    Ok(())
}

/// Whether one more slot of the service fits beside what the node has promised.
pub(crate) fn room<'a>(demand: &Demand<'a>, account: &Account<'a>) -> Result<(), Obstacle<'a>> {
    let (ask, free, of) = (demand.reservation(), account.free(), account.node.capacity);
    if ask.cpu_millis > free.cpu_millis {
        return Err(Obstacle::Cpu {
            needed: ask.cpu_millis,
            free: free.cpu_millis,
            of: of.cpu_millis,
        });
    }
    if ask.memory_bytes > free.memory_bytes {
        return Err(Obstacle::Memory {
            needed: ask.memory_bytes,
            free: free.memory_bytes,
            of: of.memory_bytes,
        });
    }
    match account.ports.conflict(demand.ports()) {
        Some((port, holder)) => Err(Obstacle::Port { port, holder }),
        None => Ok(()),
    }
}

/// The first thing that the container asks for and a process of the node cannot have.
fn beyond_a_process(container: &ContainerSpec) -> Option<&'static str> {
    if container.has_healthcheck() {
        return Some("healthchecks");
    }
    let mount = container.mounts.first().map(|mount| match mount {
        Mount::Volume { .. } | Mount::Anonymous { .. } => "volumes",
        Mount::Bind { .. } => "bind mounts",
        Mount::Tmpfs { .. } => "tmpfs",
    });
    let file = container.files.first().map(|mount| match mount.file.kind {
        FileKind::Secret => "secrets",
        FileKind::Config => "configs",
    });
    let default = |(name, aliases): (&vc_protocol::Name, &std::collections::BTreeSet<String>)| {
        name.as_str() == "default" && aliases.is_empty()
    };
    let network = (!container.networks.iter().all(default)).then_some("networks of their own");
    mount.or(file).or(network).or_else(|| beyond_settings(&container.settings))
}

/// The first setting that is not as it is for a process anyway.
fn beyond_settings(settings: &Settings) -> Option<&'static str> {
    // Named one by one, so that a new setting has to be thought of here.
    let Settings {
        hostname,
        cap_add,
        cap_drop,
        sysctls,
        stop_signal,
        init,
        read_only,
        privileged,
        devices,
        group_add,
        security_opt,
        extra_hosts,
        ulimits,
        shm_bytes,
        tty,
        stdin_open,
    } = settings;
    let asked = [
        (*privileged, "privileged mode"),
        (!devices.is_empty(), "devices"),
        (!cap_add.is_empty(), "cap_add"),
        (!cap_drop.is_empty(), "cap_drop"),
        (!sysctls.is_empty(), "sysctls"),
        (!security_opt.is_empty(), "security_opt"),
        (!group_add.is_empty(), "group_add"),
        (!ulimits.is_empty(), "ulimits"),
        (*shm_bytes != 0, "shm_size"),
        (hostname.is_some(), "hostname"),
        (!extra_hosts.is_empty(), "extra_hosts"),
        (stop_signal.is_some(), "stop_signal"),
        (*init, "init"),
        (*read_only, "read_only"),
        (*tty, "tty"),
        (*stdin_open, "stdin_open"),
    ];
    asked.into_iter().find(|(asked, _)| *asked).map(|(_, name)| name)
}

/// Whether the node is `os/arch`. A variant (`linux/arm64/v8`) is not compared: nodes do not tell theirs.
fn is_platform(node: &Node, platform: &str) -> bool {
    let mut parts = platform.split('/');
    parts.next() == Some(node.os.as_str()) && parts.next() == Some(node.arch.as_str())
}

/// The property of a node that a constraint names; `None`: it has no such label.
fn property<'a>(account: &'a Account<'_>, attribute: &Attribute) -> Option<&'a str> {
    let node = account.node;
    match attribute {
        Attribute::Name => Some(node.name.as_str()),
        Attribute::Id => Some(&account.id_text),
        Attribute::Os => Some(&node.os),
        Attribute::Arch => Some(&node.arch),
        Attribute::Label(label) => node.labels.get(label).map(String::as_str),
    }
}

impl fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere { volume, home } => {
                let has = if home.held { "which holds the data of" } else { "the place of" };
                write!(f, "is not {}, {has} volume {volume}", home.name)
            }
            Self::Torn { one: (volume, home), other: (another, elsewhere) } => write!(
                f,
                "does not hold all its data: volume {volume} is on {}, volume {another} on {}",
                home.name, elsewhere.name
            ),
            Self::Companion { service } => {
                write!(f, "cannot run {service}, with which it shares a volume")
            }
            Self::Down => f.write_str("is down"),
            Self::Draining => f.write_str("is draining"),
            Self::Runtime(error) => write!(f, "has a runtime that does not answer: {error}"),
            Self::Platform { needed, node } => {
                write!(f, "is {}/{}, needed is {needed}", node.os, node.arch)
            }
            Self::Constraint { unmet, has: Some(has) } => match &unmet.attribute {
                Attribute::Label(label) => write!(f, "has {label}={has}, needed is {unmet}"),
                _ => write!(f, "is {has}, needed is {unmet}"),
            },
            Self::Constraint { unmet, has: None } => match &unmet.attribute {
                Attribute::Label(label) => write!(f, "has no label {label}, needed is {unmet}"),
                _ => write!(f, "does not meet {unmet}"),
            },
            Self::Process { lacks } => write!(f, "runs processes, which have no {lacks}"),
            Self::NoCommand => f.write_str("runs processes, and the service names no command"),
            Self::Cpu { needed, free, of } => {
                write!(f, "has {free}m of {of}m CPU free, needed is {needed}m")
            }
            Self::Memory { needed, free, of } => {
                write!(
                    f,
                    "has {} of {} memory free, needed is {}",
                    Bytes(*free),
                    Bytes(*of),
                    Bytes(*needed)
                )
            }
            Self::Port { port, holder: (service, replica) } => {
                f.write_str("has its host port ")?;
                match port.host_ip.filter(|ip| !ip.is_unspecified()) {
                    Some(ip) => write!(f, "{}", std::net::SocketAddr::new(ip, port.published))?,
                    None => write!(f, "{}", port.published)?,
                }
                write!(f, "/{} taken by {service}.{replica}", port.protocol.as_str())
            }
        }
    }
}

/// Bytes in the largest unit that shows them exactly: "512 MiB" beside "511 MiB free" must not both read "511 MiB".
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}
