//! Sample images, and stores in temporary directories.

#![allow(clippy::expect_used, reason = "a test's way to say what must not fail")]

pub(super) mod members;
mod packing;
mod pushing;
mod resolving;
mod retention;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vc_image_archive::oci;
use vc_protocol::image::{Digest, Manifest};

use super::Images;
use super::pack::pack;
use super::store::Store;

/// Returns incompressible bytes, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image with the tars of its layers.
struct Sample {
    layers: Vec<Vec<u8>>,
    config: String,
    id: Digest,
}

impl Sample {
    fn new(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let config = serde_json::json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = config.to_string();
        let id = Digest::of(config.as_bytes());
        Self { layers, config, id }
    }

    /// An image with a layer that is compressible, one that is not, and one that occurs twice.
    fn typical() -> Self {
        let text = b"a line of text that shrinks\n".repeat(300_000);
        Self::new(vec![text.clone(), noise(1, 9_000_000), text])
    }

    fn bytes(&self) -> u64 {
        self.layers.iter().map(|tar| tar.len() as u64).sum()
    }

    /// The archive that Docker 20 writes: a directory per layer, and links for repeated layers.
    fn saved_before_docker_25(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut names = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let directory = Digest::of(&[index as u8]).hex().to_owned();
            let name = format!("{directory}/layer.tar");
            let first = self.layers.iter().position(|it| it == layer).expect("itself");
            add(&mut tar, &format!("{directory}/VERSION"), b"1.0");
            if first < index {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                let target = format!("../{}/layer.tar", Digest::of(&[first as u8]).hex());
                tar.append_link(&mut header, &name, target).expect("appended");
            } else {
                add(&mut tar, &name, layer);
            }
            names.push(name);
        }
        let config = format!("{}.json", self.id.hex());
        add(&mut tar, &config, self.config.as_bytes());
        self.finish(tar, &config, &names)
    }

    /// The archive that later versions write: blobs named by digest, in the order of their names.
    fn saved_since_docker_25(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
        let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        blobs.insert(name(self.config.as_bytes()), self.config.as_bytes());
        blobs.insert(name(b"{}"), b"{}");
        blobs.extend(self.layers.iter().map(|layer| (name(layer), &layer[..])));
        for (path, bytes) in &blobs {
            add(&mut tar, path, bytes);
        }
        add(&mut tar, "index.json", b"{}");
        let names: Vec<String> = self.layers.iter().map(|layer| name(layer)).collect();
        self.finish(tar, &name(self.config.as_bytes()), &names)
    }

    /// The archive of an engine with the containerd image store, into which the image was pulled.
    fn saved_by_containerd(&self, with_docker_manifest: bool) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let descriptor = |bytes: &[u8]| {
            let digest = Digest::of(bytes);
            serde_json::json!({ "mediaType": "", "digest": digest, "size": bytes.len() })
        };
        let blob = |tar: &mut tar::Builder<Vec<u8>>, bytes: &[u8]| {
            let path = oci::blob_path(&Digest::of(bytes));
            add(tar, &path, bytes);
            path
        };
        let mut layers = Vec::new();
        let mut paths = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let compressed = if index == 0 {
                gzip(layer)
            } else {
                zstd::stream::encode_all(&layer[..], 1).expect("compressed")
            };
            layers.push(descriptor(&compressed));
            paths.push(blob(&mut tar, &compressed));
        }
        let config = blob(&mut tar, self.config.as_bytes());
        let manifest = serde_json::json!({
            "schemaVersion": 2, "config": descriptor(self.config.as_bytes()), "layers": layers,
        });
        blob(&mut tar, manifest.to_string().as_bytes());
        if with_docker_manifest {
            return self.finish(tar, &config, &paths);
        }
        add(&mut tar, "manifest.json", b"[]");
        tar.into_inner().expect("whole")
    }

    fn finish(&self, mut tar: tar::Builder<Vec<u8>>, config: &str, layers: &[String]) -> Vec<u8> {
        let manifest =
            serde_json::json!([{ "Config": config, "RepoTags": ["a:1"], "Layers": layers }]);
        add(&mut tar, "manifest.json", manifest.to_string().as_bytes());
        tar.into_inner().expect("whole")
    }

    fn pack_into(&self, store: &Store) -> Manifest {
        pack(store, &self.id, &self.saved_since_docker_25()[..], |_| {}).expect("packed")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).expect("appended");
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a store");
    (dir, store)
}

/// Returns the number of files in the store, of any kind.
fn files(dir: &TempDir) -> usize {
    let subs = ["blobs", "manifests", "partial"].map(|sub| dir.path().join("images").join(sub));
    subs.iter().map(|sub| std::fs::read_dir(sub).expect("listed").count()).sum()
}

fn images() -> (TempDir, Images) {
    let dir = tempfile::tempdir().expect("a directory");
    let images = Images::open(dir.path(), None).expect("a store");
    (dir, images)
}
