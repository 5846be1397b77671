//! Policies: what the services of a project may use without an admin.

use vc_crdt::ClusterState;
use vc_protocol::Name;
use vc_protocol::control::Change;
use vc_protocol::spec::ProjectPolicy;

use super::MutationError;

/// Adds to the policy of a project.
///
/// # Errors
/// A path is not absolute, or there are too many.
pub(super) fn allow(
    state: &mut ClusterState,
    project: &Name,
    policy: &ProjectPolicy,
) -> Result<Change, MutationError> {
    let held = state.projects.entry(project.clone()).or_default();
    **held = held.with(&policy.clone().checked()?).checked()?;
    Ok(Change::PolicyChanged { project: project.clone(), allowed: held.words() })
}

/// Takes away from the policy of a project.
///
/// # Errors
/// It allows none of it.
pub(super) fn deny(
    state: &mut ClusterState,
    project: &Name,
    policy: &ProjectPolicy,
) -> Result<Change, MutationError> {
    let policy = policy.clone().checked()?;
    let held = state.projects.get(project).map(|held| (**held).clone()).unwrap_or_default();
    let left = held.without(&policy);
    if left == held {
        let words = policy.words().join(" ");
        return Err(MutationError::NotAllowed { project: project.clone(), words });
    }
    let allowed = left.words();
    if left == ProjectPolicy::default() {
        state.projects.remove(project);
    } else if let Some(held) = state.projects.get_mut(project) {
        **held = left;
    }
    Ok(Change::PolicyChanged { project: project.clone(), allowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_grow_and_shrink_and_an_empty_one_is_removed() {
        let mut state = ClusterState::default();
        let shop: Name = "shop".parse().expect("a name");
        let policy =
            |words: &[&str]| ProjectPolicy::parse(words.iter().copied()).expect("a policy");
        let words = |change| match change {
            Ok(Change::PolicyChanged { allowed, .. }) => allowed.join(" "),
            other => panic!("{other:?}"),
        };
        let change = allow(&mut state, &shop, &policy(&["devices"]));
        assert_eq!(words(change), "devices");
        let change = allow(&mut state, &shop, &policy(&["host-paths=/srv/a"]));
        assert_eq!(words(change), "devices host-paths=/srv/a");
        let refused = deny(&mut state, &shop, &policy(&["privileged"])).expect_err("not allowed");
        assert_eq!(refused.to_string(), "shop is not allowed privileged");
        assert_eq!(words(deny(&mut state, &shop, &policy(&["devices"]))), "host-paths=/srv/a");
        assert_eq!(words(deny(&mut state, &shop, &policy(&["host-paths=/"]))), "");
        assert!(state.projects.is_empty());
        let up = ProjectPolicy { host_paths: ["/srv/..".to_owned()].into(), ..policy(&[]) };
        assert!(allow(&mut state, &shop, &up).is_err(), "as a client may send it");
    }
}
