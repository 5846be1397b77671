//! `vc upgrade` under load.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::command::run;
use crate::harness::fixtures::web;
use crate::harness::lab::Lab;
use crate::harness::load::Load;
use crate::harness::program;

/// A program for tests has hundreds of megabytes, of which most are of no use.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn an_upgrade_of_all_nodes_fails_no_request_and_moves_nothing() {
    let lab = Lab::cluster_and_operator(3);
    let home = tempfile::tempdir().expect("a directory");
    for host in 1..=3 {
        let directory = home.path().join(format!("h{host}"));
        fs::create_dir(&directory).expect("made");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(directory.join("vc-node")).arg(program("vc-node"));
        assert!(strip.status().expect("binutils").success());
        let restart = ["node-restart", &host.to_string(), "--log-format", "json"];
        let mut restart = lab.command(&restart);
        restart.env("VC_BIN", &directory);
        run(restart).done();
    }
    lab.all_up(&[1, 2, 3]);
    let newer = home.path().join("newer");
    let mut bytes = fs::read(home.path().join("h1/vc-node")).expect("read");
    bytes.extend(b"another build");
    fs::write(&newer, &bytes).expect("written");

    let elsewhere =
        "    ports: ['8080:80']\n    deploy: {placement: {constraints: [node.name != h3]}}\n";
    lab.deploy(1, &web("shop", "web", 2, elsewhere), &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "shop/web", 2);
    let loads =
        [1, 2, 3].map(|host| Load::requests(&lab, 4, &format!("{}:8080", Lab::ip(host)), 17));

    let newer = newer.to_str().expect("UTF-8");
    let upgrade = lab.vc_running(&["upgrade", newer, "-y", "--pause", "5s", "--output", "json"]);
    let lines = std::iter::from_fn(|| upgrade.next_line(LONG));
    let steps: Vec<Value> =
        lines.map(|line| serde_json::from_str(&line).expect("each line is JSON")).collect();
    let upgraded = steps.iter().filter(|row| row["step"] == "upgraded").count();
    assert_eq!((steps.len(), upgraded), (9, 3), "{steps:?}");

    for load in loads {
        load.await_answers(100);
        load.end_requests().all_answered(100);
    }
    for host in 1..=3 {
        let binary = home.path().join(format!("h{host}/vc-node"));
        assert!(fs::read(binary).expect("read") == bytes, "h{host} has the build");
        assert_eq!(lab.problems(host), [] as [&str; 0], "h{host}");
    }
    assert_eq!(lab.all_containers(&[1, 2, 3]), before, "nothing was restarted or moved");
}
