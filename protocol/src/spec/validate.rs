//! The rules that every spec satisfies that a node accepts. The Compose reader applies them too, so that a file and a request
//! that was made otherwise are held to the same.

mod settings;
mod volumes;

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{
    Attribute, Constraint, ContainerSpec, DisconnectPolicy, FileKind, FileMount, Healthcheck,
    MAX_KEPT_RUNS, Mount, NetworkMode, Port, PortProtocol, Publish, ServiceMode, ServiceSpec,
    Settings, UpdateOrder, share_an_address,
};
use crate::Millis;
use crate::image::Digest;

pub use settings::{LOG_OPTIONS, is_device_rule};
pub use volumes::{FILE_SYSTEMS, MAX_KEPT};

/// The longest duration in a spec, in milliseconds: a year.
pub const MAX_DURATION: Millis = 365 * 24 * 3600 * 1000;
/// Ports that one service may publish and expose.
pub const MAX_PORTS: usize = 2048;
/// Networks of one service.
const MAX_NETWORKS: usize = 64;
/// Bytes of a network alias: the limit of a DNS name (RFC 1035, section 2.3.4).
const MAX_ALIAS: usize = 253;
/// Names that labels of specs do not begin with: those of the cluster say which instance a container is.
const OUR_LABELS: &str = "vc.";
/// The most of a resource that a node has, or a replica takes.
pub const MAX_RESOURCES: u64 = 1_000_000;
/// Directories with the secrets of containers, on every node.
const SECRET_DIRECTORIES: [&str; 3] = ["/run/vc", "/var/run/vc", "/dev/shm/vc"];

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct SpecError {
    /// The field, as a path in the JSON, with the value if that helps.
    pub field: String,
    /// What is wrong with it; continues the path.
    pub problem: &'static str,
}

impl ServiceSpec {
    /// Checks what the types of the fields do not express.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.container.validate()?;
        self.validate_volumes()?;
        let written = self.written_volumes().find(|name| !self.is_network_volume(name));
        let alone = !self.mode.is_per_node() || written.is_none();
        check(alone, &"mode", WRITES_EVERYWHERE)?;
        if let Some(schedule) = &self.schedule {
            let once = self.mode == ServiceMode::ReplicatedJob && self.max_concurrent == 0;
            check(
                once,
                &"schedule",
                "is for services with mode: replicated-job and no max_concurrent",
            )?;
            check(
                schedule.timetable().is_ok(),
                &"schedule",
                "is not a cron expression with a known time zone",
            )?;
            duration("schedule.catch_up_ms", schedule.catch_up_ms)?;
            duration("schedule.timeout_ms", schedule.timeout_ms)?;
            let keep = (1..=MAX_KEPT_RUNS).contains(&schedule.keep);
            check(keep, &"schedule.keep", "is not between 1 and 100")?;
        }
        let limits = self.max_concurrent == 0 || self.mode == ServiceMode::ReplicatedJob;
        check(limits, &"max_concurrent", "is for services with mode: replicated-job")?;
        for (kind, count) in &self.generic_resources {
            let field = at("generic_resources", kind);
            check(is_resource_kind(kind), &field, "is not a kind of resource")?;
            check((1..=MAX_RESOURCES).contains(count), &field, "is not from 1 to 1000000")?;
        }
        for Constraint { attribute, value, .. } in &self.constraints {
            let label = match attribute {
                Attribute::Label(label) => label.as_str(),
                _ => "any",
            };
            check(is_line(label) && is_line(value), &"constraints", NOT_A_LINE)?;
        }
        let count = self.ports.len() + self.dynamic_ports.len() + self.expose.len();
        check(count <= MAX_PORTS, &"ports", "and expose have more than 2048 ports")?;
        for (index, port) in self.ports.iter().enumerate() {
            let taken = |other: &Port| {
                (other.published, other.protocol) == (port.published, port.protocol)
                    && share_an_address(other.host_ip, port.host_ip)
            };
            let twice = self.ports.iter().take(index).any(taken);
            check(!twice, &"ports", "publish a port twice")?;
            check(port.published > 0 && port.target > 0, &"ports", "have the port 0")?;
            let fits = port.proxy_protocol.is_none() || port.protocol == PortProtocol::Tcp;
            check(fits, &"ports", "have a PROXY protocol header on UDP")?;
        }
        for port in &self.dynamic_ports {
            check(port.target > 0, &"dynamic_ports", "have the port 0")?;
            let fits = port.proxy_protocol.is_none() || port.protocol == PortProtocol::Tcp;
            check(fits, &"dynamic_ports", "have a PROXY protocol header on UDP")?;
        }
        let in_turn = !self.is_exclusive() || self.update.order != Some(UpdateOrder::StartFirst);
        check(in_turn, &"update.order", EXCLUSIVE_STARTS_FIRST)?;
        self.validate_disconnect()?;
        match self.container.network_mode {
            None | Some(NetworkMode::Host) => {}
            Some(NetworkMode::None) => check(count == 0, &"ports", NO_NETWORK)?,
            Some(NetworkMode::Service(_)) => {
                check(count == 0, &"ports", OTHER_NETWORK)?;
                let replicated = self.mode == ServiceMode::Replicated;
                check(replicated, &"network_mode", "of another service is for mode: replicated")?;
            }
        }
        // The program binds them itself.
        let is_bound = |port: &Port| port.published == port.target && port.publish == Publish::Node;
        let all_bound = self.dynamic_ports.is_empty() && self.ports.iter().all(is_bound);
        let bound = !self.container.is_on_host_network() || all_bound;
        check(
            bound,
            &"ports",
            "on the network of the host are those that the program binds itself",
        )?;
        let exposed = self.expose.iter().all(|port| port.target > 0);
        check(exposed, &"expose", "has the port 0")?;
        duration("update.delay_ms", self.update.delay_ms)?;
        duration("update.monitor_ms", self.update.monitor_ms)
    }
}

impl ServiceSpec {
    fn validate_disconnect(&self) -> Result<(), SpecError> {
        let DisconnectPolicy { lost_after_ms, replace, stop_on_client_after_ms, .. } =
            self.disconnect;
        duration("disconnect.lost_after_ms", lost_after_ms)?;
        let waits = replace || lost_after_ms == 0;
        check(waits, &"disconnect.lost_after_ms", "has no effect with replace: false: keep one")?;
        let Some(stop_after) = stop_on_client_after_ms else { return Ok(()) };
        let field = "disconnect.stop_on_client_after_ms";
        duration(field, stop_after)?;
        check(stop_after >= MIN_STOP_AFTER, &field, "is shorter than 5 s: a slow link would do")?;
        check(!self.is_exclusive(), &field, EXCLUSIVE_STOPS)
    }
}

/// The shortest time after which an isolated node may stop its instances.
const MIN_STOP_AFTER: Millis = 5000;
const EXCLUSIVE_STOPS: &str = "is for available services: an exclusive one stops where it cannot reach most voters, before its lease ends";
/// Also of a service that is exclusive by default: two instances at once would write its volume.
const EXCLUSIVE_STARTS_FIRST: &str = "is start-first, but an exclusive service (it says so, or writes a named volume) never runs two instances of a slot: write \
     order: stop-first, or x-vc.on_partition: available";
const OTHER_NAMES: &str = "is that of another service, whose hostname, extra_hosts, dns, dns_search and dns_opt count: write them there";
const NO_NETWORK: &str = "are for a service with a network, but its network_mode is none";
const OTHER_NETWORK: &str =
    "of a service that has the network of another are ports of the other: write them there";
const WRITES_EVERYWHERE: &str = "has an instance on each node, and a named volume is written on one: use a host directory with x-vc.host_paths, or leave the \
     volume's name out";
const NOT_A_LINE: &str = "is empty, or has control characters";
const HAS_NUL: &str = "contains a NUL character";
const NOT_A_KEY: &str = "is not a key: it is empty, or has '=' or control characters";

impl ContainerSpec {
    fn validate(&self) -> Result<(), SpecError> {
        check(is_image_reference(&self.image), &"image", "is not an image reference")?;
        let id = self.image_id.as_ref().is_none_or(|id| id.parse::<Digest>().is_ok());
        check(id, &"image_id", "is not an image id")?;
        for (field, words) in [("command", &self.command), ("entrypoint", &self.entrypoint)] {
            let plain = words.iter().flatten().all(|word| is_text(word));
            check(plain, &field, HAS_NUL)?;
        }
        texts("environment", &self.environment)?;
        texts("labels", &self.labels)?;
        for label in self.labels.keys() {
            let ours = label.starts_with(OUR_LABELS);
            check(!ours, &at("labels", label), "is reserved: the cluster sets such labels")?;
        }
        self.healthcheck.as_ref().map_or(Ok(()), Healthcheck::validate)?;
        duration("stop_grace_ms", self.stop_grace_ms)?;
        duration("restart.delay_ms", self.restart.delay_ms.unwrap_or(0))?;
        let platform = self.platform.as_ref().is_none_or(|text| is_platform(text));
        check(platform, &"platform", "is not os/arch")?;
        for (field, text) in [("working_dir", &self.working_dir), ("user", &self.user)] {
            check(text.as_ref().is_none_or(|text| is_line(text)), &field, NOT_A_LINE)?;
        }
        for alias in self.networks.values().chain(self.shared_networks.values()).flatten() {
            let fits = is_alias(alias) && !alias.contains(|c: char| c.is_ascii_uppercase());
            check(fits, &at("networks", alias), "is not a host name in lower case")?;
        }
        let count = self.networks.len() + self.shared_networks.len();
        check(count <= MAX_NETWORKS, &"networks", "are more than 64")?;
        let has_networks = count > 0;
        let one = self.network_mode.is_none() || !has_networks;
        check(one, &"network_mode", "is for a service without networks of its own")?;
        if let Some(NetworkMode::Service(_)) = self.network_mode {
            let Settings { hostname, extra_hosts, dns, dns_search, dns_opt, .. } = &self.settings;
            let plain = hostname.is_none()
                && extra_hosts.is_empty()
                && (dns.is_empty() && dns_search.is_empty() && dns_opt.is_empty());
            check(plain, &"network_mode", OTHER_NAMES)?;
        }
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            let target = mount.validate()?;
            check(targets.insert(target), &at("mounts", target), MOUNTED_TWICE)?;
        }
        for path in &self.created_host_paths {
            let mounted =
                |mount: &Mount| matches!(mount, Mount::Bind { source, .. } if source == path);
            let field = at("created_host_paths", path);
            check(self.mounts.iter().any(mounted), &field, "is the source of no bind mount")?;
        }
        for file in &self.files {
            file.validate()?;
            let target = file.target.as_str();
            check(targets.insert(target), &at("files", target), MOUNTED_TWICE)?;
        }
        self.settings.validate()
    }
}

const NOT_A_TARGET: &str = "is not an absolute path below / without '..' and '//'";
const MOUNTED_TWICE: &str = "is the target of two mounts";

impl Healthcheck {
    fn validate(&self) -> Result<(), SpecError> {
        let field = "healthcheck.test";
        let shape = matches!(
            (self.test.first().map(String::as_str), self.test.len()),
            (None, _) | (Some("NONE"), 1) | (Some("CMD-SHELL"), 2) | (Some("CMD"), 2..)
        );
        check(
            shape,
            &field,
            "is not CMD and a program, CMD-SHELL and a text, NONE, or empty for that of the image",
        )?;
        check(self.test.iter().all(|word| is_text(word)), &field, HAS_NUL)?;
        for time in
            [self.interval_ms, self.timeout_ms, self.start_period_ms, self.start_interval_ms]
        {
            duration("healthcheck", time.unwrap_or(0))?;
        }
        Ok(())
    }
}

impl Mount {
    /// Returns the target.
    fn validate(&self) -> Result<&str, SpecError> {
        let target = self.target();
        check(is_target(target), &at("mounts", target), NOT_A_TARGET)?;
        if let Self::Volume { subpath: Some(path), .. } = self {
            let inside = is_target(&format!("/{path}"));
            check(inside, &at("mounts", path), "is not a path inside the volume")?;
        }
        if let Self::Bind { source, read_only, .. } = self {
            let field = at("mounts", source);
            let absolute = source.starts_with('/') && is_line(source);
            check(absolute, &field, "is not an absolute path of a host")?;
            // What is above them is mounted without them.
            let allowed = !leads_to_secrets(source) || (*read_only && !is_of_secrets(source));
            check(
                allowed,
                &field,
                "leads to the secrets of the node, which no container mounts; what is above them, read-only",
            )?;
        }
        Ok(target)
    }
}

impl FileMount {
    fn validate(&self) -> Result<(), SpecError> {
        let named = match self.file.kind {
            FileKind::Secret => is_file_name(&self.file.name),
            // Or the path of a file that is shipped as a config.
            FileKind::Config => is_line(&self.file.name),
        };
        check(named, &at("files", &self.file.name), "is not the name of a secret or config")?;
        check(is_target(&self.target), &at("files", &self.target), NOT_A_TARGET)?;
        check(self.mode <= 0o777, &at("files", &self.target), "has a mode beyond 0777")
    }
}

fn check(fits: bool, field: &dyn Display, problem: &'static str) -> Result<(), SpecError> {
    if fits { Ok(()) } else { Err(SpecError { field: field.to_string(), problem }) }
}

/// Names a value of a field. It is escaped, and cut: it may be anything.
fn at(field: &str, value: &str) -> String {
    let value: String = value.escape_debug().take(80).collect();
    format!("{field}: '{value}'")
}

fn duration(field: &'static str, time: Millis) -> Result<(), SpecError> {
    check(time <= MAX_DURATION, &field, "is longer than a year")
}

fn texts<'a>(
    field: &str,
    entries: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), SpecError> {
    for (key, value) in entries {
        check(is_key(key), &at(field, key), NOT_A_KEY)?;
        check(is_text(value), &at(field, key), HAS_NUL)?;
    }
    Ok(())
}

/// Returns whether a text can be passed to a program, which ends it at a NUL.
fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

/// Returns whether a text is not empty and fits in one line.
fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// Returns whether a text can be the key of a variable, a label or a kernel parameter.
pub fn is_key(text: &str) -> bool {
    is_line(text) && !text.contains('=')
}

/// Returns whether a text has the form of an image reference. The engine knows the rest.
pub fn is_image_reference(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_graphic())
}

/// Returns whether a text is `os/arch`.
pub fn is_platform(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.split_once('/').is_some_and(|(os, arch)| word(os) && word(arch))
}

/// Returns whether a text can be the host name of a container: at most 63 letters, digits, `-`, `_` and `.`.
pub fn is_host_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Returns whether a text is an IP address, or Docker's name of the host's.
pub fn is_host_address(text: &str) -> bool {
    text == "host-gateway" || text.parse::<std::net::IpAddr>().is_ok()
}

/// Returns whether a text is a DNS name: labels of at most 63 letters, digits, `-` and `_`.
pub fn is_alias(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_ALIAS && text.split('.').all(label)
}

/// Returns whether a text is a domain to search, or `.` for none.
pub fn is_search_domain(text: &str) -> bool {
    text == "." || is_alias(text)
}

/// Returns whether a text has the form of an option of resolv.conf(5). `ndots` is not one of them: it is 0, or Docker's resolver
/// would not pass short names of services on.
pub fn is_resolver_option(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with("ndots")
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":-_".contains(&b))
}

/// Returns whether a text has the form of a kind of resource that nodes count, as `gpu` or `nvidia.com/gpu`: at most 63 letters,
/// digits and `.`, `_`, `-`, `/`.
pub fn is_resource_kind(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    (1..=63).contains(&text.len()) && text.bytes().all(fits)
}

/// Returns whether a text has the form of a capability: letters, digits and `_`.
pub fn is_capability(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns whether a text has the form of a signal: letters, digits, `+` and `-`.
pub fn is_signal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-'))
}

/// Returns whether a text can be the name of a declared secret or config: 1 to 64 letters, digits, `.`, `_` and `-`.
pub fn is_file_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !matches!(text, "." | "..")
}

/// Returns whether a text is an absolute path below `/`, in normal form.
fn is_target(text: &str) -> bool {
    let component = |part: &str| !matches!(part, "" | "." | "..");
    is_line(text) && text.strip_prefix('/').is_some_and(|path| path.split('/').all(component))
}

/// Returns whether a path is that of a directory with secrets, in one, or above one. What symbolic links make of it only
/// the node knows that starts the container.
fn leads_to_secrets(path: &str) -> bool {
    let components = components(path);
    SECRET_DIRECTORIES.iter().any(|directory| {
        let directory = directory.split('/').filter(|it| !it.is_empty());
        directory.zip(&components).all(|(a, b)| a == *b)
    })
}

/// Returns whether a path is that of a directory with secrets, or in one.
fn is_of_secrets(path: &str) -> bool {
    let components = components(path);
    SECRET_DIRECTORIES.iter().any(|directory| {
        let directory: Vec<&str> = directory.split('/').filter(|it| !it.is_empty()).collect();
        components.starts_with(&directory)
    })
}

/// Returns the components of an absolute path in normal form.
fn components(path: &str) -> Vec<&str> {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            component => components.push(component),
        }
    }
    components
}

#[cfg(test)]
mod tests;
