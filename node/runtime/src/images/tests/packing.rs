//! Packing and unpacking.

use std::io::Read as _;

use vc_image_archive::oci;
use vc_protocol::image::{Encoding, Layer};

use super::super::error::PackError;
use super::super::unpack::{UnpackError, unpack};
use super::*;

/// Reads a tar with an independent reader.
fn unpacked(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        (path, content)
    });
    entries.collect()
}

#[test]
fn an_image_is_unchanged_by_packing_and_unpacking_archives_of_any_docker_version() {
    let sample = Sample::typical();
    let mut manifests = Vec::new();
    for saved in [sample.saved_before_docker_25(), sample.saved_since_docker_25()] {
        let (dir, store) = store();
        let manifest = pack(&store, &sample.id, &saved[..], |_| {}).expect("packed");
        assert_eq!(store.complete(&sample.id).as_ref(), Some(&manifest));
        // Two blobs and a manifest, and no temporary file.
        assert_eq!(files(&dir), 3);
        assert_eq!(
            (manifest.layers[0].encoding, manifest.layers[1].encoding),
            (Encoding::Zstd, Encoding::Raw)
        );
        assert!(manifest.layers[0].blob_size * 10 < manifest.layers[0].size);

        let mut tar = Vec::new();
        unpack(&manifest, 0, |layer| store.blob(&layer.blob), &mut tar).expect("unpacked");
        let files = unpacked(&tar);
        assert_eq!(files[&oci::blob_path(&sample.id)], sample.config.as_bytes());
        for layer in &sample.layers {
            assert!(files[&oci::blob_path(&Digest::of(layer))] == *layer, "a layer differs");
        }
        // As the containerd image store reads it.
        let name = Digest::of(&oci::manifest_of(&manifest).expect("a manifest"));
        let platform = oci::Platform::of_engine("linux", "amd64");
        let config = oci::config_digest(&tar[..], &name, &platform);
        assert_eq!(config.expect("a configuration"), sample.id);
        let index: serde_json::Value =
            serde_json::from_slice(&files[oci::INDEX]).expect("an index");
        assert_eq!(index["manifests"][0]["digest"], name.as_str());
        // The unpacked archive can be packed again.
        let (_dir, other) = self::store();
        assert_eq!(pack(&other, &sample.id, &tar[..], |_| {}).expect("packed"), manifest);

        let mut without = Vec::new();
        unpack(&manifest, 1, |layer| store.blob(&layer.blob), &mut without).expect("unpacked");
        let names: BTreeSet<String> = unpacked(&without).into_keys().collect();
        assert_eq!(names, files.into_keys().collect(), "all blobs are in the other layers");
        without.clear();
        unpack(&manifest, 3, |layer| store.blob(&layer.blob), &mut without).expect("unpacked");
        let names = unpacked(&without);
        assert!(!names.contains_key(&oci::blob_path(&manifest.layers[0].diff_id)));
        manifests.push(manifest);
    }
    assert_eq!(manifests[0], manifests[1]);
}

#[test]
fn compressed_layers_and_images_that_only_an_oci_manifest_lists_are_packed() {
    let sample = Sample::typical();
    for with_docker_manifest in [true, false] {
        let (_dir, store) = store();
        let saved = sample.saved_by_containerd(with_docker_manifest);
        let manifest = pack(&store, &sample.id, &saved[..], |_| {}).expect("packed");
        let (_dir, other) = self::store();
        assert_eq!(manifest, sample.pack_into(&other), "as from an engine without compression");
    }
}

#[test]
fn an_archive_of_another_image_is_rejected_and_leaves_no_files() {
    let sample = Sample::new(vec![noise(1, 2_000_000), b"small".to_vec()]);
    let whole = sample.saved_since_docker_25();
    let other = Sample::new(vec![noise(2, 1000)]);
    let bad_links = {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, target) in [("a", "a"), ("b", "../../../../etc/passwd"), ("manifest.json", "b")]
        {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("appended");
        }
        tar.into_inner().expect("whole")
    };
    let endless_header = {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_path("x").expect("a path");
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let wrong_layers = {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "config", sample.config.as_bytes());
        add(&mut tar, "wrong", &noise(3, 2_000_000));
        sample.finish(tar, "config", &["wrong".to_owned(), "wrong".to_owned()])
    };
    let damaged = {
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        damaged
    };
    let cases: [(&str, &[u8]); 9] = [
        ("nothing", &[]),
        ("garbage", &noise(9, 5000)),
        ("only an end marker", &[0; 1024]),
        ("another image", &other.saved_since_docker_25()),
        ("cut off", &whole[..1_500_000]),
        ("circular links and links out of the archive", &bad_links),
        ("an endless header", &endless_header),
        ("other layers", &wrong_layers),
        ("damaged", &damaged),
    ];
    for (what, bytes) in cases {
        let (dir, store) = store();
        let result = pack(&store, &sample.id, bytes, |_| {});
        assert!(result.is_err(), "{what} was accepted");
        assert_eq!(files(&dir), 0, "{what} left files");
    }
    let (_dir, store) = store();
    let result = pack(&store, &sample.id, &other.saved_since_docker_25()[..], |_| {});
    assert!(matches!(result, Err(PackError::Mismatch { id, .. }) if id == sample.id));
}

#[test]
fn docker_gets_no_manifest_for_blobs_that_do_not_hold_the_layers() {
    let sample = Sample::typical();
    let (_dir, store) = store();
    let correct = sample.pack_into(&store);
    let text = &correct.layers[0];
    let swapped = Layer {
        diff_id: correct.layers[1].diff_id.clone(),
        size: correct.layers[1].size,
        ..text.clone()
    };
    let short = Layer { size: text.size + 1, ..text.clone() };
    let long = Layer { size: 10, ..text.clone() };
    let no_zstd = Layer { encoding: Encoding::Zstd, ..correct.layers[1].clone() };
    for wrong in [swapped, short, long, no_zstd] {
        let manifest = Manifest { layers: vec![wrong.clone()], ..correct.clone() };
        let mut tar = Vec::new();
        let result = unpack(&manifest, 0, |layer| store.blob(&layer.blob), &mut tar);
        assert!(matches!(result, Err(UnpackError::WrongLayer { .. })), "{wrong:?}: {result:?}");
        let end = b"RepoTags";
        assert!(!tar.windows(end.len()).any(|window| window == end));
        assert!(tar.len() as u64 <= wrong.size + 4096);
    }
}
