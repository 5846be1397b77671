//! The example in `examples/shop`, deployed as its README describes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::command::run_for;
use crate::harness::lab::Lab;
use crate::harness::load::{Load, datagrams};
use crate::harness::{DEADLINE, until};

/// The first build of the images downloads Debian packages.
const DOWNLOADS: Duration = Duration::from_secs(300);
const IMAGES: [&str; 4] = ["nginx", "redis", "postgres", "python"];

/// Returns a path in `examples/`.
fn example(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(path).display().to_string()
}

/// Adds an item through the shop on a host.
fn post(lab: &Lab, host: usize, item: &str) {
    let url = format!("http://{}:8080/api/items", Lab::ip(host));
    let words = [
        "exec",
        &host.to_string(),
        "--",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "--post-data",
        item,
        &url,
    ];
    let output = lab.run(&words).done();
    assert!(output.contains(item), "{output}");
}

#[test]
fn the_example_shop_answers_on_every_node_and_updates_under_load() {
    let lab = Lab::cluster_and_operator(3);
    // Hosts of the lab have no internet access; the host that runs the test has.
    let mut build = Command::new(example("images/build"));
    build.env("DOCKER_HOST", format!("unix://{}", lab.files_of(4).join("docker.sock").display()));
    run_for(DOWNLOADS, build).done();
    for (at, image) in IMAGES.iter().enumerate() {
        // To different nodes: the others fetch the image from there.
        lab.operator(at % 3 + 1, &["image", "push", &format!("example/{image}:1")]).done();
    }
    let compose = example("shop/compose.yaml");
    lab.operator(2, &["deploy", &compose, "--wait", "--timeout", "50s"]).done();
    for host in 1..=3 {
        let address = format!("http://{}:8080/", Lab::ip(host));
        assert!(lab.get(host, &address).done().contains("<title>Shop</title>"));
        post(&lab, host, &format!("a bicycle of h{host}"));
    }
    let shop = lab.get(1, "http://10.77.0.12:8080/api/items").json();
    assert_eq!(shop["greeting"], "Welcome");
    assert_eq!(shop["items"].as_array().map(Vec::len), Some(3), "{shop}");
    assert!(shop["visits"].as_u64() > Some(0), "{shop}");

    // The web service does not resolve the database, which is in another network.
    let (db, _) = lab.only("shop/db");
    let all = lab.all_containers(&[1, 2, 3]);
    let (front, web) = all
        .iter()
        .flat_map(|(&host, of)| of.iter().map(move |it| (host, it)))
        .find(|(_, it)| it.service() == "shop/web")
        .expect("it runs");
    let seen = |name: &str| lab.inside(front, web, &["nslookup", "-type=a", name]).code == Some(0);
    assert!(seen("api") && !seen("db"), "web on h{front}, db on h{db}");

    // A changed greeting is an update without failed requests.
    let load = Load::requests(&lab, 1, "10.77.0.11:8080", 50);
    let mut greeting = lab.command(&["exec", "4", "--"]);
    greeting.args([&crate::harness::program("vc").display().to_string(), "--peer", "10.77.0.13"]);
    greeting.args(["deploy", &compose, "--wait"]).env("GREETING", "Hello");
    lab.as_admin(&mut greeting);
    run_for(DEADLINE, greeting).done();
    load.end_requests().all_answered(50);
    until("the new greeting is served with the same items", DEADLINE, || {
        let shop = lab.get(3, "http://10.77.0.11:8080/api/items").json();
        let right =
            shop["greeting"] == "Hello" && shop["items"].as_array().map(Vec::len) == Some(3);
        if right { Ok(()) } else { Err(shop.to_string()) }
    });

    // UDP is forwarded as well.
    let echo = "name: echo\nservices:\n  echo:\n    image: example/python:1\n    ports: ['9053:53/udp']\n    \
                stop_grace_period: 1s\n    deploy: {update_config: {monitor: 500ms}}\n    command:\n      - python3\n      - -c\n      - |\n        \
                import socket\n        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n        \
                s.bind(('', 53))\n        while True:\n            data, peer = s.recvfrom(1500)\n            \
                s.sendto(b'echo ' + data, peer)\n";
    lab.deploy(1, echo, &["--wait"]).done();
    let (home, _) = lab.only("echo/echo");
    let idle = home % 3 + 1;
    let (answers, _) = until("the datagrams are answered", DEADLINE, || {
        datagrams(&lab, idle, &format!("{}:9053", Lab::ip(idle)), 3)
    });
    assert_eq!(answers, ["echo 0", "echo 1", "echo 2"]);
}
