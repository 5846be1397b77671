//! The console's files, as `npm run build` in `node/console` left them when this program was built.

use std::borrow::Cow;
use std::fmt::Write as _;

use hyper::body::Bytes;
use rust_embed::{Embed, EmbeddedFile};

/// Where a file is found by its path: `index.html`, `assets/main-4f2a.js`.
pub(crate) type Files = fn(&str) -> Option<File>;

#[derive(Embed)]
#[folder = "../dist"]
#[allow_missing = true]
struct Dist;

/// A file to serve.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// What is in it.
    pub(crate) content: Bytes,
    /// Another content, another tag; with its quotes.
    pub(crate) tag: String,
}

impl From<EmbeddedFile> for File {
    fn from(file: EmbeddedFile) -> Self {
        let content = match file.data {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let mut tag = String::from('"');
        for byte in &file.metadata.sha256_hash()[..16] {
            // A string takes whatever is written to it.
            let _ = write!(tag, "{byte:02x}");
        }
        tag.push('"');
        Self { content, tag }
    }
}

/// A file that is built into this program.
pub(crate) fn built_in(path: &str) -> Option<File> {
    Dist::get(path).map(File::from)
}

/// What a browser takes a file for, by the end of its name.
pub(crate) fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, end)| end) {
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
