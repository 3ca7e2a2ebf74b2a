//! What is fed, and what must hold.

use crate::mutate::{self, Random};
use banger_layer::{Layer, Limits, Progress, build};
use flate2::{Compression, write::GzEncoder};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    pub(crate) mutate: fn(&[Vec<u8>], &mut Random) -> Vec<u8>,
    pub(crate) feed: fn(&[u8]) -> Result<(), String>,
}

pub(crate) const TARGETS: [Target; 4] = [
    Target { name: "layer", seeds: archives, mutate: mutate::tar, feed: layer },
    Target { name: "stack", seeds: archives, mutate: mutate::tar, feed: stack },
    Target { name: "packed", seeds: packed, mutate: mutate::bytes, feed: layer },
    Target { name: "reference", seeds: references, mutate: mutate::bytes, feed: reference },
];

fn layer(input: &[u8]) -> Result<(), String> {
    disk(&[input])
}

fn stack(input: &[u8]) -> Result<(), String> {
    let (first, second) = input.split_at(input.len() / 1024 * 512);
    disk(&[&archives()[0], first, second])
}

fn reference(input: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    let Ok(reference) = text.parse::<banger_oci::Reference>() else { return Ok(()) };
    // What was understood is written and understood the same again.
    let written = reference.to_string();
    match written.parse::<banger_oci::Reference>() {
        Ok(again) if again.to_string() == written => Ok(()),
        _ => Err(format!("'{text}' is written as '{written}', which is something else")),
    }
}

/// Builds a disk of layers. Every disk that comes of it must be right.
fn disk(layers: &[&[u8]]) -> Result<(), String> {
    static BUILT: AtomicU64 = AtomicU64::new(0);
    let limits = Limits {
        entries: 5000,
        bytes: 64 << 20,
        file_bytes: 1 << 32,
        extents: 100_000,
        ..Limits::default()
    };
    let one = || -> Result<Option<File>, String> {
        let file = tempfile::tempfile().map_err(|error| error.to_string())?;
        let layers = layers.iter().enumerate().map(|(number, bytes)| {
            let bytes = bytes.to_vec();
            Layer {
                name: format!("L{number}"),
                diff_id: None,
                size: Some(bytes.len() as u64),
                open: Box::new(move || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>)),
            }
        });
        Ok(build(layers.collect(), &file, &limits, &Progress::default()).is_ok().then_some(file))
    };
    let Some(file) = one()? else { return Ok(()) };
    // The checker takes much longer than the build.
    if BUILT.fetch_add(1, Relaxed) % 20 != 0 {
        return Ok(());
    }
    let Some(again) = one()? else { return Err("the second build failed".to_owned()) };
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let same = Command::new("cmp").args([path(&file), path(&again)]).status();
    if !same.map_err(|error| format!("cmp: {error}"))?.success() {
        return Err("two builds differ".to_owned());
    }
    let output = Command::new("timeout")
        .args(["30", "e2fsck", "-fn", &path(&file)])
        .output()
        .map_err(|error| format!("e2fsck: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn head(kind: u8, name: &str, size: usize, link: &str) -> Vec<u8> {
    let mut head = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000755\x000000000\x000000000\0");
    put(124, format!("{size:011o}\x0007346545000\0").as_bytes());
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003\0");
    head
}

fn entry(tar: &mut Vec<u8>, kind: u8, name: &str, content: &[u8], link: &str) {
    let mut head = head(kind, name, content.len(), link);
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend(head);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Archives with everything that an archive can have.
fn archives() -> Vec<Vec<u8>> {
    let mut usual = Vec::new();
    for name in ["etc/", "usr/", "usr/bin/"] {
        entry(&mut usual, b'5', name, b"", "");
    }
    entry(&mut usual, b'0', "usr/bin/sh", &[7; 5000], "");
    entry(&mut usual, b'2', "bin", b"", "usr/bin");
    entry(&mut usual, b'2', "loop", b"", "loop/../loop");
    entry(&mut usual, b'1', "usr/bin/bash", b"", "bin/sh");
    entry(&mut usual, b'0', "bin/x", b"x", "");
    entry(&mut usual, b'3', "null", b"", "");
    entry(&mut usual, b'4', "disk", b"", "");
    entry(&mut usual, b'6', "pipe", b"", "");
    usual.extend([0; 1024]);

    let mut markers = Vec::new();
    for name in
        ["etc/.wh.x", "bin/.wh.sh", ".wh.usr", "usr/.wh..wh..opq", ".wh..wh..opq", "etc/new"]
    {
        entry(&mut markers, b'0', name, b"", "");
    }

    let mut extended = Vec::new();
    entry(
        &mut extended,
        b'x',
        "pax",
        b"14 path=a/b/c\n20 mtime=1.123456789\n15 uid=4000000\n9 size=3\n",
        "",
    );
    entry(&mut extended, b'0', "short", b"abc", "");
    entry(
        &mut extended,
        b'x',
        "pax",
        b"28 SCHILY.xattr.user.name=x\n32 LIBARCHIVE.xattr.user.y=AQI=\n",
        "",
    );
    entry(&mut extended, b'5', "d", b"", "");
    entry(&mut extended, b'g', "all", b"9 comment\n", "");
    entry(&mut extended, b'L', "././@LongLink", &[b"n".repeat(200), vec![0]].concat(), "");
    entry(&mut extended, b'K', "././@LongLink", &[b"t".repeat(200), vec![0]].concat(), "");
    entry(&mut extended, b'2', "short", b"", "short");

    let mut sparse = Vec::new();
    entry(
        &mut sparse,
        b'x',
        "pax",
        b"33 GNU.sparse.map=5,10,100000,10\n26 GNU.sparse.size=200000\n",
        "",
    );
    entry(&mut sparse, b'0', "s", b"0123456789abcdefghij", "");
    entry(
        &mut sparse,
        b'x',
        "pax",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.realsize=200000\n",
        "",
    );
    let mut map = b"2\n5\n10\n100000\n10\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(b"0123456789abcdefghij");
    entry(&mut sparse, b'0', "s1", &map, "");
    let mut old = head(b'S', "old", 20, "");
    old[345..512].fill(0);
    old[257..265].copy_from_slice(b"ustar  \0");
    old[386..434].copy_from_slice(b"00000000005\x0000000000012\x0000000100000\x0000000000012\0");
    old[483..495].copy_from_slice(b"00000200000\0");
    sparse.extend(old);
    sparse.extend_from_slice(b"0123456789abcdefghij");
    sparse.resize(sparse.len().next_multiple_of(512), 0);

    let mut many = Vec::new();
    for number in 0..200 {
        entry(&mut many, b'0', &format!("many/a-rather-long-name-{number}"), b"x", "");
    }
    vec![usual, markers, extended, sparse, many]
}

fn packed() -> Vec<Vec<u8>> {
    archives()
        .iter()
        .flat_map(|archive| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(archive).expect("memory takes everything");
            let gzip = gzip.finish().expect("memory takes everything");
            let zstd = zstd::encode_all(&archive[..], 1).expect("memory takes everything");
            [[gzip.clone(), gzip].concat(), zstd]
        })
        .collect()
}

fn references() -> Vec<Vec<u8>> {
    let digest = format!("alpine@sha256:{}", "0123456789abcdef".repeat(4));
    [
        "alpine",
        "alpine:3.20",
        "docker.io/library/debian:bookworm",
        "localhost:5000/a/b:tag",
        "[::1]:5000/x",
        &digest,
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
