//! What the data of nodes takes, and images that nothing needs.

use crate::harness::cluster::Cluster;

#[test]
fn each_node_says_what_its_data_takes() {
    let cluster = Cluster::of(2);
    let rows = cluster.rows(1, &["system", "df"]);
    for node in ["n1", "n2"] {
        let of_node = rows.iter().filter(|row| row["node_name"] == node);
        let kinds: Vec<&str> = of_node.filter_map(|row| row["kind"].as_str()).collect();
        let all = ["images", "volumes", "trash", "snapshots", "instances", "logs", "documents"];
        assert_eq!(kinds, all, "{node}");
    }
    let documents = rows.iter().filter(|row| row["kind"] == "documents");
    assert!(documents.clone().all(|row| row["bytes"].as_u64() > Some(0)), "{rows:?}");
    assert_eq!(cluster.rows(0, &["system", "df", "--node", "n2"]).len(), 7);
}

#[test]
fn images_that_were_never_pushed_cannot_be_removed() {
    let cluster = Cluster::of(1);
    cluster.vc(0, &["image", "rm", "web:1"]).refused_with("no image was pushed as web:1");
    assert_eq!(cluster.rows(0, &["image", "prune", "--dry-run"]), [] as [serde_json::Value; 0]);
    let viewer = cluster.user_token(0, "eve", "viewer");
    cluster.vc_as(&viewer, 0, &["image", "prune", "-y"]).refused_with("deployer");
}
