//! Nodes whose wall clock is wrong at boot, and set right while they run (libfaketime).

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::fixtures::with;
use crate::harness::{DEADLINE, running, until};

/// Returns the library of the Debian package libfaketime, whose directory names the architecture.
fn library() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib").expect("readable").filter_map(|entry| {
        let path = entry.ok()?.path().join("faketime/libfaketime.so.1");
        path.exists().then_some(path)
    });
    found.into_iter().next().expect("libfaketime is installed: run scripts/packages lab")
}

/// A cluster whose second node has a clock that is off.
struct Skewed {
    cluster: Cluster,
    offset: PathBuf,
}

impl Skewed {
    /// Starts the second node again with this offset, in seconds.
    fn boot(seconds: i64) -> Self {
        let mut cluster = Cluster::of(2);
        let offset = cluster.path("offset");
        let env = [
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        cluster.nodes[1].stop();
        cluster.nodes[1].env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let skewed = Self { cluster, offset };
        skewed.set(seconds);
        let mut skewed = skewed;
        skewed.cluster.nodes[1].rerun(&[]);
        // Not by the node itself: while its clock is slow, it refuses tokens that are not valid yet.
        until("the node is up", DEADLINE, || match skewed.row() {
            row if row["state"] == "up" => Ok(()),
            row => Err(row.to_string()),
        });
        skewed
    }

    /// Returns the row of the second node, as the first one shows it.
    fn row(&self) -> Value {
        let rows = self.cluster.rows(0, &["nodes"]);
        rows.into_iter().find(|row| row["name"] == "n2").expect("n2 is a member")
    }

    fn set(&self, seconds: i64) {
        std::fs::write(&self.offset, format!("{seconds:+}")).expect("written");
    }

    /// Deploys a version of a service that runs on the second node, and waits until it is available there.
    fn update(&self, version: &str) {
        let deploy = "    deploy:\n      placement: {constraints: [node.name == n2]}\n      \
                      update_config: {monitor: 500ms, order: start-first}\n";
        let environment = format!("    environment: {{VERSION: '{version}'}}\n{deploy}");
        self.cluster.deploy(0, &with("shop", "web", 1, &environment));
        until("the version is available", DEADLINE, || {
            running(&self.cluster.ps(0), "shop/web", 1)?;
            let row = self.cluster.rows(0, &["services"]).remove(0);
            match row["rollout"]["state"].as_str() {
                Some("complete") => Ok(()),
                _ => Err(row.to_string()),
            }
        });
    }

    fn await_offset(&self, fits: impl Fn(i64) -> bool) {
        until("the offset of the clock is shown", DEADLINE, || {
            let offset = self.row()["clock_offset_ms"].as_i64().expect("a number");
            if fits(offset) { Ok(()) } else { Err(format!("{offset} ms")) }
        });
    }
}

fn check(seconds: i64) {
    let skewed = Skewed::boot(seconds);
    let cluster = &skewed.cluster;
    skewed.await_offset(|offset| (offset / 1000 - seconds).abs() <= 2);
    let status = cluster.vc(0, &["status"]).done();
    assert!(status.contains("the clock of node n2 is"), "{status}");
    skewed.update("1");
    skewed.update("2");

    skewed.set(0);
    skewed.await_offset(|offset| offset == 0);
    skewed.update("3");
    let token = cluster.user_token(0, "ada", "viewer");
    cluster.vc_as(&token, 1, &["services"]).done();
    let events = cluster.event_rows(0);
    let down = |row: &&Value| row.to_string().contains("is down");
    let since = events.iter().rposition(|row| row.to_string().contains("is up")).unwrap_or(0);
    assert!(events[since..].iter().find(down).is_none(), "{events:?}");
}

#[test]
fn a_clock_that_was_three_hours_slow_at_boot_delays_no_update() {
    check(-3 * 3600);
}

#[test]
fn a_clock_that_was_three_hours_fast_and_is_set_right_does_not_make_its_node_flap() {
    check(3 * 3600);
}
