//! Volumes that leave the cluster as archives and begin with data: backups, imports, clones, and what Docker has already.

use std::path::Path;

use serde_json::Value;

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, until};

const COMPOSE: &str = "
name: NAME
services:
  db:
    image: vc-test:1
    command: [sh, -c, 'COMMAND; exec sleep 900']
    volumes: ['data:/data']
    stop_grace_period: 1s
volumes:
  data:
";

/// Files with owners, modes and links; the last one is there when all are.
const WRITE: &str = "mkdir -p /data/dir; echo secret >/data/dir/file; chown 1234:5678 /data/dir/file; chmod 0640 /data/dir/file; \
                     ln -f /data/dir/file /data/link; ln -sf nowhere /data/symbolic; echo first >/data/state";
const LOOK: &str =
    "cd /data; stat -c '%n %u:%g %a %s %h' dir/file link; readlink symbolic; cat dir/file state";
const EXPECTED: &str =
    "dir/file 1234:5678 640 7 2\nlink 1234:5678 640 7 2\nnowhere\nsecret\nfirst\n";

fn compose(project: &str, command: &str) -> String {
    COMPOSE.replace("NAME", project).replace("COMMAND", command)
}

/// Returns the present time, as users write it.
fn now() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output();
    String::from_utf8(output.expect("date runs").stdout).expect("text").trim().to_owned()
}

fn volume(lab: &Lab, name: &str) -> Value {
    let rows = lab.rows(1, &["volume", "ls"]);
    rows.into_iter().find(|row| row["volume"] == name).unwrap_or_default()
}

/// Returns Docker's volumes of `shop/adopted`, on all hosts.
fn docker_volumes(lab: &Lab) -> Vec<String> {
    let list = |host| lab.docker(host, &["volume", "ls", "-q"]).done();
    let all: Vec<String> = [1, 2].into_iter().map(list).collect();
    let names = all.iter().flat_map(|it| it.lines());
    names.filter(|it| it.contains("adopted")).map(str::to_owned).collect()
}

/// Waits until the service runs on a host, and returns what a script prints in it.
fn look(lab: &Lab, service: &str, host: usize, script: &str) -> String {
    let name = format!("h{host}");
    let (text, _) = until("the service runs there with its data", DEADLINE, || {
        let containers = lab.containers(host);
        let running = lab.rows(1, &["ps", service]).iter().any(|row| {
            row["node_name"] == name.as_str()
                && matches!(row["state"].as_str(), Some("running" | "healthy"))
        });
        let container = containers.iter().find(|it| it.service() == service);
        let Some(container) = container.filter(|_| running) else {
            return Err(format!("{:?}", lab.rows(1, &["ps", service])));
        };
        let output = lab.inside(host, container, &["sh", "-c", script]);
        if output.err.is_empty() { Ok(output.out) } else { Err(output.err) }
    });
    text
}

/// Copies a file out of a volume. Returns its content.
fn file_of(lab: &Lab, volume: &str, path: &str, options: &[&str]) -> String {
    let to = lab.file("copied", "");
    let from = format!("{volume}:{path}");
    let words = [&["volume", "cp", from.as_str(), to.as_str()], options].concat();
    let output = lab.vc(1, &words);
    assert_eq!(output.code, Some(0), "{}", output.err);
    std::fs::read_to_string(to).expect("a file")
}

#[test]
fn a_volume_is_backed_up_imported_elsewhere_cloned_and_restored_by_time_and_dockers_volumes_are_adopted()
 {
    let lab = Lab::cluster(2);
    lab.deploy(1, &compose("shop", WRITE), &["--wait"]).done();
    let archive = lab.file("data.tar.zst", "");
    until("a snapshot has everything", DEADLINE, || {
        let output = lab.vc(2, &["volume", "cp", "shop/data:/state", &archive]);
        let read = std::fs::read_to_string(&archive).unwrap_or_default();
        if read == "first\n" { Ok(()) } else { Err(output.err) }
    });
    lab.vc(2, &["volume", "backup", "shop/data", &archive]).refused_with("--force");
    lab.vc(2, &["volume", "backup", "shop/data", &archive, "--force"]).done();
    assert!(std::fs::read(&archive).expect("a file").starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));

    // What breaks off leaves nothing, and what exists is not overwritten.
    let bytes = std::fs::read(&archive).expect("a file");
    let cut = lab.file("cut.tar.zst", "");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).expect("written");
    lab.vc(1, &["volume", "import", &cut, "blog/data", "--node", "h2"])
        .refused_with("cannot be read");
    assert!(volume(&lab, "blog/data").is_null());
    lab.vc(1, &["volume", "import", &archive, "shop/data"]).refused_with("exists already");

    // Through another node than the one that gets it. A service begins with it there, and moves with it.
    lab.vc(1, &["volume", "import", &archive, "blog/data", "--node", "h2"]).done();
    lab.deploy(1, &compose("blog", "true"), &["--wait"]).done();
    assert_eq!(look(&lab, "blog/db", 2, LOOK), EXPECTED);
    until("the service moves", DEADLINE, || {
        let output = lab.vc(1, &["volume", "move", "blog/data", "--to", "h1"]);
        if volume(&lab, "blog/data")["primary"] == "h1" { Ok(()) } else { Err(output.err) }
    });
    assert_eq!(look(&lab, "blog/db", 1, LOOK), EXPECTED);

    // A clone of the volume as it was, and the volume itself as it was, after it was written again.
    let before = now();
    let (host, container) = lab.only("shop/db");
    lab.inside(host, &container, &["sh", "-c", "echo second >/data/state; sync"]).done();
    until("a snapshot has what was written", DEADLINE, || {
        let state = file_of(&lab, "shop/data", "/state", &[]);
        if state == "second\n" { Ok(()) } else { Err(state) }
    });
    lab.vc(2, &["volume", "restore", "shop/data", "--at", &before, "--as", "before"]);
    assert_eq!(file_of(&lab, "shop/before", "/state", &[]), "first\n");
    lab.vc(2, &["volume", "clone", "shop/data", "after"]);
    assert_eq!(file_of(&lab, "shop/after", "/state", &[]), "second\n");
    lab.vc(2, &["scale", "shop/db=0"]).done();
    until("the volume is restored", DEADLINE, || {
        let output = lab.vc(2, &["volume", "restore", "shop/data", "--at", &before]);
        if output.out.contains("restored from") { Ok(()) } else { Err(output.err) }
    });
    assert_eq!(file_of(&lab, "shop/data", "/state", &[]), "first\n");

    // What Docker has is copied when nothing writes it, and stays there.
    let script = "echo kept >/x/file; chown 7:8 /x/file; exec sleep 900";
    let run = ["run", "-d", "--name", "user", "-v", "legacy:/x", "vc-test:1", "sh", "-c", script];
    lab.docker(2, &run).done();
    let adopt =
        |source: &str| lab.vc(1, &["volume", "adopt", source, "shop/adopted", "--node", "h2"]);
    adopt("legacy").refused_with("in use by container user, which runs");
    adopt("legacies").refused_with("legacy");
    adopt("/etc").refused_with("the system");
    lab.docker(2, &["rm", "-f", "user"]).done();
    adopt("legacy").done();
    assert_eq!(file_of(&lab, "shop/adopted", "/file", &[]), "kept\n");
    let place = lab.docker(2, &["volume", "inspect", "-f", "{{.Mountpoint}}", "legacy"]).done();
    assert!(Path::new(place.trim()).join("file").exists(), "the source stays");

    // What is forgotten is not deleted, and the cluster can know it again.
    let before = docker_volumes(&lab);
    lab.vc(1, &["volume", "forget", "shop/adopted"]);
    until("the volume is forgotten", DEADLINE, || {
        let row = volume(&lab, "shop/adopted");
        if row.is_null() { Ok(()) } else { Err(row) }
    });
    until("the volume is known again", DEADLINE, || {
        let output = lab.vc(1, &["volume", "undelete", "shop/adopted"]);
        if output.code == Some(0) { Ok(()) } else { Err(output.err) }
    });
    let after = docker_volumes(&lab);
    assert!(before.iter().all(|it| after.contains(it)), "{before:?} {after:?}");
    until("its data is there", DEADLINE, || {
        let row = volume(&lab, "shop/adopted");
        if row["snapshot"].is_string() { Ok(()) } else { Err(row) }
    });
    assert_eq!(file_of(&lab, "shop/adopted", "/file", &[]), "kept\n");
}
