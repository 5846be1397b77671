//! Compares what is served with what is written about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vc_crdt::{ClusterState, KnownVersions, View};
use vc_engine::routes::Routes;
use vc_protocol::Keypair;

use super::*;
use crate::bandwidth::Bandwidth;
use crate::proxy::Connections;

const PAGE: &str = include_str!("../../../docs/metrics.md");
const ALERTS: &str = include_str!("../../../docs/monitoring/alerts.yml");
const SCRAPES: &str = include_str!("../../../docs/monitoring/prometheus.yml");
const DASHBOARD: &str = include_str!("../../../docs/monitoring/dashboard.json");

/// Metrics of Prometheus itself that alerts may use.
const OF_PROMETHEUS: [&str; 1] = ["up"];

/// Returns everything that a node without any data serves, in the older format.
fn served() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes").public();
    let (cluster, node) =
        (ClusterId::of(&key).expect("ed25519"), NodeId::of(&key).expect("ed25519"));
    let view =
        View::from_states(ClusterState::default(), BTreeMap::new(), &KnownVersions::default());
    let (_, snapshot) = watch::channel(Snapshot {
        view: Arc::new(view),
        vitals: Arc::default(),
        left: false,
        duplicate: None,
        audit: None,
        watchdog: None,
    });
    let members = libp2p_stream::Behaviour::new().new_control();
    let bandwidth = Bandwidth::new(None, Instant::now());
    let volumes = Volumes::new(bandwidth.clone());
    // What has no series of any volume is not served.
    let (metrics, volume) = (volumes.metrics(), "shop/data".parse().expect("a volume"));
    metrics.taken(&volume, Duration::ZERO, Duration::ZERO);
    metrics.failed(&volume, crate::volumes::Operation::Snapshot);
    metrics.set_snapshots(&volume, 1);
    metrics.traffic(&volume);
    let (_, table) = watch::channel(Arc::<Routes>::default());
    let connections = Connections::default();
    let sources = Sources {
        cluster,
        node,
        snapshot,
        volumes,
        usages: Usages::new(node, members.clone()),
        router: Router::new(node, table, connections, members, bandwidth),
        images: Images::open(dir.path(), None).expect("opened"),
        driver: DriverMetrics::new(),
        auth: AuthMetrics::default(),
        failovers: FailoverMetrics::new(),
    };
    in_format(&sources.registries(), MetricsFormat::Text)
}

/// Returns the names of what is served.
fn names(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// Returns the names of metrics in a text that is not ours alone.
fn used(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    let of_ours = ["vc_", "container_", "machine_"];
    words.filter(|word| of_ours.iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[test]
fn documented_metrics_are_those_that_are_served() {
    let text = served();
    let columns = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let documented: BTreeSet<&str> = columns
        .flat_map(|column| column.split(['`', ',', ' ']).filter(|name| !name.is_empty()))
        .collect();
    assert_eq!(documented, names(&text));
    for name in names(&text) {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} says nothing of itself");
    }
}

#[test]
fn alerts_and_the_dashboard_use_metrics_that_there_are() {
    let text = served();
    let all = names(&text);
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|it| it["targets"].as_array().expect("queries"));
    let queries: Vec<&str> =
        queries.map(|it| it["expr"].as_str().expect("an expression")).collect();
    let rules = ALERTS.lines().filter_map(|it| it.trim().strip_prefix("expr: "));
    let rules: Vec<&str> = rules.collect();
    assert!(queries.len() > 10 && rules.len() > 10);
    for expression in queries.iter().chain(&rules) {
        let used = used(expression);
        let is_known = |name: &&&str| {
            let of_histogram = ["_bucket", "_sum", "_count"];
            let base = of_histogram.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name);
            all.contains(*name) || all.contains(base)
        };
        let unknown: Vec<_> = used.iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "{expression}: {unknown:?}");
        let of_prometheus = OF_PROMETHEUS.iter().any(|name| expression.contains(name));
        assert!(!used.is_empty() || of_prometheus, "{expression} uses no metric");
    }
}

#[test]
fn the_files_for_prometheus_are_yaml() {
    for text in [ALERTS, SCRAPES] {
        for event in granit_parser::Parser::new_from_str(text) {
            event.expect("YAML");
        }
    }
}

#[test]
fn the_older_format_describes_counters_by_the_names_of_their_series() {
    let open = "# HELP a_bytes Bytes.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n\
                # HELP b Some.\n# TYPE b gauge\nb 2\n# EOF\n";
    let expected = "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
                    # HELP b Some.\n# TYPE b gauge\nb 2\n";
    assert_eq!(classic(open), expected);
}
