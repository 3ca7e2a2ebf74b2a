//! The guest's end of the files service: what a host asks for, done with a [`Tree`].

use super::holes;
use super::link::append_link;
use super::owner::{Acting, Owner};
use super::tree::{Item, Tree, kind, plain_path};
use super::turn::Turn;
use super::whole::Whole;
use super::wire::{MARK, MAX_PATH, Op, Request, What, is_inside};
use banger_doc::{Context, Error, Kind, Result};
use banger_tar::Kind as Sort;
use banger_tree::{MAX_DEPTH, remove_tree_if_there};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, makedev, minor},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::lchown},
    },
    path::{Path, PathBuf},
};

/// The longest first line.
const MAX_HEAD: u64 = 64 << 10;
/// The longest list of paths.
const MAX_LIST: u64 = 256 << 20;
/// The sum of a file of so many bytes is not held back. As many sums of smaller ones as are written at once stand for
/// less than 300 MiB.
const LARGE: usize = 256 << 10;

/// Tells the user of a request.
type Users<'a> = &'a dyn Fn(&str) -> Result<Owner>;

/// Answers one stream until the host hangs up; knows no user but who runs this.
pub fn serve(stream: impl Read + Write) -> Result<()> {
    serve_for(stream, &|_| Err(Error::usage("this agent knows no users")))
}

/// Answers one stream until the host hangs up; `users` finds those that requests name.
pub fn serve_for(stream: impl Read + Write, users: Users<'_>) -> Result<()> {
    each_request(stream, |head, reader| answer(head, reader, users))
}

/// Hands the first line of each request to `answer`, with what follows it, until the host hangs up.
pub(super) fn each_request<S: Read + Write>(
    stream: S,
    mut answer: impl FnMut(&[u8], &mut BufReader<S>) -> Result<()>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    loop {
        let mut head = Vec::new();
        (&mut reader)
            .take(MAX_HEAD)
            .read_until(b'\n', &mut head)
            .context("cannot read a request")?;
        if head.is_empty() {
            return Ok(());
        }
        if let Err(error) = answer(&head, &mut reader) {
            return refuse(reader.get_mut(), &error);
        }
    }
}

/// Says on a stream why there is no answer.
pub fn refuse(mut stream: impl Read + Write, error: &Error) -> Result<()> {
    let kind = match error.kind() {
        Kind::NotFound => "not-found",
        Kind::Conflict => "conflict",
        Kind::Usage => "usage",
        _ => "failed",
    };
    let words = error.chain().replace('\0', "?");
    let said = write!(stream, "error {kind} {words}\0").and_then(|()| stream.flush());
    said.context("cannot write an answer")?;
    // What the host is still sending has to go somewhere, or it never reads the answer.
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    Ok(())
}

/// Reads what a request says, and the list of paths that follows it.
pub(super) fn request(head: &[u8], reader: impl Read) -> Result<(Request<'_>, Vec<u8>)> {
    let request: Request<'_> = serde_json::from_slice(head)
        .map_err(|error| Error::usage("not a request").because(error))?;
    if request.list_bytes > MAX_LIST {
        return Err(Error::usage("too many paths"));
    }
    let mut list = Vec::new();
    reader.take(request.list_bytes).read_to_end(&mut list).context("cannot read paths")?;
    Ok((request, list))
}

/// Splits a list of paths, each of which has to lie below the root.
pub(super) fn paths_of(list: &[u8]) -> Result<Vec<&[u8]>> {
    let paths: Vec<&[u8]> = match list.split_last() {
        None => Vec::new(),
        Some((0, rest)) => rest.split(|byte| *byte == 0).collect(),
        Some(_) => return Err(Error::usage("the list of paths has no end")),
    };
    match paths.iter().find(|path| !is_inside(path)) {
        None => Ok(paths),
        Some(bad) => Err(Error::usage(format!(
            "'{}' leaves the root, or has more than {MAX_DEPTH} names",
            bad.escape_ascii()
        ))),
    }
}

/// Says that an answer is complete.
pub(super) fn end(stream: &mut impl Write) -> Result<()> {
    stream.write_all(b"end\0").and_then(|()| stream.flush()).context("cannot write an answer")
}

fn answer<S: Read + Write>(head: &[u8], reader: &mut BufReader<S>, users: Users<'_>) -> Result<()> {
    let (request, list) = request(head, &mut *reader)?;
    if !request.root.starts_with('/') {
        return Err(Error::usage("not a root"));
    }
    let root = Path::new(request.root.as_ref());
    let paths = paths_of(&list)?;
    let turn = match request.op {
        Op::PutFresh | Op::PutAside | Op::PutWithin | Op::Remove => Some(Turn::take(root)?),
        Op::Scan => Turn::wait(root).map(|()| None)?,
        _ => None,
    };
    // Reading is root's: what others may not see is the host's all the same.
    let writer = Writer::new(&request, users)?;
    match request.op {
        Op::PutFresh | Op::PutAside => put_whole(root, &request, writer, reader)?,
        Op::PutWithin | Op::PutInto => {
            let acting = writer.act_in(root)?;
            let keeps = request.op == Op::PutInto;
            let tree = Tree::open(root)?
                .keeping(keeps)
                .plain(request.plain)
                .owned_by_maker(acting.is_some());
            unpack(&tree, reader, Unpack { replace: true, keeps_root: keeps })?;
            tree.sync()?;
        }
        Op::Remove => {
            let _acting = writer.act_in(root)?;
            Tree::open(root)?.remove(&paths)?;
        }
        Op::Scan | Op::Stat | Op::Get | Op::Hash | Op::Tar => {
            let tree = Tree::open(root)?;
            let mut writer = BufWriter::with_capacity(64 << 10, reader.get_mut());
            match request.op {
                Op::Scan => scan(&tree, &mut writer)?,
                Op::Stat => stat(&tree, &paths, &mut writer)?,
                Op::Get => get(&tree, &paths, &mut writer)?,
                Op::Hash => hash(&tree, &paths, &mut writer)?,
                _ => tar_of(&tree, &paths, &mut writer)?,
            }
            writer.flush().context("cannot write an answer")?;
        }
    }
    drop(turn);
    end(reader.get_mut())
}

/// Who does what a request has written.
struct Writer {
    /// None: who runs this.
    owner: Option<Owner>,
    /// Whether root does it where the owner may not.
    or_root: bool,
}

impl Writer {
    fn new(request: &Request<'_>, users: Users<'_>) -> Result<Self> {
        let owner =
            request.user.as_deref().map(users).transpose()?.filter(|owner| !owner.is_self());
        Ok(Self { owner, or_root: request.or_root })
    }

    /// Takes the rights to write below a directory; none if they are those of who runs this.
    fn act_in(&self, dir: &Path) -> Result<Option<Acting>> {
        match &self.owner {
            Some(owner) if !(self.or_root && owner.needs_root(dir)) => owner.act().map(Some),
            _ => Ok(None),
        }
    }
}

/// Writes a tree beside `root` and renames it there, so that it appears whole.
fn put_whole<S: Read>(
    root: &Path,
    request: &Request<'_>,
    writer: Writer,
    reader: &mut BufReader<S>,
) -> Result<()> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return Err(Error::usage("the root directory cannot be replaced"));
    };
    // Somebody whose own rights do not reach that far.
    let mut lacks_rights = false;
    let owner = match writer.owner {
        Some(owner) if parent.exists() => {
            lacks_rights = owner.needs_root(parent);
            Some(owner).filter(|_| !(lacks_rights && writer.or_root))
        }
        owner => owner,
    };
    match &owner {
        Some(owner) => owner.make_dirs(parent)?,
        None => fs::create_dir_all(parent)
            .with_context(|| format!("cannot make '{}'", parent.display()))?,
    }
    let act = |owner: &Option<Owner>| owner.as_ref().map(Owner::act).transpose();
    // Root makes and renames for who may not, where only root can change the way.
    let acting = if lacks_rights { None } else { act(&owner)? };
    let is_there = fs::symlink_metadata(root).is_ok();
    let is_empty = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none())
        && !fs::symlink_metadata(root).is_ok_and(|meta| meta.is_symlink());
    if is_there && !is_empty && request.op != Op::PutAside {
        return Err(Error::conflict(format!("'{}' holds something already", root.display())));
    }
    let mut new = parent.join(MARK);
    new.as_mut_os_string().push(name);
    remove_tree_if_there(&new).with_context(|| format!("cannot remove '{}'", new.display()))?;
    fs::create_dir(&new).with_context(|| format!("cannot make '{}'", new.display()))?;
    if let Some(owner) = owner.as_ref().filter(|_| lacks_rights) {
        lchown(&new, Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("cannot give '{}' away", new.display()))?;
    }
    let mut fill = || -> Result<()> {
        let _acting = if lacks_rights { act(&owner)? } else { None };
        let tree = Tree::open(&new)?.plain(request.plain).owned_by_maker(owner.is_some());
        unpack(&tree, reader, Unpack { replace: false, keeps_root: false })?;
        tree.sync()
    };
    let done = fill().and_then(|()| {
        if is_there && !is_empty {
            let old = free_name(root);
            fs::rename(root, &old)
                .with_context(|| format!("cannot move '{}' aside", root.display()))?;
        }
        fs::rename(&new, root).with_context(|| format!("cannot make '{}'", root.display()))?;
        match File::open(parent) {
            // Somebody may write there and not look: it is written all the same.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            parent => parent.and_then(|parent| parent.sync_all()),
        }
        .with_context(|| format!("cannot sync '{}'", parent.display()))
    });
    let done = done.or_else(|error| match remove_tree_if_there(&new) {
        Ok(()) => Err(error),
        Err(left) => Err(error).context(format!("cannot remove '{}' ({left})", new.display())),
    });
    drop(acting);
    done
}

fn free_name(root: &Path) -> PathBuf {
    let mut n = 1u32;
    loop {
        let mut path = root.to_owned();
        path.as_mut_os_string().push(format!(".before-{n}"));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        n += 1;
    }
}

/// How the host's stream becomes files.
struct Unpack {
    /// Each file is swapped in whole.
    replace: bool,
    /// What the stream says of the root itself does not count.
    keeps_root: bool,
}

/// Unpacks the host's own tar stream below the root.
fn unpack<S: Read>(tree: &Tree, reader: &mut BufReader<S>, how: Unpack) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    let mut dirs = Vec::new();
    for entry in archive.entries().context("cannot read a tar stream")? {
        let mut entry = entry.context("cannot read a tar stream")?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let path = plain_path(&entry.path_bytes()).to_vec();
        if path == b"." && entry.header().entry_type().is_dir() && how.keeps_root {
            continue;
        }
        if path != b"." && !is_inside(&path) {
            return Err(Error::usage(format!(
                "'{}' leaves the root, or has more than {MAX_DEPTH} names",
                path.escape_ascii()
            )));
        }
        let said = || format!("cannot write {}", tree.said(&path));
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let item = Item::of(&entry, &link).with_context(said)?;
        let size = entry.size();
        let has_holes = entry.header().entry_type().is_gnu_sparse();
        let mut fill = |file: &mut File| -> std::io::Result<()> {
            let copied = if has_holes {
                holes::copy(&mut entry, file)?
            } else {
                std::io::copy(&mut entry, file)?
            };
            if copied == size { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
        };
        tree.make(&item, &mut fill, &path, how.replace, &mut dirs).with_context(said)?;
    }
    tree.finish_dirs(dirs)
}

impl<'a> Item<'a> {
    /// Reads what an entry of the host's own stream describes.
    fn of<R: Read>(entry: &tar::Entry<'_, R>, link: &'a [u8]) -> std::io::Result<Self> {
        use tar::EntryType::{
            Block, Char, Continuous, Directory, Fifo, GNUSparse, Link, Regular, Symlink,
        };
        let header = entry.header();
        let sort = match header.entry_type() {
            Regular | Continuous | GNUSparse => Sort::File,
            Directory => Sort::Directory,
            Symlink => Sort::Symlink,
            Link => Sort::Hardlink,
            Char => Sort::Character,
            Block => Sort::Block,
            Fifo => Sort::Fifo,
            other => return Err(std::io::Error::other(format!("an entry of type {other:?}"))),
        };
        let is_device = matches!(sort, Sort::Character | Sort::Block);
        Ok(Self {
            sort,
            mode: header.mode()?,
            uid: header.uid()? as u32,
            gid: header.gid()? as u32,
            mtime_s: header.mtime()? as i64,
            link,
            device: if is_device { device_of(header)? } else { 0 },
        })
    }
}

fn device_of(header: &tar::Header) -> std::io::Result<u64> {
    let number = |part: Option<u32>| part.map(u64::from).ok_or(ErrorKind::InvalidData);
    Ok(makedev(number(header.device_major()?)?, number(header.device_minor()?)?))
}

fn scan(tree: &Tree, output: &mut impl Write) -> Result<()> {
    let root = tree.at(b".", OFlag::O_DIRECTORY).context("cannot open a directory")?;
    let dir = Dir::from_fd(root).context("cannot open a directory")?;
    let listed = list(dir).context("cannot list a directory")?;
    scan_dir(listed, &mut Vec::new(), 0, output)
}

fn stat(tree: &Tree, paths: &[&[u8]], output: &mut impl Write) -> Result<()> {
    for path in paths {
        let seen = tree.parent(path).and_then(|(dir, name)| {
            let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            Ok((stat, readlinkat(&dir, name).unwrap_or_default()))
        });
        match seen {
            Ok((stat, target)) => write_entry(output, &stat, path, target.as_bytes()),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => output.write_all(b"-\0"),
            Err(errno) => Err(errno.into()),
        }
        .with_context(|| format!("cannot look at {}", tree.said(path)))?;
    }
    Ok(())
}

fn get(tree: &Tree, paths: &[&[u8]], output: &mut impl Write) -> Result<()> {
    for path in paths {
        get_one(tree, path, output).with_context(|| format!("cannot read {}", tree.said(path)))?;
    }
    Ok(())
}

fn get_one(tree: &Tree, path: &[u8], output: &mut impl Write) -> std::io::Result<()> {
    let Ok((dir, name)) = tree.parent(path) else { return output.write_all(b"o 0 0\0") };
    let Ok(stat) = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
        return output.write_all(b"o 0 0\0");
    };
    match kind(&stat) {
        SFlag::S_IFLNK => {
            let target = readlinkat(&dir, name)?;
            write!(output, "l 0 {}\0", target.len())?;
            output.write_all(target.as_bytes())?;
            output.write_all(b"ok\0")
        }
        SFlag::S_IFREG => {
            // A pipe put in the file's place since would block a plain open.
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let mut file = File::from(openat(&dir, name, flags, Mode::empty())?);
            let before = fstat(&file)?;
            let size = before.st_size as u64;
            write!(output, "f {:o} {size}\0", before.st_mode & 0o7777)?;
            let copied = std::io::copy(&mut (&mut file).take(size), output)?;
            std::io::copy(&mut std::io::repeat(0).take(size - copied), output)?;
            let after = fstat(&file)?;
            let same = (before.st_ctime, before.st_ctime_nsec, before.st_size)
                == (after.st_ctime, after.st_ctime_nsec, after.st_size);
            output.write_all(if same { b"ok\0" } else { b"changed\0" })
        }
        _ => output.write_all(b"o 0 0\0"),
    }
}

fn hash(tree: &Tree, paths: &[&[u8]], output: &mut impl Write) -> Result<()> {
    for path in paths {
        let mut one = || -> std::io::Result<()> {
            let file = tree.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from);
            let regular = file.ok().filter(|f| f.metadata().is_ok_and(|meta| meta.is_file()));
            let Some(file) = regular else { return output.write_all(b"-\0") };
            write_sum(file, output)
        };
        one().with_context(|| format!("cannot read {}", tree.said(path)))?;
    }
    Ok(())
}

/// Writes the SHA-256 of all that is read. That of a large file is on its way at once: the next one may take as
/// long again, and the host waits for no more than a minute.
pub(super) fn write_sum(mut from: impl Read, output: &mut impl Write) -> std::io::Result<()> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut all = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            size => {
                sum.update(&buffer[..size]);
                all += size;
            }
        }
    }
    for byte in sum.finalize() {
        write!(output, "{byte:02x}")?;
    }
    output.write_all(b"\0")?;
    if all >= LARGE { output.flush() } else { Ok(()) }
}

fn tar_of(tree: &Tree, paths: &[&[u8]], output: &mut impl Write) -> Result<()> {
    let mut builder = tar::Builder::new(BufWriter::with_capacity(64 << 10, Pieces(output)));
    let mut seen = HashMap::new();
    let whole: &[&[u8]] = &[b"."];
    for path in if paths.is_empty() { whole } else { paths } {
        tar_one(tree, path, &mut builder, &mut seen, 0)
            .with_context(|| format!("cannot read {}", tree.said(path)))?;
    }
    finish(builder)
}

/// Ends a tar stream.
pub(super) fn finish<W: Write>(builder: tar::Builder<BufWriter<Pieces<'_, W>>>) -> Result<()> {
    let flushed = builder.into_inner().and_then(|mut pieces| pieces.flush());
    flushed.context("cannot write an answer")
}

/// Begins an entry of a tar stream that has no content yet.
pub(super) fn header(mode: u32, uid: u32, gid: u32, mtime_s: i64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode & 0o7777);
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    header.set_mtime(mtime_s.max(0) as u64);
    header.set_size(0);
    header
}

/// Appends one thing and what it holds. `seen` has the files of several names.
fn tar_one<W: Write>(
    tree: &Tree,
    path: &[u8],
    builder: &mut tar::Builder<W>,
    seen: &mut HashMap<(u64, u64), Vec<u8>>,
    depth: usize,
) -> std::io::Result<()> {
    let (dir, name) = tree.parent(path)?;
    let stat = fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let mut header = header(stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime);
    let full = Path::new(OsStr::from_bytes(path));
    let kind = kind(&stat);
    if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
        match seen.entry((stat.st_dev, stat.st_ino)) {
            Slot::Occupied(first) => {
                header.set_entry_type(tar::EntryType::Link);
                return append_link(builder, &mut header, path, first.get());
            }
            Slot::Vacant(slot) => {
                slot.insert(path.to_vec());
            }
        }
    }
    match kind {
        SFlag::S_IFREG => {
            let mut file = File::from(tree.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            let size = file.metadata()?.len();
            if stat.st_blocks * 512 < stat.st_size {
                // It has holes, which the stream then has too.
                return builder.append_file(full, &mut file);
            }
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(size);
            builder.append_data(&mut header, full, Whole::new(file, size))
        }
        SFlag::S_IFLNK => {
            header.set_entry_type(tar::EntryType::Symlink);
            let target = readlinkat(&dir, name)?;
            append_link(builder, &mut header, path, target.as_bytes())
        }
        SFlag::S_IFDIR => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, full, std::io::empty())?;
            if depth >= MAX_DEPTH {
                return Err(std::io::Error::other(format!("it has more than {MAX_DEPTH} names")));
            }
            let fd = tree.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
            for entry in Dir::from_fd(fd)?.iter() {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let below = if path == b"." { name.to_vec() } else { [path, b"/", name].concat() };
                match tar_one(tree, &below, builder, seen, depth + 1) {
                    // Gone since the directory was read.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    done => done?,
                }
            }
            Ok(())
        }
        SFlag::S_IFCHR | SFlag::S_IFBLK | SFlag::S_IFIFO => {
            header.set_entry_type(match kind {
                SFlag::S_IFCHR => tar::EntryType::Char,
                SFlag::S_IFBLK => tar::EntryType::Block,
                _ => tar::EntryType::Fifo,
            });
            header.set_device_major(major(stat.st_rdev) as u32)?;
            header.set_device_minor(minor(stat.st_rdev) as u32)?;
            builder.append_data(&mut header, full, std::io::empty())
        }
        _ => Ok(()),
    }
}

/// A directory with the names of what is in it.
type Listed = (OwnedFd, Vec<CString>);

fn list(mut dir: Dir) -> nix::Result<Listed> {
    let fd = dir.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
    let names = dir.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    Ok((fd, names.collect::<nix::Result<_>>()?))
}

fn scan_dir(
    (fd, names): Listed,
    prefix: &mut Vec<u8>,
    depth: usize,
    output: &mut impl Write,
) -> Result<()> {
    let base = prefix.len();
    for name in names {
        let bytes = name.as_bytes();
        if matches!(bytes, b"." | b"..") {
            continue;
        }
        let stat = match fstatat(&fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::ENOENT) => continue,
            // As of a file system that its server left: one such place is no reason to say nothing.
            Err(_) => None,
        };
        if base > 0 {
            prefix.push(b'/');
        }
        prefix.extend_from_slice(bytes);
        let Some(stat) = stat else {
            write_closed(output, prefix).context("cannot write an answer")?;
            prefix.truncate(base);
            continue;
        };
        let sort = kind(&stat);
        let target = if sort == SFlag::S_IFLNK {
            readlinkat(&fd, name.as_c_str()).unwrap_or_default()
        } else {
            std::ffi::OsString::new()
        };
        let mut below = None;
        if sort == SFlag::S_IFDIR && bytes != b".git" {
            // The longest name below it still has to make a path.
            let is_near = depth + 1 < MAX_DEPTH && prefix.len() + 257 < MAX_PATH;
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            match Dir::openat(&fd, name.as_c_str(), flags, Mode::empty()).and_then(list) {
                Ok(dir) if is_near => below = Some(dir),
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => {
                    return Err(errno).context("cannot open a directory");
                }
                Ok(_) | Err(_) => {
                    write_closed(output, prefix).context("cannot write an answer")?;
                    prefix.truncate(base);
                    continue;
                }
            }
        }
        write_entry(output, &stat, prefix, target.as_bytes()).context("cannot write an answer")?;
        if let Some(below) = below {
            scan_dir(below, prefix, depth + 1, output)?;
        }
        prefix.truncate(base);
    }
    Ok(())
}

/// Says of a place that it could not be looked into.
pub(super) fn write_closed(output: &mut impl Write, path: &[u8]) -> std::io::Result<()> {
    output.write_all(b"u 0 0 0 0 0 ")?;
    output.write_all(path)?;
    output.write_all(b"\0")
}

fn write_entry(
    output: &mut impl Write,
    stat: &FileStat,
    path: &[u8],
    target: &[u8],
) -> std::io::Result<()> {
    let what = match kind(stat) {
        SFlag::S_IFREG => What::File,
        SFlag::S_IFDIR => What::Dir,
        SFlag::S_IFLNK => What::Link,
        _ => What::Other,
    };
    let ns = |s: i64, ns: i64| s.saturating_mul(1_000_000_000).saturating_add(ns);
    let record = Record {
        what,
        mode: stat.st_mode & 0o7777,
        size: stat.st_size as u64,
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec),
        ino: stat.st_ino,
    };
    record.write(output, path, target)
}

/// The numbers of an entry.
pub(super) struct Record {
    pub(super) what: What,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) ino: u64,
}

impl Record {
    /// Writes an entry; a link's target follows it.
    pub(super) fn write(
        &self,
        output: &mut impl Write,
        path: &[u8],
        target: &[u8],
    ) -> std::io::Result<()> {
        let letter = match self.what {
            What::File => 'f',
            What::Dir => 'd',
            What::Link => 'l',
            What::Other | What::Closed => 'o',
        };
        let Self { mode, size, mtime_ns, ctime_ns, ino, .. } = self;
        write!(output, "{letter} {mode:o} {size} {mtime_ns} {ctime_ns} {ino} ")?;
        output.write_all(path)?;
        output.write_all(b"\0")?;
        if self.what == What::Link {
            output.write_all(target)?;
            output.write_all(b"\0")?;
        }
        Ok(())
    }
}

/// Frames what is written as pieces, each with its size before it.
pub(super) struct Pieces<'a, W: Write>(pub(super) &'a mut W);

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !bytes.is_empty() {
            write!(self.0, "{}\0", bytes.len())?;
            self.0.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
