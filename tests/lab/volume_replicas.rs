//! Volumes with copies on several nodes: a service goes on elsewhere with its data when its node is lost, and loses nothing when it is
//! moved.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use crate::harness::lab::{Container, Lab};
use crate::harness::{DEADLINE, measured, until};

/// Appends a line with its epoch every 20 ms, and syncs; the healthcheck runs more rarely than snapshots are taken.
const COMPOSE: &str = "
name: shop
services:
  db:
    image: vc-test:1
    command: [sh, -c, 'n=$$(wc -l </data/log || echo 0); while :; do n=$$((n+1)); echo $$VC_EPOCH $$n >>/data/log; usleep 20000; done']
    volumes: ['data:/data']
    stop_grace_period: 1s
    healthcheck: {test: [CMD, test, -e, /data/log], interval: 12s, retries: 2}
volumes:
  data:
";

/// Returns the row of the volume.
fn volume(lab: &Lab, host: usize) -> Value {
    lab.rows(host, &["volume", "ls"]).pop().unwrap_or_default()
}

/// Returns the host in a name such as `h2`.
fn host_of(name: &Value) -> usize {
    name.as_str().and_then(|name| name.strip_prefix('h')?.parse().ok()).unwrap_or_default()
}

/// Waits until a replica has a snapshot not older than those that are there now. Returns the host of the primary and that of the
/// replica.
fn replicated(lab: &Lab, host: usize) -> (usize, usize) {
    let before = volume(lab, host)["snapshot"].clone();
    let ((primary, replica), _) = until("a replica has a new snapshot", DEADLINE, || {
        let row = volume(lab, host);
        let found = &row["replicas"][0];
        let is_new = found["snapshot"].is_string() && found["snapshot"] != before;
        if is_new && found["lag_ms"].is_number() && row["up"] == true {
            Ok((host_of(&row["primary"]), host_of(&found["node_name"])))
        } else {
            Err(row.to_string())
        }
    });
    (primary, replica)
}

/// Returns the lines that the service has written, as numbers after epochs.
fn lines(lab: &Lab) -> Vec<(u64, u64)> {
    let (host, _) = lab.only("shop/db");
    // Not by a command in the container, which may stand still.
    let name = lab.docker(host, &["volume", "ls", "-q"]).done();
    let format = "{{.Mountpoint}}";
    let directory = lab.docker(host, &["volume", "inspect", "-f", format, name.trim()]).done();
    let text = std::fs::read_to_string(Path::new(directory.trim()).join("log")).expect("a log");
    let line = |line: &str| {
        let (epoch, number) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, number.parse().ok()?))
    };
    text.lines().map(|it| line(it).unwrap_or_else(|| panic!("a torn line: {it:?}"))).collect()
}

/// Waits until the service runs on another host than `not`, and has written in a new epoch. Returns the host.
fn moved(lab: &Lab, asked: usize, not: usize) -> usize {
    let start = Instant::now();
    let (host, _) = until("the service runs elsewhere", DEADLINE, || {
        let rows = lab.rows(asked, &["ps", "db"]);
        let running = rows.iter().find(|row| {
            let at = host_of(&row["node_name"]);
            at != not
                && matches!(row["state"].as_str(), Some("running" | "healthy" | "starting"))
                && !row["address"].as_str().unwrap_or_default().is_empty()
        });
        running.map(|row| host_of(&row["node_name"])).ok_or(format!("{rows:?}"))
    });
    measured("the service runs elsewhere", start.elapsed());
    host
}

/// Stops the processes of a container, as a node does for a snapshot.
fn freeze(lab: &Lab, host: usize, container: &Container) {
    let pid = lab.docker(host, &["inspect", "-f", "{{.State.Pid}}", &container.id]).done();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("groups");
    let root = Path::new("/sys/fs/cgroup");
    let path = |line: &str| line.splitn(3, ':').nth(2).unwrap_or_default()[1..].to_owned();
    let (control, word) = match groups.lines().find(|line| line.contains(":freezer:")) {
        Some(line) => (root.join("freezer").join(path(line)).join("freezer.state"), "FROZEN"),
        None => {
            let line = groups.lines().find(|line| line.starts_with("0::")).expect("a group");
            (root.join(path(line)).join("cgroup.freeze"), "1")
        }
    };
    std::fs::write(&control, word).unwrap_or_else(|error| panic!("{control:?}: {error}"));
}

#[test]
fn a_service_goes_on_elsewhere_with_its_data_and_late_writes_of_the_lost_node_are_kept() {
    let mut lab = Lab::cluster(3);
    lab.expect_errors("the watchdog");
    lab.deploy(1, COMPOSE, &[]).done();
    let (primary, replica) = replicated(&lab, 1);
    // Snapshots do not keep the healthcheck from running.
    lab.row(1, "the healthcheck has run", "db", |row| row["state"] == "healthy");

    // The node is killed in a pause: the next one lets the container go on, before anything else.
    let container = lab.only("shop/db").1;
    freeze(&lab, primary, &container);
    let stopped = lines(&lab).len();
    lab.host("node-kill", primary);
    lab.node(primary, &["run"]);
    lab.all_up(&[1, 2, 3]);
    assert_eq!(lab.only("shop/db"), (primary, container), "the same container");
    until("the container goes on", DEADLINE, || {
        let now = lines(&lab).len();
        if now > stopped { Ok(()) } else { Err(now) }
    });

    // A planned move loses nothing.
    let asked = if primary == 1 { 2 } else { 1 };
    replicated(&lab, asked);
    let before = lines(&lab);
    lab.vc(asked, &["drain", &format!("h{primary}")]).done();
    let second = moved(&lab, asked, primary);
    assert_eq!(second, replica, "where the data is");
    let after = lines(&lab);
    let numbers: Vec<u64> = after.iter().map(|(_, number)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing is missing");
    assert!(after.starts_with(&before), "{} then {}", before.len(), after.len());
    lab.vc(asked, &["undrain", &format!("h{primary}")]).done();

    // Its host loses power. The drained node is back as a replica, unless another one was faster.
    let asked = if second == 1 { 2 } else { 1 };
    let (at, last) = replicated(&lab, asked);
    assert_eq!(at, second);
    let before = lines(&lab);
    let killed = Instant::now();
    lab.host("kill", second);
    let third = moved(&lab, asked, second);
    measured("failover after a power cut", killed.elapsed());
    assert_eq!(third, last, "where the data is");
    let after = lines(&lab);
    let epoch = before.last().expect("lines").0;
    let kept = after.iter().take_while(|line| line.0 <= epoch).count();
    let lost = before.len().saturating_sub(kept);
    println!("measured: {lost} of {} lines lost", before.len());
    // 50 lines a second at most, and an old snapshot is no older than two intervals and the time to copy it.
    assert!(after.starts_with(&before[..before.len() - lost]) && lost < 1500, "{lost} lines");
    assert!(after.last().expect("lines").0 > epoch, "a new epoch");

    // The lost node returns: what it wrote last is kept aside, and it becomes a replica.
    lab.host("start", second);
    lab.node(second, &["run"]);
    lab.all_up(&[1, 2, 3]);
    until("the late writes are listed as a conflict", DEADLINE, || {
        let row = volume(&lab, asked);
        if row["conflicts"] == 1 { Ok(()) } else { Err(row.to_string()) }
    });
    let again = lines(&lab);
    assert!(again.starts_with(&after), "the running service is not touched");
    let conflicts = lab.rows(asked, &["volume", "conflicts", "data"]);
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0]["node_name"], format!("h{second}"), "{conflicts:?}");

    // All that is told as events, once each.
    let events = lab.vc(asked, &["events", "--output", "json"]).done();
    for told in [
        format!("volume has a copy on h{replica} now"),
        format!("volume moved from h{primary} to h{second} with everything in it"),
        format!("on h{third}, taken "),
        format!("what h{second} wrote last is kept aside"),
    ] {
        let count = events.lines().filter(|line| line.contains(&told)).count();
        assert!(count >= 1, "'{told}' is missing in {events}");
        let is_once = count == 1 || told.starts_with("volume has a copy");
        assert!(is_once, "'{told}' is told {count} times: {events}");
    }
    let metrics = lab.get(third, "http://127.0.0.1:4779/metrics").done();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{")))?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let labels = r#"{project="shop",volume="data"}"#;
    assert!(metrics.contains(&format!("vc_volume_primary{labels} 1")), "{metrics}");
    for name in ["lag_seconds", "snapshots"] {
        assert!(value(&format!("vc_volume_{name}")).is_some(), "{name} is missing in {metrics}");
    }
    assert!(value("vc_volume_pause_seconds_count") > Some(0.0), "{metrics}");
    let bytes = |way| value(&format!("vc_volume_{way}_bytes_total")).unwrap_or_default();
    assert!(bytes("sent") + bytes("received") > 0.0, "{metrics}");
}

/// Stops the service, and waits until no container is left.
fn stop(lab: &Lab) {
    lab.vc(1, &["scale", "db=0"]).done();
    until("no container is left", DEADLINE, || {
        let left: usize = lab.all_containers(&[1, 2]).values().map(Vec::len).sum();
        if left == 0 { Ok(()) } else { Err(left) }
    });
}

/// Starts the service, and waits until it has written in a new epoch. Returns its lines.
fn start(lab: &Lab, after: u64) -> Vec<(u64, u64)> {
    lab.vc(1, &["scale", "db=1"]).done();
    let (lines, _) = until("the service writes in a new epoch", DEADLINE, || {
        let running = lab
            .rows(1, &["ps", "db"])
            .iter()
            .any(|row| !row["address"].as_str().unwrap_or_default().is_empty());
        let lines = if running { lines(lab) } else { Vec::new() };
        if lines.last().is_some_and(|line| line.0 > after) { Ok(lines) } else { Err(lines.len()) }
    });
    lines
}

#[test]
fn a_volume_is_restored_from_a_snapshot_and_out_of_the_trash() {
    let lab = Lab::cluster(2);
    lab.deploy(1, COMPOSE, &[]).done();
    replicated(&lab, 1);
    let snapshot = volume(&lab, 1)["snapshot"].as_str().expect("a snapshot").to_owned();
    replicated(&lab, 1);
    let restore = ["volume", "restore", "data", "--at", &snapshot];
    lab.vc(1, &restore).refused_with("vc scale shop/db=0");

    stop(&lab);
    until("the volume is restored", DEADLINE, || {
        let output = lab.vc(2, &restore);
        if output.out.contains("restored from") { Ok(()) } else { Err(output.err) }
    });
    let all = lab.rows(1, &["volume", "snapshots", "data"]);
    assert!(all.iter().any(|row| row["snapshot"] == snapshot.as_str()), "{all:?}");
    let epoch = snapshot.split_once('-').expect("an id").0.parse().expect("an epoch");
    let restored = start(&lab, epoch);
    let old: Vec<_> = restored.iter().filter(|line| line.0 <= epoch).collect();
    println!("measured: {} lines restored", old.len());
    assert!(!old.is_empty());
    // What it wrote after that snapshot is not there: its numbers are used again.
    let numbers: Vec<u64> = restored.iter().map(|line| line.1).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");

    // What is removed is in the trash of both nodes, and nothing of it is left in Docker.
    stop(&lab);
    let epoch = restored.last().expect("lines").0;
    lab.vc(1, &["rm", "db"]).done();
    lab.vc(1, &["volume", "rm", "shop/data"]).done();
    until("no engine has the volume", DEADLINE, || {
        let left = [1, 2].map(|host| lab.docker(host, &["volume", "ls", "-q"]).done());
        if left.iter().all(|it| it.trim().is_empty()) { Ok(()) } else { Err(left) }
    });
    assert!(lab.rows(1, &["volume", "ls"]).is_empty());
    lab.vc(2, &["volume", "undelete", "shop/data"]).done();
    lab.deploy(1, COMPOSE, &[]).done();
    let again = start(&lab, epoch);
    assert!(again.starts_with(&restored), "{} then {} lines", restored.len(), again.len());
}

#[test]
fn the_newest_copy_is_taken_out_of_the_trash_also_when_an_older_one_was_removed_later() {
    let lab = Lab::cluster(3);
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let (primary, replica) = replicated(&lab, 1);
    lab.host("node-kill", replica);
    let before = lines(&lab).len();
    until("the service writes on", DEADLINE, || {
        let now = lines(&lab).len();
        if now > before + 50 { Ok(()) } else { Err(now) }
    });
    lab.vc(primary, &["scale", "db=0"]).done();
    let none_left = || {
        let left = lab.all_containers(&[1, 2, 3]).values().map(Vec::len).sum::<usize>();
        if left == 0 { Ok(()) } else { Err(left) }
    };
    until("no container is left", DEADLINE, none_left);
    lab.vc(primary, &["rm", "db"]).done();
    lab.vc(primary, &["volume", "rm", "shop/data"]).done();
    let is_removed = |host| {
        let left = lab.docker(host, &["volume", "ls", "-q"]).done();
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    };
    until("the primary has removed it", DEADLINE, || is_removed(primary));
    lab.node(replica, &["run"]);
    lab.all_up(&[1, 2, 3]);
    until("the replica has removed it", DEADLINE, || is_removed(replica));

    lab.vc(replica, &["volume", "undelete", "shop/data"]).done();
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let after = lines(&lab).len();
    assert!(after > before + 50, "{after} lines, and {before} when the replica was lost");
}

/// Returns a number of the node's metrics.
fn metric(lab: &Lab, host: usize, name: &str) -> u64 {
    let text = lab.get(host, "http://127.0.0.1:4779/metrics").done();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[test]
fn hooks_run_around_each_snapshot_and_a_failure_is_shown_until_one_succeeds() {
    let lab = Lab::cluster(2);
    let hooks = "{hooks: {before: [sh, -c, 'test ! -e /data/fail && echo before >>/data/hooks'], after: [sh, -c, 'echo after >>/data/hooks']}}";
    let compose =
        COMPOSE.replace("volumes:\n  data:\n", &format!("volumes:\n  data: {{x-vc: {hooks}}}\n"));
    lab.deploy(1, &compose, &["--wait"]).done();
    let (primary, replica) = replicated(&lab, 1);
    let (_, container) = lab.only("shop/db");
    let copy = lab.file("hooks", "");
    lab.vc(1, &["volume", "cp", "shop/data:/hooks", &copy]).done();
    let seen = std::fs::read_to_string(&copy).expect("the file of the snapshot");
    assert!(seen.starts_with("before\n"), "{seen}");
    assert!(
        lab.inside(primary, &container, &["cat", "/data/hooks"]).done().contains("before\nafter\n")
    );

    lab.inside(primary, &container, &["touch", "/data/fail"]).done();
    let is_problem = || match lab.problems(1) {
        all if all.iter().any(|it| it.contains("shop/data")) => Ok(()),
        all => Err(all),
    };
    until("the failure is a problem", DEADLINE, is_problem);
    let failures = || metric(&lab, primary, "vc_volume_failures_total{");
    let before = failures();
    until("it has failed twice more", DEADLINE, || {
        let now = failures();
        if now >= before + 2 { Ok(()) } else { Err(now) }
    });
    let events = lab.vc(1, &["events", "--tail", "100"]).done();
    assert!(!events.contains("in order again"), "{events}");
    assert_eq!(is_problem(), Ok(()));
    lab.inside(primary, &container, &["rm", "/data/fail"]).done();
    until("it is in order again", DEADLINE, || match lab.problems(1) {
        all if all.is_empty() => Ok(()),
        all => Err(all),
    });
    assert_ne!(replica, primary);
}
