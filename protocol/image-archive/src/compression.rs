//! Layers in archives are tars, or compressed tars.

use std::io::{self, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Returns a reader of the tar of a layer, which may be compressed with gzip or Zstandard (OCI image specification,
/// `layer.md`). A tar begins with a path, so its first bytes tell.
///
/// # Errors
/// The input cannot be read.
pub fn decompress<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut begin = Vec::new();
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut begin)?;
    let is_gzip = begin.starts_with(&GZIP);
    let is_zstd = begin.starts_with(&ZSTD);
    let whole = Cursor::new(begin).chain(input);
    Ok(match (is_gzip, is_zstd) {
        (true, _) => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        (_, true) => Box::new(zstd::stream::read::Decoder::new(whole)?),
        _ => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use std::io::Write as _;

    use super::*;

    #[test]
    fn gzip_and_zstandard_are_decompressed_and_other_bytes_unchanged() {
        let tar = b"etc/passwd\0".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let inputs =
            [tar.clone(), gzip.finish().unwrap(), zstd::stream::encode_all(&tar[..], 1).unwrap()];
        for input in inputs {
            let mut output = Vec::new();
            decompress(&input[..]).unwrap().read_to_end(&mut output).unwrap();
            assert_eq!(output, tar);
        }
        for short in [&b""[..], b"a", b"abc"] {
            let mut output = Vec::new();
            decompress(short).unwrap().read_to_end(&mut output).unwrap();
            assert_eq!(output, short);
        }
    }
}
