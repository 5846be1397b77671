//! The versions of services: what is kept, and what a rollback returns to.

use vc_protocol::control::{RolloutState, VersionState};
use vc_protocol::spec::FailureAction;

use super::*;
use crate::history::{MAX_VERSIONS, history, kept_images};

fn rollback(version: Option<u32>) -> Mutation {
    Mutation::Rollback { service: "web".to_owned(), version, projects: None }
}

/// Returns number, image and state of each version, newest first.
fn states(cluster: &Cluster) -> Vec<(u32, String, VersionState)> {
    let rows = history(&cluster.view(), &web(), true);
    rows.into_iter().map(|row| (row.version, row.image, row.state)).collect()
}

fn target(cluster: &Cluster) -> Option<u32> {
    let rows = history(&cluster.view(), &web(), true);
    rows.into_iter().find(|row| row.rollback_target).map(|row| row.version)
}

/// Two good versions, and a third one whose update failed and is rolled back.
fn failed_update() -> Cluster {
    let mut cluster = Cluster::new();
    for version in [1, 2] {
        cluster.deploy(image(version));
        cluster.ends(None);
    }
    cluster.deploy(image(3));
    cluster.ends(Some("shop/web.1 on desk: exited with code 1"));
    cluster
}

#[test]
fn a_failed_version_is_listed_with_its_reason_and_the_one_before_is_current() {
    use VersionState::{Current, Failed, Superseded};
    let cluster = failed_update();
    let rows = history(&cluster.view(), &web(), true);
    let shown: Vec<_> = rows.iter().map(|row| (row.version, row.state)).collect();
    assert_eq!(shown, [(3, Failed), (2, Current), (1, Superseded)]);
    assert_eq!(rows[0].reason, "shop/web.1 on desk: exited with code 1");
    assert_eq!(rows[0].changes, ["container.image: \"web:2\" -> \"web:3\""]);
    assert_eq!((rows[0].deployed, rows[0].deployed_by.as_str()), (NOW, "ada"));
    assert_eq!(rows[2].changes, [""; 0]);
}

#[test]
fn after_an_automatic_rollback_rows_name_what_runs_and_what_failed() {
    let cluster = failed_update();
    let row = report::services(&cluster.view()).remove(0);
    assert_eq!((row.image.as_str(), row.version), ("web:2", 2));
    assert_eq!(row.rollout.state, RolloutState::RolledBack);
    assert_eq!((row.rollout.image.as_str(), row.rollout.version), ("web:3", 3));
    let detail = report::inspect(&cluster.view(), &web()).expect("the service");
    assert_eq!(detail.spec.container.image, "web:2");
    assert_eq!(detail.previous.map(|it| it.container.image.clone()).as_deref(), Some("web:1"));
}

#[test]
fn a_failed_update_is_a_problem_until_the_next_deployment() {
    let mut cluster = failed_update();
    let problems = |cluster: &Cluster| {
        let root = Keypair::ed25519_from_bytes([9; 32]).expect("32 bytes").public();
        let id = vc_protocol::ClusterId::of(&root).expect("ed25519");
        report::status(&cluster.view(), None, &BTreeMap::new(), id, node(1), NOW).problems
    };
    let failed = |problems: Vec<String>| {
        problems.into_iter().filter(|it| it.contains("has failed")).collect::<Vec<_>>()
    };
    assert_eq!(
        failed(problems(&cluster)),
        [
            "the update of shop/web to version 3 has failed and version 2 runs: see 'vc history shop/web', and deploy it mended: \
             shop/web.1 on desk: exited with code 1"
        ]
    );
    cluster.deploy(image(2));
    cluster.ends(None);
    assert_eq!(failed(problems(&cluster)), [""; 0]);
    let mut paused = image(4);
    paused.update.failure_action = FailureAction::Pause;
    cluster.deploy(paused);
    cluster.ends(Some("shop/web.1 on desk: its healthcheck fails"));
    assert_eq!(
        failed(problems(&cluster)),
        [
            "the update of shop/web to version 5 has failed and is paused: deploy it mended, or 'vc rollback shop/web': \
             shop/web.1 on desk: its healthcheck fails"
        ]
    );
}

#[test]
fn a_rollback_never_chooses_a_failed_version() {
    let mut cluster = failed_update();
    assert_eq!(target(&cluster), Some(1));
    let done = cluster.apply(&rollback(None));
    assert_eq!(done, Ok(vec!["shop/web rolled back to version 1".to_owned()]));
    // If that fails too, what ran until now comes back.
    assert_eq!(cluster.versions(), (image(1), Some(image(2))));
    cluster.ends(None);
    use VersionState::{Current, Failed, RolledBack, Superseded};
    let shown: Vec<_> = states(&cluster).into_iter().map(|(it, _, state)| (it, state)).collect();
    assert_eq!(shown, [(4, Current), (3, Failed), (2, RolledBack), (1, Superseded)]);
    assert_eq!(history(&cluster.view(), &web(), true)[0].same_as, Some(1));
    // A second one undoes the first.
    cluster.apply(&rollback(None)).expect("rolled back");
    assert_eq!(cluster.versions().0, image(2));
    cluster.ends(None);
    cluster.apply(&rollback(None)).expect("rolled back");
    assert_eq!(cluster.versions().0, image(1));
}

#[test]
fn a_rollback_returns_to_the_version_that_is_named() {
    let mut cluster = failed_update();
    let refused = cluster.apply(&rollback(Some(2))).expect_err("it runs");
    assert_eq!(refused, "shop/web runs version 2 already: see 'vc history shop/web'");
    let refused = cluster.apply(&rollback(Some(9))).expect_err("there is none");
    assert_eq!(refused, "shop/web has no version 9: see 'vc history shop/web'");
    // A failed one too.
    cluster.apply(&rollback(Some(3))).expect("rolled back");
    assert_eq!(cluster.versions(), (image(3), Some(image(2))));
    assert!(!cluster.view().is_rolled_back(&web()), "it is tried again");
    cluster.ends(None);
    cluster.apply(&rollback(Some(1))).expect("rolled back");
    assert_eq!(cluster.versions(), (image(1), Some(image(3))));
}

#[test]
fn a_restart_makes_no_version_and_a_failed_one_leaves_the_version_in_effect() {
    let mut cluster = failed_update();
    cluster.deploy(image(4));
    cluster.ends(None);
    cluster.apply(&Mutation::Restart { service: "web".to_owned() }).expect("restarts");
    assert_eq!(states(&cluster)[0].0, 4);
    cluster.ends(Some("address already in use"));
    let rows = history(&cluster.view(), &web(), true);
    assert_eq!((rows[0].version, rows[0].state), (4, VersionState::Current));
    assert_eq!(rows[0].reason, "its restart failed: address already in use");
    assert_eq!(target(&cluster), Some(2), "the version before, and not that of before the restart");
    cluster.deploy(image(5));
    assert_eq!(history(&cluster.view(), &web(), true)[1].state, VersionState::Superseded);
}

#[test]
fn versions_beyond_the_limit_are_dropped_and_the_last_good_one_stays() {
    let mut cluster = Cluster::new();
    cluster.deploy(image(1));
    cluster.ends(None);
    for version in 2..20 {
        cluster.deploy(image(version));
        cluster.ends(Some("exited with code 1"));
    }
    let rows = history(&cluster.view(), &web(), true);
    assert_eq!(rows.len(), MAX_VERSIONS + 1);
    let shown: Vec<_> = rows.iter().map(|row| row.version).collect();
    assert_eq!(shown, [19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 1]);
    assert_eq!(rows[10].state, VersionState::Current);
    let images: BTreeSet<_> =
        kept_images(&cluster.state).map(|spec| spec.container.image.clone()).collect();
    assert_eq!(images, ["web:1", "web:19"].map(str::to_owned).into());
    cluster.apply(&Mutation::Remove("web".to_owned())).expect("removed");
    assert!(cluster.state.history.is_empty(), "a removed service has no history");
}

#[test]
fn a_version_without_its_secret_is_said_to_be_missing_it() {
    let mut cluster = Cluster::new();
    let mut with_secret = image(1);
    with_secret.container.files = vec![FileMount {
        file: FileId { kind: FileKind::Secret, name: "db".to_owned() },
        version: "v1".to_owned(),
        target: "/run/secrets/db".to_owned(),
        uid: 0,
        gid: 0,
        mode: 0o400,
    }];
    cluster.deploy(with_secret.clone());
    cluster.ends(None);
    for version in [2, 3] {
        cluster.deploy(image(version));
        cluster.ends(None);
    }
    assert_eq!(cluster.state.files.len(), 1, "kept for version 1");
    let mut without = Cluster { state: cluster.state.clone(), nodes: cluster.nodes.clone() };
    without.state.files.clear();
    let rows = history(&without.view(), &web(), true);
    assert_eq!(rows[2].missing_files, ["secret 'db'"]);
    let refused = without.apply(&rollback(Some(1))).expect_err("its secret is gone");
    assert!(
        refused.starts_with("version 1 of shop/web cannot run: the content of its secret 'db'")
    );
    cluster.apply(&rollback(Some(1))).expect("rolled back");
    assert_eq!(cluster.versions().0, with_secret);
}

#[test]
fn contents_that_only_old_versions_mount_are_bounded() {
    let mut cluster = Cluster::new();
    let mounts = |version: u32| {
        let mut spec = image(version);
        spec.container.files = vec![FileMount {
            file: FileId { kind: FileKind::Config, name: "big".to_owned() },
            version: format!("v{version}"),
            target: "/big".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        }];
        spec
    };
    for version in 1..=6 {
        let mut mutation = deploying(deployment(mounts(version)));
        let Mutation::Deploy { files, .. } = &mut mutation else { panic!("a deployment") };
        files.values_mut().for_each(|file| file.sealed = "x".repeat(1_500_000));
        cluster.apply(&mutation).expect("deployed");
        cluster.ends(None);
    }
    let kept: Vec<_> = cluster.state.files.keys().map(|key| key.version.as_str()).collect();
    assert_eq!(kept, ["v3", "v4", "v5", "v6"], "two in use, and 4 MiB of others");
}

#[test]
fn without_the_map_of_versions_a_rollback_knows_the_version_before_alone() {
    let mut cluster = Cluster::new();
    let by = Subject { name: "ada".to_owned(), token_id: String::new(), address: None };
    let apply = |cluster: &mut Cluster, mutation: &Mutation| {
        let view = View { has_history: false, ..cluster.view() };
        cluster.state = mutation.apply(&view, &by, NOW).expect("applies").0;
    };
    for version in [1, 2, 3] {
        apply(&mut cluster, &deploying(deployment(image(version))));
        cluster.ends(None);
    }
    assert!(cluster.state.history.is_empty());
    let shown: Vec<_> = states(&cluster).into_iter().map(|(it, image, _)| (it, image)).collect();
    assert_eq!(shown, [(2, "web:3".to_owned()), (1, "web:2".to_owned())]);
    apply(&mut cluster, &rollback(None));
    assert_eq!(cluster.versions(), (image(2), Some(image(3))));
    cluster.ends(None);
    // The first change with the map lists what was known before.
    cluster.deploy(image(4));
    let numbers: Vec<_> = states(&cluster).into_iter().map(|(it, image, _)| (it, image)).collect();
    let expected = [(3, "web:4"), (2, "web:2"), (1, "web:3")].map(|(it, of)| (it, of.to_owned()));
    assert_eq!(numbers, expected);
}

#[test]
fn a_rollback_to_a_version_whose_port_is_taken_meanwhile_is_refused() {
    let mut cluster = Cluster::new();
    let publishing = |version: u32| {
        let mut spec = image(version);
        spec.ports = vec![published(8080)];
        spec
    };
    cluster.deploy(publishing(1));
    cluster.ends(None);
    cluster.deploy(image(2));
    cluster.ends(None);
    let other =
        Deployment { service: "shop/api".parse().expect("a key"), ..deployment(publishing(9)) };
    cluster.apply(&deploying(other)).expect("deployed");
    let refused = cluster.apply(&rollback(None)).expect_err("the port is taken");
    assert!(refused.starts_with("port 8080/tcp is published by shop/api already"), "{refused}");
}

#[test]
fn values_of_variables_show_in_no_change_without_the_right_to_see_them() {
    let mut cluster = Cluster::new();
    for password in ["one", "two"] {
        let mut spec = image(1);
        spec.container.environment.insert("PASSWORD".to_owned(), password.to_owned());
        cluster.deploy(spec);
        cluster.ends(None);
    }
    let shown = |values| history(&cluster.view(), &web(), values).remove(0).changes;
    assert_eq!(shown(true), ["container.environment.PASSWORD: \"one\" -> \"two\""]);
    assert_eq!(shown(false), [""; 0]);
}
