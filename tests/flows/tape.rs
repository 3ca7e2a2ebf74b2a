//! Tar archives entry by entry (pax, POSIX.1-2001), so that a test can say what no tool makes:
//! whiteouts, hard links into a layer below, capabilities without the right to set them.

use std::fmt::Write;

/// What an entry is, by its type flag.
pub(crate) const FILE: u8 = b'0';
pub(crate) const HARD_LINK: u8 = b'1';
pub(crate) const SYMLINK: u8 = b'2';
pub(crate) const CHARACTER: u8 = b'3';
pub(crate) const DIRECTORY: u8 = b'5';
pub(crate) const FIFO: u8 = b'6';

/// One entry; what is not given is root's, empty, of 2023.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) link: String,
    pub(crate) device: (u32, u32),
    pub(crate) data: Vec<u8>,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub(crate) fn new(kind: u8, path: &str, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            link: String::new(),
            device: (0, 0),
            data: Vec::new(),
            xattrs: Vec::new(),
        }
    }

    pub(crate) fn file(path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), ..Self::new(FILE, path, mode) }
    }

    pub(crate) fn dir(path: &str, mode: u32) -> Self {
        Self::new(DIRECTORY, path, mode)
    }

    pub(crate) fn link(kind: u8, path: &str, to: &str) -> Self {
        Self { link: to.to_owned(), ..Self::new(kind, path, 0o777) }
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }
}

/// Returns the archive of some entries.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        if !entry.xattrs.is_empty() {
            let mut records = Vec::new();
            for (name, value) in &entry.xattrs {
                records.extend(record(&format!("SCHILY.xattr.{name}"), value));
            }
            let extra = Entry::file("pax", 0o644, records);
            block(&mut tar, &Entry { kind: b'x', ..extra });
        }
        block(&mut tar, entry);
    }
    tar.extend([0; 1024]);
    tar
}

/// A record of a pax header: its own length in digits, a name, a value.
fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + name.len() + 1 + value.len() + 1;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut bytes = format!("{length} {name}=").into_bytes();
    bytes.extend(value);
    bytes.push(b'\n');
    bytes
}

fn block(tar: &mut Vec<u8>, entry: &Entry) {
    let mut head = vec![0; 512];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    assert!(entry.path.len() <= 100 && entry.link.len() <= 100, "a short path is enough for tests");
    put(0, &entry.path);
    put(100, &format!("{:07o}", entry.mode));
    put(108, &format!("{:07o}", entry.uid));
    put(116, &format!("{:07o}", entry.gid));
    put(124, &format!("{:011o}", entry.data.len()));
    put(136, &format!("{:011o}", 1_700_000_000));
    put(148, "        ");
    put(156, &char::from(entry.kind).to_string());
    put(157, &entry.link);
    put(257, "ustar\0");
    put(263, "00");
    put(329, &format!("{:07o}", entry.device.0));
    put(337, &format!("{:07o}", entry.device.1));
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    let mut text = String::new();
    let _ = write!(text, "{sum:06o}\0 ");
    head[148..156].copy_from_slice(text.as_bytes());
    tar.extend(head);
    tar.extend(&entry.data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}
