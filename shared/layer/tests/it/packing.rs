//! What layers are packed in, and what they must add up to.

use crate::support::{Tar, built, layer, refused, refused_by};
use banger_layer::{Layer, Limits, Progress, build};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use std::io::Write;

fn plain() -> Vec<u8> {
    Tar::new().file("a", "1").end()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn every_packing_gives_the_same_disk() {
    let disk = |bytes| std::fs::read(&built(vec![bytes]).path).unwrap();
    let expected = disk(plain());
    assert!(disk(gzip(&plain())) == expected);
    assert!(disk(zstd(&plain())) == expected);
}

#[test]
fn several_members_and_frames_are_one_layer() {
    let whole = plain();
    let (first, second) = whole.split_at(700);
    assert_eq!(built(vec![[gzip(first), gzip(b""), gzip(second)].concat()]).paths(), "a:1");
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    assert_eq!(
        built(vec![[skipped.clone(), zstd(first), skipped, zstd(second)].concat()]).paths(),
        "a:1"
    );
}

#[test]
fn gzip_headers_may_have_every_field() {
    let mut out = GzBuilder::new()
        .extra(vec![1; 300])
        .filename("name")
        .comment("comment")
        .write(Vec::new(), Compression::fast());
    out.write_all(&plain()).unwrap();
    assert_eq!(built(vec![out.finish().unwrap()]).paths(), "a:1");
}

#[test]
fn a_gzip_header_may_have_a_checksum_of_its_own() {
    let mut bytes = gzip(&plain());
    bytes[3] |= 2;
    bytes.splice(10..10, [0, 0]);
    assert_eq!(built(vec![bytes]).paths(), "a:1");
    let mut bytes = gzip(&plain());
    bytes[3] |= 0x20;
    refused(vec![bytes], "not gzip");
    // A name without an end.
    let mut bytes = gzip(&plain());
    bytes[3] |= 8;
    bytes.truncate(10);
    bytes.extend(vec![b'x'; 100_000]);
    refused(vec![bytes], "has no end");
}

#[test]
fn a_zstd_frame_that_lies_about_its_size_is_refused() {
    let content = plain();
    let mut frame = zstd(&content);
    // One segment, whose size has two bytes and counts from 256.
    assert_eq!(frame[4] & 0xe0, 0x60);
    let wrong = (content.len() - 256 + 512) as u16;
    frame[5..7].copy_from_slice(&wrong.to_le_bytes());
    refused(vec![frame], "zstd");
}

#[test]
fn garbage_after_the_end_is_refused() {
    refused(vec![[gzip(&plain()), b"garbage more".to_vec()].concat()], "not gzip");
    refused(vec![[gzip(&plain()), b"x".to_vec()].concat()], "cut off");
    refused(vec![[zstd(&plain()), b"garbage".to_vec()].concat()], "not valid zstd");
}

#[test]
fn packed_layers_cut_off_anywhere_are_refused() {
    for whole in [gzip(&plain()), zstd(&plain())] {
        for length in (4..whole.len()).step_by(3) {
            refused(vec![whole[..length].to_vec()], "L1");
        }
    }
    refused(vec![gzip(&plain())[..40].to_vec()], "cut off");
}

#[test]
fn broken_packing_is_refused() {
    let mut wrong = gzip(&plain());
    let end = wrong.len();
    wrong[end - 6] ^= 1;
    refused(vec![wrong], "checksum is wrong");
    let mut wrong = gzip(&plain());
    wrong[end - 1] ^= 1;
    refused(vec![wrong], "checksum is wrong");
    let mut wrong = gzip(&plain());
    wrong[10] = 0xff;
    refused(vec![wrong], "not valid gzip");
}

#[test]
fn a_zstd_window_has_a_limit() {
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    out.window_log(24).unwrap();
    out.write_all(&plain()).unwrap();
    let packed = out.finish().unwrap();
    assert_eq!(built(vec![packed.clone()]).paths(), "a:1");
    refused_by(
        vec![packed],
        &Limits { window_log: 23, ..Limits::default() },
        "window of 16777216 bytes",
    );
    // A frame that asks for 2 GiB.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0, 0, 0, 0];
    refused(vec![frame.to_vec()], "over the limit");
}

#[test]
fn a_dictionary_that_is_not_there_is_an_error() {
    let mut frame = zstd(&plain());
    // The descriptor's last bits say how long the dictionary's number is.
    frame[4] |= 1;
    frame.insert(if frame[4] & 0x20 == 0 { 6 } else { 5 }, 77);
    refused(vec![frame], "zstd");
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn with_diff_id(diff_id: &str) -> banger_doc::Result<()> {
    let disk = tempfile::tempfile().unwrap();
    let layer = Layer { diff_id: Some(diff_id.to_owned()), ..layer("L1", gzip(&plain())) };
    build(vec![layer], &disk, &Limits::default(), &Progress::default()).map(|_| ())
}

#[test]
fn the_content_must_have_its_digest() {
    use sha2::{Digest, Sha256};
    let right = format!("{:x}", Hex(&Sha256::digest(plain())));
    with_diff_id(&format!("sha256:{right}")).unwrap();
    for wrong in
        [format!("sha256:{}", "0".repeat(64)), format!("sha512:{right}"), right, String::new()]
    {
        let error = with_diff_id(&wrong).unwrap_err().chain();
        assert!(
            error.contains("the layer 'L1'") && error.contains("but the image says"),
            "{error}"
        );
    }
}

#[test]
fn a_layer_that_cannot_be_opened_or_read_says_why() {
    let failing: [banger_layer::Opener; 2] = [
        Box::new(|| Err(banger_doc::Error::unavailable("no network"))),
        Box::new(|| {
            struct Broken;
            impl std::io::Read for Broken {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    Err(std::io::Error::other(banger_doc::Error::unavailable("no network")))
                }
            }
            Ok(Box::new(Broken))
        }),
    ];
    for open in failing {
        let disk = tempfile::tempfile().unwrap();
        let layers = vec![layer("L0", plain()), Layer { open, ..layer("L1", Vec::new()) }];
        let error = build(layers, &disk, &Limits::default(), &Progress::default()).unwrap_err();
        assert_eq!(error.chain(), "the layer 'L1' cannot be used: no network");
        assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
    }
}

#[test]
fn two_builds_are_the_same_to_the_byte() {
    let stack = || -> Vec<Vec<u8>> {
        (0..12u32)
            .map(|number| {
                let mut tar = Tar::new();
                for file in 0..50u32 {
                    let content: Vec<u8> =
                        (0..20_000u32).map(|at| (at * file + number) as u8).collect();
                    tar = tar.file(format!("{file}/{}", number % 5), content);
                }
                gzip(&tar.end())
            })
            .collect()
    };
    let first = std::fs::read(&built(stack()).path).unwrap();
    for _ in 0..5 {
        assert!(std::fs::read(&built(stack()).path).unwrap() == first);
    }
}

#[test]
fn progress_is_told() {
    let disk = tempfile::tempfile().unwrap();
    let progress = Progress::default();
    let packed = gzip(&plain());
    let length = packed.len() as u64;
    build(vec![layer("L1", packed)], &disk, &Limits::default(), &progress).unwrap();
    let Progress { bytes_in, bytes_out, entries } = progress;
    assert_eq!(
        (bytes_in.into_inner(), bytes_out.into_inner(), entries.into_inner()),
        (length, plain().len() as u64, 1)
    );
}
