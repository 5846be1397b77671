//! What systemd runs: a node that was set up for it, and what it is told of the node.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::harness::command::run;
use crate::harness::ports::Port;
use crate::harness::{DEADLINE, Node, program};

/// Writes a `systemctl` that records what it is asked for. Returns the path of the record.
fn fake_systemctl(dir: &Path) -> std::path::PathBuf {
    let (record, script) = (dir.join("asked"), dir.join("systemctl"));
    fs::write(&script, format!("#!/bin/sh\necho \"$@\" >>{}\n", record.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    record
}

#[test]
fn setup_creates_a_node_and_has_systemd_run_it() {
    let home = tempfile::tempdir().unwrap();
    let asked = fake_systemctl(home.path());
    let (dir, units) = (home.path().join("node"), home.path().join("units"));
    let port = Port::free();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let setup = |words: &[&str]| {
        let mut command = Command::new(program("vc-node"));
        command.arg("setup").args(words).arg("--data-dir").arg(&dir).arg("--unit-dir").arg(&units);
        command.env("PATH", &path).env_remove("VC_DATA_DIR").stdin(std::process::Stdio::null());
        run(command)
    };
    setup(&[]).refused_with("--new to create a cluster, or --token-file FILE to join one");

    let number = port.number.to_string();
    let node = ["--runtime", "process", "--listen", "127.0.0.1", "--no-mdns", "--no-console"];
    let words = [&["--new", "--name", "attic", "--port", &number], &node[..]].concat();
    let said = setup(&words);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("token create --node"), "{}", said.out);
    assert_eq!(
        fs::read_to_string(&asked).unwrap(),
        "daemon-reload\nenable --now vc-node.service\n"
    );
    let unit = fs::read_to_string(units.join("vc-node.service")).unwrap();
    assert!(unit.contains(&format!("run --data-dir {}\n", dir.display())), "{unit}");
    let settings = fs::read_to_string(dir.join("node.json")).unwrap();
    assert!(settings.contains("attic"), "{settings}");

    // Again, on a node: it only gets its unit.
    fs::remove_file(units.join("vc-node.service")).unwrap();
    setup(&["--new"]).refused_with("belongs to a cluster already");
    setup(&[]).done();
    assert!(units.join("vc-node.service").exists());
}

#[test]
fn systemd_is_told_that_the_node_is_ready_alive_and_stopping() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let receive = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let mut node = Node::new(home.path(), "attic");
    node.env.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    node.env.push(("WATCHDOG_USEC".to_owned(), "200000".to_owned()));
    node.start(&["init"]);
    let mut told = vec![receive(), receive(), receive(), receive()];
    assert!(told.contains(&"READY=1".to_owned()), "{told:?}");
    assert!(told.iter().filter(|it| *it == "WATCHDOG=1").count() >= 3, "{told:?}");
    node.stop();
    while !told.contains(&"STOPPING=1".to_owned()) {
        told.push(receive());
    }
}
