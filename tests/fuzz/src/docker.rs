//! What containers and images bring through Docker: the output of a command, archives of images, and those of `vc cp`.

use std::io::Cursor;
use std::path::Path;

use futures::FutureExt as _;
use vc_protocol::exec::MAX_EXEC_CHUNK;
use vc_protocol::image::{Digest, Encoding, Layer, Manifest};
use vc_runtime::docker::ExecOutput;
use vc_runtime::images::pack::pack;
use vc_runtime::images::store::Store;
use vc_runtime::images::unpack::unpack;

use crate::pieces::{Pieces, piece};

/// The most entries of an archive: more are no other code.
const MAX_ENTRIES: usize = 16;

/// Reads the output of a command.
pub(crate) fn hijack(data: &[u8]) {
    let mut pieces = Pieces(data);
    let tty = pieces.byte() & 1 == 1;
    let length = pieces.0.len();
    let mut output = ExecOutput::new(Cursor::new(pieces.0.to_vec()), tty);
    let mut total = 0;
    while let Some(Ok(Some((_, bytes)))) = output.next().now_or_never() {
        assert!((1..=MAX_EXEC_CHUNK).contains(&bytes.len()));
        total += bytes.len();
    }
    assert!(total <= length);
}

pub(crate) fn hijack_seeds() -> Vec<Vec<u8>> {
    let out = [1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'];
    let err = [2, 0, 0, 0, 0, 0, 0, 1, b'c'];
    vec![[&[0][..], &out, &err].concat(), [&[1][..], &out].concat(), vec![0, 1, 0, 0, 0, 255, 255]]
}

/// Runs an archive of an image, a manifest with blobs, or an archive of `vc cp`, by the first byte.
pub(crate) fn archive(data: &[u8]) {
    let mut pieces = Pieces(data);
    match pieces.byte() % 4 {
        0 => pack_image(pieces.0),
        1 => pack_image(&tar(&mut pieces)),
        2 => unpack_image(&mut pieces),
        _ => copy(&mut pieces),
    }
}

#[expect(clippy::expect_used, reason = "a fuzz target")]
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    directory.expect("a directory")
}

/// The configuration of the only image that an archive can hold.
const CONFIG: &str = r#"{"rootfs":{"diff_ids":["sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"]}}"#;

#[expect(clippy::expect_used, reason = "a fuzz target")]
fn pack_image(archive: &[u8]) {
    let directory = directory();
    let store = Store::open(directory.path()).expect("a store");
    let id = Digest::of(CONFIG.as_bytes());
    if let Ok(manifest) = pack(&store, &id, archive, |_| {}) {
        assert!(manifest.check().is_ok());
    }
    let left = std::fs::read_dir(directory.path().join("images/partial")).expect("listed");
    assert_eq!(left.count(), 0, "temporary files are left");
}

/// Writes the archive that pieces describe: kind, path, link, content, and the size that the header says.
fn tar(pieces: &mut Pieces<'_>) -> Vec<u8> {
    let mut archive = Vec::new();
    for _ in 0..MAX_ENTRIES {
        if pieces.is_empty() {
            break;
        }
        let (kind, flags) = (pieces.byte(), pieces.byte());
        let (path, link, content) = (pieces.piece(), pieces.piece(), pieces.piece());
        let mut header = tar_header(kind, path, link);
        let size = if flags & 1 == 0 { content.len() as u64 } else { u64::from(pieces.number()) };
        let mode = format!("{:07o}\0", u16::from(flags >> 1) << 5 & 0o777 | 0o600);
        header[100..108].copy_from_slice(mode.as_bytes());
        match flags & 0x80 {
            0 => header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes()),
            // Base 256, as of files over 8 GiB.
            _ => header[124..136]
                .copy_from_slice(&[&[0x80, 0, 0, flags], &size.to_be_bytes()[..]].concat()),
        }
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Returns a header without size and checksum.
fn tar_header(kind: u8, path: &[u8], link: &[u8]) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, most: usize, bytes: &[u8]| {
        let length = bytes.len().min(most);
        header[at..at + length].copy_from_slice(&bytes[..length]);
    };
    put(0, 100, path);
    put(108, 16, b"0000000\x000000000\0");
    put(136, 12, b"00000000000\0");
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    header
}

/// Unpacks blobs by a manifest.
fn unpack_image(pieces: &mut Pieces<'_>) {
    let manifest = pieces.piece();
    let blob = pieces.0;
    let manifest = serde_json::from_slice(manifest).unwrap_or_else(|_| {
        let of = |encoding| Layer {
            diff_id: Digest::of(b"foo"),
            size: 3,
            blob: Digest::of(blob),
            blob_size: blob.len() as u64,
            encoding,
        };
        let encoding =
            if manifest.len().is_multiple_of(2) { Encoding::Raw } else { Encoding::Zstd };
        let id = Digest::of(CONFIG.as_bytes());
        Manifest { id, config: CONFIG.to_owned(), layers: vec![of(encoding)] }
    });
    let mut output = Vec::new();
    let unpacked = unpack(&manifest, 0, |_| Ok(blob), &mut output);
    let sizes: u64 = manifest.layers.iter().map(|it| it.size.min(1 << 30)).sum();
    let most = sizes + (manifest.config.len() + 2048 * (manifest.layers.len() + 4)) as u64;
    assert!(output.len() as u64 <= most, "{} bytes of {most}: {unpacked:?}", output.len());
}

/// Unpacks an archive of `vc cp`, and asserts that nothing outside the target was written.
#[expect(clippy::expect_used, reason = "a fuzz target")]
fn copy(pieces: &mut Pieces<'_>) {
    let mode = pieces.byte();
    let archive = if mode & 4 == 0 { tar(pieces) } else { pieces.0.to_vec() };
    let home = directory();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    std::fs::create_dir(&outside).expect("made");
    if mode & 1 == 0 {
        std::fs::create_dir(&inside).expect("made");
    }
    let _ = vc_unpack::unpack(&archive[..], &inside, mode & 2 == 0);
    let entries = std::fs::read_dir(home.path()).expect("listed");
    let names: Vec<_> = entries.filter_map(|it| it.ok()?.file_name().into_string().ok()).collect();
    assert!(names.iter().all(|it| it == "in" || it == "out"), "{names:?}");
    assert_eq!(std::fs::read_dir(&outside).expect("listed").count(), 0);
}

pub(crate) fn archive_seeds() -> Vec<Vec<u8>> {
    let entry = |kind: u8, path: &str, link: &str, content: &[u8]| {
        [&[kind, 0xe][..], &piece(path.as_bytes()), &piece(link.as_bytes()), &piece(content)]
            .concat()
    };
    let config = entry(b'0', "c.json", "", CONFIG.as_bytes());
    let saved = br#"[{"Config":"c.json","Layers":["0/layer.tar"]}]"#;
    let saved = entry(b'0', "manifest.json", "", saved);
    let layer = entry(b'0', "0/layer.tar", "", b"foo");
    let image = [config.clone(), layer.clone(), saved.clone()].concat();
    let linked = [
        entry(b'0', "blobs/x", "", b"foo"),
        entry(b'2', "0/layer.tar", "../blobs/x", b""),
        config,
        saved,
    ];
    let long = [entry(b'L', "././@LongLink", "", b"0/layer.tar\0"), entry(b'0', "x", "", b"foo")];
    let pax = [entry(b'x', "pax", "", b"20 path=0/layer.tar\n"), entry(b'0', "x", "", b"foo")];
    let site = [
        entry(b'5', "site/", "", b""),
        entry(b'0', "site/index", "", b"hello"),
        entry(b'2', "site/up", "index", b""),
        entry(b'2', "site/out", "../../out", b""),
        entry(b'1', "site/hard", "site/index", b""),
        entry(b'0', "../out/a", "", b"bad"),
    ];
    let mut seeds: Vec<Vec<u8>> = [image, linked.concat(), long.concat(), pax.concat()]
        .iter()
        .map(|it| [&[1][..], it].concat())
        .collect();
    seeds.extend((0..4).map(|mode| [&[3, mode][..], &site.concat()].concat()));
    let packed: Vec<u8> = tar(&mut Pieces(&layer));
    seeds.push([&[0][..], &packed].concat());
    seeds.push([&[3, 4][..], &packed].concat());
    seeds.push([&[2][..], &piece(b""), b"foo"].concat());
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x03, 0x19, 0, 0, b'f', b'o', b'o'];
    seeds.push([&[2][..], &piece(b"x"), &zstd].concat());
    seeds
}
