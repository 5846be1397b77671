//! From the store into a stream that `docker load` takes.
//!
//! The file that tells Docker what to make of the rest comes last, and only after every layer has turned out to be what
//! the image's configuration names. So layers can be sent while they still arrive: of an image that is not what it should
//! be, Docker sees some files without meaning.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::archive;
use super::manifest::{Digest, Encoding, Layer, Manifest};

/// Why a stream could not be written.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A blob cannot be read, or the reader has gone.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A blob is what its name says, but not the layer that it should hold: whoever wrote the manifest was wrong.
    #[error("blob {blob} does not hold layer {diff_id}")]
    Wrong {
        /// The blob.
        blob: Digest,
        /// What it should hold.
        diff_id: Digest,
    },
}

/// Writes an image as `docker save` does, without the content of its first `skip` layers: Docker does not open those that
/// it has. `open` gives a blob's bytes; the end of them says that the blob is right.
pub fn unpack<R: Read>(
    manifest: &Manifest,
    skip: usize,
    mut open: impl FnMut(&Layer) -> io::Result<R>,
    output: &mut impl Write,
) -> Result<(), UnpackError> {
    let config = format!("{}.json", manifest.id.hex());
    archive::file(output, &config, manifest.config.as_bytes())?;
    let path = |index: usize| format!("{index}/layer.tar");
    for (index, layer) in manifest.layers.iter().enumerate().skip(skip) {
        archive::start(output, &path(index), layer.size)?;
        let blob = open(layer)?;
        match layer.encoding {
            // Its hash as a blob is its hash as a layer.
            Encoding::Raw => write(blob, layer, output, false)?,
            Encoding::Zstd => write(zstd::stream::read::Decoder::new(blob)?, layer, output, true)?,
        }
        archive::fill(output, layer.size)?;
    }
    let layers: Vec<String> = (0..manifest.layers.len()).map(path).collect();
    let saved = serde_json::json!([{ "Config": config, "RepoTags": null, "Layers": layers }]);
    archive::file(output, "manifest.json", saved.to_string().as_bytes())?;
    archive::finish(output)?;
    Ok(())
}

fn write(
    mut tar: impl Read,
    layer: &Layer,
    output: &mut impl Write,
    check: bool,
) -> Result<(), UnpackError> {
    let wrong = || UnpackError::Wrong { blob: layer.blob.clone(), diff_id: layer.diff_id.clone() };
    let mut hash = Sha256::new();
    let mut written = 0;
    let copied = archive::copy(&mut tar, |bytes| {
        written += bytes.len() as u64;
        if written > layer.size {
            return Err(io::Error::other("it is longer"));
        }
        if check {
            hash.update(bytes);
        }
        output.write_all(bytes)
    });
    // zstd calls what it cannot read "other"; whoever brings the blob or takes the tar has better words.
    let unreadable = copied.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Other);
    if written > layer.size || (check && unreadable) {
        return Err(wrong());
    }
    copied?;
    if written != layer.size || (check && Digest::from_hash(hash) != layer.diff_id) {
        return Err(wrong());
    }
    Ok(())
}
