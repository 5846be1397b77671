//! What gives a container its host, or reaches beyond its project: an admin may deploy it, and others what the policy of the project allows.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::View;
use vc_engine::history;
use vc_protocol::spec::{ContainerSpec, Deployment, Privilege, ProjectPolicy, ServiceSpec};
use vc_protocol::token::UserRole;
use vc_protocol::volume::Origin;
use vc_protocol::{ApiError, ErrorCode, InstanceId, Name, ServiceKey, Slot, VolumeKey};

use super::Rights;

/// A service asks for more than its user may give it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{service} asks for {}: this needs admin, and '{name}' has the role {}",
    list(.privileges),
    .role.as_str()
)]
pub(crate) struct PrivilegeError {
    service: ServiceKey,
    privileges: Vec<Privilege>,
    name: String,
    role: UserRole,
}

fn list(privileges: &[Privilege]) -> String {
    privileges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Returns the words of a policy that allows these.
fn words(privileges: &[Privilege]) -> String {
    let mut words: Vec<String> = privileges.iter().map(Privilege::word).collect();
    words.dedup();
    words.join(" ")
}

impl From<PrivilegeError> for ApiError {
    fn from(error: PrivilegeError) -> Self {
        let hint = format!(
            "remove it from the file, or ask an admin to deploy the file, or to run 'vc project allow {} {}'",
            error.service.project,
            words(&error.privileges)
        );
        Self::new(ErrorCode::PermissionDenied, error.to_string()).with_hint(hint)
    }
}

/// Checks that the user may give the containers what these specs ask for, and says in the specs where on the host their mounts
/// must be. What is deployed already stays as it is.
pub(crate) fn check(
    rights: &Rights,
    view: &View,
    deployments: &mut [Deployment],
) -> Result<(), PrivilegeError> {
    if rights.role >= UserRole::Admin {
        return Ok(());
    }
    let networks: BTreeMap<ServiceKey, BTreeSet<Name>> = deployments
        .iter()
        .map(|it| (it.service.clone(), shared_networks(&it.spec).cloned().collect()))
        .collect();
    for Deployment { service, spec, .. } in deployments {
        // Set by nodes alone.
        spec.container.host_path_roots.clear();
        let held = view.spec(service).filter(|held| {
            let roots = held.container.host_path_roots.clone();
            let container = ContainerSpec { host_path_roots: roots, ..spec.container.clone() };
            is_same(held, &ServiceSpec { container, ..(**spec).clone() })
        });
        spec.container.host_path_roots = match held {
            Some(held) => held.container.host_path_roots.clone(),
            None => {
                let deployed = |owner: &ServiceKey| networks.get(owner).cloned();
                check_spec(rights, view, service, spec, deployed)?
            }
        };
    }
    Ok(())
}

/// Returns whether two specs ask for the same beyond the project: the container, the directories, and on the network of the host the ports
/// of it that the project reaches.
fn is_same(held: &ServiceSpec, spec: &ServiceSpec) -> bool {
    let same_ports = !spec.container.is_on_host_network()
        || (held.ports == spec.ports && held.expose == spec.expose);
    held.container == spec.container && same_ports && directories(held).eq(directories(spec))
}

/// Returns the networks of a service that projects share.
fn shared_networks(spec: &ServiceSpec) -> impl Iterator<Item = &Name> {
    spec.container.shared_networks.keys()
}

/// Checks that the user may return a service to a version; `None` for the one that a rollback chooses.
pub(crate) fn check_rollback(
    rights: &Rights,
    view: &View,
    service: &ServiceKey,
    version: Option<u32>,
) -> Result<(), PrivilegeError> {
    let target = history::rollback_spec(view, service, version);
    let Some(target) = target.filter(|_| rights.role < UserRole::Admin) else { return Ok(()) };
    if view.spec(service).is_some_and(|held| is_same(held, &target)) {
        return Ok(());
    }
    check_spec(rights, view, service, &target, |_| None).map(drop)
}

/// Returns the volumes that are directories of nodes, with the paths; on which node they were found makes no difference.
fn directories(spec: &ServiceSpec) -> impl Iterator<Item = (&Name, &str)> {
    spec.volumes.iter().filter_map(|(name, volume)| match &volume.origin {
        Some(Origin::Directory { path, .. }) => Some((name, path.as_str())),
        _ => None,
    })
}

/// The container of an instance has more than its user may use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{service} has {}, with which a command in it gets the host: this needs admin, and '{name}' has the role {}",
    list(.privileges),
    .role.as_str()
)]
pub(crate) struct InstancePrivilegeError {
    service: ServiceKey,
    privileges: Vec<Privilege>,
    name: String,
    role: UserRole,
}

impl From<InstancePrivilegeError> for ApiError {
    fn from(error: InstancePrivilegeError) -> Self {
        let hint = format!(
            "ask an admin to run it, or to run 'vc project allow {} {}'",
            error.service.project,
            words(&error.privileges)
        );
        Self::new(ErrorCode::PermissionDenied, error.to_string()).with_hint(hint)
    }
}

/// Checks that the user may run commands in an instance, and copy files into it: what an admin has given its container, they get.
pub(crate) fn check_instance(
    rights: &Rights,
    view: &View,
    instance: &InstanceId,
) -> Result<(), InstancePrivilegeError> {
    let service = &instance.slot.service;
    let Some(record) = view.cluster.services.get(service) else { return Ok(()) };
    if rights.role >= UserRole::Admin {
        return Ok(());
    }
    let policy = policy(view, &service.project);
    let versions = || std::iter::once(&record.spec).chain(&record.previous);
    // An instance of an older version may have what either has.
    let is_known = versions().any(|spec| spec.container_digest() == instance.digest);
    let mut privileges: Vec<Privilege> = versions()
        .filter(|spec| !is_known || spec.container_digest() == instance.digest)
        .flat_map(|spec| spec.privileges())
        .filter(|privilege| !policy.allows(privilege))
        .collect();
    privileges.dedup();
    if privileges.is_empty() {
        return Ok(());
    }
    let (service, name) = (service.clone(), rights.name.clone());
    Err(InstancePrivilegeError { service, privileges, name, role: rights.role })
}

/// A volume is, or is to be a copy of, what of the host its user may not touch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "volume {volume} has, or would have, {}, which is the host's: this needs admin, and '{name}' has the role {}",
    .path.as_ref().map_or("a volume of Docker's".to_owned(), |path| format!("the host path {path}")),
    .role.as_str()
)]
pub(crate) struct CopyPrivilegeError {
    volume: VolumeKey,
    /// `None`: a volume of Docker's.
    path: Option<String>,
    name: String,
    role: UserRole,
}

impl From<CopyPrivilegeError> for ApiError {
    fn from(error: CopyPrivilegeError) -> Self {
        let hint = match &error.path {
            Some(path) => format!(
                "ask an admin to do it, or to run 'vc project allow {} {}'",
                error.volume.project,
                Privilege::HostPath(path.clone()).word()
            ),
            None => "ask an admin to do it".to_owned(),
        };
        Self::new(ErrorCode::PermissionDenied, error.to_string()).with_hint(hint)
    }
}

/// Checks that the user may copy a directory of a host into a volume, as a service that mounts it could; `None`: a volume of
/// Docker's, which may be anyone's.
pub(crate) fn check_copy(
    rights: &Rights,
    view: &View,
    volume: &VolumeKey,
    path: Option<&str>,
) -> Result<(), CopyPrivilegeError> {
    let policy = policy(view, &volume.project);
    let is_allowed = |path: &str| policy.allows(&Privilege::HostPath(path.to_owned()));
    if rights.role >= UserRole::Admin || path.is_some_and(is_allowed) {
        return Ok(());
    }
    let (path, name) = (path.map(str::to_owned), rights.name.clone());
    Err(CopyPrivilegeError { volume: volume.clone(), path, name, role: rights.role })
}

/// Checks that the user may read and write the files of a volume: where they are a directory of a host, as a service that mounts it could.
pub(crate) fn check_files(
    rights: &Rights,
    view: &View,
    volume: &VolumeKey,
) -> Result<(), CopyPrivilegeError> {
    match vc_placement::volume_spec(&view.input, volume).origin {
        Some(Origin::Directory { path, .. }) => check_copy(rights, view, volume, Some(&path)),
        Some(Origin::Uploaded { .. }) | None => Ok(()),
    }
}

/// Returns the policy of a project.
fn policy(view: &View, project: &Name) -> ProjectPolicy {
    view.cluster.projects.get(project).map(|policy| (**policy).clone()).unwrap_or_default()
}

/// Checks that the policy of the project allows what a service asks for, with the networks of the service whose network it has: `deployed`
/// says which shared ones a service gets that is deployed with it. Returns the host paths below which its mounts must be; none if they
/// may be anywhere.
fn check_spec(
    rights: &Rights,
    view: &View,
    service: &ServiceKey,
    spec: &ServiceSpec,
    deployed: impl Fn(&ServiceKey) -> Option<BTreeSet<Name>>,
) -> Result<BTreeSet<String>, PrivilegeError> {
    let policy = policy(view, &service.project);
    let mut privileges = spec.privileges();
    let slot = Slot { service: service.clone(), replica: 1 };
    if let Some(owner) = spec.container.network_owner(&slot).map(|owner| owner.service) {
        let held = || view.spec(&owner).map(|spec| shared_networks(spec).cloned().collect());
        let networks = deployed(&owner).or_else(held).unwrap_or_default();
        privileges.extend(networks.into_iter().map(Privilege::SharedNetwork));
    }
    let paths = privileges.iter().filter_map(|privilege| match privilege {
        Privilege::HostPath(path) if !policy.privileged => Some(path),
        _ => None,
    });
    let roots = paths.flat_map(|path| policy.roots(path).cloned()).collect();
    privileges.retain(|privilege| !policy.allows(privilege));
    if privileges.is_empty() {
        return Ok(roots);
    }
    let (service, name) = (service.clone(), rights.name.clone());
    Err(PrivilegeError { service, privileges, name, role: rights.role })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, ServiceRecord};
    use vc_protocol::spec::{Expose, Mount, NetworkMode, PortProtocol};
    use vc_protocol::token::UserLimits;
    use vc_protocol::volume::VolumeSpec;

    use super::*;

    fn rights(role: UserRole) -> Rights {
        Rights { name: "dora".to_owned(), role, limits: UserLimits::default() }
    }

    fn view(policy: &[&str], deployed: Option<(ServiceSpec, Option<ServiceSpec>)>) -> View {
        let mut cluster = ClusterState::default();
        let policy = ProjectPolicy::parse(policy.iter().copied()).expect("a policy");
        cluster.projects.insert("shop".parse().expect("a name"), policy.into());
        if let Some((spec, previous)) = deployed {
            let (spec, previous) = (spec.into(), previous.map(Into::into));
            let deployed_by = "ada".to_owned();
            let record =
                ServiceRecord { spec, previous, revision: 1, updated: 1, deployed_by, trace: None };
            cluster.services.insert(key(), record.into());
        }
        View::from_states(cluster, BTreeMap::new(), &KnownVersions::default())
    }

    fn key() -> ServiceKey {
        "shop/web".parse().expect("a service")
    }

    fn spec(paths: &[&str]) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        spec.container.mounts = paths
            .iter()
            .map(|path| Mount::Bind {
                source: (*path).to_owned(),
                target: "/x".to_owned(),
                read_only: true,
            })
            .collect();
        spec
    }

    /// Returns the roots that a deployment gets, or the error for the user.
    fn deploy(role: UserRole, view: &View, spec: ServiceSpec) -> Result<Vec<String>, String> {
        let mut deployments = [Deployment { service: key(), replicas: None, spec: spec.into() }];
        check(&rights(role), view, &mut deployments)
            .map_err(|error| ApiError::from(error).to_string())?;
        let [Deployment { spec, .. }] = deployments;
        Ok(spec.container.host_path_roots.iter().cloned().collect())
    }

    #[test]
    fn a_deployer_uses_what_the_policy_allows_and_the_error_names_the_command_for_the_rest() {
        let view = view(&["host-paths=/srv/data,/mnt"], None);
        let deploys = |paths: &[&str]| deploy(UserRole::Deployer, &view, spec(paths));
        assert_eq!(deploys(&["/srv/data/x"]), Ok(vec!["/srv/data".to_owned()]));
        assert_eq!(deploys(&["/srv/data", "/mnt"]).map(|it| it.len()), Ok(2));
        assert_eq!(deploys(&[]), Ok(vec![]));
        let refused = deploys(&["/mnt", "/srv/database"]).expect_err("not allowed");
        assert!(
            refused.contains("asks for the host path /srv/database: this needs admin"),
            "{refused}"
        );
        assert!(refused.ends_with("'vc project allow shop host-paths=/srv/database'"), "{refused}");
        let mut devices = spec(&["/mnt"]);
        devices.container.settings.devices = vec!["/dev/kvm".to_owned(), "/dev/fuse".to_owned()];
        let refused = deploy(UserRole::Deployer, &view, devices.clone()).expect_err("not allowed");
        assert!(refused.ends_with("'vc project allow shop devices'"), "{refused}");
        assert_eq!(deploy(UserRole::Admin, &view, devices.clone()), Ok(vec![]));
        let all = self::view(&["privileged"], None);
        assert_eq!(deploy(UserRole::Deployer, &all, devices), Ok(vec![]));
    }

    #[test]
    fn a_directory_that_is_a_volume_is_allowed_as_a_host_path_is() {
        let with = |path: &str| {
            let mut spec = spec(&[]);
            let name: Name = "data".parse().expect("a name");
            spec.container.mounts = vec![Mount::volume(name.clone(), "/data", false)];
            let origin = Origin::Directory { path: path.to_owned(), node: None, must_exist: false };
            spec.volumes =
                [(name, VolumeSpec { origin: Some(origin), ..VolumeSpec::default() })].into();
            spec
        };
        let view = view(&["host-paths=/srv"], None);
        let deploys = |path: &str| deploy(UserRole::Deployer, &view, with(path));
        assert_eq!(deploys("/srv/app"), Ok(vec!["/srv".to_owned()]));
        assert!(deploys("/root/.ssh").is_err());
        // The same container, but another directory under the name of the volume.
        let view = self::view(&[], Some((with("/srv/app"), None)));
        assert_eq!(deploy(UserRole::Deployer, &view, with("/srv/app")), Ok(vec![]));
        assert!(deploy(UserRole::Deployer, &view, with("/root/.ssh")).is_err());
    }

    #[test]
    fn a_deployer_cannot_say_where_mounts_may_be() {
        let view = view(&["host-paths=/srv"], None);
        let mut forged = spec(&["/srv/x"]);
        forged.container.host_path_roots = ["/".to_owned()].into();
        assert_eq!(deploy(UserRole::Deployer, &view, forged), Ok(vec!["/srv".to_owned()]));
    }

    #[test]
    fn what_is_deployed_stays_when_the_policy_is_taken_away() {
        let mut running = spec(&["/srv/x"]);
        running.container.host_path_roots = ["/srv".to_owned()].into();
        let view = view(&[], Some((running, None)));
        let again = deploy(UserRole::Deployer, &view, spec(&["/srv/x"]));
        assert_eq!(again, Ok(vec!["/srv".to_owned()]), "with the same limit");
        assert!(deploy(UserRole::Deployer, &view, spec(&["/srv/y"])).is_err());
        assert_eq!(deploy(UserRole::Admin, &view, spec(&["/srv/x"])), Ok(vec![]));
    }

    #[test]
    fn a_deployer_runs_commands_where_the_policy_allows_what_the_container_has() {
        let (plain, mounting) = (spec(&[]), spec(&["/srv/x"]));
        let may = |role, policy: &[&str], of: &ServiceSpec| {
            let view = view(policy, Some((mounting.clone(), Some(plain.clone()))));
            let slot = "shop/web.1".parse().expect("a slot");
            let instance = InstanceId { slot, digest: of.container.digest() };
            check_instance(&rights(role), &view, &instance)
        };
        assert_eq!(may(UserRole::Deployer, &[], &plain), Ok(()));
        assert_eq!(may(UserRole::Admin, &[], &mounting), Ok(()));
        assert_eq!(may(UserRole::Deployer, &["host-paths=/srv"], &mounting), Ok(()));
        let refused = may(UserRole::Deployer, &["devices"], &mounting).expect_err("not allowed");
        assert!(
            ApiError::from(refused)
                .to_string()
                .ends_with("'vc project allow shop host-paths=/srv/x'")
        );
        // One of a version before those that are known.
        assert!(may(UserRole::Deployer, &[], &spec(&["/y"])).is_err());
    }

    #[test]
    fn a_directory_is_copied_into_a_volume_by_those_who_may_mount_it() {
        let view = view(&["host-paths=/srv/app"], None);
        let volume: VolumeKey = "shop/data".parse().expect("a volume");
        let may = |role, path| check_copy(&rights(role), &view, &volume, path).is_ok();
        let paths = [Some("/srv/app/data"), Some("/srv/other"), Some("/srv/app/../other"), None];
        assert_eq!(paths.map(|path| may(UserRole::Deployer, path)), [true, false, false, false]);
        assert_eq!(paths.map(|path| may(UserRole::Admin, path)), [true; 4]);
    }

    #[test]
    fn a_deployer_opens_no_other_ports_of_a_host_on_whose_network_an_admin_has_put_a_service() {
        let mut hub = spec(&[]);
        hub.container.network_mode = Some(NetworkMode::Host);
        let view = view(&[], Some((hub.clone(), None)));
        assert_eq!(deploy(UserRole::Deployer, &view, hub.clone()), Ok(vec![]), "it stays as it is");
        hub.expose = vec![Expose { target: 2375, protocol: PortProtocol::Tcp }];
        let refused = deploy(UserRole::Deployer, &view, hub).expect_err("not allowed");
        assert!(refused.contains("the network of the host"), "{refused}");
    }

    #[test]
    fn the_network_of_a_service_is_as_much_as_its_shared_networks() {
        let shared = |view: &View| {
            let mut joined = spec(&[]);
            joined.container.network_mode =
                Some(NetworkMode::Service("web".parse().expect("a name")));
            let service = "shop/sidecar".parse().expect("a service");
            let deployment = Deployment { service, replicas: None, spec: joined.into() };
            check(&rights(UserRole::Deployer), view, &mut [deployment]).map_err(|it| it.to_string())
        };
        let mut web = spec(&[]);
        assert_eq!(shared(&view(&[], Some((web.clone(), None)))), Ok(()));
        let proxy = "proxy".parse().expect("a name");
        web.container.shared_networks.insert(proxy, BTreeSet::new());
        let refused = shared(&view(&[], Some((web.clone(), None)))).expect_err("not allowed");
        assert!(refused.contains("the shared network proxy"), "{refused}");
        assert_eq!(shared(&view(&["networks=proxy"], Some((web, None)))), Ok(()));
    }

    #[test]
    fn the_files_of_a_volume_that_is_a_directory_of_a_host_are_the_hosts() {
        let volume: VolumeKey = "shop/data".parse().expect("a volume");
        let origin = |origin: serde_json::Value| {
            let mut web = spec(&[]);
            let spec =
                serde_json::from_value(serde_json::json!({"origin": origin})).expect("a spec");
            web.volumes.insert("data".parse().expect("a name"), spec);
            web
        };
        let check = |policy: &[&str], web| {
            let view = view(policy, Some((web, None)));
            check_files(&rights(UserRole::Deployer), &view, &volume).map_err(|it| it.to_string())
        };
        let directory = || origin(serde_json::json!({"directory": {"path": "/srv/x"}}));
        let refused = check(&[], directory()).expect_err("not allowed");
        assert!(refused.contains("the host path /srv/x"), "{refused}");
        assert_eq!(check(&["host-paths=/srv"], directory()), Ok(()));
        assert_eq!(check(&[], origin(serde_json::json!({"uploaded": {"path": "./x"}}))), Ok(()));
        assert_eq!(check(&[], spec(&[])), Ok(()));
    }

    #[test]
    fn a_deployer_returns_to_a_previous_spec_that_the_policy_allows() {
        let versions = || Some((spec(&[]), Some(spec(&["/srv/x"]))));
        let rollback = |role, policy: &[&str]| {
            check_rollback(&rights(role), &view(policy, versions()), &key(), None)
        };
        assert_eq!(rollback(UserRole::Deployer, &["host-paths=/srv"]), Ok(()));
        assert_eq!(rollback(UserRole::Admin, &[]), Ok(()));
        assert!(rollback(UserRole::Deployer, &[]).is_err());
    }
}
