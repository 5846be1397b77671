//! Each rule, with specs as a client could send them.

use serde_json::{Value, json};

use super::*;

/// A spec that uses every field, and satisfies every rule.
fn valid() -> Value {
    json!({
        "container": {
            "image": "registry:5000/shop/web:1@sha256:00",
            "image_id": format!("sha256:{}", "0".repeat(64)),
            "command": ["sh", "-c", "echo a\nb"],
            "entrypoint": [],
            "environment": {"KEY": "a\nb=c", "_": ""},
            "labels": {"com.example.tier": "1", "vcr": ""},
            "healthcheck": {"test": ["CMD-SHELL", "true"], "interval_ms": 1000},
            "stop_grace_ms": 1000,
            "platform": "linux/amd64",
            "restart": {"delay_ms": 1000},
            "working_dir": "/srv",
            "user": "1000:www-data",
            "networks": {"back": ["db", "db.internal"]},
            "mounts": [
                {"volume": {"name": "data", "target": "/data", "read_only": false}},
                {"anonymous": {"target": "/cache"}},
                {"tmpfs": {"target": "/tmp", "bytes": 0}},
                {"bind": {"source": "/run/vc2/../app.sock", "target": "/run/vc", "read_only": true}},
                {"bind": {"source": "/var/run/docker.sock", "target": "/s", "read_only": true}}
            ],
            "files": [
                {"file": {"kind": "secret", "name": "db.key"}, "target": "/run/secrets/db", "mode": 256},
                {"file": {"kind": "config", "name": "/home/ann/app conf"}, "target": "/etc/app", "mode": 292}
            ],
            "settings": {
                "hostname": "front_1.shop",
                "cap_add": ["NET_ADMIN"],
                "cap_drop": ["cap_chown"],
                "sysctls": {"net.core.somaxconn": "99"},
                "stop_signal": "SIGRTMIN+3",
                "devices": ["/dev/kvm", "/dev/null:/dev/nothing:r"],
                "group_add": ["audio", "4321"],
                "security_opt": ["no-new-privileges"],
                "extra_hosts": ["elsewhere:192.0.2.7", "six:2001:db8::1", "host:host-gateway"],
                "ulimits": {"nofile": [123, 456], "nproc": [-1, -1], "core": [0, -1]}
            }
        },
        "constraints": [{"attribute": {"label": "disk"}, "equal": true, "value": "ssd"}],
        "ports": [
            {"host_ip": "127.0.0.1", "published": 8080, "target": 80, "protocol": "tcp"},
            {"host_ip": "127.0.0.2", "published": 8080, "target": 80, "protocol": "tcp"},
            {"host_ip": null, "published": 8080, "target": 80, "protocol": "udp"}
        ],
        "expose": [{"target": 53, "protocol": "udp"}],
        "update": {"delay_ms": MAX_DURATION},
        "disconnect": {"lost_after_ms": MAX_DURATION}
    })
}

fn validated(spec: Value) -> Result<(), String> {
    let spec: ServiceSpec = serde_json::from_value(spec).expect("a spec");
    spec.validate().map_err(|error| error.to_string())
}

#[test]
fn a_spec_that_breaks_a_rule_is_refused_with_its_field() {
    assert_eq!(validated(valid()), Ok(()));
    let year = MAX_DURATION + 1;
    let port = |published: u16, target: u16| json!([{"host_ip": null, "published": published, "target": target, "protocol": "tcp"}]);
    let tmpfs = |target: &str| json!([{"tmpfs": {"target": target, "bytes": 0}}]);
    let bind =
        |source: &str| json!([{"bind": {"source": source, "target": "/x", "read_only": true}}]);
    let secret = |name: &str, target: &str, mode: u32| json!([{"file": {"kind": "secret", "name": name}, "target": target, "mode": mode}]);
    let config = json!([{"file": {"kind": "config", "name": "a\nb"}, "target": "/x", "mode": 0}]);
    let constraint = |label: &str, value: &str| json!([{"attribute": {"label": label}, "equal": true, "value": value}]);
    let ports = vec![json!({"target": 1, "protocol": "tcp"}); MAX_PORTS];
    let cases = [
        ("/container/image", json!(""), "image is not"),
        ("/container/image", json!("-rm"), "image is not"),
        ("/container/image", json!("a b"), "image is not"),
        ("/container/image", json!("a\0"), "image is not"),
        ("/container/image_id", json!("web:1"), "image_id"),
        ("/container/command", json!(["a\0b"]), "command contains a NUL"),
        ("/container/entrypoint", json!(["a", "\0"]), "entrypoint contains a NUL"),
        ("/container/environment", json!({"": "x"}), "environment: '' is not a key"),
        ("/container/environment", json!({"A=B": "x"}), "environment: 'A=B' is not a key"),
        ("/container/environment", json!({"A\0": "x"}), r"environment: 'A\0' is not a key"),
        ("/container/environment", json!({"A\nB": "x"}), r"environment: 'A\nB' is not a key"),
        ("/container/environment", json!({"A": "x\0"}), "environment: 'A' contains a NUL"),
        ("/container/labels", json!({"": "x"}), "labels: '' is not a key"),
        ("/container/labels", json!({"a=b": "x"}), "labels: 'a=b' is not a key"),
        ("/container/labels", json!({"a\u{1b}": "x"}), r"labels: 'a\u{1b}' is not a key"),
        ("/container/labels", json!({"a": "\0"}), "labels: 'a' contains a NUL"),
        ("/container/labels", json!({"vc.service": "bank"}), "labels: 'vc.service' is reserved"),
        ("/container/healthcheck/test", json!(["RUN", "x"]), "healthcheck.test is not"),
        ("/container/healthcheck/test", json!(["CMD", "\0"]), "healthcheck.test contains"),
        ("/container/healthcheck/interval_ms", json!(year), "healthcheck is longer"),
        ("/container/stop_grace_ms", json!(u64::MAX), "stop_grace_ms is longer"),
        ("/container/restart/delay_ms", json!(u64::MAX), "restart.delay_ms is longer"),
        ("/container/platform", json!("linux"), "platform"),
        ("/container/platform", json!("linux/a/b"), "platform"),
        ("/container/working_dir", json!("/a\0b"), "working_dir"),
        ("/container/user", json!(""), "user is empty"),
        ("/container/user", json!("root\n"), "user is empty, or has control"),
        ("/container/networks", json!({"back": ["a b"]}), "networks: 'a b'"),
        ("/container/networks", json!({"back": ["DB"]}), "networks: 'DB'"),
        ("/container/networks", json!({"back": ["a..b"]}), "networks: 'a..b'"),
        ("/container/mounts", tmpfs("data"), "mounts: 'data' is not an absolute path"),
        ("/container/mounts", tmpfs("/"), "mounts: '/' is not"),
        ("/container/mounts", tmpfs("/a/../b"), "mounts: '/a/../b' is not"),
        ("/container/mounts", tmpfs("/a//b"), "mounts: '/a//b' is not"),
        ("/container/mounts", tmpfs("/a\0"), r"mounts: '/a\0' is not"),
        ("/container/mounts", tmpfs("/etc/app"), "files: '/etc/app' is the target of two"),
        ("/container/mounts", bind("relative"), "mounts: 'relative' is not an absolute path"),
        ("/container/mounts", bind("/a\nb"), r"mounts: '/a\nb' is not an absolute path"),
        ("/container/files", secret("", "/x", 0), "files: ''"),
        ("/container/files", secret("../db", "/x", 0), "files: '../db'"),
        ("/container/files", secret("db", "x", 0), "files: 'x' is not an absolute path"),
        ("/container/files", secret("db", "/x", 0o4755), "files: '/x' has a mode"),
        ("/container/files", config, r"files: 'a\nb'"),
        ("/container/settings/hostname", json!("a b"), "settings.hostname"),
        ("/container/settings/hostname", json!(""), "settings.hostname"),
        ("/container/settings/cap_add", json!(["SYS ADMIN"]), "settings.cap_add: 'SYS ADMIN'"),
        ("/container/settings/cap_drop", json!([""]), "settings.cap_add: ''"),
        ("/container/settings/sysctls", json!({"a=b": "1"}), "settings.sysctls: 'a=b'"),
        ("/container/settings/sysctls", json!({"a": "\0"}), "settings.sysctls: 'a' contains"),
        ("/container/settings/stop_signal", json!("TERM;x"), "settings.stop_signal"),
        ("/container/settings/devices", json!(["kvm"]), "settings.devices: 'kvm'"),
        ("/container/settings/devices", json!(["/dev/../x"]), "settings.devices: '/dev/../x'"),
        ("/container/settings/devices", json!(["/dev/a:/dev/b:x"]), "settings.devices: '/dev/a"),
        ("/container/settings/group_add", json!([""]), "settings.group_add"),
        ("/container/settings/security_opt", json!(["a\0"]), "settings.security_opt contains"),
        ("/container/settings/extra_hosts", json!(["a"]), "settings.extra_hosts: 'a'"),
        ("/container/settings/extra_hosts", json!(["a:b"]), "settings.extra_hosts: 'a:b'"),
        ("/container/settings/extra_hosts", json!(["a\nb:::1"]), "settings.extra_hosts: 'a"),
        ("/container/settings/ulimits", json!({"": [1, 1]}), "settings.ulimits: ''"),
        ("/container/settings/ulimits", json!({"nofile": [2, 1]}), "settings.ulimits: 'nofile'"),
        ("/container/settings/ulimits", json!({"nofile": [-1, 1]}), "settings.ulimits: 'nofile'"),
        ("/container/settings/ulimits", json!({"nofile": [-2, -1]}), "settings.ulimits: 'nofile'"),
        ("/constraints", constraint("", "x"), "constraints is empty"),
        ("/constraints", constraint("a", "\u{1b}[2J"), "constraints is empty, or has control"),
        ("/ports", port(0, 80), "ports have the port 0"),
        ("/ports", port(80, 0), "ports have the port 0"),
        ("/ports/0/host_ip", json!("127.0.0.2"), "ports publish a port twice"),
        ("/ports/0/host_ip", Value::Null, "ports publish a port twice"),
        ("/expose/0/target", json!(0), "expose has the port 0"),
        ("/expose", json!(ports), "ports and expose have more"),
        ("/update/delay_ms", json!(u64::MAX), "update.delay_ms is longer"),
        ("/disconnect", json!({"lost_after_ms": year}), "disconnect.lost_after_ms is longer"),
        (
            "/disconnect",
            json!({"lost_after_ms": 1, "replace": false}),
            "disconnect.lost_after_ms has no",
        ),
        (
            "/disconnect",
            json!({"stop_on_client_after_ms": 4999}),
            "disconnect.stop_on_client_after_ms is shorter",
        ),
        (
            "/disconnect",
            json!({"stop_on_client_after_ms": 5000}),
            "disconnect.stop_on_client_after_ms is for",
        ),
        ("/update", json!({"order": "start-first"}), "update.order is start-first, but"),
        ("/update", json!({"monitor_ms": year}), "update.monitor_ms is longer"),
    ];
    for (pointer, value, expected) in cases {
        let mut spec = valid();
        *spec.pointer_mut(pointer).expect("a field") = value.clone();
        let refused = validated(spec).expect_err(&format!("{pointer} {value}"));
        assert!(refused.starts_with(expected), "{pointer} {value}: {refused}");
    }
}

#[test]
fn no_container_mounts_the_directories_of_secrets() {
    for source in [
        "/",
        "//",
        "/run",
        "/run/",
        "/run/vc",
        "/run/vc/x/1",
        "/run/./vc",
        "/run/app/../vc",
        "/../run",
        "/var",
        "/var/run",
        "/var/run/vc",
        "/dev",
        "/dev/shm",
        "/dev/shm/vc/x",
    ] {
        assert!(leads_to_secrets(source), "{source}");
        let mut spec = valid();
        spec["container"]["mounts"][3]["bind"]["source"] = json!(source);
        spec["container"]["mounts"][3]["bind"]["read_only"] = json!(false);
        let refused = validated(spec.clone()).expect_err(source);
        assert!(refused.contains("leads to the secrets of the node"), "{refused}");
        spec["container"]["mounts"][3]["bind"]["read_only"] = json!(true);
        let is_above = !source.contains("vc");
        assert_eq!(validated(spec).is_ok(), is_above, "{source}, read-only");
    }
    for source in ["/run/docker.sock", "/run/vc2", "/dev/shm/app", "/srv", "/var/lib", "/run/vc/.."]
    {
        assert_eq!(leads_to_secrets(source), source.ends_with(".."), "{source}");
    }
}
