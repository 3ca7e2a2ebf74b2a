//! The tree of a guest that does not run: its root over image and overlay disk, the work disk at the user's
//! home, and the directories that lie beside the overlay.

use crate::merge::{Indexed, Layers, Merged, Pair, indexed};
use banger_channel::files::{Stat, Still};
use banger_doc::{Context, Error, Result};
use banger_ext4read::{Disk, Inode, Sort, Time};
use banger_tar::Kind;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    io::{Error as IoError, ErrorKind, Read, Result as IoResult},
    sync::{Arc, Mutex, PoisonError},
};

/// No path leads over more links (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// No path has more names, links followed.
const MOST_NAMES: usize = 4096;
/// The most names in one directory, and in all that are remembered.
const MOST_IN_ONE: usize = 1_000_000;
const MOST_KEPT: usize = 400_000;
/// The most directories that are looked at for places that lie beside the overlay.
const MOST_BESIDE: usize = 4096;

/// What guest-init notes on a directory that has got what the image has there, and on the work disk where it
/// lies (`docs/boot.md`).
const SEEDED: &[u8] = b"trusted.banger.seeded";
const LIES_AT: &[u8] = b"trusted.banger.place";
/// Where a work disk lies that does not say.
const USUAL: &[u8] = b"/root";
/// Places of a running guest that are no disk.
const NO_DISK: [&[u8]; 4] = [b"/dev", b"/proc", b"/run", b"/sys"];

/// The disks of a VM, open for reading.
#[derive(Debug)]
pub struct Disks {
    /// The image's.
    pub base: File,
    /// Changes to the image's files.
    pub overlay: File,
    /// The home of the guest's user.
    pub work: File,
}

/// One of the disks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Which {
    Base,
    Overlay,
    Work,
}

/// How what a directory holds is found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum How {
    /// In both layers.
    Merged {
        /// Its part in the lower one.
        lower: Option<u32>,
    },
    /// On its disk alone.
    Plain,
    /// It holds nothing.
    Empty,
}

/// Something in the tree.
#[derive(Clone, Debug)]
pub struct Node {
    which: Which,
    how: How,
    inode: Inode,
    /// Its absolute path, without links; empty for the root.
    path: Vec<u8>,
}

/// The names in a directory.
type Names = BTreeMap<Vec<u8>, Pair>;
/// What tells directories apart.
type Key = (Which, How, u32);

/// The tree.
#[derive(Debug)]
pub struct View {
    base: Disk,
    overlay: Disk,
    work: Disk,
    indexed: Indexed,
    root: Node,
    /// What lies over the tree, by path.
    mounts: BTreeMap<Vec<u8>, Node>,
    /// Where the work disk lies, as it is called.
    place: Vec<u8>,
    kept: Mutex<Kept>,
}

/// Directories that were listed, and how many names they have together.
#[derive(Debug, Default)]
struct Kept {
    dirs: HashMap<Key, Arc<Names>>,
    names: usize,
}

impl View {
    /// Opens the tree on these disks.
    pub fn open(disks: Disks) -> Result<Self> {
        let open =
            |file, name| Disk::open(file).with_context(|| format!("cannot read the {name} disk"));
        let base = open(disks.base, "image's")?;
        let (overlay, work) = (open(disks.overlay, "overlay")?, open(disks.work, "work")?);
        if overlay.needs_recovery() || work.needs_recovery() {
            return Err(Error::failed("the disks were not left clean"));
        }
        let failed = "cannot read the overlay disk";
        let upper = overlay.root().and_then(|root| overlay.find(&root, b"upper"));
        let upper = upper.context(failed)?.filter(|upper| upper.sort == Sort::Dir);
        let upper =
            upper.ok_or_else(|| Error::conflict("the VM never came so far as to have files"))?;
        let indexed = indexed(&overlay).context(failed)?;
        let lower = Some(base.root().context("cannot read the image's disk")?.number);
        let how = How::Merged { lower };
        let root = Node { which: Which::Overlay, how, inode: upper, path: Vec::new() };
        let mut view = Self {
            base,
            overlay,
            work,
            indexed,
            root,
            mounts: BTreeMap::new(),
            place: Vec::new(),
            kept: Mutex::new(Kept::default()),
        };
        for path in NO_DISK {
            let node = Node { how: How::Empty, path: path.to_vec(), ..view.root.clone() };
            view.mounts.insert(path.to_vec(), node);
        }
        view.mount_work().context("cannot read the work disk")?;
        view.mount_beside().context(failed)?;
        Ok(view)
    }

    fn disk(&self, which: Which) -> &Disk {
        match which {
            Which::Base => &self.base,
            Which::Overlay => &self.overlay,
            Which::Work => &self.work,
        }
    }

    fn mount_work(&mut self) -> IoResult<()> {
        let inode = self.work.root()?;
        if self.work.attribute(&inode, SEEDED)?.is_none() {
            return Ok(());
        }
        let noted = self.work.attribute(&inode, LIES_AT)?;
        let noted = noted.filter(|path| path.starts_with(b"/") && path.len() > 1);
        self.place = noted.unwrap_or_else(|| USUAL.to_vec());
        let found = self.resolve(&self.place)?;
        // Where the directory did not reach the disk, it lies where it is said to.
        let path = found.map_or_else(|| self.place.clone(), |found| found.path);
        let node = Node { which: Which::Work, how: How::Plain, inode, path: path.clone() };
        self.mounts.insert(path, node);
        Ok(())
    }

    /// Finds the directories that lie on the overlay's disk and not in the overlay.
    fn mount_beside(&mut self) -> IoResult<()> {
        let beside = self.overlay.find(&self.overlay.root()?, b"direct")?;
        let Some(beside) = beside.filter(|dir| dir.sort == Sort::Dir) else { return Ok(()) };
        let mut found = Vec::new();
        let mut waiting = VecDeque::from([(Vec::new(), beside)]);
        let mut looked_at = 0;
        while let Some((path, dir)) = waiting.pop_front() {
            if self.overlay.attribute(&dir, SEEDED)?.is_some() {
                found.push((path, dir));
                continue;
            }
            let mut below = Vec::new();
            self.overlay.list(&dir, |name, inode| {
                looked_at += 1;
                if looked_at > MOST_BESIDE {
                    return Err(IoError::other("too many places beside the overlay"));
                }
                below.push(([&path, &b"/"[..], name].concat(), inode));
                Ok(())
            })?;
            for (path, number) in below {
                let inode = self.overlay.inode(number)?;
                if inode.sort == Sort::Dir {
                    waiting.push_back((path, inode));
                }
            }
        }
        for (path, inode) in found {
            let at = self.resolve(&path)?;
            let is_overlay = |at: &Node| at.path == path && matches!(at.how, How::Merged { .. });
            if at.is_some_and(|at| is_overlay(&at)) {
                let node =
                    Node { which: Which::Overlay, how: How::Plain, inode, path: path.clone() };
                self.mounts.insert(path, node);
            }
        }
        Ok(())
    }

    /// Follows an absolute path and the links on it.
    fn resolve(&self, path: &[u8]) -> IoResult<Option<Node>> {
        self.resolve_from(vec![self.root.clone()], path)
    }

    /// The same from the last of these directories on, each of which lies in the one before.
    fn resolve_from(&self, mut above: Vec<Node>, path: &[u8]) -> IoResult<Option<Node>> {
        let mut rest: VecDeque<Vec<u8>> = parts(path).collect();
        let (mut links, mut names) = (0, 0);
        while let Some(name) = rest.pop_front() {
            names += 1;
            if names > MOST_NAMES {
                return Err(IoError::other("a path is too long"));
            }
            if name == b".." {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            let Some(dir) = above.last() else { return Ok(None) };
            if dir.inode.sort != Sort::Dir {
                return Err(ErrorKind::NotADirectory.into());
            }
            let Some(next) = self.child(dir, &name)? else { return Ok(None) };
            if next.inode.sort != Sort::Link {
                above.push(next);
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(IoError::other("its links have no end"));
            }
            let target = self.target(&next)?;
            if target.starts_with(b"/") {
                above.truncate(1);
            }
            for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                rest.push_front(part);
            }
        }
        Ok(above.pop())
    }

    /// Returns what a directory holds, which is kept for whoever asks for one name after the other.
    fn listed(&self, dir: &Node) -> IoResult<Arc<Names>> {
        let key = (dir.which, dir.how, dir.inode.number);
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = kept().dirs.get(&key) {
            return Ok(names.clone());
        }
        let names = Arc::new(self.names(dir)?);
        let mut kept = kept();
        if kept.names + names.len() > MOST_KEPT {
            *kept = Kept::default();
        }
        kept.names += names.len() + 1;
        kept.dirs.insert(key, names.clone());
        Ok(names)
    }

    fn names(&self, dir: &Node) -> IoResult<Names> {
        let mut names = Names::new();
        let mut count = 0;
        let mut add = |disk: &Disk, inode: &Inode, is_lower: bool| {
            disk.list(inode, |name, inode| {
                count += 1;
                if count > MOST_IN_ONE {
                    return Err(IoError::other(format!(
                        "a directory holds more than {MOST_IN_ONE} names"
                    )));
                }
                let pair = names.entry(name.to_vec()).or_default();
                *(if is_lower { &mut pair.lower } else { &mut pair.upper }) = Some(inode);
                Ok(())
            })
        };
        match dir.how {
            How::Empty => {}
            How::Plain => add(self.disk(dir.which), &dir.inode, false)?,
            How::Merged { lower } => {
                if dir.which == Which::Overlay {
                    add(&self.overlay, &dir.inode, false)?;
                }
                if let Some(lower) = lower {
                    add(&self.base, &self.base.inode(lower)?, true)?;
                }
            }
        }
        Ok(names)
    }
}

impl Still for View {
    type Node = Node;
    type Listed = Pair;

    fn stat(&self, node: &Node) -> Stat {
        let inode = &node.inode;
        let which = match node.which {
            Which::Base => 1,
            Which::Overlay => 0,
            Which::Work => 2,
        };
        // As overlayfs tells the numbers of its layers apart.
        let high = if node.which == Which::Base { 1 << 63 } else { 0 };
        let ns = |time: Time| {
            time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
        };
        let number = u64::from(inode.number);
        let is_file = inode.sort == Sort::File;
        Stat {
            sort: match inode.sort {
                Sort::File => Some(Kind::File),
                Sort::Dir => Some(Kind::Directory),
                Sort::Link => Some(Kind::Symlink),
                Sort::Character => Some(Kind::Character),
                Sort::Block => Some(Kind::Block),
                Sort::Fifo => Some(Kind::Fifo),
                Sort::Socket | Sort::Unknown => None,
            },
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime_ns: ns(inode.mtime),
            ctime_ns: ns(inode.ctime),
            ino: number | high,
            device: inode.device,
            same: (inode.links > 1).then_some((which, number)),
            has_holes: is_file && inode.sectors.saturating_mul(512) < inode.size,
        }
    }

    fn directory(&self, path: &[u8]) -> Result<Node> {
        let path = match path.strip_prefix(b"~") {
            Some(rest) => [&self.place, rest].concat(),
            None => path.to_vec(),
        };
        let shown = path.escape_ascii().to_string();
        let mut whole = self.resolve(&path);
        if matches!(whole, Ok(None)) {
            // Where the directory that the disk lies at did not reach the overlay.
            let within = path.strip_prefix(self.place.as_slice());
            let work = self.mounts.values().find(|node| node.which == Which::Work);
            if let (Some(rest), Some(work)) = (within, work)
                && (rest.is_empty() || rest.starts_with(b"/"))
            {
                whole = self.resolve_from(vec![self.root.clone(), work.clone()], rest);
            }
        }
        let not_one = || Error::conflict(format!("'{shown}' is no directory"));
        match whole {
            Ok(Some(node)) if node.inode.sort == Sort::Dir => Ok(node),
            Ok(Some(_)) => Err(not_one()),
            Ok(None) => Err(Error::not_found(format!("no '{shown}'"))),
            Err(error) if error.kind() == ErrorKind::NotADirectory => Err(not_one()),
            Err(error) => Err(error).context(format!("cannot open '{shown}'")),
        }
    }

    fn child(&self, dir: &Node, name: &[u8]) -> IoResult<Option<Node>> {
        let is_dir = dir.inode.sort == Sort::Dir;
        let pair = if is_dir { self.listed(dir)?.get(name).copied() } else { None };
        self.look(dir, name, pair.unwrap_or_default())
    }

    fn list(&self, dir: &Node) -> IoResult<Vec<(Vec<u8>, Pair)>> {
        let mut names = self.names(dir)?;
        // The places of memory file systems are there whether the image has them or not.
        if dir.path.is_empty() {
            for path in NO_DISK {
                names.entry(path[1..].to_vec()).or_default();
            }
        }
        Ok(names.into_iter().collect())
    }

    fn look(&self, dir: &Node, name: &[u8], pair: Pair) -> IoResult<Option<Node>> {
        let path = [&dir.path, &b"/"[..], name].concat();
        if let Some(mount) = self.mounts.get(&path) {
            return Ok(Some(mount.clone()));
        }
        let node = match dir.how {
            How::Empty => return Ok(None),
            How::Plain => {
                let Some(number) = pair.upper else { return Ok(None) };
                let inode = self.disk(dir.which).inode(number)?;
                Node { which: dir.which, how: How::Plain, inode, path }
            }
            How::Merged { lower } => {
                let layers =
                    Layers { upper: &self.overlay, lower: &self.base, indexed: &self.indexed };
                let Some(found) = layers.find(pair, lower)? else { return Ok(None) };
                let Merged { inode, is_upper, lower } = found;
                let which = if is_upper { Which::Overlay } else { Which::Base };
                Node { which, how: How::Merged { lower }, inode, path }
            }
        };
        if node.inode.sort == Sort::Unknown || node.inode.links == 0 {
            return Err(IoError::new(ErrorKind::InvalidData, "the disk is damaged: a lost inode"));
        }
        Ok(Some(node))
    }

    fn target(&self, link: &Node) -> IoResult<Vec<u8>> {
        self.disk(link.which).target(&link.inode)
    }

    fn content<'a>(&'a self, file: &'a Node, from: u64) -> IoResult<Box<dyn Read + 'a>> {
        let mut content = self.disk(file.which).content(&file.inode)?;
        content.seek(from);
        Ok(Box::new(content))
    }

    fn data(&self, file: &Node, most: usize) -> IoResult<Option<Vec<(u64, u64)>>> {
        self.disk(file.which).data(&file.inode, most)
    }
}

/// Returns the names of a path; those that mean nothing are left out.
fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let parts = path.split(|byte| *byte == b'/');
    parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}
