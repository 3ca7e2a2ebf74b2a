//! A disk of a directory on the host.

use crate::disk::Disk;
use crate::inode::Time;
use crate::source::{Body, Source};
use crate::tree::{Id, Meta, Tree};
use crate::{MAX_LINKS, Summary};
use banger_doc::{Context, Error, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Writes a read-only disk of a trusted directory on the host. Everything on it belongs to root;
/// permissions and times are the host's. Devices, pipes and sockets are refused.
pub fn from_directory(root: &Path, file: &File, label: &str) -> Result<Summary> {
    let disk = Disk::new(file, &[None])?;
    let mut walk = Walk {
        source: disk.source(0),
        digest: Sha256::new(),
        buffer: vec![0; 256 << 10],
        found: Vec::new(),
        seen: HashMap::new(),
    };
    let meta = meta(&metadata(root)?);
    walk.directory(root, None)?;
    let Walk { source, digest, found, .. } = walk;

    let mut tree = Tree::new();
    let store = tree.adopt(source.finish()?);
    let top = tree.root();
    tree.change(top, store, meta);
    let mut ids: Vec<Id> = Vec::with_capacity(found.len());
    for Found { parent, name, what } in found {
        let directory = parent.map_or(top, |parent| ids[parent]);
        ids.push(match what {
            What::New(meta, body) => tree.add(directory, store, name, meta, body),
            What::Same(first) => {
                tree.link(directory, store, name, ids[first])?;
                ids[first]
            }
        });
    }
    let digest = digest.finalize();
    disk.finish(tree, uuid(&digest), label)
}

/// Makes a file system's number from a digest of what is on it.
pub fn uuid(digest: &[u8]) -> [u8; 16] {
    let mut uuid: [u8; 16] = digest[..16].try_into().expect("because a digest is long enough");
    // Version 8, made in a way of its own; the usual variant.
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

enum What {
    New(Meta, Body),
    /// One more name of what was found at this place.
    Same(usize),
}

struct Found {
    /// The directory, by its place among all that was found; nothing for the root.
    parent: Option<usize>,
    name: crate::Text,
    what: What,
}

struct Walk<'f> {
    source: Source<'f>,
    digest: Sha256,
    buffer: Vec<u8>,
    found: Vec<Found>,
    /// Files with several names, by device and inode.
    seen: HashMap<(u64, u64), usize>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, place: Option<usize>) -> Result<()> {
        let cannot = || format!("cannot read '{}'", path.display());
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path).with_context(cannot)? {
            paths.push(entry.with_context(cannot)?.path());
        }
        paths.sort();
        for path in paths {
            self.entry(&path, place)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, parent: Option<usize>) -> Result<()> {
        let about = metadata(path)?;
        let name = path.file_name().expect("because it was listed").as_bytes();
        self.digest.update((name.len() as u64).to_le_bytes());
        self.digest.update(name);
        self.digest.update(about.mode().to_le_bytes());
        self.digest.update(about.mtime().to_le_bytes());
        let name = self.source.store.keep(name);
        let place = self.found.len();
        let key = (about.dev(), about.ino());
        let kind = about.file_type();
        if !kind.is_dir() && about.nlink() > 1 {
            if let Some(first) = self.seen.get(&key) {
                self.found.push(Found { parent, name, what: What::Same(*first) });
                return Ok(());
            }
            if about.nlink() <= u64::from(MAX_LINKS) {
                self.seen.insert(key, place);
            }
        }
        let body = if kind.is_dir() {
            Body::Directory
        } else if kind.is_file() {
            self.content(path)?
        } else if kind.is_symlink() {
            let target =
                fs::read_link(path).with_context(|| format!("cannot read '{}'", path.display()))?;
            self.digest.update(target.as_os_str().as_bytes());
            Body::Symlink(self.source.store.keep(target.as_os_str().as_bytes()))
        } else {
            let what =
                if kind.is_fifo() || kind.is_socket() { "a pipe or socket" } else { "a device" };
            return Err(Error::failed(format!("'{}' is {what}", path.display())));
        };
        self.found.push(Found { parent, name, what: What::New(meta(&about), body) });
        if kind.is_dir() {
            self.directory(path, Some(place))?;
        }
        Ok(())
    }

    fn content(&mut self, path: &Path) -> Result<Body> {
        let cannot = || format!("cannot read '{}'", path.display());
        let mut file = File::open(path).with_context(cannot)?;
        let mut size = 0;
        loop {
            let count = file.read(&mut self.buffer).with_context(cannot)?;
            if count == 0 {
                self.digest.update(u64::to_le_bytes(size));
                return self.source.end(size);
            }
            self.digest.update(&self.buffer[..count]);
            self.source.write(&self.buffer[..count])?;
            size += count as u64;
        }
    }
}

fn metadata(path: &Path) -> Result<fs::Metadata> {
    fs::symlink_metadata(path).with_context(|| format!("cannot read '{}'", path.display()))
}

fn meta(about: &fs::Metadata) -> Meta {
    Meta {
        mode: (about.mode() & 0o7777) as u16,
        time: Time { seconds: about.mtime(), nanos: about.mtime_nsec() as u32 },
        ..Meta::default()
    }
}
