//! The reading half of the guest's end, for a tree that nobody changes: the disks of a VM that does not run.

use super::link::append_link;
use super::serve::{
    Pieces, Record, each_request, end, finish, header, paths_of, request, write_closed, write_sum,
};
use super::whole::Whole;
use super::wire::{MAX_PATH, Op, What};
use banger_doc::{Context, Error, Result};
use banger_tar::Kind as Sort;
use banger_tree::MAX_DEPTH;
use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    ffi::OsStr,
    io::{BufReader, BufWriter, Error as IoError, Read, Result as IoResult, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// The most stretches of a file with holes that a tar stream has one by one; another comes with its zeros.
const MOST_STRETCHES: usize = 10_000;
/// Stretches in a header of GNU tar's sparse format, and in each block that follows one.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;
/// How much is read at once.
const PIECE: usize = 256 << 10;

/// What lstat(2) would say.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// What it is; a socket is none of these.
    pub sort: Option<Sort>,
    /// Permission bits.
    pub mode: u32,
    /// Number of the owner.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Size, in bytes.
    pub size: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything of it changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// What two names of one file have in common; nothing for what has one name.
    pub same: Option<(u64, u64)>,
    /// Whether parts of it were never written.
    pub has_holes: bool,
}

/// A tree that nobody changes.
pub trait Still {
    /// Something in it.
    type Node;
    /// What a listed name stands for, not looked at yet.
    type Listed;

    /// Returns what something is.
    fn stat(&self, node: &Self::Node) -> Stat;

    /// Returns the directory at an absolute path, links followed; a path that begins with `~` instead is below
    /// the user's own.
    fn directory(&self, path: &[u8]) -> Result<Self::Node>;

    /// Returns what has a name in a directory.
    fn child(&self, dir: &Self::Node, name: &[u8]) -> IoResult<Option<Self::Node>>;

    /// Returns the names in a directory, sorted, and what they stand for.
    fn list(&self, dir: &Self::Node) -> IoResult<Vec<(Vec<u8>, Self::Listed)>>;

    /// Looks at what a listed name stands for; nothing if that is hidden.
    fn look(
        &self,
        dir: &Self::Node,
        name: &[u8],
        listed: Self::Listed,
    ) -> IoResult<Option<Self::Node>>;

    /// Returns where a link leads.
    fn target(&self, link: &Self::Node) -> IoResult<Vec<u8>>;

    /// Returns the content of a file from a place on.
    fn content<'a>(&'a self, file: &'a Self::Node, from: u64) -> IoResult<Box<dyn Read + 'a>>;

    /// Returns which stretches of a file hold anything, as offset and length; nothing if they are more than
    /// `most`.
    fn data(&self, file: &Self::Node, most: usize) -> IoResult<Option<Vec<(u64, u64)>>>;
}

/// Answers one stream until the host hangs up. What would change the tree is refused.
pub fn serve_still(stream: impl Read + Write, tree: &impl Still) -> Result<()> {
    each_request(stream, |head, reader| answer(head, reader, tree))
}

fn answer<S: Read + Write, T: Still>(
    head: &[u8],
    reader: &mut BufReader<S>,
    tree: &T,
) -> Result<()> {
    let (request, list) = request(head, &mut *reader)?;
    let paths = paths_of(&list)?;
    if !request.root.starts_with(['/', '~']) {
        return Err(Error::usage("not a root"));
    }
    if !matches!(request.op, Op::Scan | Op::Stat | Op::Get | Op::Hash | Op::Tar) {
        return Err(Error::conflict("the VM does not run, and its files are only read"));
    }
    let root = tree.directory(request.root.as_bytes())?;
    let mut output = BufWriter::with_capacity(PIECE, reader.get_mut());
    match request.op {
        Op::Scan => scan(tree, root, &mut output)?,
        Op::Tar => tar_of(tree, &root, &paths, &mut output)?,
        op => {
            let mut way = Way { tree, root: &root, last: None };
            for path in paths {
                let one = match op {
                    Op::Stat => stat(&mut way, path, &mut output),
                    Op::Get => get(&mut way, path, &mut output),
                    _ => hash(&mut way, path, &mut output),
                };
                one.with_context(|| format!("cannot read '{}'", path.escape_ascii()))?;
            }
        }
    }
    output.flush().context("cannot write an answer")?;
    drop(output);
    end(reader.get_mut())
}

/// The way to paths below a root. The directory that was looked into last is kept: a list has many paths of one
/// in a row.
struct Way<'a, T: Still> {
    tree: &'a T,
    root: &'a T::Node,
    last: Option<(Vec<u8>, Option<T::Node>)>,
}

impl<T: Still> Way<'_, T> {
    /// Returns what is at a path; no link on the way is followed.
    fn find(&mut self, path: &[u8]) -> IoResult<Option<T::Node>> {
        let Some(slash) = path.iter().rposition(|byte| *byte == b'/') else {
            return self.tree.child(self.root, path);
        };
        let (parent, name) = (&path[..slash], &path[slash + 1..]);
        if self.last.as_ref().is_none_or(|(dir, _)| dir != parent) {
            self.last = Some((parent.to_vec(), self.directory(parent)?));
        }
        match self.last.as_ref().and_then(|(_, dir)| dir.as_ref()) {
            Some(dir) => self.tree.child(dir, name),
            None => Ok(None),
        }
    }

    fn directory(&self, path: &[u8]) -> IoResult<Option<T::Node>> {
        let mut dir = None;
        for name in path.split(|byte| *byte == b'/') {
            let next = self.tree.child(dir.as_ref().unwrap_or(self.root), name)?;
            dir = next.filter(|next| self.tree.stat(next).sort == Some(Sort::Directory));
            if dir.is_none() {
                break;
            }
        }
        Ok(dir)
    }
}

/// A directory that is being scanned: what is left of its names, and how much of the path is its own.
struct Level<T: Still> {
    dir: T::Node,
    names: std::vec::IntoIter<(Vec<u8>, T::Listed)>,
    path: usize,
}

fn scan<T: Still>(tree: &T, root: T::Node, output: &mut impl Write) -> Result<()> {
    let failed = "cannot write an answer";
    let names = tree.list(&root).context("cannot list a directory")?.into_iter();
    let mut levels: Vec<Level<T>> = vec![Level { dir: root, names, path: 0 }];
    let mut path: Vec<u8> = Vec::new();
    while let Some(level) = levels.last_mut() {
        path.truncate(level.path);
        let Some((name, listed)) = level.names.next() else {
            levels.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let node = match tree.look(&level.dir, &name, listed) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            // One such place is no reason to say nothing.
            Err(_) => {
                write_closed(output, &path).context(failed)?;
                continue;
            }
        };
        let stat = tree.stat(&node);
        let is_dir = stat.sort == Some(Sort::Directory) && name != b".git";
        let mut below = None;
        if is_dir {
            // The longest name below it still has to make a path.
            let is_near = levels.len() < MAX_DEPTH && path.len() + 257 < MAX_PATH;
            match tree.list(&node) {
                Ok(names) if is_near => below = Some(names.into_iter()),
                _ => {
                    write_closed(output, &path).context(failed)?;
                    continue;
                }
            }
        }
        let target = target_of(tree, &node).unwrap_or_default();
        write(output, &stat, &path, &target).context(failed)?;
        if let Some(names) = below {
            levels.push(Level { dir: node, names, path: path.len() });
        }
    }
    Ok(())
}

fn target_of<T: Still>(tree: &T, node: &T::Node) -> IoResult<Vec<u8>> {
    if tree.stat(node).sort == Some(Sort::Symlink) { tree.target(node) } else { Ok(Vec::new()) }
}

fn write(output: &mut impl Write, stat: &Stat, path: &[u8], target: &[u8]) -> IoResult<()> {
    let what = match stat.sort {
        Some(Sort::File) => What::File,
        Some(Sort::Directory) => What::Dir,
        Some(Sort::Symlink) => What::Link,
        _ => What::Other,
    };
    let Stat { mode, size, mtime_ns, ctime_ns, ino, .. } = *stat;
    Record { what, mode, size, mtime_ns, ctime_ns, ino }.write(output, path, target)
}

fn stat<T: Still>(way: &mut Way<'_, T>, path: &[u8], output: &mut impl Write) -> IoResult<()> {
    match way.find(path)? {
        Some(node) => {
            let target = target_of(way.tree, &node).unwrap_or_default();
            write(output, &way.tree.stat(&node), path, &target)
        }
        None => output.write_all(b"-\0"),
    }
}

fn get<T: Still>(way: &mut Way<'_, T>, path: &[u8], output: &mut impl Write) -> IoResult<()> {
    // What cannot be looked at is missing, as it is for the agent of a guest.
    let Some(node) = way.find(path).ok().flatten() else { return output.write_all(b"o 0 0\0") };
    let stat = way.tree.stat(&node);
    match stat.sort {
        Some(Sort::Symlink) => {
            let target = way.tree.target(&node)?;
            write!(output, "l 0 {}\0", target.len())?;
            output.write_all(&target)?;
        }
        Some(Sort::File) => {
            let content = way.tree.content(&node, 0)?;
            write!(output, "f {:o} {}\0", stat.mode, stat.size)?;
            copy(&mut Whole::new(content, stat.size), output)?;
        }
        _ => return output.write_all(b"o 0 0\0"),
    }
    output.write_all(b"ok\0")
}

fn hash<T: Still>(way: &mut Way<'_, T>, path: &[u8], output: &mut impl Write) -> IoResult<()> {
    let node = way.find(path).ok().flatten();
    let Some(node) = node.filter(|node| way.tree.stat(node).sort == Some(Sort::File)) else {
        return output.write_all(b"-\0");
    };
    write_sum(way.tree.content(&node, 0)?, output)
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> IoResult<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            size => to.write_all(&buffer[..size])?,
        }
    }
}

fn tar_of<T: Still>(
    tree: &T,
    root: &T::Node,
    paths: &[&[u8]],
    output: &mut impl Write,
) -> Result<()> {
    let mut builder = tar::Builder::new(BufWriter::with_capacity(64 << 10, Pieces(output)));
    let mut pack = Pack { tree, builder: &mut builder, seen: HashMap::new() };
    if paths.is_empty() {
        pack.add(root, b".", 0).context("cannot read '.'")?;
    }
    let mut way = Way { tree, root, last: None };
    for path in paths {
        let said = || format!("cannot read '{}'", path.escape_ascii());
        let found = way.find(path).with_context(said)?;
        let node = found.ok_or_else(|| Error::not_found("it is not there")).with_context(said)?;
        pack.add(&node, path, 0).with_context(said)?;
    }
    finish(builder)
}

/// A tar stream that is being written.
struct Pack<'a, T: Still, W: Write> {
    tree: &'a T,
    builder: &'a mut tar::Builder<W>,
    /// The files of several names, with the first of these.
    seen: HashMap<(u64, u64), Vec<u8>>,
}

impl<T: Still, W: Write> Pack<'_, T, W> {
    /// Appends one thing and all it holds.
    fn add(&mut self, node: &T::Node, path: &[u8], depth: usize) -> IoResult<()> {
        let stat = self.tree.stat(node);
        let mtime_s = stat.mtime_ns.div_euclid(1_000_000_000);
        let mut header = header(stat.mode, stat.uid, stat.gid, mtime_s);
        let full = Path::new(OsStr::from_bytes(path));
        if let Some(same) = stat.same.filter(|_| stat.sort != Some(Sort::Directory)) {
            match self.seen.entry(same) {
                Slot::Occupied(first) => {
                    header.set_entry_type(tar::EntryType::Link);
                    return append_link(self.builder, &mut header, path, first.get());
                }
                Slot::Vacant(slot) => {
                    slot.insert(path.to_vec());
                }
            }
        }
        let Some(sort) = stat.sort else { return Ok(()) };
        match sort {
            Sort::File => self.file(node, &mut header, full),
            Sort::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                let target = self.tree.target(node)?;
                append_link(self.builder, &mut header, path, &target)
            }
            Sort::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                self.builder.append_data(&mut header, full, std::io::empty())?;
                if depth >= MAX_DEPTH {
                    return Err(IoError::other(format!("it has more than {MAX_DEPTH} names")));
                }
                for (name, listed) in self.tree.list(node)? {
                    let below =
                        if path == b"." { name.clone() } else { [path, b"/", &name].concat() };
                    if let Some(child) = self.tree.look(node, &name, listed)? {
                        self.add(&child, &below, depth + 1)?;
                    }
                }
                Ok(())
            }
            Sort::Character | Sort::Block | Sort::Fifo => {
                header.set_entry_type(match sort {
                    Sort::Character => tar::EntryType::Char,
                    Sort::Block => tar::EntryType::Block,
                    _ => tar::EntryType::Fifo,
                });
                header.set_device_major(stat.device.0)?;
                header.set_device_minor(stat.device.1)?;
                self.builder.append_data(&mut header, full, std::io::empty())
            }
            Sort::Hardlink => Ok(()),
        }
    }

    fn file(&mut self, node: &T::Node, header: &mut tar::Header, path: &Path) -> IoResult<()> {
        let stat = self.tree.stat(node);
        let stretches = if stat.has_holes { self.tree.data(node, MOST_STRETCHES)? } else { None };
        let Some(mut stretches) = stretches else {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(stat.size);
            let content = self.tree.content(node, 0)?;
            return self.builder.append_data(header, path, Whole::new(content, stat.size));
        };
        // The last one says where the file ends.
        if stretches.last().is_none_or(|(from, size)| from + size < stat.size) {
            stretches.push((stat.size, 0));
        }
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(stretches.iter().map(|(_, size)| size).sum());
        let gnu = header.as_gnu_mut().ok_or_else(|| IoError::other("no header of GNU tar"))?;
        gnu.set_real_size(stat.size);
        let (first, rest) = stretches.split_at(stretches.len().min(IN_HEADER));
        gnu.set_is_extended(!rest.is_empty());
        fill(&mut gnu.sparse, first);
        let mut blocks = Vec::new();
        let parts = rest.chunks(IN_BLOCK);
        let count = parts.len();
        for (number, part) in parts.enumerate() {
            let mut block = tar::GnuExtSparseHeader::new();
            block.set_is_extended(number + 1 < count);
            fill(&mut block.sparse, part);
            blocks.extend_from_slice(block.as_bytes());
        }
        let (tree, mut left) = (self.tree, stretches.into_iter());
        let mut present: Option<Box<dyn Read + '_>> = None;
        let content = FromFn(move |buffer: &mut [u8]| {
            loop {
                if let Some(content) = &mut present {
                    match content.read(buffer)? {
                        0 => present = None,
                        size => return Ok(size),
                    }
                }
                let Some((from, size)) = left.next() else { return Ok(0) };
                if size > 0 {
                    present = Some(Box::new(Whole::new(tree.content(node, from)?, size)));
                }
            }
        });
        self.builder.append_data(header, path, blocks.as_slice().chain(content))
    }
}

fn fill(slots: &mut [tar::GnuSparseHeader], stretches: &[(u64, u64)]) {
    for (slot, (from, size)) in slots.iter_mut().zip(stretches) {
        slot.set_offset(*from);
        slot.set_length(*size);
    }
}

/// What a closure reads.
struct FromFn<F>(F);

impl<F: FnMut(&mut [u8]) -> IoResult<usize>> Read for FromFn<F> {
    fn read(&mut self, buffer: &mut [u8]) -> IoResult<usize> {
        (self.0)(buffer)
    }
}
