//! A cluster is backed up to a file, and founded anew from it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use vc_backup::{BackupFile, Contents, Manifest, Passphrase, Sink, VolumeEntry, VolumeSnapshot};
use vc_protocol::VolumeKey;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

const SECRET: &str = "seventeen-grey-herons";
const COMPOSE: &str = "
name: shop
services:
  web:
    image: sleep
    command: [sleep, '900']
    environment: {PASSWORD: hunter2}
    stop_grace_period: 1s
  bank: {image: 'bank:1', secrets: [password]}
secrets:
  password: {file: ./password}
";

/// Returns the names in a directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("listed").map(|it| it.expect("an entry"));
    entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_node_backs_the_cluster_up_by_its_settings_and_says_when_that_fails() {
    let mut cluster = Cluster::of(2);
    let dir = cluster.path("backups");
    let passphrase = cluster.file("passphrase", "correct horse");
    let options = |dir: &str| {
        let words = ["--backup-dir", dir, "--backup-passphrase-file", &passphrase];
        let more = ["--backup-every", "4s", "--backup-keep", "2"];
        [words, more].concat().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let given = options(&dir.display().to_string());
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    cluster.nodes[1].stop();
    let half = ["--backup-dir", "/tmp", "--unset", "backup-passphrase-file"];
    assert!(cluster.nodes[1].attempt_rerun(&half).failed().contains("--backup-passphrase-file"));
    // As a disk that is not mounted.
    cluster.nodes[1].rerun(&given);
    until("the other node says that it failed", DEADLINE, || {
        let rows = cluster.rows(0, &["backup", "ls"]);
        let problem = rows.first().map(|row| row["problem"].to_string()).unwrap_or_default();
        if problem.contains("cannot read") { Ok(()) } else { Err(rows) }
    });
    let status = cluster.vc(0, &["status"]).out;
    assert!(status.contains("backups on n2: the last backup failed: cannot read"), "{status}");

    // It goes on with the settings that it remembers, and keeps two.
    std::fs::create_dir(&dir).expect("made");
    let other = dir.join("other.vcb");
    std::fs::write(&other, "of somebody else").expect("written");
    let first = until("there is one", DEADLINE, || {
        names(&dir).into_iter().find(|it| it.starts_with("vc-") && it.ends_with(".vcb")).ok_or(())
    });
    until("it was replaced by later ones, and two are kept", DEADLINE, || {
        let all = names(&dir);
        let kept = all.iter().filter(|it| it.starts_with("vc-")).count();
        if !all.contains(&first.0) && kept == 2 { Ok(()) } else { Err(all) }
    });
    assert!(other.exists());
    until("nothing is wrong", DEADLINE, || {
        let rows = cluster.rows(0, &["backup", "ls"]);
        if rows.first().is_some_and(|it| it["problem"] == "" && it["node_name"] == "n2") {
            Ok(())
        } else {
            Err(rows)
        }
    });
    cluster.nodes[1].stop();
    let newest = names(&dir).into_iter().filter(|it| it.starts_with("vc-")).max().expect("one");
    let newest = dir.join(newest).display().to_string();
    cluster.vc(0, &["backup", "verify", &newest, "--passphrase-file", &passphrase]).done();
}

/// Reads what has no volumes.
struct NoVolumes;

impl Sink for NoVolumes {
    fn begin(&mut self, _: &Contents) -> io::Result<()> {
        Ok(())
    }

    fn volume(&mut self, _: &VolumeKey, _: &mut dyn Read) -> io::Result<()> {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Writes a backup as another one, with the data of `shop/data`, and `shop/cache` as one whose node has died meanwhile.
fn with_volumes(from: &str, to: &str, archive: &[u8]) {
    let passphrase = Passphrase::new("correct horse").expect("not empty");
    let file = BackupFile::open(Path::new(from)).expect("a backup");
    let Contents { manifest, cluster } = file.read(&passphrase, &mut NoVolumes).expect("read");
    let entry = |name: &str, included| VolumeEntry {
        volume: name.parse().expect("a volume"),
        primary: "n1".to_owned(),
        bytes: 5,
        snapshot: None,
        snapshot_taken: 0,
        included,
        problem: String::new(),
        failed: false,
    };
    let volumes = vec![entry("shop/cache", true), entry("shop/data", true)];
    let manifest = Manifest { volumes, ..manifest };
    let file = File::create(to).expect("a file");
    let mut writer =
        vc_backup::Writer::begin(file, &passphrase, &manifest, &cluster).expect("begun");
    let snapshot = VolumeSnapshot { snapshot: "7-1".to_owned(), taken: 1, bytes: 5 };
    let cache = "shop/cache".parse().expect("a volume");
    let mut volume = writer.volume(&cache, &snapshot).expect("begun");
    volume.append(&archive[..archive.len() / 2]).expect("appended");
    writer.failed(&cache, "node n2 is down").expect("appended");
    let key = "shop/data".parse().expect("a volume");
    let mut volume = writer.volume(&key, &snapshot).expect("begun");
    volume.append(archive).expect("appended");
    volume.finish().expect("appended");
    writer.finish().expect("written");
}

#[test]
fn volumes_are_restored_whole_or_nothing_is_and_services_wait_for_those_that_are_missing() {
    let mut cluster = Cluster::found();
    let compose = "
name: shop
services:
  db: {image: 'db:1', volumes: ['data:/data']}
  cache: {image: 'db:1', volumes: ['cache:/data'], deploy: {replicas: 2}}
volumes: {data: {}, cache: {}}
";
    let compose = cluster.file("shop.yaml", compose);
    cluster.vc(0, &["deploy", &compose, "--force"]).done();
    let passphrase = cluster.file("passphrase", "correct horse");
    let file = cluster.path("cluster.vcb").display().to_string();
    cluster.vc(0, &["backup", &file, "--passphrase-file", &passphrase]).done();
    let tree = cluster.path("tree");
    std::fs::create_dir(&tree).expect("made");
    std::fs::write(tree.join("state"), "kept\n").expect("written");
    let tar = Command::new("tar").arg("-C").arg(&tree).args(["-cf", "-", "."]).output();
    let archive = tar.expect("tar runs").stdout;
    let full = cluster.path("full.vcb").display().to_string();
    let restore = ["restore", full.as_str(), "--passphrase-file", passphrase.as_str()];

    // An archive that is not whole, in a file that is.
    let mut fresh = cluster.outsider("r1");
    with_volumes(&file, &full, &archive[..1200]);
    fresh.attempt(&restore).refused_with("shop/data");
    assert_eq!(names(&fresh.dir), [""; 0]);

    with_volumes(&file, &full, &archive);
    let words = ["backup", "verify", &full, "--passphrase-file", &passphrase];
    let shown = cluster.vc(0, &words);
    let missing = "the data of volume shop/cache is not in it: node n2 is down";
    assert!(shown.err.contains(missing), "{}", shown.err);
    assert!(shown.done().contains("the data of 1 of 2 volumes"));
    cluster.nodes[0].cut_power();
    fresh.start(&restore);
    let snapshots = fresh.dir.join("volumes/shop/data/snapshots");
    let all = names(&snapshots);
    assert!(all.len() == 1 && all[0].starts_with("0-"), "{all:?}");
    let state = std::fs::read_to_string(snapshots.join(&all[0]).join("data/state"));
    assert_eq!(state.expect("a file"), "kept\n");
    assert!(!fresh.dir.join("volumes/shop/cache").exists(), "half of it is not kept");
    assert!(fresh.log().contains("vc scale shop/cache=2"), "{}", fresh.log());
    let admin = fresh.dir.join("admin.token").display().to_string();
    cluster.nodes.push(fresh);
    let rows = cluster.vc_as(&admin, 1, &["--output", "json", "services"]).json();
    let replicas = |name: &str| {
        let mut rows = rows.as_array().expect("rows").iter();
        rows.find(|row| row["service"] == name).expect("a service")["replicas"].clone()
    };
    assert_eq!((replicas("shop/db"), replicas("shop/cache")), (1.into(), 0.into()));
}

/// Returns whether a file contains a text.
fn contains(path: &str, text: &str) -> bool {
    let bytes = std::fs::read(path).expect("a file");
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

#[test]
fn a_lost_cluster_is_founded_anew_from_its_backup_and_knows_nothing_of_its_nodes_and_tokens() {
    let mut cluster = Cluster::found();
    cluster.join(0, &["worker"]);
    cluster.all_up();
    cluster.file("password", SECRET);
    let compose = cluster.file("shop.yaml", COMPOSE);
    cluster.vc(0, &["deploy", &compose]).done();
    cluster.vc(0, &["scale", "web=2"]).done();
    cluster.vc(0, &["project", "allow", "shop", "host-paths=/srv/x"]).done();
    let ann = cluster.limited_token(0, "ann", "deployer", &["--project", "shop"]);
    let eve = cluster.user_token(0, "eve", "admin");
    cluster.vc(0, &["token", "revoke", "--user", "eve"]).done();
    let passphrase = cluster.file("passphrase", "correct horse\n");
    let file = cluster.path("cluster.vcb").display().to_string();
    let with = ["--passphrase-file", passphrase.as_str()];

    // Through a worker, which has no secrets, too; only for an admin, and only with a passphrase.
    let backup = [&["backup", file.as_str()], with.as_slice()].concat();
    cluster.vc_as(&ann, 0, &backup).refused_with("needs admin");
    cluster.vc(0, &["backup", &file]).refused_with("--passphrase-file");
    assert!(!Path::new(&file).exists());
    let shown = cluster.vc(1, &backup).done();
    assert!(shown.contains("2 services, 1 secret or config"), "{shown}");
    cluster.vc(1, &backup).refused_with("--force");
    for text in [SECRET, "hunter2", "shop", "ann"] {
        assert!(!contains(&file, text), "{text} is in the file");
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).expect("a file"));
    assert_eq!(mode & 0o777, 0o600);
    let audit = cluster.vc(0, &["--output", "json", "audit"]).done();
    assert!(audit.contains("backup_taken"), "{audit}");

    // Nothing is left of what cannot be restored.
    let wrong = cluster.file("wrong", "another horse");
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = cluster.path("damaged").display().to_string();
    std::fs::write(&damaged, &bytes).expect("written");
    let mut fresh = cluster.outsider("r1");
    let restore = |file, passphrase| ["restore", file, "--passphrase-file", passphrase];
    for (how, why) in [
        (restore(&file, &wrong), "the passphrase is not that of"),
        (restore(&damaged, &passphrase), "is damaged"),
        (restore(&passphrase, &passphrase), "is no backup"),
    ] {
        fresh.attempt(&how).refused_with(why);
        assert_eq!(names(&fresh.dir), [""; 0], "{why}");
    }
    cluster.vc(0, &["backup", "verify", &damaged]).refused_with("is damaged");
    let verified = cluster.vc(0, &[&["backup", "verify", file.as_str()], with.as_slice()].concat());
    assert!(verified.done().contains("2 services"));

    // All nodes are lost.
    cluster.nodes.iter_mut().for_each(|node| node.cut_power());
    fresh.start(&restore(&file, &passphrase));
    let admin = fresh.dir.join("admin.token").display().to_string();
    let tokens = fresh.dir.join("user-tokens");
    fresh.attempt(&restore(&file, &passphrase)).refused_with("belongs to a cluster already");
    cluster.nodes.push(fresh);
    let rows = |cluster: &Cluster, words: &[&str]| {
        let output = cluster.vc_as(&admin, 2, &[&["--output", "json"], words].concat());
        output.json().as_array().expect("rows").clone()
    };
    until("the services run again", DEADLINE, || {
        let all = rows(&cluster, &["ps", "web"]);
        let running = all.iter().filter(|it| it["state"] == "running").count();
        if running == 2 { Ok(()) } else { Err(all) }
    });
    assert_eq!(rows(&cluster, &["nodes"]).len(), 1);
    assert_eq!(rows(&cluster, &["services"]).len(), 2);
    let projects = rows(&cluster, &["project", "ls"]);
    assert!(format!("{projects:?}").contains("/srv/x"), "{projects:?}");
    let shown = cluster.vc_as(&admin, 2, &["inspect", "web", "--show-values"]).done();
    assert!(shown.contains("hunter2"), "{shown}");

    // The secret has its content, under the version that the service mounts.
    let again = cluster.path("again.vcb").display().to_string();
    let words = [&["backup", again.as_str()], with.as_slice()].concat();
    let shown = cluster.vc_as(&admin, 2, &words).done();
    assert!(shown.contains("2 services, 1 secret or config"), "{shown}");

    // Users have their rights by new tokens: old ones are of another cluster, and who was revoked gets none.
    let new = names(&tokens);
    assert!(new.len() == 1 && new[0].starts_with("ann-"), "{new:?}");
    let new = tokens.join(&new[0]).display().to_string();
    cluster.vc_as(&new, 2, &["scale", "web=1"]).done();
    cluster.vc_as(&new, 2, &["nodes"]).done();
    cluster.vc_as(&new, 2, &["drain", "r1"]).refused_with("needs admin");
    for old in [&ann, &eve] {
        cluster.vc_as(old, 2, &["services"]).refused_with("another cluster");
    }

    // A node of the old cluster comes back: neither has anything of the other.
    cluster.nodes[0].start(&["run"]);
    until("the old cluster is as it was", DEADLINE, || {
        let output = cluster.vc(0, &["--output", "json", "inspect", "web"]);
        if output.code == Some(0) { Ok(()) } else { Err(output.err) }
    });
    assert_eq!(rows(&cluster, &["nodes"]).len(), 1);
    let ids = [0, 2].map(|at| {
        let token =
            if at == 0 { cluster.nodes[0].dir.join("admin.token") } else { admin.clone().into() };
        let token = token.display().to_string();
        let status = cluster.vc_as(&token, at, &["--output", "json", "status"]).json();
        status["cluster"].as_str().expect("an id").to_owned()
    });
    assert_ne!(ids[0], ids[1]);

    // Others join as always.
    let token = cluster.vc_as(&admin, 2, &["token", "create", "--node"]).done();
    let mut second = cluster.outsider("r2");
    second.start(&["join", token.trim()]);
    cluster.nodes.push(second);
    until("the other node is there", DEADLINE, || {
        let rows = rows(&cluster, &["nodes"]);
        if rows.len() == 2 && rows.iter().all(|it| it["state"] == "up") {
            Ok(())
        } else {
            Err(rows)
        }
    });
}
