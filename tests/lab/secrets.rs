//! Secrets and configs: where they are readable, and updates of their values.

use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};

use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, until};

const COMPOSE: &str = "
name: shop
services:
  bank:
    image: vc-test:1
    command: [sleep, '900']
    stop_grace_period: 1s
    deploy: {update_config: {monitor: 500ms}}
    secrets:
      - source: password
        target: till
        uid: '12'
        mode: 0400
    configs:
      - source: motto
        target: /etc/motto
secrets:
  password: {file: ./password}
configs:
  motto: {file: ./motto}
";

/// Returns the files under a directory that contain one of the needles.
fn holding(dir: &Path, needles: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(holding(&entry.path(), needles));
        } else if kind.is_file() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let holds =
                |needle: &Vec<u8>| bytes.windows(needle.len()).any(|window| window == needle);
            if needles.iter().any(holds) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Returns a secret in plain, Base64 and hex.
fn spellings(secret: &str) -> Vec<Vec<u8>> {
    // Without the padding and the end, which depend on what follows the secret.
    let encoded = BASE64.encode(secret.as_bytes());
    vec![
        secret.as_bytes().to_vec(),
        encoded.trim_end_matches('=').as_bytes()[..20].to_vec(),
        HEXLOWER.encode(secret.as_bytes()).into_bytes(),
    ]
}

#[test]
fn a_secret_is_readable_in_its_container_only_and_a_new_value_is_an_update() {
    let lab = Lab::cluster(2);
    let (first, second) = ("seventeen-grey-herons", "eighteen-white-egrets");
    lab.file("password", first);
    lab.file("motto", "in coin we trust\n");
    lab.deploy(1, COMPOSE, &["--wait"]).done();
    let (host, container) = lab.only("shop/bank");
    let inside = |words: &[&str]| lab.inside(host, &container, words).done();
    assert_eq!(inside(&["cat", "/run/secrets/till"]), first);
    assert_eq!(inside(&["stat", "-c", "%a %u", "/run/secrets/till"]).trim(), "400 12");
    assert_eq!(inside(&["cat", "/etc/motto"]), "in coin we trust\n");
    let mounts = inside(&["cat", "/proc/mounts"]);
    for place in ["/run/secrets", "/etc/motto"] {
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(1).is_some_and(|at| at.starts_with(place)));
        let mount = mount.unwrap_or_else(|| panic!("{place} is not a mount: {mounts}"));
        let words: Vec<&str> = mount.split(' ').collect();
        assert!(words[2] == "tmpfs" && words[3].split(',').any(|it| it == "ro"), "{mount}");
    }

    let engine = lab.docker(host, &["inspect", &container.id]).done();
    let detail = lab.vc(2, &["--output", "json", "inspect", "bank"]).done();
    for needle in spellings(first) {
        let needle = String::from_utf8(needle).expect("text");
        assert!(
            !engine.contains(&needle) && !detail.contains(&needle),
            "{needle} is in the output"
        );
    }
    // The check works: the secret's name is found.
    assert!(detail.contains("password"), "{detail}");

    lab.file("password", second);
    lab.deploy(2, COMPOSE, &["--wait"]).done();
    let (host, updated) = lab.only("shop/bank");
    assert_ne!(updated.id, container.id, "a new value makes a new instance");
    assert_eq!(lab.inside(host, &updated, &["cat", "/run/secrets/till"]).done(), second);

    // The secrets are not in documents, logs or the engines' files.
    let needles: Vec<Vec<u8>> = [first, second].iter().flat_map(|it| spellings(it)).collect();
    for host in [1, 2] {
        let found = holding(&lab.files_of(host), &needles);
        assert!(found.is_empty(), "{found:?}");
    }
    // The search works: it finds a secret that the container wrote to its disk.
    lab.inside(host, &updated, &["sh", "-c", "cat /run/secrets/till >/leaked"]).done();
    assert!(!holding(&lab.files_of(host), &needles).is_empty(), "the search finds nothing");
}

#[test]
fn a_secret_moves_between_workers_that_have_no_key_of_it() {
    let lab = Lab::cluster_of_workers(3);
    let secret = "nineteen-little-terns";
    lab.file("password", secret);
    lab.file("motto", "in coin we trust\n");
    // Not on the server, which has the key itself.
    let compose =
        COMPOSE.replace("deploy: {", "deploy: {placement: {constraints: [node.name != h1]}, ");
    lab.deploy(1, &compose, &["--wait"]).done();
    let (first, container) = lab.only("shop/bank");
    let second = 5 - first;
    assert_eq!(lab.inside(first, &container, &["cat", "/run/secrets/till"]).done(), secret);

    lab.vc(1, &["drain", &format!("h{first}")]).done();
    let (host, moved) = lab.only("shop/bank");
    assert_eq!(host, second);
    assert_eq!(lab.inside(second, &moved, &["cat", "/run/secrets/till"]).done(), secret);
    let needles = spellings(secret);
    for worker in [first, second] {
        let files = lab.files_of(worker);
        assert!(!files.join("node/files.key").exists() && !files.join("node/cluster.key").exists());
        let found = holding(&files, &needles);
        assert!(found.is_empty(), "{found:?}");
    }

    // Without a server, an instance that ends starts again where its files are.
    lab.host("node-kill", 1);
    lab.docker(second, &["kill", &moved.id]).done();
    let restarted = |row: &serde_json::Value| row["state"] == "running" && row["restarts"] == 1;
    lab.row(second, "it runs again", "bank", restarted);
    let (_, again) = lab.only("shop/bank");
    assert_eq!(lab.inside(second, &again, &["cat", "/run/secrets/till"]).done(), secret);

    // After a boot the files are gone, until a server is back.
    lab.host("kill", second);
    lab.host("start", second);
    lab.node(second, &["run"]);
    lab.row(second, "it does not start, and says why", "bank", |row| {
        row["reason"].as_str().is_some_and(|reason| reason.contains("no server hands over"))
    });
    lab.node(1, &["run"]);
    lab.row(second, "it runs again", "bank", |row| row["state"] == "running");
    let (_, again) = lab.only("shop/bank");
    assert_eq!(lab.inside(second, &again, &["cat", "/run/secrets/till"]).done(), secret);

    // Of a container that is removed while its node is down, no secret stays in memory.
    let memory = format!("/proc/{}/root/run/vc", lab.pid(second, "engine.pid"));
    assert!(!holding(Path::new(&memory), &needles).is_empty(), "the search finds it in memory");
    lab.host("node-kill", second);
    lab.vc(1, &["rm", "bank"]).done();
    lab.docker(second, &["rm", "-f", &again.id]).done();
    lab.node(second, &["run"]);
    until("the secret is removed from memory", DEADLINE, || {
        let found = holding(Path::new(&memory), &needles);
        if found.is_empty() { Ok(()) } else { Err(format!("{found:?}")) }
    });
}
