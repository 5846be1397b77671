//! Named volumes: a service stays on the node that has its volume, and waits for it if its file says so.

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, until};

const COMPOSE: &str = "
name: shop
services:
  db:
    image: vc-test:1
    command: [sh, -c, 'test -e /data/born || cat /proc/sys/kernel/random/uuid >/data/born; exec sleep 900']
    environment: {VERSION: '1'}
    volumes: ['data:/data']
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}}
volumes:
  data:
";

#[test]
fn a_service_stays_on_its_volumes_node_and_a_pinned_one_is_pending_while_that_is_down() {
    let lab = Lab::cluster(3);
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let (home, first) = lab.only("shop/db");
    let name = format!("h{home}");
    let born = |(host, container)| lab.inside(host, container, &["cat", "/data/born"]).done();
    let data = born((home, &first));
    assert!(data.len() > 30, "{data}");

    // Other nodes have more capacity now; an update still stays with the volume.
    // Its file says so: without that, it goes on elsewhere with the copy of its data.
    let pinned = COMPOSE.replace(
        "    deploy: {",
        &format!("    deploy: {{placement: {{constraints: [node.name == {name}]}}, "),
    );
    let more = "name: other\nservices:\n  calm:\n    image: vc-test:1\n    command: [sleep, '900']\n    deploy:\n      \
                update_config: {monitor: 500ms}\n      replicas: 3\n      placement: {constraints: [node.name == NAME]}\n";
    lab.deploy(1, &more.replace("NAME", &name), &["--wait"]).done();
    lab.deploy(2, &pinned.replace("VERSION: '1'", "VERSION: '2'"), &["--wait"]).done();
    let (host, second) = lab.only("shop/db");
    assert!(host == home && second.id != first.id, "{name}: {first:?} {second:?}");
    assert_eq!(born((home, &second)), data);
    let rows = lab.rows(2, &["volume", "ls"]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0]["volume"] == "shop/data" && rows[0]["node_name"] == name.as_str(), "{rows:?}");

    let other = home % 3 + 1;
    lab.host("kill", home);
    lab.row(other, "the service is pending and the reason names the node", "db", |row| {
        let reason = row["reason"].as_str().unwrap_or_default();
        row["state"] == "pending" && reason.contains(&name)
    });
    assert!(lab.all_containers(&[other]).values().flatten().all(|it| it.service() != "shop/db"));
    lab.host("start", home);
    lab.node(home, &["run"]);
    lab.all_up(&[1, 2, 3]);
    lab.settled(&[1, 2, 3], "shop/db", 1);
    let (host, third) = lab.only("shop/db");
    assert_eq!((host, born((host, &third))), (home, data), "the same data");

    // The volume is deleted by command only.
    lab.vc(other, &["volume", "rm", "shop/data"]).refused_with("shop/db");
    lab.vc(other, &["rm", "db"]).done();
    lab.vc(other, &["volume", "rm", "shop/data"]).done();
    until("the engine has no volume", DEADLINE, || {
        let left = lab.docker(home, &["volume", "ls", "-q"]).done();
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
}
