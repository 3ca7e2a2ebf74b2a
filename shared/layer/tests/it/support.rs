//! Archives made byte by byte, and disks read back.

use banger_doc::Result;
use banger_layer::{Layer, Limits, Progress, Summary, build};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A header, to be made wrong at will.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) time: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u32, u32),
    pub(crate) prefix: Vec<u8>,
    pub(crate) magic: [u8; 8],
}

impl Head {
    pub(crate) fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            time: 1_000_000_000,
            link: Vec::new(),
            device: (0, 0),
            prefix: Vec::new(),
            magic: *b"ustar\x0000",
        }
    }

    pub(crate) fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    pub(crate) fn encode(&self) -> [u8; 512] {
        let mut b = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, &number(u64::from(self.uid), 8));
        put(116, &number(u64::from(self.gid), 8));
        put(124, &number(self.size, 12));
        put(136, &number(self.time, 12));
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, &self.magic);
        put(329, &number(u64::from(self.device.0), 8));
        put(337, &number(u64::from(self.device.1), 8));
        put(345, &self.prefix);
        sum(&mut b);
        b
    }
}

/// Puts the right checksum into a header.
pub(crate) fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn number(value: u64, room: usize) -> Vec<u8> {
    let octal = format!("{value:0width$o}", width = room - 1).into_bytes();
    if octal.len() < room {
        return octal;
    }
    let mut binary = vec![0; room];
    binary[room - 8..].copy_from_slice(&value.to_be_bytes());
    binary[0] |= 0x80;
    binary
}

/// Returns the header of a sparse file of the old GNU kind, with the blocks of its map.
pub(crate) fn old_sparse(head: Head, pieces: &[(u64, u64)], size: u64) -> Vec<u8> {
    let octal = |value: u64| format!("{value:011o}\0").into_bytes();
    let mut bytes = Head { kind: b'S', magic: *b"ustar  \0", ..head }.encode().to_vec();
    bytes[345..512].fill(0);
    let entry = |(offset, length): &(u64, u64)| [octal(*offset), octal(*length)].concat();
    for (slot, piece) in pieces.iter().take(4).enumerate() {
        bytes[386 + 24 * slot..][..24].copy_from_slice(&entry(piece));
    }
    bytes[482] = u8::from(pieces.len() > 4);
    bytes[483..495].copy_from_slice(&octal(size));
    sum(&mut bytes);
    let rest = pieces.get(4..).unwrap_or_default();
    for (number, part) in rest.chunks(21).enumerate() {
        let mut block = [0; 512];
        for (slot, piece) in part.iter().enumerate() {
            block[24 * slot..][..24].copy_from_slice(&entry(piece));
        }
        block[504] = u8::from((number + 1) * 21 < rest.len());
        bytes.extend_from_slice(&block);
    }
    bytes
}

/// An archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a header and content, without looking whether they fit.
    pub(crate) fn raw(self, head: &Head, content: &[u8]) -> Self {
        self.bytes(&head.encode()).content(content)
    }

    /// Adds content, padded to whole blocks.
    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds an entry whose name may be long.
    pub(crate) fn entry(mut self, mut head: Head, content: &[u8]) -> Self {
        let mut records = Vec::new();
        if head.name.len() > 100 {
            records.push(("path", std::mem::take(&mut head.name)));
        }
        if head.link.len() > 100 {
            records.push(("linkpath", std::mem::take(&mut head.link)));
        }
        if !records.is_empty() {
            let records: Vec<_> =
                records.iter().map(|(key, value)| (*key, value.as_slice())).collect();
            self = self.pax(&records);
        }
        head.size = content.len() as u64;
        self.raw(&head, content)
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.entry(Head::new(b'0', name), content.as_ref())
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.dir_mode(name, 0o755)
    }

    pub(crate) fn dir_mode(self, name: impl AsRef<[u8]>, mode: u32) -> Self {
        let mut head = Head::new(b'5', name);
        head.mode = mode;
        self.entry(head, b"")
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(Head::new(b'2', name).link(target), b"")
    }

    pub(crate) fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(Head::new(b'1', name).link(target), b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        self.pax_raw(b'x', &body)
    }

    pub(crate) fn pax_raw(self, kind: u8, body: &[u8]) -> Self {
        let mut head = Head::new(kind, "PaxHeaders/x");
        head.size = body.len() as u64;
        self.raw(&head, body)
    }

    pub(crate) fn gnu_long(self, kind: u8, name: &[u8]) -> Self {
        let mut head = Head::new(kind, "././@LongLink");
        let body = [name, b"\0"].concat();
        head.magic = *b"ustar  \0";
        head.size = body.len() as u64;
        self.raw(&head, &body)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// One record of an extended header.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// What is at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) kind: char,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) time: (i64, u32),
    /// A file's content, a link's target.
    pub(crate) content: Vec<u8>,
}

/// A disk that was built.
pub(crate) struct Image {
    _dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) summary: Summary,
}

pub(crate) fn layer(name: &str, bytes: Vec<u8>) -> Layer {
    Layer {
        name: name.to_owned(),
        diff_id: None,
        size: Some(bytes.len() as u64),
        open: Box::new(move || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>)),
    }
}

pub(crate) fn layers(stack: Vec<Vec<u8>>) -> Vec<Layer> {
    stack
        .into_iter()
        .enumerate()
        .map(|(number, bytes)| layer(&format!("L{}", number + 1), bytes))
        .collect()
}

/// Set in a process whose system calls are looked at: see `traced.rs`.
pub(crate) const TRACED: &str = "BANGER_TEST_TRACED";

pub(crate) fn is_traced() -> bool {
    std::env::var_os(TRACED).is_some()
}

/// Runs a build; a trace shows where it begins and ends.
fn marked<T>(build: impl FnOnce() -> T) -> T {
    if !is_traced() {
        return build();
    }
    assert!(!std::path::Path::new("/banger-begin").exists());
    let value = build();
    assert!(!std::path::Path::new("/banger-end").exists());
    value
}

/// Builds and checks a disk.
pub(crate) fn try_build(stack: Vec<Vec<u8>>, limits: &Limits) -> Result<Image> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let layers = layers(stack);
    let summary = marked(|| build(layers, &file, limits, &Progress::default()))?;
    // Nothing but the disk was made.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let image = Image { _dir: dir, path, summary };
    image.check();
    Ok(image)
}

pub(crate) fn built(stack: Vec<Vec<u8>>) -> Image {
    try_build(stack, &Limits::default()).unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Asserts that a stack is refused, in words that have a part in common.
#[track_caller]
pub(crate) fn refused(stack: Vec<Vec<u8>>, part: &str) {
    refused_by(stack, &Limits::default(), part);
}

#[track_caller]
pub(crate) fn refused_by(stack: Vec<Vec<u8>>, limits: &Limits, part: &str) {
    let Err(error) = try_build(stack, limits) else { panic!("it was built") };
    let said = error.chain();
    assert!(said.contains(part), "'{said}' does not say '{part}'");
    assert!(said.contains("layer") || said.contains("image"), "'{said}' names no layer");
}

impl Image {
    /// Asserts that the file system is right in every way that the usual tool knows.
    pub(crate) fn check(&self) {
        if is_traced() {
            return;
        }
        let output = Command::new("timeout")
            .args(["60", "e2fsck", "-fn"])
            .arg(&self.path)
            .output()
            .expect("e2fsck runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && !said.contains('?'),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(std::fs::metadata(&self.path).unwrap().len(), self.summary.size_bytes);
    }

    pub(crate) fn debugfs(&self, request: &str) -> String {
        let output = Command::new("timeout")
            .args(["60", "debugfs", "-R", request])
            .arg(&self.path)
            .output()
            .expect("debugfs runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns an attribute's value, as the usual tool decodes it.
    pub(crate) fn xattr(&self, path: &str, name: &str) -> Vec<u8> {
        let out = self.path.with_extension("xattr");
        self.debugfs(&format!("ea_get -f {} {path} {name}", out.display()));
        std::fs::read(out).unwrap_or_default()
    }

    pub(crate) fn links(&self, path: &str) -> u32 {
        let said = self.debugfs(&format!("stat {path}"));
        let at = said.find("Links: ").unwrap_or_else(|| panic!("{said}")) + 7;
        said[at..].split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Returns when something was changed, from the words in its inode.
    pub(crate) fn time(&self, path: &str) -> (i64, u32) {
        let said = self.debugfs(&format!("stat {path}"));
        let at = said.find("mtime: 0x").unwrap_or_else(|| panic!("{said}")) + 9;
        let word = |from: usize| u32::from_str_radix(&said[from..from + 8], 16).unwrap();
        let (low, extra) = (word(at), word(at + 9));
        (i64::from(low as i32) + (i64::from(extra & 3) << 32), extra >> 2)
    }

    /// Returns everything on the disk but its root, as another reader sees it.
    pub(crate) fn tree(&self) -> BTreeMap<Vec<u8>, Seen> {
        let disk = ext4_view::Ext4::load_from_path(&self.path).expect("it can be read");
        let mut found = BTreeMap::new();
        let mut waiting = vec![b"/".to_vec()];
        while let Some(path) = waiting.pop() {
            let list = disk.read_dir(ext4_view::Path::new(&path)).expect("a directory can be read");
            for entry in list {
                let entry = entry.expect("an entry can be read");
                let name = entry.file_name();
                let name: &[u8] = name.as_ref();
                if name == b"." || name == b".." {
                    continue;
                }
                let mut full = path.clone();
                if full.len() > 1 {
                    full.push(b'/');
                }
                full.extend_from_slice(name);
                let seen = seen(&disk, &full);
                if seen.kind == 'd' {
                    waiting.push(full.clone());
                }
                found.insert(full[1..].to_vec(), seen);
            }
        }
        found
    }

    /// Returns the root's own metadata.
    pub(crate) fn root(&self) -> Seen {
        let disk = ext4_view::Ext4::load_from_path(&self.path).expect("it can be read");
        seen(&disk, b"/")
    }

    /// Returns the paths on the disk, joined by spaces; directories end with a slash, links with
    /// an at sign and their target, files with a colon and their content.
    pub(crate) fn paths(&self) -> String {
        let words: Vec<String> = self
            .tree()
            .into_iter()
            .map(|(path, seen)| {
                let path = path.escape_ascii();
                let content = seen.content.escape_ascii();
                match seen.kind {
                    'd' => format!("{path}/"),
                    'l' => format!("{path}@{content}"),
                    'f' => format!("{path}:{content}"),
                    other => format!("{path}={other}"),
                }
            })
            .collect();
        words.join(" ")
    }
}

fn seen(disk: &ext4_view::Ext4, path: &[u8]) -> Seen {
    let place = ext4_view::Path::new(path);
    let about = disk.symlink_metadata(place).expect("metadata can be read");
    let time = about.modified();
    let (kind, content) = match about.file_type() {
        ext4_view::FileType::Directory => ('d', Vec::new()),
        ext4_view::FileType::Regular => ('f', disk.read(place).expect("a file can be read")),
        ext4_view::FileType::Symlink => {
            ('l', disk.read_link(place).expect("a link can be read").as_ref().to_vec())
        }
        ext4_view::FileType::CharacterDevice => ('c', Vec::new()),
        ext4_view::FileType::BlockDevice => ('b', Vec::new()),
        ext4_view::FileType::Fifo => ('p', Vec::new()),
        ext4_view::FileType::Socket => ('s', Vec::new()),
    };
    Seen {
        kind,
        mode: about.mode() & 0o7777,
        uid: about.uid(),
        gid: about.gid(),
        time: (time.seconds(), time.nanoseconds()),
        content,
    }
}
