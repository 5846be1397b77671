//! What the services of a project may use without an admin.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::Privilege;
use crate::Name;

/// The most host paths of one policy.
pub const MAX_HOST_PATHS: usize = 64;
/// The most shared networks of one policy.
const MAX_NETWORKS: usize = 64;
/// The longest host path, in bytes.
const MAX_PATH: usize = 1024;

/// The privileges that deployers may give the services of a project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProjectPolicy {
    /// All that gives a container its host, on any path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Devices of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub devices: bool,
    /// Capabilities beyond Docker's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capabilities: bool,
    /// Security options.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub security_options: bool,
    /// The network of the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// Paths of the host, with what is below them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub host_paths: BTreeSet<String>,
    /// Networks that projects share.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Name>,
}

/// A text does not name a privilege of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The word is unknown.
    #[error(
        "'{0}' is not a privilege: write privileged, devices, capabilities, security-options, host-network, host-paths=/PATH or networks=NAME"
    )]
    Unknown(String),
    /// `host-paths` without a path.
    #[error("name the paths, as host-paths=/srv/data")]
    NoPath,
    /// The path is relative, or leads up.
    #[error("'{0}' is not an absolute path without '..', of at most {MAX_PATH} bytes")]
    Path(String),
    /// `networks` without a name, or with a text that is none.
    #[error("name the shared networks, as networks=proxy")]
    Network,
    /// More than 64 of them.
    #[error("a policy has at most {MAX_NETWORKS} shared networks")]
    TooManyNetworks,
    /// More than [`MAX_HOST_PATHS`].
    #[error("a policy has at most {MAX_HOST_PATHS} host paths")]
    TooManyPaths,
}

impl ProjectPolicy {
    /// Returns the policy that these words name: `privileged`, `devices`, `capabilities`, `security-options`, `host-network`,
    /// `host-paths=/srv/data,/srv/x`, `networks=proxy`.
    ///
    /// # Errors
    /// A word is unknown, a path is not absolute, or a network is no name.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for word in words {
            match word.split_once('=') {
                None => match word {
                    "privileged" => policy.privileged = true,
                    "devices" => policy.devices = true,
                    "capabilities" => policy.capabilities = true,
                    "security-options" => policy.security_options = true,
                    "host-network" => policy.host_network = true,
                    "networks" => return Err(PolicyError::Network),
                    "host-paths" => return Err(PolicyError::NoPath),
                    _ => return Err(PolicyError::Unknown(word.to_owned())),
                },
                Some(("host-paths", paths)) => {
                    policy.host_paths.extend(paths.split(',').map(str::to_owned));
                }
                Some(("networks", names)) => {
                    let names = names.split(',').map(str::parse);
                    let names: Result<BTreeSet<Name>, _> = names.collect();
                    policy.networks.extend(names.map_err(|_| PolicyError::Network)?);
                }
                Some(_) => return Err(PolicyError::Unknown(word.to_owned())),
            }
        }
        policy.checked()
    }

    /// Returns the policy with its paths in their shortest form.
    ///
    /// # Errors
    /// A path is not absolute or leads up, or there are too many.
    pub fn checked(mut self) -> Result<Self, PolicyError> {
        let paths = std::mem::take(&mut self.host_paths);
        for path in paths {
            let normal = normal(&path).filter(|it| it.len() <= MAX_PATH);
            self.host_paths.insert(normal.ok_or(PolicyError::Path(path))?);
        }
        if self.host_paths.len() > MAX_HOST_PATHS {
            return Err(PolicyError::TooManyPaths);
        }
        if self.networks.len() > MAX_NETWORKS {
            return Err(PolicyError::TooManyNetworks);
        }
        Ok(self)
    }

    /// Returns the words that name the policy, as [`parse`](Self::parse) reads them.
    pub fn words(&self) -> Vec<String> {
        let flags = [
            (self.privileged, "privileged"),
            (self.devices, "devices"),
            (self.capabilities, "capabilities"),
            (self.security_options, "security-options"),
            (self.host_network, "host-network"),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let mut words: Vec<String> = flags.map(|(_, word)| word.to_owned()).collect();
        if !self.host_paths.is_empty() {
            let paths: Vec<&str> = self.host_paths.iter().map(String::as_str).collect();
            words.push(format!("host-paths={}", paths.join(",")));
        }
        if !self.networks.is_empty() {
            let names: Vec<&str> = self.networks.iter().map(Name::as_str).collect();
            words.push(format!("networks={}", names.join(",")));
        }
        words
    }

    /// Returns the policy that allows what either does.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            privileged: self.privileged || other.privileged,
            devices: self.devices || other.devices,
            capabilities: self.capabilities || other.capabilities,
            security_options: self.security_options || other.security_options,
            host_network: self.host_network || other.host_network,
            host_paths: &self.host_paths | &other.host_paths,
            networks: &self.networks | &other.networks,
        }
    }

    /// Returns the policy without what `other` names; of host paths, without those at or below one that it names.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let named = |path: &&String| other.host_paths.iter().any(|it| is_below(path, it));
        Self {
            privileged: self.privileged && !other.privileged,
            devices: self.devices && !other.devices,
            capabilities: self.capabilities && !other.capabilities,
            security_options: self.security_options && !other.security_options,
            host_network: self.host_network && !other.host_network,
            host_paths: self.host_paths.iter().filter(|it| !named(it)).cloned().collect(),
            networks: &self.networks - &other.networks,
        }
    }

    /// Returns whether the services of the project may use a privilege. Shared networks are named one by one: the host gives none.
    pub fn allows(&self, privilege: &Privilege) -> bool {
        let is_of_host = !matches!(privilege, Privilege::SharedNetwork(_));
        (self.privileged && is_of_host)
            || match privilege {
                Privilege::Privileged | Privilege::HostNamespace(_) => false,
                Privilege::Device(_) => self.devices,
                Privilege::Capability(_) => self.capabilities,
                Privilege::SecurityOption(_) => self.security_options,
                Privilege::HostNetwork => self.host_network,
                Privilege::SharedNetwork(network) => self.networks.contains(network),
                Privilege::HostPath(path) => self.roots(path).next().is_some(),
            }
    }

    /// Returns the allowed host paths at or above a path.
    pub fn roots<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a String> {
        self.host_paths.iter().filter(move |root| is_below(path, root))
    }
}

/// Returns an absolute path without repeated slashes and `.`; `None` if it is relative or has `..`.
fn normal(path: &str) -> Option<String> {
    let mut components = Path::new(path).components();
    let is_absolute = components.next() == Some(Component::RootDir);
    let is_plain = is_absolute && components.all(|it| matches!(it, Component::Normal(_)));
    let normal: std::path::PathBuf = Path::new(path).components().collect();
    is_plain.then(|| normal.to_str().map(str::to_owned))?
}

/// Returns whether a path is `root` or below it, by whole components.
fn is_below(path: &str, root: &str) -> bool {
    normal(path).is_some_and(|path| Path::new(&path).starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(words: &[&str]) -> ProjectPolicy {
        ProjectPolicy::parse(words.iter().copied()).expect("a policy")
    }

    fn privileges() -> Vec<Privilege> {
        let text = str::to_owned;
        vec![
            Privilege::Privileged,
            Privilege::Device(text("/dev/kvm")),
            Privilege::Capability(text("NET_ADMIN")),
            Privilege::SecurityOption(text("apparmor=unconfined")),
            Privilege::HostPath(text("/srv/data")),
            Privilege::HostNetwork,
            Privilege::SharedNetwork("proxy".parse().expect("a name")),
        ]
    }

    #[test]
    fn each_privilege_is_allowed_alone_and_privileged_allows_all_of_the_host() {
        for privilege in privileges() {
            let word = privilege.word();
            let alone = policy(&[&word]);
            assert_eq!(alone.words(), std::slice::from_ref(&word));
            for other in privileges() {
                let is_of_host = !matches!(other, Privilege::SharedNetwork(_));
                let allowed = other == privilege || (word == "privileged" && is_of_host);
                assert_eq!(alone.allows(&other), allowed, "{word}: {other}");
                assert!(!ProjectPolicy::default().allows(&other), "{other}");
            }
        }
    }

    #[test]
    fn a_host_path_allows_what_is_below_it_by_whole_components() {
        let policy = policy(&["host-paths=/srv/data/,/mnt//x/."]);
        assert_eq!(policy.words(), ["host-paths=/mnt/x,/srv/data"]);
        let allows = |path: &str| policy.allows(&Privilege::HostPath(path.to_owned()));
        for path in ["/srv/data", "/srv/data/", "/srv//data/a/b", "/srv/data/./a", "/mnt/x"] {
            assert!(allows(path), "{path}");
        }
        for path in [
            "/",
            "/srv",
            "/srv/database",
            "/srv/data/..",
            "/srv/data/../x",
            "/srv/data/a/../../../etc",
            "srv/data",
            "",
            ".",
            "/mnt",
            "//",
            "/srv/data2/a",
        ] {
            assert!(!allows(path), "{path}");
        }
    }

    #[test]
    fn words_and_paths_that_mean_nothing_are_refused() {
        for word in ["", "root", "privileged=1", "host-paths", "Privileged"] {
            assert!(ProjectPolicy::parse([word]).is_err(), "{word}");
        }
        for path in ["", "srv", "/srv/..", "/../x", "./x", "/a,", "/a,b"] {
            assert!(ProjectPolicy::parse([&format!("host-paths={path}")[..]]).is_err(), "{path}");
        }
        let many: Vec<String> = (0..=MAX_HOST_PATHS).map(|n| format!("/{n}")).collect();
        let many = format!("host-paths={}", many.join(","));
        assert_eq!(ProjectPolicy::parse([&many[..]]), Err(PolicyError::TooManyPaths));
    }

    #[test]
    fn what_is_denied_is_taken_away_and_the_rest_stays() {
        let all = policy(&["devices", "privileged", "host-paths=/srv,/srv/a,/mnt"]);
        assert_eq!(
            all.without(&policy(&["privileged"])).words(),
            ["devices", "host-paths=/mnt,/srv,/srv/a"]
        );
        assert_eq!(
            all.without(&policy(&["host-paths=/srv"])).words(),
            ["privileged", "devices", "host-paths=/mnt"]
        );
        assert_eq!(all.without(&policy(&["host-paths=/srv/a"])).host_paths.len(), 2);
        assert_eq!(
            all.without(&policy(&["host-paths=/", "devices", "privileged"])),
            ProjectPolicy::default()
        );
        assert_eq!(
            policy(&["devices"]).with(&policy(&["host-paths=/a"])).words(),
            ["devices", "host-paths=/a"]
        );
    }

    #[test]
    fn the_encoding_is_fixed() {
        assert_eq!(serde_json::to_string(&ProjectPolicy::default()).expect("JSON"), "{}");
        let json = r#"{"privileged":true,"devices":true,"capabilities":true,"security_options":true,"host_paths":["/srv"]}"#;
        let all = policy(&[
            "privileged",
            "devices",
            "capabilities",
            "security-options",
            "host-paths=/srv",
        ]);
        assert_eq!(serde_json::to_string(&all).expect("JSON"), json);
        assert_eq!(serde_json::from_str::<ProjectPolicy>(json).expect("reads"), all);
    }
}
