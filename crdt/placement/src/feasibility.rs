//! Feasibility: whether a node can take a slot, and the reason if it cannot.

use std::fmt;

use vc_protocol::node::RuntimeKind;
use vc_protocol::planted::{PlantedBug, is_planted};
use vc_protocol::spec::{
    Attribute, Cgroup, Constraint, ContainerSpec, DisconnectPolicy, FileKind, Mount, Namespaces,
    NetworkMode, Port, Settings,
};
use vc_protocol::{NodeId, ServiceKey, VolumeKey, in_words};

use crate::allocation::{Counted, NodeAllocation};
use crate::input::{Node, PlanInput};
use crate::order::{Service, Shared, services};
use crate::ports::PortHolder;
use crate::volumes::{VolumeAffinity, VolumeHolder, Volumes};

/// Why a node cannot take a slot. Displayed with the node as the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Infeasible<'a> {
    VolumeElsewhere {
        volume: &'a VolumeKey,
        holder: &'a VolumeHolder,
    },
    /// The service whose network it has runs on another node.
    NetworkElsewhere {
        owner: &'a ServiceKey,
        holder: &'a VolumeHolder,
    },
    VolumesSplit {
        one: (&'a Shared, &'a VolumeHolder),
        other: (&'a Shared, &'a VolumeHolder),
    },
    GroupMember {
        service: &'a ServiceKey,
    },
    Down,
    /// Down, and the slots that it has wait for it.
    Awaited(&'a DisconnectPolicy),
    Draining,
    /// Nodes that are up do not know this of the service.
    OlderMembers(&'static str),
    RuntimeUnavailable(&'a str),
    Held,
    Faulty(&'a str),
    Platform {
        required: &'a str,
        node: &'a Node,
    },
    Constraint {
        unmet: &'a Constraint,
        has: Option<&'a str>,
    },
    ProcessRuntime {
        lacks: &'static str,
    },
    NoCommand,
    /// It has too little of a resource that is counted.
    Counted {
        kind: &'a str,
        it: Counted,
    },
    /// It has as many replicas as the service allows.
    ReplicasPerNode(u32),
    Cpu {
        required: u64,
        free: u64,
        total: u64,
    },
    Memory {
        required: u64,
        free: u64,
        total: u64,
    },
    VolumeRoom {
        required: u64,
        free: u64,
    },
    HostPort {
        port: &'a Port,
        /// The slot that has it; `None` if it is of another project, whose services are not named.
        holder: Option<PortHolder<'a>>,
    },
}

/// Returns whether a node may run a service beside what it runs, whatever room it has and whichever volumes it holds: it is up and
/// not draining, its platform and runtime fit, and it meets the constraints. `false` for an unknown node or service.
pub fn may_run(input: &PlanInput, service: &ServiceKey, node: NodeId) -> bool {
    let services = services(input);
    let service = services.iter().find(|it| it.key == service);
    let node = input.nodes.get(&node).map(|it| NodeAllocation::new(node, it));
    service.zip(node).is_some_and(|(service, node)| check_node(service, &node).is_ok())
}

/// Checks that the node has the volumes of the service, as far as any has.
pub(crate) fn check_volumes<'a>(
    service: &Service<'_>,
    allocation: &NodeAllocation<'_>,
    volumes: &'a Volumes<'_>,
) -> Result<(), Infeasible<'a>> {
    match volumes.affinity(service) {
        VolumeAffinity::Conflict(one, other) => Err(Infeasible::VolumesSplit { one, other }),
        VolumeAffinity::Node(shared, holder) if holder.node != allocation.id => match shared {
            Shared::Volume(volume) => Err(Infeasible::VolumeElsewhere { volume, holder }),
            Shared::Network(owner) => Err(Infeasible::NetworkElsewhere { owner, holder }),
        },
        VolumeAffinity::Node(..) | VolumeAffinity::Any => {
            match volumes.unreadable(service, allocation.id) {
                Some((volume, holder)) => Err(Infeasible::VolumeElsewhere { volume, holder }),
                None => Ok(()),
            }
        }
    }
}

/// Notes which services no node can start that may run them.
pub(crate) fn mark_failing_everywhere(
    services: &mut [Service<'_>],
    allocations: &[NodeAllocation<'_>],
    volumes: &Volumes<'_>,
) {
    let fails =
        |key: &ServiceKey| allocations.iter().any(|it| it.node.faults.services.contains_key(key));
    for service in services.iter_mut().filter(|it| fails(it.key)) {
        let starts = allocations.iter().any(|it| {
            check_volumes(service, it, volumes).is_ok() && check_new(service, it).is_ok()
        });
        service.fails_everywhere |= !starts;
    }
}

/// Checks whether the node may get a slot that it does not run: as [`check_node`], and it must neither hold the service nor
/// be unable to start it.
pub(crate) fn check_new<'a>(
    service: &Service<'a>,
    allocation: &'a NodeAllocation<'_>,
) -> Result<(), Infeasible<'a>> {
    check_node(service, allocation)?;
    if allocation.node.holds.contains(service.key) {
        return Err(Infeasible::Held);
    }
    let faults = &allocation.node.faults;
    let of_service = || faults.services.get(service.key).filter(|_| !service.fails_everywhere);
    match faults.node.as_ref().or_else(of_service) {
        Some(fault) => Err(Infeasible::Faulty(fault)),
        None => Ok(()),
    }
}

/// Checks what does not depend on other slots or on volumes: liveness, platform, constraints and runtime.
pub(crate) fn check_node<'a>(
    service: &Service<'a>,
    allocation: &'a NodeAllocation<'_>,
) -> Result<(), Infeasible<'a>> {
    if !allocation.node.up {
        return Err(Infeasible::Down);
    }
    check_suited(service, allocation)
}

/// Checks the same except for liveness.
pub(crate) fn check_suited<'a>(
    service: &Service<'a>,
    allocation: &'a NodeAllocation<'_>,
) -> Result<(), Infeasible<'a>> {
    let node = allocation.node;
    if node.draining {
        return Err(Infeasible::Draining);
    }
    if let Some(error) = &node.runtime_error {
        return Err(Infeasible::RuntimeUnavailable(error));
    }
    check_fixed(service, allocation)
}

/// Checks what neither faults nor drains change: platform, constraints, the kind of runtime, and whether it has that many of the
/// resources that are counted at all.
pub(crate) fn check_fixed<'a>(
    service: &Service<'a>,
    allocation: &'a NodeAllocation<'_>,
) -> Result<(), Infeasible<'a>> {
    let (node, container) = (allocation.node, service.container());
    if let Some(required) = container.platform.as_deref().filter(|it| !is_platform(node, it)) {
        return Err(Infeasible::Platform { required, node });
    }
    for unmet in &service.demand.spec.constraints {
        let has = attribute(allocation, &unmet.attribute);
        if (has == Some(unmet.value.as_str())) != unmet.equal {
            return Err(Infeasible::Constraint { unmet, has });
        }
    }
    if let Some((kind, it)) = allocation.counted(service).find(|(_, it)| it.required > it.total) {
        return Err(Infeasible::Counted { kind, it });
    }
    if node.runtime == RuntimeKind::Process {
        if let Some(lacks) = unsupported_by_processes(container) {
            return Err(Infeasible::ProcessRuntime { lacks });
        }
        let empty = |words: &Option<Vec<String>>| words.as_ref().is_none_or(Vec::is_empty);
        if empty(&container.command) && empty(&container.entrypoint) {
            return Err(Infeasible::NoCommand);
        }
    }
    Ok(())
}

/// Checks that one more slot fits beside the reservations and host ports of the node, that volumes which reserve `volume_bytes` do, and
/// that the service allows one more there.
pub(crate) fn check_resources<'a>(
    service: &Service<'a>,
    allocation: &NodeAllocation<'a>,
    volume_bytes: u64,
) -> Result<(), Infeasible<'a>> {
    let has = allocation.limited(service);
    if service.max_per_node().is_some_and(|most| has >= most) {
        return Err(Infeasible::ReplicasPerNode(has));
    }
    let (ask, free) = (service.reservation(), allocation.free());
    let total = allocation.node.capacity;
    if ask.cpu_millis > free.cpu_millis && !is_planted(PlantedBug::CpuOvercommitted) {
        return Err(Infeasible::Cpu {
            required: ask.cpu_millis,
            free: free.cpu_millis,
            total: total.cpu_millis,
        });
    }
    if ask.memory_bytes > free.memory_bytes {
        return Err(Infeasible::Memory {
            required: ask.memory_bytes,
            free: free.memory_bytes,
            total: total.memory_bytes,
        });
    }
    if let Some((kind, it)) = allocation.counted(service).find(|(_, it)| it.required > it.free) {
        return Err(Infeasible::Counted { kind, it });
    }
    if let Some(free) = allocation.volume_room.filter(|&free| volume_bytes > free) {
        return Err(Infeasible::VolumeRoom { required: volume_bytes, free });
    }
    match allocation.ports.conflict(service.ports()) {
        Some((port, holder)) => {
            let holder = Some(holder).filter(|(it, _)| it.project == service.key.project);
            Err(Infeasible::HostPort { port, holder })
        }
        None => Ok(()),
    }
}

/// Returns the first feature of the container that the process runtime does not have.
fn unsupported_by_processes(container: &ContainerSpec) -> Option<&'static str> {
    if container.has_healthcheck() {
        return Some("healthchecks");
    }
    if container.attach {
        return Some("clients that attach");
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
    let has_networks =
        !container.networks.iter().all(default) || !container.shared_networks.is_empty();
    // A process has the network of its host anyway.
    let network = match container.network_mode {
        None | Some(NetworkMode::Host) => has_networks.then_some("networks"),
        Some(NetworkMode::None | NetworkMode::Service(_)) => Some("network_mode"),
    };
    mount.or(file).or(network).or_else(|| unsupported_setting(&container.settings))
}

/// Returns the first setting that differs from what every process has anyway.
fn unsupported_setting(settings: &Settings) -> Option<&'static str> {
    // Destructured, so that a new setting does not compile until it is handled here.
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
        dns,
        dns_search,
        dns_opt,
        ulimits,
        shm_bytes,
        pids_limit,
        memory_swap_bytes,
        runtime,
        tty,
        stdin_open,
        device_cgroup_rules,
        device_requests,
        cgroup,
        namespaces,
        storage_opt,
        // A process has no container's log, and nothing else that reads these.
        log_options: _,
        annotations: _,
        domainname,
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
        (*pids_limit != 0, "pids_limit"),
        (*memory_swap_bytes != 0, "memswap_limit"),
        (runtime.is_some(), "runtime"),
        (!device_cgroup_rules.is_empty(), "device_cgroup_rules"),
        (!device_requests.is_empty(), "gpus and other device requests"),
        (*cgroup != Cgroup::default(), "limits of cgroups"),
        (*namespaces != Namespaces::default(), "namespaces"),
        (!storage_opt.is_empty(), "storage_opt"),
        (domainname.is_some(), "domainname"),
        (hostname.is_some(), "hostname"),
        (!extra_hosts.is_empty(), "extra_hosts"),
        (!dns.is_empty(), "dns"),
        (!dns_search.is_empty(), "dns_search"),
        (!dns_opt.is_empty(), "dns_opt"),
        (stop_signal.is_some(), "stop_signal"),
        (*init, "init"),
        (*read_only, "read_only"),
        (*tty, "tty"),
        (*stdin_open, "stdin_open"),
    ];
    asked.into_iter().find(|(asked, _)| *asked).map(|(_, name)| name)
}

/// Returns whether the node is `os/arch`. A variant (`linux/arm64/v8`) is not compared: nodes do not report theirs.
fn is_platform(node: &Node, platform: &str) -> bool {
    let mut parts = platform.split('/');
    parts.next() == Some(node.os.as_str()) && parts.next() == Some(node.arch.as_str())
}

/// Returns the attribute that a constraint names; `None` if the node has no such label.
fn attribute<'a>(allocation: &'a NodeAllocation<'_>, attribute: &Attribute) -> Option<&'a str> {
    let node = allocation.node;
    match attribute {
        Attribute::Name => Some(node.name.as_str()),
        Attribute::Id => Some(&allocation.id_text),
        Attribute::Os => Some(&node.os),
        Attribute::Arch => Some(&node.arch),
        Attribute::Label(label) => node.labels.get(label).map(String::as_str),
    }
}

impl fmt::Display for Infeasible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VolumeElsewhere { volume, holder } if holder.has_data => {
                write!(f, "does not hold volume {volume}, which is on {}", holder.name)
            }
            Self::VolumeElsewhere { volume, holder } => {
                write!(f, "does not hold volume {volume}, which is created on {}", holder.name)
            }
            Self::VolumesSplit { one: (volume, on), other: (another, elsewhere) } => write!(
                f,
                "does not hold all volumes: {} is on {}, {} on {}",
                Said(volume),
                on.name,
                Said(another),
                elsewhere.name
            ),
            Self::NetworkElsewhere { owner, holder } => {
                write!(
                    f,
                    "does not run what has the network of {owner}, which is on {}",
                    holder.name
                )
            }
            Self::GroupMember { service } => {
                write!(f, "cannot run {service}, which runs on the same node")
            }
            Self::Down => f.write_str("is down"),
            Self::Awaited(DisconnectPolicy { replace: false, .. }) => f.write_str(
                "is down; goes nowhere else (replace: false): drain the node to move it",
            ),
            Self::Awaited(policy) => {
                let time = in_words(policy.lost_after_ms);
                write!(f, "is down; goes elsewhere after {time} (lost_after)")
            }
            Self::Draining => f.write_str("is draining"),
            Self::OlderMembers(what) => write!(
                f,
                "starts no more of it while nodes that do not know its {what} are up: upgrade them"
            ),
            Self::RuntimeUnavailable(error) => write!(f, "has no working runtime: {error}"),
            Self::Faulty(fault) => write!(f, "cannot start it: {fault}"),
            Self::Held => f.write_str("does not know all of the service: upgrade its vc-node"),
            Self::Platform { required, node } => {
                write!(f, "is {}/{}, {required} required", node.os, node.arch)
            }
            Self::Constraint { unmet, has: Some(has) } => match &unmet.attribute {
                Attribute::Label(label) => write!(f, "has {label}={has}, {unmet} required"),
                _ => write!(f, "is {has}, {unmet} required"),
            },
            Self::Constraint { unmet, has: None } => match &unmet.attribute {
                Attribute::Label(label) => write!(f, "has no label {label}, {unmet} required"),
                _ => write!(f, "does not meet {unmet}"),
            },
            Self::ProcessRuntime { lacks } => {
                write!(f, "uses the process runtime, which does not support {lacks}")
            }
            Self::NoCommand => {
                f.write_str("uses the process runtime, and the service has no command")
            }
            Self::Counted { kind, it: Counted { required, total: 0, .. } } => {
                write!(f, "has no {kind}, {required} required")
            }
            Self::Counted { kind, it: Counted { required, free, total } } => {
                write!(f, "has {free} of {total} {kind} free, {required} required")
            }
            Self::ReplicasPerNode(has) => {
                let replicas = if *has == 1 { "replica" } else { "replicas" };
                write!(
                    f,
                    "has {has} {replicas} of it, and may have no more (max_replicas_per_node)"
                )
            }
            Self::Cpu { required, free, total } => {
                write!(f, "has {free}m of {total}m CPU free, {required}m required")
            }
            Self::Memory { required, free, total } => write!(
                f,
                "has {} of {} memory free, {} required",
                Bytes(*free),
                Bytes(*total),
                Bytes(*required)
            ),
            Self::VolumeRoom { required, free } => write!(
                f,
                "has {} of disk left for volumes, {} required",
                Bytes(*free),
                Bytes(*required)
            ),
            Self::HostPort { port, holder } => {
                f.write_str("has host port ")?;
                match port.host_ip.filter(|ip| !ip.is_unspecified()) {
                    Some(ip) => write!(f, "{}", std::net::SocketAddr::new(ip, port.published))?,
                    None => write!(f, "{}", port.published)?,
                }
                write!(f, "/{} in use by ", port.protocol.as_str())?;
                match holder {
                    Some((service, replica)) => write!(f, "{service}.{replica}"),
                    None => f.write_str("another project"),
                }
            }
        }
    }
}

/// A volume, or a network by its service.
struct Said<'a>(&'a Shared);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Shared::Volume(volume) => write!(f, "{volume}"),
            Shared::Network(owner) => write!(f, "the network of {owner}"),
        }
    }
}

/// Bytes in the largest unit that shows them exactly, so that two different amounts never read the same.
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
