//! A real Prometheus that scrapes the nodes of a lab. Left out where there is none: Debian's package is `prometheus`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::command::{Running, run};
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, sleeping_service, until};

const TOKEN: &str = "a-token-of-the-test";
const PORT: u16 = 9477;
const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring");

/// Returns whether a program can be started.
fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success())
}

fn promtool(arguments: &[&str]) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments);
    run(command).done()
}

/// A Prometheus on the first host.
struct Prometheus<'a> {
    lab: &'a Lab,
    _process: Running,
}

impl<'a> Prometheus<'a> {
    /// Starts it with the rules of docs/monitoring and its configuration, for these hosts and a scrape a second.
    fn start(lab: &'a Lab, hosts: &[usize]) -> Self {
        let token = lab.file("token", TOKEN);
        let rules = format!("{MONITORING}/alerts.yml");
        let targets: Vec<String> =
            hosts.iter().map(|&host| format!("'{}:{PORT}'", Lab::ip(host))).collect();
        let text = std::fs::read_to_string(format!("{MONITORING}/prometheus.yml")).expect("read");
        let text = text
            .replace("15s", "1s")
            .replace("alerts.yml", &rules)
            .replace("/etc/prometheus/vc-metrics.token", &token)
            .replace("'10.0.0.1:9477', '10.0.0.2:9477', '10.0.0.3:9477'", &targets.join(", "));
        let config = lab.file("prometheus.yml", &text);
        promtool(&["check", "config", &config]);
        let data = Path::new(&config).with_file_name("prometheus");
        let mut command = lab.command(&["exec", "1", "--", "prometheus"]);
        command
            .arg(format!("--config.file={config}"))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--web.listen-address=127.0.0.1:9090");
        Self { lab, _process: Running::start(command) }
    }

    /// Returns the series that a query selects.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let url = format!("http://127.0.0.1:9090/api/v1/query?query={}", encode(query));
        let out = self.lab.run(&["exec", "1", "--", "busybox", "wget", "-q", "-O", "-", &url]);
        if out.code != Some(0) {
            return Err(out.err);
        }
        let answer: Value = serde_json::from_str(&out.out).map_err(|error| error.to_string())?;
        answer["data"]["result"].as_array().cloned().ok_or(out.out)
    }

    /// Waits until a query selects a number of series.
    fn await_series(&self, query: &str, count: usize) -> Vec<Value> {
        let found = until(query, DEADLINE, || match self.query(query) {
            Ok(series) if series.len() == count => Ok(series),
            Ok(series) => Err(format!("{series:?}")),
            Err(error) => Err(error),
        });
        found.0
    }
}

/// Encodes a query for a URL.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        let _ = write!(encoded, "%{byte:02X}");
        encoded
    })
}

#[test]
fn a_failover_is_a_time_series_and_the_metrics_are_as_prometheus_wants_them() {
    if !is_installed("prometheus") || !is_installed("promtool") {
        println!("left out: there is no prometheus on this computer");
        return;
    }
    let lab = Lab::up(3);
    for host in 1..=3 {
        // The same for all, as docs/metrics.md says.
        let dir = lab.files_of(host).join("node");
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join("metrics.token"), TOKEN).expect("written");
    }
    let lab = lab.with_cluster_of_options(3, &["--metrics", &format!("0.0.0.0:{PORT}")]);
    lab.deploy(1, &sleeping_service("shop", "web", 3), &["--wait"]).done();

    promtool(&["check", "rules", &format!("{MONITORING}/alerts.yml")]);
    let url = format!("http://{}:{PORT}/metrics", Lab::ip(2));
    let header = format!("--header=Authorization: Bearer {TOKEN}");
    let get = ["exec", "1", "--", "busybox", "wget", "-q", "-O", "-"];
    assert_ne!(lab.run(&[&get[..], &[&url]].concat()).code, Some(0), "the token is needed");
    let text = lab.run(&[&get[..], &[&header, &url]].concat()).done();
    let file = lab.file("metrics", &text);
    let mut check = Command::new("sh");
    check.args(["-c", "promtool check metrics < \"$1\" 2>&1", "sh", &file]);
    assert_eq!(run(check).done(), "", "nothing to complain of in\n{text}");

    let prometheus = Prometheus::start(&lab, &[1, 2, 3]);
    prometheus.await_series("up == 1", 3);
    prometheus.await_series("vc_node_up == 1", 9);
    let used = prometheus
        .await_series(r#"container_memory_working_set_bytes{project="shop",service="web"} > 0"#, 3);
    let label = |series: &Value, name: &str| series["metric"][name].as_str().map(str::to_owned);
    let mut slots: Vec<_> = used.iter().map(|it| (label(it, "slot"), label(it, "image"))).collect();
    slots.sort();
    let slot = |n: u32| (Some(n.to_string()), Some("vc-test:1".to_owned()));
    assert_eq!(slots, [slot(1), slot(2), slot(3)]);

    lab.host("kill", 3);
    prometheus.await_series(r#"min by (node) (vc_node_up) == 0"#, 1);
    prometheus.await_series(r#"vc_node_up{node="h3"} == 0"#, 2);
    prometheus.await_series(r#"ALERTS{alertname="NodeDown",node="h3"}"#, 1);
    // It was up before, and its slot runs again: Prometheus has both.
    prometheus.await_series(r#"max_over_time(vc_node_up{node="h3"}[5m]) == 1"#, 3);
    prometheus.await_series("sum(vc_failover_duration_seconds_count) >= 2", 1);
    prometheus.await_series("sum(vc_detection_duration_seconds_count) >= 2", 1);
    prometheus.await_series(
        r#"count by (service) (container_last_seen{service="web"} > time() - 30) == 3"#,
        1,
    );
    prometheus.await_series(r#"min by (service) (vc_service_healthy{service="web"}) == 3"#, 1);
}
