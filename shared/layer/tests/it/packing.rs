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

mod every_packing_gives_the_same_disk {
    use super::*;

    fn same(packed: Vec<u8>) {
        let disk = |bytes| std::fs::read(&built(vec![bytes]).path).unwrap();
        assert!(disk(packed) == disk(plain()));
    }

    each! { same {
        by_gzip: gzip(&plain());
        by_zstd: zstd(&plain());
    } }
}

#[test]
fn several_gzip_members_one_of_them_empty_are_one_layer() {
    let whole = plain();
    let (first, second) = whole.split_at(700);
    assert_eq!(built(vec![[gzip(first), gzip(b""), gzip(second)].concat()]).paths(), "a:1");
}

#[test]
fn several_zstd_frames_some_to_skip_are_one_layer() {
    let whole = plain();
    let (first, second) = whole.split_at(700);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let packed = [skipped.clone(), zstd(first), skipped, zstd(second)].concat();
    assert_eq!(built(vec![packed]).paths(), "a:1");
}

mod a_gzip_header {
    use super::*;

    fn read(builder: GzBuilder) {
        let mut out = builder.write(Vec::new(), Compression::fast());
        out.write_all(&plain()).unwrap();
        assert_eq!(built(vec![out.finish().unwrap()]).paths(), "a:1");
    }

    each! { read {
        with_a_name: GzBuilder::new().filename("name");
        with_a_comment: GzBuilder::new().comment("comment");
        with_an_extra_field: GzBuilder::new().extra(vec![1; 300]);
        with_every_field:
            GzBuilder::new().extra(vec![1; 300]).filename("name").comment("comment");
    } }

    #[test]
    fn with_a_checksum_of_its_own() {
        let mut bytes = gzip(&plain());
        bytes[3] |= 2;
        bytes.splice(10..10, [0, 0]);
        assert_eq!(built(vec![bytes]).paths(), "a:1");
    }

    #[test]
    fn with_an_unknown_flag_is_refused() {
        let mut bytes = gzip(&plain());
        bytes[3] |= 0x20;
        refused(vec![bytes], "not gzip");
    }

    #[test]
    fn with_a_name_without_an_end_is_refused() {
        let mut bytes = gzip(&plain());
        bytes[3] |= 8;
        bytes.truncate(10);
        bytes.extend(vec![b'x'; 100_000]);
        refused(vec![bytes], "has no end");
    }
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

mod garbage_after_the_end_is_refused {
    use super::*;

    each! { after {
        of_gzip: gzip(&plain()), b"garbage more", "not gzip";
        of_gzip_one_byte: gzip(&plain()), b"x", "cut off";
        of_zstd: zstd(&plain()), b"garbage", "not valid zstd";
    } }

    fn after(packed: Vec<u8>, garbage: &[u8], part: &str) {
        refused(vec![[&packed, garbage].concat()], part);
    }
}

mod a_packed_layer_cut_off_is_refused {
    use super::*;

    fn anywhere(whole: Vec<u8>) {
        for length in (4..whole.len()).step_by(3) {
            refused(vec![whole[..length].to_vec()], "L1");
        }
    }

    each! { anywhere {
        anywhere_in_gzip: gzip(&plain());
        anywhere_in_zstd: zstd(&plain());
    } }

    #[test]
    fn and_that_is_said() {
        refused(vec![gzip(&plain())[..40].to_vec()], "cut off");
    }
}

mod broken_packing_is_refused {
    use super::*;

    fn wrong(change: impl Fn(&mut [u8]), part: &str) {
        let mut bytes = gzip(&plain());
        change(&mut bytes);
        refused(vec![bytes], part);
    }

    each! { wrong {
        a_checksum: |bytes| bytes[bytes.len() - 6] ^= 1, "checksum is wrong";
        a_length: |bytes| bytes[bytes.len() - 1] ^= 1, "checksum is wrong";
        a_block: |bytes| bytes[10] = 0xff, "not valid gzip";
    } }
}

fn looking_back_16_mib() -> Vec<u8> {
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    out.window_log(24).unwrap();
    out.write_all(&plain()).unwrap();
    out.finish().unwrap()
}

#[test]
fn a_zstd_window_within_the_limit() {
    assert_eq!(built(vec![looking_back_16_mib()]).paths(), "a:1");
}

#[test]
fn a_zstd_window_over_a_limit_of_the_user_is_refused() {
    let limits = Limits { window_log: 23, ..Limits::default() };
    refused_by(vec![looking_back_16_mib()], &limits, "window of 16777216 bytes");
}

#[test]
fn a_zstd_window_of_2_gib_is_refused() {
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

fn right() -> String {
    use sha2::{Digest, Sha256};
    format!("{:x}", Hex(&Sha256::digest(plain())))
}

#[test]
fn the_right_digest_of_the_content_is_accepted() {
    with_diff_id(&format!("sha256:{}", right())).unwrap();
}

mod a_wrong_digest_of_the_content_is_refused {
    use super::*;

    fn wrong(diff_id: &str) {
        let error = with_diff_id(diff_id).unwrap_err().chain();
        assert!(
            error.contains("the layer 'L1'") && error.contains("but the image says"),
            "{error}"
        );
    }

    each! { wrong {
        another: &format!("sha256:{}", "0".repeat(64));
        of_another_kind: &format!("sha512:{}", right());
        without_a_kind: &right();
        nothing: "";
    } }
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

#[test]
fn what_was_packed_for_nobody_is_read_by_its_first_bytes() {
    // The first bytes tell, whatever media type an image names.
    assert_eq!(built(vec![plain(), gzip(&plain()), zstd(&plain())]).paths(), "a:1");
}
