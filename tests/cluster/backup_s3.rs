//! A node backs the cluster up to a bucket, and a cluster is founded anew from there.

use vc_s3_test_server::{Fault, S3Server, SECRET};

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

const COMPOSE: &str = "
name: shop
services:
  web: {image: sleep, command: [sleep, '900'], stop_grace_period: 1s}
";

/// What is in the bucket beside what the schedule makes; the second has such a name.
const OTHERS: [&str; 2] = ["home/cluster.vcb", "home/vc-7.vcb"];

/// Returns the names of the backups that a schedule has made in the bucket.
fn scheduled(server: &S3Server) -> Vec<String> {
    server.objects().into_keys().filter(|it| !OTHERS.contains(&it.as_str())).collect()
}

#[test]
fn a_cluster_is_backed_up_to_a_bucket_and_founded_anew_from_it() {
    let server = S3Server::start();
    let mut cluster = Cluster::of(2);
    let compose = cluster.file("shop.yaml", COMPOSE);
    cluster.vc(0, &["deploy", &compose]).done();
    let passphrase = cluster.file("passphrase", "correct horse");
    let credentials = cluster.file("credentials", "[default]\naws_access_key_id = AKIAOTHER\n");
    let location = server.location("home");
    let secret = ["--backup-credentials-file", credentials.as_str()];
    let schedule = ["--backup-passphrase-file", &passphrase, "--backup-every", "2s"];
    let given =
        [&["--backup-dir", location.as_str(), "--backup-keep", "2"], &secret[..], &schedule[..]];
    OTHERS.iter().for_each(|key| server.put(key, "no backup"));
    cluster.nodes[1].stop();
    cluster.nodes[1].rerun(&given.concat());

    // What is wrong is said by another node, and the node goes on with the file as it is then.
    let problem = |cluster: &Cluster, text: &str| {
        until("the other node says that it failed", DEADLINE, || {
            let rows = cluster.rows(0, &["backup", "ls"]);
            let problem = rows.first().map(|row| row["problem"].to_string()).unwrap_or_default();
            if problem.contains(text) { Ok(()) } else { Err(rows) }
        });
    };
    problem(&cluster, "no aws_secret_access_key in its profile [default]");
    server.fail("LIST", Fault::Refuse(403, "RequestTimeTooSkewed"), usize::MAX);
    cluster.file("credentials", &S3Server::credentials_file());
    problem(&cluster, "the clock of this host differs from that of the server");
    let status = cluster.vc(0, &["status"]).out;
    assert!(
        status.contains("backups on n2: the last backup failed: cannot list s3://"),
        "{status}"
    );
    server.heal();

    let first = until("there is one", DEADLINE, || scheduled(&server).pop().ok_or(())).0;
    until("it was replaced by later ones, and two are kept", DEADLINE, || {
        let all = scheduled(&server);
        if !all.contains(&first) && all.len() == 2 { Ok(()) } else { Err(all) }
    });
    assert!(OTHERS.iter().all(|key| server.objects().contains_key(*key)));
    assert_eq!(server.open_uploads(), 0);
    until("nothing is wrong", DEADLINE, || {
        let rows = cluster.rows(0, &["backup", "ls"]);
        if rows.first().is_some_and(|it| it["problem"] == "") { Ok(()) } else { Err(rows) }
    });
    cluster.nodes[1].stop();
    for text in [SECRET, "AKIATEST"] {
        assert!(!cluster.nodes[1].log().contains(text), "{text} is in the log");
        let remembered = std::fs::read_to_string(cluster.nodes[1].dir.join("node.json"));
        assert!(!remembered.expect("settings").contains(text), "{text} is in the settings");
    }

    // All nodes are lost: the address and two files are what a person needs.
    cluster.nodes[0].cut_power();
    let with = ["--credentials-file", &credentials, "--passphrase-file", &passphrase];
    let newest = scheduled(&server).pop().expect("one");
    let verify = [&["backup", "verify", &location], &with[..]].concat();
    let verified = cluster.vc(0, &verify).done();
    assert!(verified.contains(&newest) && verified.contains("1 service"), "{verified}");
    let mut fresh = cluster.outsider("r1");
    let missing = location.replace("/home", "/empty");
    fresh.attempt(&[&["restore", &missing], &with[..]].concat()).refused_with("no backup below");
    let damaged = location.replace("/home", "/home/cluster.vcb");
    fresh.attempt(&[&["restore", &damaged], &with[..]].concat()).refused_with("is no backup");
    fresh.start(&[&["restore", &location], &with[..]].concat());
    let left: Vec<_> = std::fs::read_dir(&fresh.dir).expect("listed").flatten().collect();
    assert!(left.iter().all(|it| !it.file_name().to_string_lossy().starts_with(".vc-backup")));
    let admin = fresh.dir.join("admin.token").display().to_string();
    cluster.nodes.push(fresh);
    let services = cluster.vc_as(&admin, 2, &["services"]).done();
    assert!(services.contains("shop/web"), "{services}");
}
