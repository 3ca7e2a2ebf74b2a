//! Archives with layers in them: unpacked, and looked into.

use crate::support::{Head, Tar};
use banger_doc::Result;
use banger_layer::{Limits, Member, Progress, members, unpack};
use std::fs::File;
use std::io::{Cursor, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn unpacked_by(bytes: Vec<u8>, limits: &Limits) -> Result<File> {
    let output = tempfile::tempfile().unwrap();
    unpack(Box::new(Cursor::new(bytes)), &output, limits, &Progress::default())?;
    Ok(output)
}

fn unpacked(bytes: Vec<u8>) -> Vec<u8> {
    let file = unpacked_by(bytes, &Limits::default()).unwrap();
    let mut found = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut found, 0).unwrap();
    found
}

#[track_caller]
fn refused(result: Result<impl Sized>, part: &str) {
    let Err(error) = result else { panic!("it was accepted") };
    assert!(error.chain().contains(part), "'{}' does not say '{part}'", error.chain());
}

/// Returns what an archive has, as words; of a file also what lies where it is said to lie.
fn seen_by(bytes: &[u8], limits: &Limits) -> Result<Vec<String>> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let mut words = Vec::new();
    members(&file, limits, |name, member| {
        let name = name.escape_ascii();
        words.push(match member {
            Member::File { offset, size } => {
                let mut content = vec![0; size.min(20) as usize];
                file.read_exact_at(&mut content, offset).unwrap();
                format!("{name}:{}", content.escape_ascii())
            }
            Member::Symlink(target) => format!("{name}@{}", target.escape_ascii()),
            Member::Hardlink(target) => format!("{name}={}", target.escape_ascii()),
        });
        Ok(())
    })?;
    Ok(words)
}

fn seen(bytes: &[u8]) -> Result<Vec<String>> {
    seen_by(bytes, &Limits::default())
}

#[test]
fn what_is_packed_comes_out_as_it_was() {
    let plain: Vec<u8> = (0..300_001u64).map(|at| ((at * at) >> 7) as u8).collect();
    assert!(unpacked(plain.clone()) == plain);
    assert!(unpacked(gzip(&plain)) == plain);
    assert!(unpacked(zstd::encode_all(&plain[..], 1).unwrap()) == plain);
    assert!(unpacked(gzip(b"")).is_empty());
}

#[test]
fn zeros_come_out_as_holes() {
    let plain = [&vec![0; 8 << 20][..], b"end", &vec![0; 1 << 20]].concat();
    let file = unpacked_by(gzip(&plain), &Limits::default()).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), plain.len() as u64);
    assert!(meta.blocks() * 512 < 1 << 20, "{}", meta.blocks());
    assert!(unpacked(gzip(&plain)) == plain);
}

#[test]
fn unpacking_has_a_limit_of_bytes() {
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    assert!(unpacked_by(gzip(&vec![7; 1 << 20]), &limits).is_ok());
    refused(unpacked_by(gzip(&vec![0; (1 << 20) + 1]), &limits), "more than 1048576 bytes");
}

#[test]
fn unpacking_has_a_limit_of_growth() {
    let limits = Limits { ratio: 20, ..Limits::default() };
    refused(unpacked_by(gzip(&vec![7; 300 << 20]), &limits), "more than 20 times");
}

#[test]
fn an_archive_cut_off_is_refused_when_unpacked() {
    let whole = gzip(&Tar::new().file("a", "1").end());
    refused(unpacked_by(whole[..whole.len() - 9].to_vec(), &Limits::default()), "cut off");
}

#[test]
fn files_and_links_are_told_of() {
    let tar = Tar::new()
        .dir("d")
        .file("d/a", vec![b'x'; 70_000])
        .file("d/b", "second")
        .symlink("s", "../d/a")
        .hard("h", "d/b")
        .entry(Head::new(b'6', "pipe"), b"")
        .file("n".repeat(200), "long");
    let long = format!("{}:long", "n".repeat(200));
    let first = format!("d/a:{}", "x".repeat(20));
    assert_eq!(seen(&tar.end()).unwrap(), [&first, "d/b:second", "s@../d/a", "h=d/b", &long]);
}

#[test]
fn a_file_that_ends_behind_the_archive_is_refused() {
    let head = Head { size: 1 << 40, ..Head::new(b'0', "a") };
    refused(seen(&Tar::new().raw(&head, b"x").end()[..1024]), "ends within the content");
    refused(seen(&Tar::new().raw(&head, b"x").file("b", "").end()), "ends within the content");
}

#[test]
fn a_name_of_a_gibibyte_is_refused() {
    let head = Head { size: 1 << 30, ..Head::new(b'L', "././@LongLink") };
    refused(seen(&Tar::new().raw(&head, b"x").end()), "more than the limit of 1048576");
}

#[test]
fn a_sparse_file_in_an_archive_is_refused() {
    let map: &[(&str, &[u8])] = &[("GNU.sparse.map", b"5,5"), ("GNU.sparse.size", b"100")];
    refused(seen(&Tar::new().pax(map).file("a", "12345").end()), "stored as a sparse one");
}

#[test]
fn entries_of_an_archive_have_a_limit() {
    let limits = Limits { entries: 10, ..Limits::default() };
    let many = (0..11).fold(Tar::new(), |tar, number| tar.dir(format!("{number}"))).end();
    refused(seen_by(&many, &limits), "more than 10 entries");
}

#[test]
fn names_in_an_archive_have_a_limit() {
    let limits = Limits { name_bytes: 1000, ..Limits::default() };
    let many = (0..11).fold(Tar::new(), |tar, number| tar.file(format!("{number:0100}"), "")).end();
    refused(seen_by(&many, &limits), "more than 1000 bytes of names");
}

#[test]
fn what_is_no_archive_is_refused() {
    refused(seen(&[b'x'; 2000]), "wrong checksum");
}
