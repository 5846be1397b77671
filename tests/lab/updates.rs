//! Updates under load, and rollbacks of failed updates.

use crate::harness::fixtures::web;
use crate::harness::lab::{Container, Lab};
use crate::harness::load::Load;
use crate::harness::{DEADLINE, running, until};

/// Not on h3, whose node forwards for the clients; two instances at a time, to save time.
const MORE: &str = "    ports: ['8080:80']
    deploy:
      placement: {constraints: [node.name != h3]}
      update_config: {parallelism: 2, order: start-first, monitor: 1s}
";

/// Waits until `count` containers of the service run and no others; returns them with their hosts.
fn settled(lab: &Lab, count: usize) -> Vec<(usize, Container)> {
    let containers = lab.settled(&[1, 2, 3], "shop/web", count);
    containers.into_iter().flat_map(|(host, of)| of.into_iter().map(move |it| (host, it))).collect()
}

#[test]
fn updates_drains_and_scaling_fail_no_request() {
    let lab = Lab::cluster(3);
    let first = web("shop", "web", 6, MORE);
    lab.deploy(1, &first, &["--wait"]).done();
    let before = settled(&lab, 6);
    assert!(before.iter().all(|(host, _)| *host != 3), "{before:?}");

    let load = Load::requests(&lab, 3, "10.77.0.13:8080", 200);
    lab.deploy(2, &first.replace("vc-test:1", "vc-test:2"), &["--wait"]).done();
    let updated = settled(&lab, 6);
    assert!(updated.iter().all(|it| !before.contains(it)), "all were replaced: {updated:?}");

    lab.vc(1, &["drain", "h1"]).done();
    let drained = settled(&lab, 6);
    assert!(drained.iter().all(|(host, _)| *host == 2), "{drained:?}");
    let stayed = updated.iter().filter(|(host, _)| *host == 2);
    assert!(stayed.clone().count() > 0 && stayed.clone().all(|it| drained.contains(it)));
    lab.vc(1, &["undrain", "h1"]).done();

    for count in [2, 6] {
        lab.vc(3, &["scale", &format!("web={count}")]).done();
        settled(&lab, count);
    }
    let report = load.end_requests();
    report.all_answered(2000);
    let versions: Vec<&str> = report.bodies.keys().map(String::as_str).collect();
    assert_eq!(versions, ["vc-test:1", "vc-test:2"], "both versions answered, and nothing else");
}

#[test]
fn a_failed_update_rolls_back_and_leaves_running_instances_unchanged() {
    let lab = Lab::cluster(3);
    let good = web(
        "shop",
        "web",
        3,
        "    ports: ['8080:80']\n    deploy: {update_config: {monitor: 1s}}\n",
    );
    lab.deploy(1, &good, &["--wait"]).done();
    let before = settled(&lab, 3);
    let load = Load::requests(&lab, 1, "10.77.0.11:8080", 50);

    let assert_rolled_back = |compose: &str, what: &str| {
        let error = lab.deploy(2, compose, &["--wait"]).failed();
        assert!(error.contains(what), "'{what}' is not in: {error}");
        let (reason, _) = until("the update is rolled back", DEADLINE, || {
            let rows = lab.rows(3, &["services"]);
            match rows.first() {
                Some(row) if row["rollout"]["state"] == "rolled_back" => {
                    Ok(row["rollout"]["reason"].as_str().unwrap_or_default().to_owned())
                }
                _ => Err(format!("{rows:?}")),
            }
        });
        assert!(!reason.is_empty(), "the reason is reported");
        assert_eq!(settled(&lab, 3), before, "the same containers");
    };
    let exits = "[sh, -c, 'echo opening; echo the till is empty >&2; exit 3']";
    assert_rolled_back(&good.replace("[httpd, -f, -h, /www]", exits), "the till is empty");
    // A healthcheck that times out fails.
    let hangs =
        good.replace("[CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1/']", "[CMD, sleep, '100']");
    let hangs = hangs
        .replace("interval: 1s, retries: 3", "interval: 500ms, timeout: 500ms, retries: 2")
        .replace("[httpd, -f, -h, /www]", "[sh, -c, 'echo nobody is in; exec httpd -f -h /www']");
    assert_rolled_back(&hangs, "nobody is in");
    load.end_requests().all_answered(100);

    // A later version that works is deployed.
    lab.deploy(3, &good.replace("vc-test:1", "vc-test:2"), &["--wait"]).done();
    let after = settled(&lab, 3);
    assert!(after.iter().all(|it| !before.contains(it)), "{after:?}");
    assert_eq!(lab.get(1, "http://10.77.0.12:8080/").done().trim(), "vc-test:2");
    // `vc rollback` returns to the previous version.
    lab.vc(1, &["rollback", "web"]).done();
    until("the previous version answers", DEADLINE, || {
        running(&lab.rows(1, &["ps"]), "shop/web", 3)?;
        match lab.get(1, "http://10.77.0.12:8080/").out.trim() {
            "vc-test:1" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
}
