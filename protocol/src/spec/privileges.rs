//! What of a spec gives a container its host, or reaches beyond its project.

use super::{ContainerSpec, Mount, ServiceSpec};
use crate::Name;
use crate::volume::Origin;

/// The capabilities that Docker gives every container, without the prefix `CAP_`.
/// Source: <https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Something that gives a container its host, or may, or that reaches beyond its project. Displayed as it would be named in a Compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privilege {
    /// `privileged`.
    Privileged,
    /// A device of the host.
    Device(String),
    /// A path of the host.
    HostPath(String),
    /// A capability beyond Docker's own.
    Capability(String),
    /// A security option other than `no-new-privileges`.
    SecurityOption(String),
    /// The network of the host.
    HostNetwork,
    /// A network that projects share.
    SharedNetwork(Name),
    /// A namespace of the host.
    HostNamespace(&'static str),
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Privileged => f.write_str("privileged"),
            Self::Device(device) => write!(f, "the device {device}"),
            Self::HostPath(path) => write!(f, "the host path {path}"),
            Self::Capability(capability) => write!(f, "the capability {capability}"),
            Self::SecurityOption(option) => write!(f, "the security option {option}"),
            Self::HostNetwork => f.write_str("the network of the host"),
            Self::SharedNetwork(network) => write!(f, "the shared network {network}"),
            Self::HostNamespace(name) => write!(f, "{name}: host"),
        }
    }
}

impl Privilege {
    /// Returns the word of a [`ProjectPolicy`](super::ProjectPolicy) that allows it.
    pub fn word(&self) -> String {
        match self {
            // Seeing the processes of the host is having it.
            Self::Privileged | Self::HostNamespace(_) => "privileged".to_owned(),
            Self::Device(_) => "devices".to_owned(),
            Self::HostPath(path) => format!("host-paths={path}"),
            Self::Capability(_) => "capabilities".to_owned(),
            Self::SecurityOption(_) => "security-options".to_owned(),
            Self::HostNetwork => "host-network".to_owned(),
            Self::SharedNetwork(network) => format!("networks={network}"),
        }
    }
}

impl ServiceSpec {
    /// Returns what an instance has beyond its project: of the container, and the directories of nodes that its volumes are.
    pub fn privileges(&self) -> Vec<Privilege> {
        let directories = self.volumes.values().filter_map(|volume| match &volume.origin {
            Some(Origin::Directory { path, .. }) => Some(Privilege::HostPath(path.clone())),
            Some(Origin::Uploaded { .. }) | None => None,
        });
        self.container.privileges().into_iter().chain(directories).collect()
    }
}

impl ContainerSpec {
    /// Returns what the container has beyond its project.
    fn privileges(&self) -> Vec<Privilege> {
        let settings = &self.settings;
        let mut found = Vec::new();
        if settings.privileged {
            found.push(Privilege::Privileged);
        }
        found.extend(settings.namespaces.of_host().map(Privilege::HostNamespace));
        found.extend(settings.devices.iter().cloned().map(Privilege::Device));
        let rules = settings.device_cgroup_rules.iter().map(|rule| format!("rule '{rule}'"));
        let requests = settings.device_requests.iter().map(ToString::to_string);
        found.extend(rules.chain(requests).map(Privilege::Device));
        found.extend(self.mounts.iter().filter_map(|mount| match mount {
            Mount::Bind { source, .. } => Some(Privilege::HostPath(source.clone())),
            Mount::Volume { .. } | Mount::Anonymous { .. } | Mount::Tmpfs { .. } => None,
        }));
        let added = settings.cap_add.iter().filter(|capability| !is_default_capability(capability));
        found.extend(added.cloned().map(Privilege::Capability));
        let options = settings.security_opt.iter().filter(|option| !takes_privileges(option));
        found.extend(options.cloned().map(Privilege::SecurityOption));
        // The default of an engine may be what confines its containers.
        let runtime = settings.runtime.iter().map(|name| format!("runtime={name}"));
        let parent = settings.cgroup.parent.iter().map(|path| format!("cgroup_parent={path}"));
        // They command the OCI runtime: properties of the cgroup's unit, filters of system calls, hooks.
        let annotations = settings.annotations.keys().map(|key| format!("annotations.{key}"));
        // The kernel would end others first, the node among them.
        let score = settings.cgroup.oom_score_adj;
        let spared = (score < 0).then(|| format!("oom_score_adj={score}"));
        let spared =
            spared.or(settings.cgroup.oom_kill_disable.then(|| "oom_kill_disable".to_owned()));
        let options = runtime.chain(parent).chain(annotations).chain(spared);
        found.extend(options.map(Privilege::SecurityOption));
        found.extend(self.is_on_host_network().then_some(Privilege::HostNetwork));
        found.extend(self.shared_networks.keys().cloned().map(Privilege::SharedNetwork));
        found
    }
}

fn is_default_capability(capability: &str) -> bool {
    let name = capability.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    DEFAULT_CAPABILITIES.contains(&name)
}

fn takes_privileges(option: &str) -> bool {
    matches!(option, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Settings;

    #[test]
    fn what_gives_the_host_is_named_and_nothing_else() {
        let settings = Settings {
            cap_add: ["NET_ADMIN", "cap_chown", "SETUID", "ALL"].map(str::to_owned).to_vec(),
            security_opt: ["no-new-privileges", "apparmor=unconfined"].map(str::to_owned).to_vec(),
            devices: vec!["/dev/kvm".to_owned()],
            privileged: true,
            init: true,
            ..Settings::default()
        };
        let bind =
            Mount::Bind { source: "/".to_owned(), target: "/host".to_owned(), read_only: true };
        let tmpfs = Mount::Tmpfs { target: "/tmp".to_owned(), bytes: 0 };
        let mut spec: ContainerSpec =
            serde_json::from_str(r#"{"image": "web:1"}"#).expect("a spec");
        assert_eq!(spec.privileges(), []);
        (spec.settings, spec.mounts) = (settings, vec![bind, tmpfs]);
        let expected = [
            "privileged",
            "the device /dev/kvm",
            "the host path /",
            "the capability NET_ADMIN",
            "the capability ALL",
            "the security option apparmor=unconfined",
        ];
        let privileges: Vec<String> = spec.privileges().iter().map(ToString::to_string).collect();
        assert_eq!(privileges, expected);
    }

    #[test]
    fn what_is_shared_with_the_host_is_named() {
        let json = r#"{"image": "web:1", "settings": {
            "namespaces": {"host_pid": true, "host_uts": true, "host_users": true, "cgroup": "host", "ipc": "host"},
            "device_cgroup_rules": ["c 1:3 mr"],
            "device_requests": [{"count": -1, "capabilities": ["gpu"]}, {"driver": "cdi", "device_ids": ["vendor.com/gpu=0"]}],
            "cgroup": {"parent": "/system.slice", "cpu_shares": 2}, "storage_opt": {"size": "1G"}}}"#;
        let spec: ContainerSpec = serde_json::from_str(json).expect("a spec");
        let privileges: Vec<String> = spec.privileges().iter().map(ToString::to_string).collect();
        let expected = [
            "pid: host",
            "uts: host",
            "userns_mode: host",
            "cgroup: host",
            "ipc: host",
            "the device rule 'c 1:3 mr'",
            "the device all gpu",
            "the device vendor.com/gpu=0",
            "the security option cgroup_parent=/system.slice",
        ];
        assert_eq!(privileges, expected);
        let own = r#"{"image": "web:1", "settings": {"namespaces": {"cgroup": "private", "ipc": "shareable"}}}"#;
        let own: ContainerSpec = serde_json::from_str(own).expect("a spec");
        assert_eq!(own.privileges(), []);
    }

    #[test]
    fn a_directory_of_the_nodes_is_a_host_path_although_it_is_a_volume() {
        let json = r#"{"container": {"image": "web:1"}, "volumes": {
            "a": {"origin": {"directory": {"path": "/srv/a"}}}, "b": {"origin": {"uploaded": {"path": "./b"}}}, "c": {}}}"#;
        let spec: ServiceSpec = serde_json::from_str(json).expect("a spec");
        assert_eq!(spec.privileges(), [Privilege::HostPath("/srv/a".to_owned())]);
    }
}
