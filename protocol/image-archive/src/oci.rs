//! The OCI image layout (OCI image specification, `image-layout.md`), as engines with the containerd image store save it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vc_protocol::image::{Digest, Manifest};

use crate::tar::{Entries, Kind, normalize};

/// The path of the file that marks an image layout, and its content.
pub const LAYOUT: (&str, &str) = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
/// The path of the index, which says what the blobs are.
pub const INDEX: &str = "index.json";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// The annotation of manifests in an index that are no images, but say something about one.
const ATTESTATION: &str = "vnd.docker.reference.type";
/// The largest manifest or index, in bytes; the same as for registries.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;
/// The most manifests and indexes in an archive.
const MAX_DOCUMENTS: usize = 4096;

/// A reference to a blob, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// The digest of the blob.
    pub digest: Digest,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

/// An operating system and processor architecture, by their names in Go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// As in `linux`.
    pub os: String,
    /// As in `amd64`.
    pub architecture: String,
}

impl Platform {
    /// Converts the names that `docker info` uses, in which the architecture is the kernel's.
    pub fn of_engine(os: &str, architecture: &str) -> Self {
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armv7l" | "armv6l" => "arm",
            "i686" | "i386" => "386",
            other => other,
        };
        Self { os: os.to_owned(), architecture: architecture.to_owned() }
    }
}

/// The manifest of an image: its configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageManifest {
    /// The configuration, whose digest identifies the image.
    pub config: Descriptor,
    /// The blobs of its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl ImageManifest {
    /// Parses a manifest of OCI or Docker; `None` when the bytes are something else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// A manifest or an index.
#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Manifest(ImageManifest),
    Index { manifests: Vec<Descriptor> },
}

/// Returns the path of a blob.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A reference to a blob, as it is written. Its fields keep their order, since the digest of a manifest names an image.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: WrittenDescriptor<'a>,
    layers: Vec<WrittenDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenIndex<'a> {
    schema_version: u8,
    manifests: [WrittenDescriptor<'a>; 1],
}

/// Returns the OCI manifest of an image with uncompressed layers: the same bytes on every node.
///
/// # Errors
/// None that can occur: the manifest is plain data.
pub fn manifest_of(image: &Manifest) -> io::Result<Vec<u8>> {
    let layers = image.layers.iter().map(|layer| WrittenDescriptor {
        media_type: LAYER_TYPE,
        digest: layer.diff_id.as_str(),
        size: layer.size,
    });
    let config = WrittenDescriptor {
        media_type: CONFIG_TYPE,
        digest: image.id.as_str(),
        size: image.config.len() as u64,
    };
    let (media_type, layers) = (MANIFEST_TYPE, layers.collect());
    Ok(serde_json::to_vec(&WrittenManifest { schema_version: 2, media_type, config, layers })?)
}

/// Returns the index of an image layout with one manifest.
///
/// # Errors
/// None that can occur: the index is plain data.
pub fn index_of(manifest: &[u8]) -> io::Result<Vec<u8>> {
    let digest = Digest::of(manifest);
    let manifest = WrittenDescriptor {
        media_type: MANIFEST_TYPE,
        digest: digest.as_str(),
        size: manifest.len() as u64,
    };
    Ok(serde_json::to_vec(&WrittenIndex { schema_version: 2, manifests: [manifest] })?)
}

/// Returns the digest of the configuration of an image that an engine calls `image`, from the archive that it saves the
/// image in. Reads no further than necessary. Of an index, the image of `platform` counts, else the first that is there.
///
/// # Errors
/// The archive cannot be read, or does not hold the image.
pub fn config_digest(
    archive: impl Read,
    image: &Digest,
    platform: &Platform,
) -> io::Result<Digest> {
    let mut entries = Entries::new(archive);
    let mut documents = HashMap::new();
    while let Some(entry) = entries.next_entry()? {
        let path = normalize(&entry.path);
        let Some(hex) = path.strip_prefix("blobs/sha256/") else { continue };
        if entry.kind != Kind::File || entry.size > MAX_DOCUMENT {
            continue;
        }
        let mut bytes = Vec::new();
        entries.read_to_end(&mut bytes)?;
        let Ok(document) = serde_json::from_slice::<Document>(&bytes) else { continue };
        let digest = Digest::of(&bytes);
        if digest.hex() != hex || documents.len() == MAX_DOCUMENTS {
            return Err(io::Error::other("the archive has a wrong or too many manifests"));
        }
        documents.insert(digest, document);
        if let Some(config) = resolve(&documents, image, Some(platform)) {
            return Ok(config);
        }
    }
    resolve(&documents, image, None)
        .ok_or_else(|| io::Error::other(format!("the archive has no manifest of image {image}")))
}

/// Returns the digest of the configuration of an image that an engine calls `image`, from the content store of the
/// containerd of an engine on this host with this `DockerRootDir`; `None` when it is elsewhere or cannot be read. What is
/// found is right wherever it is found, since a digest names it.
pub fn stored_config_digest(
    data_root: &Path,
    image: &Digest,
    platform: &Platform,
) -> Option<Digest> {
    // One that dockerd runs, or that of the system.
    let roots = [data_root.join("containerd/daemon"), PathBuf::from("/var/lib/containerd")];
    roots.iter().find_map(|root| {
        let blobs = root.join("io.containerd.content.v1.content/blobs/sha256");
        let mut documents = HashMap::from([(image.clone(), stored(&blobs, image)?)]);
        if let Some(Document::Index { manifests }) = documents.get(image) {
            let found = manifests.iter().take(MAX_DOCUMENTS).filter_map(|descriptor| {
                Some((descriptor.digest.clone(), stored(&blobs, &descriptor.digest)?))
            });
            let found: Vec<_> = found.collect();
            documents.extend(found);
        }
        resolve(&documents, image, Some(platform)).or_else(|| resolve(&documents, image, None))
    })
}

/// Reads a manifest or an index in a content store.
fn stored(blobs: &Path, digest: &Digest) -> Option<Document> {
    let mut bytes = Vec::new();
    File::open(blobs.join(digest.hex())).ok()?.take(MAX_DOCUMENT).read_to_end(&mut bytes).ok()?;
    (Digest::of(&bytes) == *digest).then(|| serde_json::from_slice(&bytes).ok())?
}

/// Returns the configuration of an image among `documents`: of an index, that of the platform; without one the first.
fn resolve(
    documents: &HashMap<Digest, Document>,
    image: &Digest,
    platform: Option<&Platform>,
) -> Option<Digest> {
    let manifests = match documents.get(image)? {
        Document::Manifest(manifest) => return Some(manifest.config.digest.clone()),
        Document::Index { manifests } => manifests,
    };
    let is_image = |descriptor: &&Descriptor| {
        let annotations = descriptor.annotations.as_ref();
        annotations.is_none_or(|annotations| !annotations.contains_key(ATTESTATION))
    };
    let fits = |descriptor: &&Descriptor| {
        platform.is_none_or(|platform| descriptor.platform.as_ref() == Some(platform))
    };
    let candidates = manifests.iter().filter(is_image).filter(fits);
    candidates.filter_map(|found| documents.get(&found.digest)).find_map(|found| match found {
        Document::Manifest(manifest) => Some(manifest.config.digest.clone()),
        Document::Index { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use serde_json::json;

    use super::*;
    use crate::tar;

    fn manifest(config: &[u8]) -> Vec<u8> {
        let config = json!({ "mediaType": CONFIG_TYPE, "digest": Digest::of(config), "size": 1 });
        json!({ "schemaVersion": 2, "config": config, "layers": [] }).to_string().into_bytes()
    }

    fn entry(blob: &[u8], architecture: &str) -> serde_json::Value {
        json!({
            "digest": Digest::of(blob), "size": blob.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    }

    fn archive(blobs: &[&[u8]]) -> Vec<u8> {
        let mut output = Vec::new();
        for blob in blobs {
            tar::write_file(&mut output, &blob_path(&Digest::of(blob)), blob).unwrap();
        }
        tar::write_end(&mut output).unwrap();
        output
    }

    #[test]
    fn an_image_of_an_engine_is_identified_by_its_configuration() {
        let platform = Platform::of_engine("linux", "x86_64");
        let config = |archive: &[u8], image: &[u8]| {
            config_digest(archive, &Digest::of(image), &platform).map_err(|error| error.to_string())
        };
        let (arm, amd, about) = (manifest(b"arm"), manifest(b"amd"), manifest(b"about"));
        let mut attestation = entry(&about, "amd64");
        attestation["annotations"] = json!({ ATTESTATION: "attestation-manifest" });
        let index = json!({
            "schemaVersion": 2,
            "manifests": [attestation, entry(&arm, "arm64"), entry(&amd, "amd64")],
        });
        let index = index.to_string().into_bytes();

        let single = archive(&[b"a layer", &amd]);
        assert_eq!(config(&single, &amd), Ok(Digest::of(b"amd")));
        let all = archive(&[&about, &arm, b"a layer", &index, &amd]);
        assert_eq!(config(&all, &index), Ok(Digest::of(b"amd")));
        // What follows is not read.
        let found = archive(&[&index, &amd]);
        assert_eq!(config(&found[..found.len() - 1024], &index), Ok(Digest::of(b"amd")));
        // An engine has only the images of an index that it pulled.
        let foreign = archive(&[&index, &arm, &about]);
        assert_eq!(config(&foreign, &index), Ok(Digest::of(b"arm")));
        for wrong in [archive(&[&amd]), archive(&[&index, &about]), found[..1000].to_vec()] {
            assert!(config(&wrong, &index).is_err());
        }
        let mut renamed = Vec::new();
        tar::write_file(&mut renamed, &blob_path(&Digest::of(b"x")), &amd).unwrap();
        assert!(config(&renamed, b"x").is_err());
    }

    #[test]
    fn a_content_store_on_this_host_names_the_configuration() {
        let root = tempfile::tempdir().unwrap();
        let blobs = root.path().join("containerd/daemon/io.containerd.content.v1.content/blobs");
        let blobs = blobs.join("sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put =
            |bytes: &[u8]| std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        let (arm, amd) = (manifest(b"arm"), manifest(b"amd"));
        let index = json!({ "manifests": [entry(&arm, "arm64"), entry(&amd, "amd64")] });
        let index = index.to_string().into_bytes();
        let platform = Platform::of_engine("linux", "x86_64");
        let find = |image: &[u8]| stored_config_digest(root.path(), &Digest::of(image), &platform);
        assert_eq!(find(&index), None);
        put(&index);
        assert_eq!(find(&index), None);
        put(&arm);
        assert_eq!(find(&index), Some(Digest::of(b"arm")), "the only one that was pulled");
        put(&amd);
        assert_eq!(
            (find(&index), find(&amd)),
            (Some(Digest::of(b"amd")), Some(Digest::of(b"amd")))
        );
        std::fs::write(blobs.join(Digest::of(&amd).hex()), &arm).unwrap();
        assert_eq!(find(&amd), None, "its bytes are another's");
    }

    #[test]
    fn the_manifest_of_an_image_never_changes() {
        let layer = Digest::of(b"tar");
        let image = Manifest {
            id: Digest::of(b"{}"),
            config: "{}".to_owned(),
            layers: vec![vc_protocol::image::Layer {
                diff_id: layer.clone(),
                size: 3,
                blob: Digest::of(b"compressed"),
                blob_size: 10,
                encoding: vc_protocol::image::Encoding::Zstd,
            }],
        };
        let written = manifest_of(&image).unwrap();
        let parsed = ImageManifest::parse(&written).unwrap();
        assert_eq!((&parsed.config.digest, &parsed.layers[0].digest), (&image.id, &layer));
        // Nodes have recorded it, and engines name images by it.
        let golden = "sha256:2aea03319e9b012dfe7c7a22a4f2e2c3afdd862af7ad5c1a830730d58dd6f70e";
        assert_eq!(Digest::of(&written).as_str(), golden);
    }
}
