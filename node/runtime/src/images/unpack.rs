//! Unpacks an image from the store into an archive that `docker load` reads.
//!
//! The files that tell Docker what to make of the rest come last, after every layer was verified. So layers can be sent
//! while they arrive: of a wrong image, Docker only sees files without meaning. They are an OCI image layout and the
//! `manifest.json` of older engines, as `docker save` writes them since version 25.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use vc_image_archive::{oci, tar as archive};
use vc_protocol::image::{Digest, Encoding, Layer, Manifest};

/// Why an image could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A blob cannot be read, or the reader of the archive is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blob matches its digest, but does not hold the layer that the manifest says.
    #[error("blob {blob} does not hold layer {diff_id}")]
    WrongLayer {
        /// The digest of the blob.
        blob: Digest,
        /// The digest of the layer.
        diff_id: Digest,
    },
}

/// Writes an image as `docker save` does, without the contents of its first `skip` layers, which Docker does not read
/// if it has them. `open` returns a reader of a blob, which ends only if the blob matches its digest.
pub fn unpack<R: Read>(
    manifest: &Manifest,
    skip: usize,
    mut open: impl FnMut(&Layer) -> io::Result<R>,
    output: &mut impl Write,
) -> Result<(), UnpackError> {
    let config = oci::blob_path(&manifest.id);
    archive::write_file(output, &config, manifest.config.as_bytes())?;
    let path = |layer: &Layer| oci::blob_path(&layer.diff_id);
    let mut written = BTreeSet::new();
    for layer in manifest.layers.iter().skip(skip) {
        if !written.insert(&layer.diff_id) {
            continue;
        }
        archive::write_header(output, &path(layer), layer.size)?;
        let blob = open(layer)?;
        match layer.encoding {
            // The digest of the blob is that of the layer.
            Encoding::Raw => write(blob, layer, output, false)?,
            Encoding::Zstd => write(zstd::stream::read::Decoder::new(blob)?, layer, output, true)?,
        }
        archive::pad(output, layer.size)?;
    }
    // For the containerd image store.
    let oci_manifest = oci::manifest_of(manifest)?;
    archive::write_file(output, &oci::blob_path(&Digest::of(&oci_manifest)), &oci_manifest)?;
    archive::write_file(output, oci::LAYOUT.0, oci::LAYOUT.1.as_bytes())?;
    archive::write_file(output, oci::INDEX, &oci::index_of(&oci_manifest)?)?;
    // For the classic image store, and for podman.
    let layers: Vec<String> = manifest.layers.iter().map(path).collect();
    let saved = serde_json::json!([{ "Config": config, "RepoTags": null, "Layers": layers }]);
    archive::write_file(output, "manifest.json", saved.to_string().as_bytes())?;
    archive::write_end(output)?;
    Ok(())
}

fn write(
    mut tar: impl Read,
    layer: &Layer,
    output: &mut impl Write,
    check: bool,
) -> Result<(), UnpackError> {
    let wrong_layer =
        || UnpackError::WrongLayer { blob: layer.blob.clone(), diff_id: layer.diff_id.clone() };
    let mut hash = Sha256::new();
    let mut written = 0;
    let copied = archive::copy(&mut tar, |bytes| {
        written += bytes.len() as u64;
        if written > layer.size {
            return Err(io::Error::other("the layer is longer than its manifest says"));
        }
        if check {
            hash.update(bytes);
        }
        output.write_all(bytes)
    });
    // zstd reports invalid data as `Other`; a failing source or reader has another kind.
    let unreadable = copied.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Other);
    if written > layer.size || (check && unreadable) {
        return Err(wrong_layer());
    }
    copied?;
    if written != layer.size
        || (check && Digest::from_sha256(hash.finalize().into()) != layer.diff_id)
    {
        return Err(wrong_layer());
    }
    Ok(())
}
