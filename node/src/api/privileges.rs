//! What gives a container its host: an admin may deploy it, and others what the policy of the project allows.

use std::collections::BTreeSet;

use vc_crdt::View;
use vc_protocol::spec::{ContainerSpec, Deployment, Privilege, ProjectPolicy};
use vc_protocol::token::UserRole;
use vc_protocol::{ApiError, ErrorCode, ServiceKey};

use crate::auth::Rights;

/// A service asks for more than its user may give it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{service} asks for {}, which gives it the host: this needs admin, and '{name}' has the role {}",
    list(.privileges),
    .role.as_str()
)]
pub(super) struct PrivilegeError {
    service: ServiceKey,
    privileges: Vec<Privilege>,
    name: String,
    role: UserRole,
}

fn list(privileges: &[Privilege]) -> String {
    privileges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<PrivilegeError> for ApiError {
    fn from(error: PrivilegeError) -> Self {
        let mut words: Vec<String> = error.privileges.iter().map(Privilege::word).collect();
        words.dedup();
        let hint = format!(
            "remove it from the file, or ask an admin to deploy the file, or to run 'vc project allow {} {}'",
            error.service.project,
            words.join(" ")
        );
        Self::new(ErrorCode::PermissionDenied, error.to_string()).with_hint(hint)
    }
}

/// Checks that the user may give the containers what these specs ask for, and says in the specs where on the host their mounts
/// must be. What is deployed already stays as it is.
pub(super) fn check(
    rights: &Rights,
    view: &View,
    deployments: &mut [Deployment],
) -> Result<(), PrivilegeError> {
    if rights.role >= UserRole::Admin {
        return Ok(());
    }
    for Deployment { service, spec, .. } in deployments {
        // Set by nodes alone.
        spec.container.host_path_roots.clear();
        let held = view.spec(service).map(|held| &held.container);
        let held = held.filter(|held| {
            let roots = held.host_path_roots.clone();
            **held == ContainerSpec { host_path_roots: roots, ..spec.container.clone() }
        });
        match held {
            Some(held) => {
                let roots = held.host_path_roots.clone();
                spec.container.host_path_roots = roots;
            }
            None => {
                let roots = check_container(rights, view, service, &spec.container)?;
                spec.container.host_path_roots = roots;
            }
        }
    }
    Ok(())
}

/// Checks that the user may return a service to its previous spec.
pub(super) fn check_rollback(
    rights: &Rights,
    view: &View,
    service: &ServiceKey,
) -> Result<(), PrivilegeError> {
    let record = view.cluster.services.get(service);
    let previous = record.and_then(|record| record.previous.as_ref());
    let Some(previous) = previous.filter(|_| rights.role < UserRole::Admin) else { return Ok(()) };
    if view.spec(service).is_some_and(|held| held.container == previous.container) {
        return Ok(());
    }
    check_container(rights, view, service, &previous.container).map(drop)
}

/// Checks that the policy of the project allows what a container asks for. Returns the host paths below which its mounts must
/// be; none if they may be anywhere.
fn check_container(
    rights: &Rights,
    view: &View,
    service: &ServiceKey,
    container: &ContainerSpec,
) -> Result<BTreeSet<String>, PrivilegeError> {
    let none = ProjectPolicy::default();
    let policy = view.cluster.projects.get(&service.project).map_or(&none, |policy| &**policy);
    let mut privileges = container.privileges();
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
    use vc_protocol::spec::{Mount, ServiceSpec};
    use vc_protocol::token::UserLimits;

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
            let record = ServiceRecord { spec, previous, revision: 1, updated: 1, deployed_by };
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
        assert!(refused.contains("the host path /srv/database, which"), "{refused}");
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
    fn a_deployer_returns_to_a_previous_spec_that_the_policy_allows() {
        let versions = || Some((spec(&[]), Some(spec(&["/srv/x"]))));
        let rollback = |role, policy: &[&str]| {
            check_rollback(&rights(role), &view(policy, versions()), &key())
        };
        assert_eq!(rollback(UserRole::Deployer, &["host-paths=/srv"]), Ok(()));
        assert_eq!(rollback(UserRole::Admin, &[]), Ok(()));
        assert!(rollback(UserRole::Deployer, &[]).is_err());
    }
}
