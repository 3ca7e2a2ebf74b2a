//! However large an image is within the limits, little memory is needed to write it.
//!
//! Each image is made in a process of its own, whose peak the kernel tells (proc_pid_status(5)).

use crate::support::{Head, record};
use banger_layer::{Layer, Limits, Progress, build};
use std::io::Read;
use std::process::Command;

const CHILD: &str = "BANGER_TEST_MEMORY";
/// What is promised, whatever the image.
const MOST_KIB: u64 = 256 << 10;

/// A layer that is made while it is read, so that it takes no memory of its own.
struct Made<F> {
    next: F,
    number: u64,
    count: u64,
    bytes: Vec<u8>,
    at: usize,
}

impl<F: FnMut(u64, &mut Vec<u8>)> Read for Made<F> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.bytes.len() && self.number < self.count {
            self.bytes.clear();
            self.at = 0;
            (self.next)(self.number, &mut self.bytes);
            self.number += 1;
        }
        let count = out.len().min(self.bytes.len() - self.at);
        out[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn made(name: &str, count: u64, next: impl FnMut(u64, &mut Vec<u8>) + Send + 'static) -> Layer {
    Layer {
        name: name.to_owned(),
        diff_id: None,
        size: None,
        open: Box::new(move || {
            Ok(Box::new(Made { next, number: 0, count, bytes: Vec::new(), at: 0 }))
        }),
    }
}

/// Appends an entry with extended records.
fn entry(out: &mut Vec<u8>, head: &Head, records: &[u8], content: &[u8]) {
    let mut put = |head: &Head, body: &[u8]| {
        out.extend_from_slice(&Head { size: body.len() as u64, ..head.clone() }.encode());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(512), 0);
    };
    if !records.is_empty() {
        put(&Head::new(b'x', "x"), records);
    }
    put(head, content);
}

/// The images, each close to a limit.
fn image(which: &str) -> Vec<Layer> {
    let limits = Limits::default();
    match which {
        // As many files as may be, with names as long as they may then be, in one directory.
        "files" => vec![made("L", limits.entries, |number, out| {
            entry(out, &Head::new(b'0', format!("d/{number:055}")), b"", b"");
        })],
        // As many directories, each in another.
        "directories" => (0..4)
            .map(|layer| {
                made("L", limits.entries / 4, move |number, out| {
                    let path = format!("{layer}/{:03}/{number}", number % 1000);
                    entry(out, &Head::new(b'5', path), b"", b"");
                })
            })
            .collect(),
        // The same names again and again, over many layers.
        "layers" => (0..100)
            .map(|_| {
                made("L", limits.entries / 100, |number, out| {
                    entry(out, &Head::new(b'0', format!("d/{number:055}")), b"", b"x");
                })
            })
            .collect(),
        // Attributes, no two alike, in the inodes and in blocks.
        "attributes" => vec![made("L", 250_000, |number, out| {
            let value = format!("{number:048}");
            let mut records = record("SCHILY.xattr.user.a", value.as_bytes());
            if number % 8 == 0 {
                records.extend(record("SCHILY.xattr.user.b", &value.as_bytes().repeat(40)));
            }
            entry(out, &Head::new(b'0', format!("{number}")), &records, b"");
        })],
        // Files in as many pieces as there may be.
        "pieces" => vec![made("L", 24, |number, out| {
            let count = 75_000u64;
            let map: Vec<String> = (0..count)
                .map(|piece| format!("{},512", (piece * 2 + number % 2) * 4096))
                .collect();
            let size = (count * 2 + 2) * 4096;
            let mut records = record("GNU.sparse.map", map.join(",").as_bytes());
            records.extend(record("GNU.sparse.size", size.to_string().as_bytes()));
            entry(
                out,
                &Head::new(b'0', format!("{number}")),
                &records,
                &vec![1; count as usize * 512],
            );
        })],
        // Four layers at once that look far back.
        "windows" => (0..4)
            .map(|_| {
                let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
                packed.window_log(27).unwrap();
                let size = 160 << 20;
                let head = Head { size, ..Head::new(b'0', "a") }.encode();
                std::io::Write::write_all(&mut packed, &head).unwrap();
                std::io::copy(&mut std::io::repeat(7).take(size), &mut packed).unwrap();
                let packed = packed.finish().unwrap();
                assert!(packed.len() < 1 << 20);
                crate::support::layer("L", packed)
            })
            .collect(),
        _ => unreachable!("because the test names them"),
    }
}

fn peak(which: &str) -> u64 {
    let output = Command::new("timeout")
        .args(["200"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "memory::little_memory_is_needed", "--nocapture"])
        .env(CHILD, which)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{which}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let (_, rest) = said.split_once("peak ").expect("the child's own words");
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn little_memory_is_needed() {
    if let Ok(which) = std::env::var(CHILD) {
        let disk = tempfile::tempfile().unwrap();
        let limits = Limits { ratio: u64::MAX, ..Limits::default() };
        let summary = build(image(&which), &disk, &limits, &Progress::default());
        let summary = summary.unwrap_or_else(|error| panic!("{}", error.chain()));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        println!("peak {} {summary:?}", line.split_whitespace().next().unwrap());
        return;
    }
    for which in ["files", "directories", "layers", "attributes", "pieces", "windows"] {
        let peak = peak(which);
        println!("{which}: {} MiB", peak >> 10);
        assert!(peak < MOST_KIB, "{which}: {} MiB", peak >> 10);
    }
}
