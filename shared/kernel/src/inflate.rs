//! Compressed bytes, told apart by how they begin.

use banger_doc::{Context, Error, Result};
use flate2::read::MultiGzDecoder;
use liblzma::{read::XzDecoder, stream::Stream};
use std::io::{BufReader, Read};

/// Memory an xz or lzma stream may ask for.
const LZMA_MEMORY: u64 = 512 << 20;

/// Says whether these first bytes are those of a compression known by name.
pub(crate) fn compression(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 7] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x5d\0\0", "lzma"),
        (b"BZh", "bzip2"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x89LZO", "lzo"),
    ];
    known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// Returns a reader of the plain bytes; bytes in no known compression are passed on as they are.
/// `what` names the input in errors.
pub(crate) fn reader<'a>(input: impl Read + 'a, what: &str) -> Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(1 << 18, input);
    let mut head = Vec::new();
    input.by_ref().take(8).read_to_end(&mut head).with_context(|| format!("cannot read {what}"))?;
    let kind = compression(&head);
    let input = std::io::Cursor::new(head).chain(input);
    let failed = || format!("cannot unpack {what}");
    Ok(match kind {
        None => Box::new(input),
        Some("gzip") => Box::new(MultiGzDecoder::new(input)),
        Some("xz") => {
            let stream = Stream::new_stream_decoder(LZMA_MEMORY, 0).with_context(failed)?;
            Box::new(XzDecoder::new_stream(BufReader::new(input), stream))
        }
        Some("lzma") => {
            let stream = Stream::new_lzma_decoder(LZMA_MEMORY).with_context(failed)?;
            Box::new(XzDecoder::new_stream(BufReader::new(input), stream))
        }
        Some("zstd") => {
            let decoder = zstd::Decoder::new(input).with_context(failed)?;
            Box::new(decoder.single_frame())
        }
        Some(other) => {
            return Err(Error::failed(format!("{what} is compressed with {other}"))
                .hint("gzip, xz, lzma and zstd are read"));
        }
    })
}

/// Returns the plain bytes, at most `limit` of them.
pub(crate) fn inflate(bytes: &[u8], limit: u64, what: &str) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut reader = if bytes.starts_with(b"\x1f\x8b") {
        // One member only: a kernel's payload is followed by its length.
        Box::new(flate2::read::GzDecoder::new(bytes))
    } else {
        reader(bytes, what)?
    };
    reader
        .by_ref()
        .take(limit + 1)
        .read_to_end(&mut plain)
        .with_context(|| format!("cannot unpack {what}"))?;
    if plain.len() as u64 > limit {
        return Err(Error::failed(format!("{what} is larger than {limit} bytes")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression_is_read_and_what_follows_it_ignored() {
        let plain = b"a kernel ".repeat(1000);
        for packed in [gzip(&plain), xz(&plain), zstd::encode_all(&plain[..], 1).unwrap()] {
            let mut followed = packed.clone();
            followed.extend_from_slice(&[0x28, 0x23, 0, 0]);
            assert_eq!(inflate(&packed, 1 << 20, "it").unwrap(), plain);
            assert_eq!(inflate(&followed, 1 << 20, "it").unwrap(), plain);
            assert!(inflate(&packed, 100, "it").unwrap_err().to_string().contains("larger"));
            assert!(inflate(&packed[..packed.len() / 2], 1 << 20, "it").is_err());
        }
        let error = inflate(b"\x02\x21\x4c\x18....", 1 << 20, "'x'").unwrap_err();
        assert_eq!(error.to_string(), "'x' is compressed with lz4");
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0..4usize) {
            let magic: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x5d\0\0"];
            let mut all = magic[kind].to_vec();
            all.extend(bytes);
            let _ = inflate(&all, 1 << 16, "it");
        }
    }
}
