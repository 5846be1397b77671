//! Global services, jobs and schedules on real processes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, until};

/// Returns the row of a service.
fn row(cluster: &Cluster, service: &str) -> Value {
    let rows = cluster.rows(0, &["services"]);
    rows.into_iter().find(|row| row["service"] == service).expect("the service")
}

/// Returns the lines of a file that does not exist before the first.
fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_node_that_joins_gets_an_instance_of_a_global_service() {
    let mut cluster = Cluster::of(2);
    let compose = "name: ops\nservices:\n  agent:\n    image: vc-test:1\n    command: [sleep, '900']\n    \
                   deploy: {mode: global, update_config: {monitor: 500ms}}\n";
    let file = cluster.file("global.yaml", compose);
    cluster.vc(0, &["deploy", &file, "--wait"]).done();
    let before: BTreeSet<String> =
        cluster.ps(0).iter().map(|it| it["replica"].to_string()).collect();
    assert_eq!((row(&cluster, "ops/agent")["replicas"].as_u64(), before.len()), (Some(2), 2));
    cluster.vc(0, &["scale", "agent=5"]).refused_with("runs on each node that it suits");
    cluster.join(0, &["server"]);
    until("the new node has an instance", DEADLINE, || match row(&cluster, "ops/agent") {
        row if row["running"] == 3 => Ok(()),
        row => Err(row.to_string()),
    });
    let after: BTreeSet<String> =
        cluster.ps(0).iter().map(|it| it["replica"].to_string()).collect();
    assert!(before.is_subset(&after), "{before:?} {after:?}");
}

#[test]
fn a_job_completes_and_its_exit_codes_and_logs_stay() {
    let cluster = Cluster::of(2);
    let compose = |code: u32| {
        format!(
            "name: shop\nservices:\n  import:\n    image: vc-test:1\n    \
             command: [sh, -c, 'echo imported $$VC_REPLICA; exit {code}']\n    \
             deploy: {{mode: replicated-job, replicas: 3, restart_policy: {{condition: none}}}}\n    \
             x-vc: {{max_concurrent: 1}}\n"
        )
    };
    let file = cluster.file("job.yaml", &compose(0));
    cluster.vc(0, &["deploy", &file, "--wait"]).done();
    assert_eq!(row(&cluster, "shop/import")["succeeded"], 3);
    let logged = cluster.vc(1, &["logs", "import", "--no-prefix"]).done();
    let logged: BTreeSet<&str> = logged.lines().collect();
    assert_eq!(logged, BTreeSet::from(["imported 1", "imported 2", "imported 3"]));
    let file = cluster.file("job.yaml", &compose(3));
    let why = cluster.vc(0, &["deploy", &file, "--wait"]).failed();
    assert!(why.contains("exited with code 3"), "{why}");
    let runs = cluster.rows(1, &["job", "history", "import"]);
    assert!(runs.iter().any(|run| run["exit_code"] == 3 && run["state"] == "failed"), "{runs:?}");
}

#[test]
fn a_service_with_a_schedule_runs_once_at_each_time_although_a_node_is_killed() {
    let mut cluster = Cluster::of(3);
    until("all nodes vote", DEADLINE, || {
        let rows = cluster.rows(0, &["nodes"]);
        match rows.iter().all(|row| row["votes"] == true) {
            true => Ok(()),
            false => Err(format!("{rows:?}")),
        }
    });
    let ran = cluster.path("ran");
    let compose = format!(
        "name: shop\nservices:\n  tick:\n    image: vc-test:1\n    \
         command: [sh, -c, 'echo $$VC_REPLICA >> {}; sleep 0.3']\n    x-vc: {{schedule: '* * * * * *', overlap: allow, keep: 50}}\n",
        ran.display()
    );
    cluster.deploy(0, &compose);
    let more_than = |count: usize| {
        until("it runs", DEADLINE, || match lines(&ran).len() {
            found if found > count => Ok(()),
            found => Err(format!("{found} of {count}")),
        });
    };
    more_than(4);
    cluster.nodes[2].kill();
    more_than(lines(&ran).len() + 4);
    cluster.nodes[2].rerun(&[]);
    cluster.all_up();
    more_than(lines(&ran).len() + 4);
    cluster.vc(0, &["scale", "tick=0"]).done();
    until("no run is under way", DEADLINE, || {
        let rows = cluster.rows(0, &["job", "ls"]);
        match rows[0]["running"] == 0 && rows[0]["suspended"] == true {
            true => Ok(()),
            false => Err(rows[0].to_string()),
        }
    });
    let all = lines(&ran);
    let times: BTreeSet<&String> = all.iter().collect();
    assert_eq!(times.len(), all.len(), "each time once: {all:?}");
    let runs = cluster.rows(1, &["job", "history", "tick"]);
    assert!(runs.iter().any(|run| run["state"] == "succeeded"), "{runs:?}");
}
