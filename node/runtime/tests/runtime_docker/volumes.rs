//! Volumes in directories and of network file systems, and pauses for snapshots.

use std::path::{Path, PathBuf};

use vc_protocol::VolumeKey;
use vc_protocol::spec::Mount;
use vc_protocol::volume::DriverOptions;
use vc_runtime::Runtime;
use vc_runtime::docker::{Docker, VolumePlace};

use crate::*;

fn data() -> VolumeKey {
    "shop/data".parse().expect("a volume")
}

fn writer(script: &str) -> ContainerSpec {
    let mut spec = shell(script);
    let name = data().volume;
    spec.mounts = vec![Mount::volume(name, "/data", false)];
    spec
}

fn docker(host: &Host) -> &Docker {
    match &host.runtime {
        Runtime::Docker(docker) => docker,
        Runtime::Process(_) => panic!("no Docker"),
    }
}

/// Waits until a file has more bytes than that, and returns how many.
async fn grown(file: &Path, from: u64) -> u64 {
    let length = || file.metadata().map_or(0, |it| it.len());
    timeout(TIMEOUT, async {
        while length() <= from {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the container writes");
    length()
}

#[tokio::test]
async fn the_directory_of_a_volume_is_what_containers_write_to() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let place = VolumePlace::Volume;
    assert_eq!(docker(&host).existing_volume(&data()).await.expect("asked"), None);
    let made = docker(&host).volume_directory(&data(), &place).await.expect("made");
    let id = host.start("shop/web.1", &writer("echo there >/data/file; exec sleep 600"));
    host.running(&id).await;
    grown(&made.join("file"), 0).await;
    assert_eq!(docker(&host).existing_volume(&data()).await.expect("asked"), Some(made));
}

#[tokio::test]
async fn a_volume_in_a_directory_of_the_host_is_bind_mounted() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("not/yet");
    let place = VolumePlace::Directory(path.clone());
    host.places.lock().expect("not poisoned").insert(data(), place.clone());
    let id = host.start("shop/web.1", &writer("echo there >/data/file; exec sleep 600"));
    host.running(&id).await;
    grown(&path.join("file"), 0).await;
    assert_eq!(engine.run(&["volume", "ls", "-q"]), "", "no volume of Docker's");
    let found = docker(&host).volume_directory(&data(), &place).await.expect("found");
    assert_eq!(found, path);

    // What no container may mount is not mounted by way of a volume either.
    let place = VolumePlace::Directory("/dev/shm".into());
    host.places.lock().expect("not poisoned").insert(data(), place);
    let id = host.start("shop/web.2", &writer("exec sleep 600"));
    let phase = host.not_running(&id).await;
    assert!(matches!(phase, Phase::Failed { .. }), "{phase:?}");
}

#[tokio::test]
async fn a_network_file_system_is_mounted_with_its_options_and_with_new_ones() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let mounted = |options: &str| {
        VolumePlace::Mounted(DriverOptions {
            kind: "tmpfs".to_owned(),
            device: "tmpfs".to_owned(),
            options: options.to_owned(),
        })
    };
    let places = host.places.clone();
    let put = |place| places.lock().expect("not poisoned").insert(data(), place);
    let mut name = String::new();
    for size in ["size=1m", "size=2m"] {
        put(mounted(size));
        let id = host.start("shop/web.1", &writer("exec sleep 600"));
        host.running(&id).await;
        name = engine.run(&["volume", "ls", "-q"]);
        let said = engine.run(&["volume", "inspect", "-f", "{{json .Options}}", &name]);
        assert_eq!(said, format!(r#"{{"device":"tmpfs","o":"{size}","type":"tmpfs"}}"#));
        host.remove(&id, 0).await;
    }
    assert_eq!(docker(&host).existing_volume(&data()).await.expect("asked"), None, "not a copy");

    // Data is not hidden behind a mount.
    engine.run(&["volume", "rm", &name]);
    put(VolumePlace::Volume);
    docker(&host).volume_directory(&data(), &VolumePlace::Volume).await.expect("made");
    put(mounted("size=1m"));
    let id = host.start("shop/web.1", &writer("exec sleep 600"));
    let Phase::Failed { reason } = host.not_running(&id).await else { panic!("it started") };
    assert!(reason.contains("has data on this node"), "{reason}");
}

#[tokio::test]
async fn instances_that_write_a_paused_volume_stand_still_and_the_next_node_lets_them_go_on() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let script = "while :; do echo line >>/data/$VC_REPLICA; usleep 1000; done";
    let one = host.start("shop/web.1", &writer(script));
    host.running(&one).await;
    let mut elsewhere = writer(script);
    let logs: VolumeKey = "shop/logs".parse().expect("a volume");
    elsewhere.mounts = vec![Mount::volume(logs.volume.clone(), "/data", false)];
    let two = host.start("shop/web.2", &elsewhere);
    host.running(&two).await;
    let place = VolumePlace::Volume;
    let directory = docker(&host).volume_directory(&data(), &place).await.expect("made");
    let file = directory.join("1");
    let other = docker(&host).volume_directory(&logs, &place).await.expect("made").join("2");
    grown(&file, 0).await;
    grown(&other, 0).await;
    assert_eq!(docker(&host).volume_users(&data(), &place).await.expect("asked"), 1);

    let paused = docker(&host).pause(&data(), &place).await.expect("paused");
    let length = |file: &Path| file.metadata().expect("it is there").len();
    let before = length(&file);
    grown(&other, length(&other) + 500).await;
    assert_eq!(length(&file), before, "it stands still");
    drop(paused);
    grown(&file, before).await;

    // The node is killed in a pause.
    std::mem::forget(docker(&host).pause(&data(), &place).await.expect("paused"));
    let before = length(&file);
    drop(host);
    let (host, all) = Host::on(&engine).await;
    assert_eq!(all.len(), 2);
    grown(&file, before).await;

    // An operator has paused it.
    let container = engine.run(&["ps", "-q", "--filter", "label=vc.replica=1"]);
    engine.run(&["pause", &container]);
    drop(host);
    let (mut host, _) = Host::on(&engine).await;
    assert_eq!(engine.run(&["inspect", "-f", "{{.State.Status}}", &container]), "running");

    // One that stands still can be removed.
    let paused = docker(&host).pause(&data(), &place).await.expect("paused");
    host.remove(&one, 0).await;
    drop(paused);
    assert_eq!(docker(&host).volume_users(&data(), &place).await.expect("asked"), 0);
}

#[tokio::test]
async fn a_subpath_of_a_volume_is_mounted_whatever_the_engine_can() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let directory = tempfile::tempdir().expect("a directory");
    let part = |subpath: &str, script: &str| {
        let mut spec = shell(script);
        let (name, target) = (data().volume, "/part".to_owned());
        let subpath = Some(subpath.to_owned());
        spec.mounts = vec![Mount::Volume { name, target, read_only: false, nocopy: true, subpath }];
        spec
    };
    for place in [VolumePlace::Volume, VolumePlace::Directory(directory.path().into())] {
        host.places.lock().expect("not poisoned").insert(data(), place.clone());
        let root = docker(&host).volume_directory(&data(), &place).await.expect("made");
        std::fs::create_dir(root.join("a")).expect("made");
        std::fs::write(root.join("a/file"), "").expect("written");
        std::os::unix::fs::symlink("/etc", root.join("link")).expect("linked");

        let file = host.start("shop/web.1", &part("a/file", "echo one >>/part; exec sleep 600"));
        host.running(&file).await;
        grown(&root.join("a/file"), 0).await;
        let dir = host.start("shop/web.2", &part("a", "echo two >/part/two; exec sleep 600"));
        host.running(&dir).await;
        grown(&root.join("a/two"), 0).await;
        assert_eq!(docker(&host).volume_users(&data(), &place).await.expect("asked"), 2);
        let paused = docker(&host).pause(&data(), &place).await.expect("paused");
        let states = engine.run(&["ps", "--format", "{{.State}}"]);
        assert_eq!(states, "paused\npaused", "a snapshot needs both to stand still");
        drop(paused);

        // A link leads nowhere else, and no place is left of what has started, or not.
        for (subpath, why) in [("link/passwd", "it leads out"), ("none", "No such file")] {
            let id = host.start("shop/web.3", &part(subpath, "exec sleep 600"));
            let Phase::Failed { reason } = host.not_running(&id).await else { panic!("started") };
            assert!(reason.contains(why), "{reason}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        let left = mounts
            .lines()
            .filter(|it| it.contains("/vc-mounts/") && it.contains("/vc-shop.data-"))
            .count();
        assert_eq!(left, 0, "{mounts}");
        for id in [file, dir] {
            host.remove(&id, 0).await;
        }
        assert_eq!(std::fs::read_to_string(root.join("a/file")).expect("kept"), "one\n");
    }
}
