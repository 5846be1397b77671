//! The console's files, embedded at compile time from the output of `npm run build` in `node/console`.

use std::borrow::Cow;
use std::fmt::Write as _;

use hyper::body::Bytes;
use rust_embed::{Embed, EmbeddedFile};

/// Looks up a file by path: `index.html`, `assets/main-4f2a.js`.
pub(crate) type Files = fn(&str) -> Option<File>;

#[derive(Embed)]
#[folder = "../dist"]
#[allow_missing = true]
struct Dist;

/// A file to serve.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) content: Bytes,
    /// The entity tag, quoted: a hash of the content.
    pub(crate) etag: String,
}

impl From<EmbeddedFile> for File {
    fn from(file: EmbeddedFile) -> Self {
        let content = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let mut etag = String::from('"');
        for byte in &file.metadata.sha256_hash()[..16] {
            // Writing to a string cannot fail.
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        Self { content, etag }
    }
}

/// Returns an embedded file.
pub(crate) fn embedded(path: &str) -> Option<File> {
    Dist::get(path).map(File::from)
}

/// Returns the media type for the extension of a path.
pub(crate) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
