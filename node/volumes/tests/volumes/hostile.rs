//! Other nodes that send what they should not, and confinement.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use vc_volumes::Error;

use crate::support::{Node, confined_tree, copy, helper};

/// Copies in both directions, and replaces bytes of what the sender sends.
async fn tamper(sender: DuplexStream, receiver: DuplexStream, from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len());
    let (mut from_sender, mut to_sender) = tokio::io::split(sender);
    let (mut from_receiver, mut to_receiver) = tokio::io::split(receiver);
    let replaced = Arc::new(Mutex::new(0));
    let forward = async {
        let mut kept = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_sender.read(&mut buffer).await {
            kept.extend_from_slice(&buffer[..length]);
            while let Some(at) = kept.windows(from.len()).position(|it| it == from) {
                kept[at..at + from.len()].copy_from_slice(to);
                *replaced.lock().unwrap() += 1;
            }
            if to_receiver.write_all(&kept).await.is_err() {
                break;
            }
            kept.clear();
        }
        let _ = to_receiver.shutdown().await;
    };
    let backward = async {
        let _ = tokio::io::copy(&mut from_receiver, &mut to_sender).await;
        let _ = to_sender.shutdown().await;
    };
    tokio::join!(forward, backward);
    *replaced.lock().unwrap()
}

#[tokio::test]
async fn names_that_lead_outside_are_refused_and_touch_nothing() {
    let primary = Node::new();
    fs::create_dir(primary.working().join("dddddddddddddddddddd")).unwrap();
    fs::write(primary.working().join("dddddddddddddddddddd/evil"), "evil").unwrap();
    fs::write(primary.working().join("ffffffffffffffffffff"), "evil").unwrap();
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let replica = Node::new();
    for (from, to) in [
        ("dddddddddddddddddddd", "../../../../../../.."),
        ("ffffffffffffffffffff", "../../../../../evil_"),
        ("ffffffffffffffffffff", "/tmp/vc-volumes-evil"),
        ("dddddddddddddddddddd", "/tmp/vc-volumes-evil"),
        ("dddddddddddddddddddd", "dddddddddd/../../../"),
    ] {
        let before = confined_tree(replica.dir.path());
        let (one, middle_one) = tokio::io::duplex(64 * 1024);
        let (middle_two, two) = tokio::io::duplex(64 * 1024);
        let ((_, received), replaced) = tokio::join!(
            async {
                tokio::join!(
                    primary.volume.send(manifest.id, one),
                    replica.volume.receive(&manifest, two, |_| {})
                )
            },
            tamper(middle_one, middle_two, from.as_bytes(), to.as_bytes())
        );
        assert!(replaced > 0, "{to}");
        received.expect_err(to);
        assert_eq!(confined_tree(replica.dir.path()), before, "{to}");
        assert!(!Path::new("/tmp/vc-volumes-evil").exists(), "{to}");
        assert!(replica.volume.snapshots().unwrap().is_empty(), "{to}");
    }
    copy(&primary, &replica, &manifest).await;
}

#[tokio::test]
async fn garbage_instead_of_a_snapshot_is_an_error_and_leaves_the_store_usable() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("file", "1");
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let answers: [&[u8]; 9] = [
        b"",
        b"\x07",
        b"\x00",
        b"\x00\x00garbage garbage garbage",
        b"\x00\x01\x00",
        b"\x01\xff\xffno",
        b"\x02\xff\xff\xff\xff",
        b"\x02\0\0\0\x0a./../evil\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0\x06/evil\0\0garbage",
    ];
    for answer in answers {
        let (mut one, other) = tokio::io::duplex(64 * 1024);
        let hostile = async {
            one.write_all(answer).await.unwrap();
            one.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = one.read_to_end(&mut rest).await;
            rest
        };
        let (received, request) =
            tokio::join!(replica.volume.receive(&manifest, other, |_| {}), hostile);
        received.unwrap_err();
        assert_eq!(request[0], 1, "the version");
    }
    let none = [0; 16];
    let ask = |letters: &[u8]| [&b"\x01"[..], &none, letters].concat();
    let later = [&b"\x02"[..], &none].concat();
    for request in
        [vec![], b"\x01".to_vec(), later, ask(b""), ask(b"\x05.iLsf"), ask(b"\x09.i --help")]
    {
        let (mut one, other) = tokio::io::duplex(64 * 1024);
        let hostile = async {
            one.write_all(&request).await.unwrap();
            one.write_all(&[0xff; 200]).await.unwrap();
            one.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = one.read_to_end(&mut rest).await;
        };
        let (sent, ()) = tokio::join!(primary.volume.send(manifest.id, other), hostile);
        sent.unwrap_err();
    }
    copy(&primary, &replica, &manifest).await;
}

#[tokio::test]
async fn a_manifest_of_another_content_is_not_committed() {
    let (primary, replica) = (Node::new(), Node::new());
    primary.write("file", "1");
    primary.begin(1, None).await;
    let manifest = primary.take(1).await;
    let mut other = manifest.clone();
    other.digest = "0".repeat(64);
    let (_, received) = crate::support::transfer(&primary, &replica, &other).await;
    assert!(matches!(received, Err(Error::Digest { .. })), "{received:?}");
    assert!(replica.volume.snapshots().unwrap().is_empty());
    copy(&primary, &replica, &manifest).await;
}

/// Runs a shell script, confined.
fn confined(read: &Path, write: &Path, script: &str) -> std::process::Output {
    let parent = std::process::id().to_string();
    let mut command = Command::new(helper());
    command.args(["volume-helper", "confine", &parent]);
    command.arg("--read").arg(read).arg("--write").arg(write);
    command.args(["--", "sh", "-c", script]).current_dir(write).output().unwrap()
}

#[test]
fn confined_processes_reach_their_directories_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["read", "write", "outside"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(name).join("file"), name).unwrap();
    }
    symlink(at("outside"), at("write/link")).unwrap();
    let run = |script: &str| confined(&at("read"), &at("write"), script);
    let output = run(
        "read a <../read/file; read b <file; echo $a $b >new; ln file linked; mkfifo fifo; echo done",
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "done\n", "{output:?}");
    assert_eq!(fs::read_to_string(at("write/new")).unwrap(), "read write\n");
    for script in [
        "echo x >../outside/file",
        "echo x >link/file",
        "echo x >../outside/new",
        "echo x >../read/file",
        "read a <../outside/file",
        "read a <link/file",
        "read a </etc/passwd",
        "mkdir ../outside/dir",
        "ln file ../outside/linked",
        "mv file ../outside/moved",
        "rm ../outside/file",
    ] {
        let output = run(script);
        assert!(!output.status.success(), "{script}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("denied") || error.contains("cross-device"), "{script}: {error}");
    }
    assert_eq!(fs::read_to_string(at("outside/file")).unwrap(), "outside");
    assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 1);
}
