//! Transferring images from one engine to another through a node's store.

use std::path::Path;
use std::process::Command;

use vc_engine::runtime::Phase;
use vc_protocol::image::{Digest, Manifest};
use vc_protocol::spec::ContainerSpec;
use vc_runtime::images::pack::pack;
use vc_runtime::images::store::Store;

use crate::engine::Engine;
use crate::{Host, IMAGE, shell};

const DERIVED: &str = "vc-derived:1";

fn id(engine: &Engine, image: &str) -> Digest {
    engine.run(&["inspect", "-f", "{{.Id}}", image]).parse().expect("an id")
}

/// Creates an image with one more layer.
fn derive(engine: &Engine) -> Digest {
    let script = "mkdir /data; seq 1 100000 >/data/numbers";
    engine.run(&["run", "--name", "derived", IMAGE, "sh", "-c", script]);
    engine.run(&["commit", "derived", DERIVED]);
    engine.run(&["rm", "derived"]);
    id(engine, DERIVED)
}

fn save_into(store: &Path, engine: &Engine, id: &Digest) -> Manifest {
    let saved = Command::new("docker").args(["-H", &engine.host(), "save", id.as_str()]).output();
    let saved = saved.expect("the docker CLI").stdout;
    pack(&Store::open(store).expect("a store"), id, &saved[..], |_| {}).expect("packed")
}

fn load(from: &Engine, to: &Engine, image: &str) {
    let script = format!("docker -H {} save {image} | docker -H {} load", from.host(), to.host());
    assert!(Command::new("sh").args(["-c", &script]).output().expect("sh").status.success());
}

fn pinned(id: &Digest, script: &str) -> ContainerSpec {
    let image = DERIVED.to_owned();
    ContainerSpec { image, image_id: Some(id.to_string()), ..shell(script) }
}

/// Returns the first phase that is neither pulling nor running.
async fn wait_end(host: &mut Host, slot: &str, spec: &ContainerSpec) -> Phase {
    let id = host.start(slot, spec);
    loop {
        match host.change(&id).await.phase {
            Phase::Pulling { .. } | Phase::Running { .. } => {}
            phase => return phase,
        }
    }
}

#[tokio::test]
async fn an_image_of_another_engine_runs_under_the_same_id_and_name() {
    let (there, here) = (Engine::new(), Engine::new());
    let made = derive(&there);
    let dir = tempfile::tempdir().expect("a directory");
    save_into(dir.path(), &there, &made);

    let mut host = Host::with_images(here.host(), dir);
    let script = "cat /data/numbers >/dev/null && exit 7";
    let phase = wait_end(&mut host, "shop/web.1", &pinned(&made, script)).await;
    assert!(matches!(phase, Phase::Exited { code: 7, .. }), "{phase:?}");
    assert_eq!(id(&here, DERIVED), made);
}

#[tokio::test]
async fn layers_that_docker_has_are_skipped_and_wrong_layers_are_not_loaded() {
    let (there, here) = (Engine::new(), Engine::new());
    let made = derive(&there);
    load(&there, &here, IMAGE);
    let dir = tempfile::tempdir().expect("a directory");
    let manifest = save_into(dir.path(), &there, &made);
    assert_eq!(manifest.layers.len(), 2);
    // The blob of the layer that both engines have is unusable.
    let base = manifest.layers[0].blob.as_str().trim_start_matches("sha256:").to_owned();
    let base = dir.path().join("images/blobs").join(base);
    let length = std::fs::metadata(&base).expect("the blob").len();
    std::fs::write(&base, vec![0; usize::try_from(length).expect("small")]).expect("written");

    let mut host = Host::with_images(here.host(), dir);
    let spec = pinned(&made, "exit 7");
    let phase = wait_end(&mut host, "shop/web.1", &spec).await;
    assert!(matches!(phase, Phase::Exited { code: 7, .. }), "{phase:?}");

    // Without the layer in Docker, it would have to come from the store.
    let container = here.run(&["ps", "-aq"]);
    here.run(&["rm", &container]);
    // Also remove the image of the same name that this engine came with, which may have the same layer.
    here.run(&["image", "prune", "--all", "--force"]);
    let phase = wait_end(&mut host, "shop/web.2", &spec).await;
    let Phase::NoImage { reason } = phase else { panic!("{phase:?}") };
    assert!(
        reason.starts_with(&format!(
            "image {DERIVED} not found on any node or registry: not in Docker on this node"
        )),
        "{reason}"
    );
    assert!(!here.run(&["images", "-aq", "--no-trunc"]).contains(made.as_str()));
}
