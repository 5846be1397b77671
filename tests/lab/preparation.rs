//! What a deployment starts is there before something is stopped for it, and means the same through every node.

use crate::harness::lab::Lab;

/// A service with a volume, so that an update stops its old instance first.
fn database(image: &str, mounts: &str) -> String {
    format!(
        "name: shop\nservices:\n  db:\n    image: {image}\n    command: [sleep, '900']\n    stop_grace_period: 1s\n    \
         volumes: ['data:/data'{mounts}]\n    deploy:\n      update_config: {{monitor: 500ms}}\n      \
         placement: {{constraints: ['node.name == h2']}}\nvolumes: {{data: }}\n"
    )
}

#[test]
fn nothing_is_stopped_for_what_cannot_be_started() {
    let lab = Lab::cluster(2);
    lab.deploy(1, &database("vc-test:1", ""), &["--wait"]).done();
    let before = lab.all_containers(&[1, 2]);

    // A tag that no node has.
    for options in [&[][..], &["--dry-run"][..], &["--wait"][..]] {
        let error = lab.deploy(1, &database("vc-tset:1", ""), options).refused();
        let words = [
            "shop/db: image vc-tset:1 is on no node and in no registry",
            "on h1, h2",
            "vc image push vc-tset:1",
            "--force",
        ];
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
    // A file that the node lacks, asked of another node. (A directory would be made.)
    let missing = || database("vc-test:1", ", '/srv/vc-lab-missing.conf:/extra'");
    for options in [&["--dry-run"][..], &[][..]] {
        let error = lab.deploy(1, &missing(), options).refused();
        let words = [
            "shop/db: the host path /srv/vc-lab-missing.conf does not exist on h2",
            "mkdir -p",
            "--force",
        ];
        assert!(words.iter().all(|words| error.contains(words)), "{error}");
    }
    assert_eq!(lab.all_containers(&[1, 2]), before, "refused deployments change nothing");

    // Forced, they fail before the old instance is stopped.
    let error = lab.deploy(1, &missing(), &["--force", "--wait"]).failed();
    assert!(error.contains("was rolled back") && error.contains("/srv/vc-lab-missing"), "{error}");
    lab.deploy(1, &database("vc-tset:1", ""), &["--force"]).done();
    lab.row(1, "the update waits for the image", "db", |row| {
        let reason = row["reason"].as_str().unwrap_or_default();
        row["state"] == "pending" && reason.contains("image vc-tset:1 not found")
    });
    assert_eq!(lab.all_containers(&[1, 2]), before, "the old instance runs all the time");

    // The image that it waits for.
    lab.docker(1, &["tag", "vc-test:2", "vc-tset:1"]).done();
    lab.row(1, "the new version runs", "db", |row| {
        row["state"] == "running" && row["current"] == true
    });
    assert_ne!(lab.all_containers(&[1, 2]), before);

    // What is gone from everywhere is not started again.
    lab.vc(1, &["scale", "db=0", "--wait"]).done();
    lab.docker(1, &["rmi", "vc-tset:1", "vc-test:2"]).done();
    lab.docker(2, &["rmi", "--force", "vc-tset:1", "vc-test:2"]).done();
    lab.vc(1, &["scale", "db=1"]).refused_with("image vc-tset:1 is on no node");
    lab.vc(1, &["scale", "db=1", "--force"]).done();
}

#[test]
fn a_tag_means_the_same_through_every_node_until_it_is_pulled() {
    let lab = Lab::cluster(2);
    for (host, image) in [(1, "vc-test:1"), (2, "vc-test:2")] {
        lab.docker(host, &["tag", image, "app:latest"]).done();
    }
    let file = |service: &str| {
        format!(
            "name: shop\nservices:\n  {service}:\n    image: app:latest\n    command: [sleep, '900']\n    stop_grace_period: 1s\n    \
             deploy: {{update_config: {{monitor: 500ms}}}}\n"
        )
    };
    lab.deploy(1, &file("app"), &["--wait"]).done();
    let id = |service: &str| {
        let detail = lab.vc(1, &["--output", "json", "inspect", service]).json();
        detail["spec"]["container"]["image_id"].as_str().expect("pinned").to_owned()
    };
    let (first, before) = (id("app"), lab.all_containers(&[1, 2]));
    for host in [2, 1, 2] {
        let out = lab.deploy(host, &file("app"), &["--wait"]).done();
        assert!(out.contains("shop/app unchanged"), "{out}");
    }
    assert_eq!(lab.all_containers(&[1, 2]), before);
    // A new service of the project, through the other node.
    lab.deploy(2, &file("other"), &["--wait"]).done();
    assert_eq!(id("other"), first);
    // One of the two engines has another image: the node that pulls says what changes.
    let other = if lab
        .docker(1, &["image", "inspect", &first, "--format", "{{.RepoTags}}"])
        .done()
        .contains("vc-test:1")
    {
        2
    } else {
        1
    };
    let out = lab.deploy(other, &file("app"), &["--pull", "--wait"]).done();
    assert!(out.contains("shop/app updated: image app:latest changed from sha256:"), "{out}");
    assert_ne!(id("app"), first);
    let events = lab.vc(1, &["events"]).done();
    assert!(events.contains("image app:latest changed from"), "{events}");
}
