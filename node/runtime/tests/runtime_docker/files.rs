//! Secrets and configs of containers.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use vc_protocol::spec::{FileId, FileKind, FileMount};

use crate::*;

const SECRET: &str = "correct horse battery staple";

fn memory() -> TempDir {
    tempfile::Builder::new().prefix("vc-test").tempdir_in("/dev/shm").expect("memory")
}

fn contents() -> Contents {
    let content = |text: &str| text.as_bytes().to_vec();
    Arc::new(Mutex::new(BTreeMap::from([
        ("shop/secret/v1/db".to_owned(), content(SECRET)),
        ("shop/config/v1/etc/app.conf".to_owned(), content("debug = no")),
    ])))
}

fn mount(kind: FileKind, name: &str, target: &str) -> FileMount {
    FileMount {
        file: FileId { kind, name: name.to_owned() },
        version: "v1".to_owned(),
        target: target.to_owned(),
        uid: 1234,
        gid: 5678,
        mode: 0o440,
    }
}

fn reading(script: &str) -> ContainerSpec {
    let mut spec = shell(script);
    spec.files = vec![
        mount(FileKind::Secret, "db", "/run/secrets/db"),
        mount(FileKind::Config, "etc/app.conf", "/etc/app.conf"),
    ];
    spec
}

/// Returns the directories of all containers.
fn directories(memory: &Path) -> Vec<PathBuf> {
    let home = memory.join("vc").join(identity(2).node.short());
    let entries = std::fs::read_dir(home).expect("it is there");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

async fn on(engine: &Engine, memory: &Path, contents: &Contents) -> Host {
    // The first directory is not in memory, and is skipped.
    let places = vec![engine.dir.path().join("vc"), memory.join("vc")];
    let mut host = Host::with_files(engine.host(), 2, Arc::clone(contents), places);
    host.listed().await;
    host
}

#[tokio::test]
async fn secrets_are_in_memory_and_readable_only_in_their_container() {
    let (engine, memory, contents) = (Engine::new(), memory(), contents());
    let mut host = on(&engine, memory.path(), &contents).await;
    let id = host.start("shop/web.1", &reading("exec sleep 600"));
    host.running(&id).await;
    let container = engine.run(&["ps", "-q"]);
    let inside = |script: &str| engine.run(&["exec", &container, "sh", "-c", script]);
    assert_eq!(inside("cat /run/secrets/db"), SECRET);
    assert_eq!(inside("cat /etc/app.conf"), "debug = no");
    assert_eq!(inside("stat -c '%u %g %a' /run/secrets/db"), "1234 5678 440");
    assert_eq!(inside("echo x >/run/secrets/db || echo no").lines().last(), Some("no"));
    assert!(!engine.dir.path().join("vc").exists());

    let all = directories(memory.path());
    assert_eq!(all.len(), 1);
    for directory in all[0].ancestors().take(3) {
        let found = std::fs::metadata(directory).expect("it is there");
        assert_eq!((found.permissions().mode() & 0o777, found.uid()), (0o700, 0), "{directory:?}");
    }
    // Neither Docker's state nor its disk has the contents.
    assert!(!engine.run(&["inspect", &container]).contains(SECRET));
    let searched = std::process::Command::new("grep")
        .args(["-rlF", SECRET])
        .arg(engine.dir.path())
        .output()
        .expect("grep");
    assert_eq!(String::from_utf8_lossy(&searched.stdout), "");

    host.remove(&id, 0).await;
    assert_eq!(directories(memory.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_container_finds_its_files_when_it_starts_after_a_boot() {
    let (engine, memory, contents) = (Engine::new(), memory(), contents());
    let mut host = on(&engine, memory.path(), &contents).await;
    let spec = reading("cat /run/secrets/db; exit 3");
    let id = host.start("shop/web.1", &spec);
    let expected = Phase::Exited { code: 3, output: SECRET.to_owned(), out_of_memory: false };
    assert_eq!(host.not_running(&id).await, expected);
    let container = engine.run(&["ps", "-aq"]);
    std::fs::remove_dir_all(memory.path().join("vc")).expect("forgotten");
    host.start("shop/web.1", &spec);
    // The second run follows so closely that the exit of the first may be reported with it.
    let phase = host.not_running(&id).await;
    let Phase::Exited { code: 3, output, .. } = phase else { panic!("{phase:?}") };
    assert!(output.ends_with(SECRET), "{output}");
    assert_eq!(engine.run(&["ps", "-aq"]), container);

    // The files of a container that was removed meanwhile are removed at the next start of the node.
    drop(host);
    assert_eq!(directories(memory.path()).len(), 1);
    on(&engine, memory.path(), &contents).await;
    assert_eq!(directories(memory.path()).len(), 1);
    engine.run(&["rm", &container]);
    on(&engine, memory.path(), &contents).await;
    assert_eq!(directories(memory.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_container_without_its_files_does_not_start_and_names_them() {
    let (engine, memory, contents) = (Engine::new(), memory(), contents());
    contents.lock().expect("not poisoned").remove("shop/secret/v1/db");
    let mut host = on(&engine, memory.path(), &contents).await;
    let spec = reading("exit 0");
    let id = host.start("shop/web.1", &spec);
    let failed = |reason: &str| Phase::Failed { reason: reason.to_owned() };
    assert_eq!(
        host.change(&id).await.phase,
        failed("secret 'db' is no longer in the cluster; deploy it again")
    );

    // Secrets are not written to a disk.
    let mut host = Host::with_files(
        engine.host(),
        2,
        Arc::clone(&contents),
        vec![engine.dir.path().join("vc")],
    );
    host.listed().await;
    let id = host.start("shop/web.2", &spec);
    let place = engine.dir.path().join("vc").display().to_string();
    let reason = format!(
        "there is no in-memory file system for secrets and configs ({place}: not an in-memory file system)"
    );
    assert_eq!(host.change(&id).await.phase, failed(&reason));

    // An engine behind TCP may see another host's memory.
    let mut host = Host::at("tcp://127.0.0.1:9".to_owned(), 2);
    let id = host.start("shop/web.3", &spec);
    let reason =
        "secrets and configs need a Docker engine on this host, but it is at tcp://127.0.0.1:9";
    assert_eq!(host.change(&id).await.phase, failed(reason));
}
