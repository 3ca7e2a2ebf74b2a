//! Writing to the host's checkout: everything lies ready beside its place before the first file is replaced,
//! and each is looked at once more right before.

use super::checkout::{Checkout, Found, seen};
use crate::{
    git::LINK,
    host::{Dir, Sort},
    names::hex,
    path::{join, parents, shown},
};
use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2},
    sys::stat::{Mode, fchmod, mkdirat},
    unistd::{AccessFlags, UnlinkatFlags, faccessat, symlinkat, unlinkat},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
};

/// Permissions of what is made, as far as the user's umask lets them be.
const FILE: Mode = Mode::from_bits_truncate(0o666);
const PROGRAM: Mode = Mode::from_bits_truncate(0o777);

/// Where the bytes of a new file are.
#[derive(Clone, Debug)]
pub(super) enum From {
    /// A file below a directory of banger's.
    File(Dir, Vec<u8>),
    /// They are here: the target of a link.
    Here(Vec<u8>),
}

/// What a path is to hold.
#[derive(Clone, Debug)]
pub(super) struct New {
    /// Type and permissions, as in a tree of git.
    pub(super) mode: u32,
    /// SHA-256 of the bytes, or of a link's target.
    pub(super) sum: String,
    pub(super) from: From,
}

/// One path that changes.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) path: Vec<u8>,
    /// What lies there until then; none if nothing does.
    pub(super) over: Option<Found>,
    /// What lies there then; none if it is to go.
    pub(super) new: Option<New>,
}

/// What lies ready: the directory that it lies in, and its name there.
struct Ready {
    dir: Vec<u8>,
    name: Vec<u8>,
}

/// A checkout that is written to.
pub(super) struct Put<'a> {
    checkout: &'a Checkout,
    steps: &'a [Step],
    /// Empty directories in the place of a file that is to come.
    empty: &'a BTreeSet<Vec<u8>>,
    /// What lies ready for each step that has something new.
    ready: Vec<Option<Ready>>,
    /// Directories that changed.
    touched: BTreeSet<Vec<u8>>,
    done: usize,
}

/// Returns the directory that something has to lie ready in: the deepest of those above its place that is there.
pub(super) fn holder<'a>(root: &Dir, path: &'a [u8]) -> io::Result<&'a [u8]> {
    let mut holder: &[u8] = b"";
    for dir in parents(path).filter(|dir| *dir != path) {
        match root.sort(dir)? {
            Some(Sort::Dir) => holder = dir,
            _ => break,
        }
    }
    Ok(holder)
}

impl<'a> Put<'a> {
    pub(super) fn new(
        checkout: &'a Checkout,
        steps: &'a [Step],
        empty: &'a BTreeSet<Vec<u8>>,
    ) -> Self {
        let (ready, touched) = (Vec::new(), BTreeSet::new());
        Self { checkout, steps, empty, ready, touched, done: 0 }
    }

    /// Has everything new lie ready, under names that begin with `mark`, unless `is_over`. Whatever fails, nothing
    /// changed, and nothing lies there.
    pub(super) fn prepare(&mut self, mark: &[u8], is_over: &dyn Fn() -> bool) -> Result<()> {
        for (number, step) in self.steps.iter().enumerate() {
            let shown = self.checkout.root.join(&step.path);
            let said = || format!("cannot write '{}'", shown.display());
            let made = if is_over() {
                Err(io::ErrorKind::Interrupted.into())
            } else if let Some(new) = &step.new {
                let name = [mark, number.to_string().as_bytes()].concat();
                holder(&self.checkout.root, &step.path).map(<[u8]>::to_vec).and_then(|dir| {
                    let made = self.lay(&dir, &name, new, step.over.as_ref());
                    self.ready.push(Some(Ready { dir, name }));
                    made
                })
            } else {
                self.ready.push(None);
                self.may_remove(&step.path)
            };
            if let Err(error) = made {
                self.clear();
                return Err(error).with_context(said);
            }
        }
        Ok(())
    }

    /// Writes one file or link under a name of ours.
    fn lay(&self, dir: &[u8], name: &[u8], new: &New, over: Option<&Found>) -> io::Result<()> {
        let dir = self.checkout.root.dir(dir)?;
        if let (LINK, false, From::Here(target)) = (new.mode, self.checkout.keeps_links, &new.from)
        {
            return Ok(symlinkat(OsStr::from_bytes(target), &dir, name)?);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = if new.mode == 0o100_755 { PROGRAM } else { FILE };
        let mut file = File::from(openat(&dir, name, flags, mode)?);
        let sum = match &new.from {
            From::Here(bytes) => {
                file.write_all(bytes)?;
                hex(&Sha256::digest(bytes))
            }
            From::File(from, path) => copy(&mut from.file(path)?, &mut file)?,
        };
        if sum != new.sum {
            return Err(io::Error::other("what was read of the guest changed meanwhile"));
        }
        if let Some(over) = over.filter(|over| !over.is_link) {
            // Who may read it may run it; no other bit comes from a guest.
            let bits = match (over.bits & 0o777, new.mode) {
                (bits, _) if self.checkout.keeps_mode => bits,
                (bits, 0o100_755) if bits & 0o100 == 0 => bits | (bits & 0o444) >> 2,
                (bits, 0o100_644) => bits & !0o111,
                (bits, _) => bits,
            };
            fchmod(&file, Mode::from_bits_truncate(bits))?;
        }
        file.sync_all()
    }

    fn may_remove(&self, path: &[u8]) -> io::Result<()> {
        let dir = self.checkout.root.dir(parent(path))?;
        Ok(faccessat(&dir, ".", AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?)
    }

    /// Removes what lies ready.
    fn clear(&mut self) {
        for ready in self.ready.drain(..).flatten() {
            if let Ok(dir) = self.checkout.root.dir(&ready.dir) {
                let _ = unlinkat(&dir, ready.name.as_slice(), UnlinkatFlags::NoRemoveDir);
            }
        }
    }

    /// Replaces file by file: first what goes, then what comes. Fails where something changed meanwhile; what
    /// is done by then stays done.
    pub(super) fn run(&mut self) -> Result<()> {
        let ended = self.removals(true).and_then(|()| self.arrivals());
        // What arrives is there before what it was made of goes.
        let ended = ended.and_then(|()| self.removals(false));
        let (done, count) = (self.done, self.steps.len());
        self.clear();
        let synced = self.sync();
        ended.and(synced).map_err(|error| {
            if done == 0 {
                return error;
            }
            let files = self.steps.iter().filter(|step| self.is_done(step));
            let files = files.map(|step| shown(&step.path).escape_debug().to_string());
            Error::new(
                error.kind(),
                format!("{done} of {count} files are done; the rest is as it was"),
            )
            .lines(files)
            .because(error)
            .hint("the same command goes on from there")
        })
    }

    /// Says whether a step's path is as it is to be, by a short look.
    fn is_done(&self, step: &Step) -> bool {
        let stat = self.checkout.root.stat(&step.path).ok().flatten();
        match (stat, &step.over) {
            (None, over) => over.is_some() && step.new.is_none(),
            (Some(stat), Some(over)) => seen(&stat).ino != over.seen.ino,
            (Some(_), None) => step.new.is_some(),
        }
    }

    /// Removes what goes: what is in the way of something that comes, or else the rest.
    fn removals(&mut self, in_the_way: bool) -> Result<()> {
        let comes = || self.steps.iter().filter(|step| step.new.is_some());
        let paths: BTreeSet<&[u8]> = comes().map(|step| step.path.as_slice()).collect();
        let comes: BTreeSet<&[u8]> =
            comes().flat_map(|step| parents(&step.path).filter(|dir| *dir != step.path)).collect();
        let is_in_the_way =
            |path: &[u8]| comes.contains(path) || parents(path).any(|dir| paths.contains(dir));
        let goes = self.steps.iter().rev().filter(|step| step.new.is_none());
        for step in goes.filter(|step| is_in_the_way(&step.path) == in_the_way) {
            let at = self.checkout.root.join(&step.path);
            let said = || format!("cannot remove '{}'", at.display());
            self.must_be_as_it_was(step)?;
            let dir = self.checkout.root.dir(parent(&step.path)).with_context(said)?;
            unlinkat(&dir, name(&step.path), UnlinkatFlags::NoRemoveDir)
                .map_err(io::Error::from)
                .with_context(said)?;
            self.touched.insert(parent(&step.path).to_vec());
            self.done += 1;
            // As git does: a directory that nothing is left in goes too.
            let above: Vec<&[u8]> = parents(&step.path).filter(|dir| *dir != step.path).collect();
            for dir in above.into_iter().rev() {
                if comes.contains(dir) || !self.remove_empty(dir) {
                    break;
                }
            }
        }
        if in_the_way {
            for dir in self.empty.iter().rev() {
                self.remove_empty(dir);
            }
        }
        Ok(())
    }

    /// Removes a directory if nothing is in it.
    fn remove_empty(&mut self, path: &[u8]) -> bool {
        let Ok(dir) = self.checkout.root.dir(parent(path)) else { return false };
        let is_gone = unlinkat(&dir, name(path), UnlinkatFlags::RemoveDir).is_ok();
        if is_gone {
            self.touched.remove(path);
            self.touched.insert(parent(path).to_vec());
        }
        is_gone
    }

    fn arrivals(&mut self) -> Result<()> {
        for (number, step) in self.steps.iter().enumerate() {
            let Some(ready) = self.ready.get(number).and_then(Option::as_ref) else { continue };
            let at = self.checkout.root.join(&step.path);
            let said = || format!("cannot write '{}'", at.display());
            let root = &self.checkout.root;
            for dir in parents(&step.path).filter(|dir| *dir != step.path) {
                if root.sort(dir).with_context(said)?.is_some() {
                    continue;
                }
                let above = root.dir(parent(dir)).with_context(said)?;
                match mkdirat(&above, name(dir), PROGRAM) {
                    Err(error) if error != Errno::EEXIST => {
                        return Err(io::Error::from(error)).with_context(said);
                    }
                    _ => drop(self.touched.insert(parent(dir).to_vec())),
                }
            }
            self.must_be_as_it_was(step)?;
            let from = root.dir(&ready.dir).with_context(said)?;
            let to = root.dir(parent(&step.path)).with_context(said)?;
            let target = name(&step.path);
            let moved = match step.over {
                Some(_) => renameat(&from, ready.name.as_slice(), &to, target),
                None => rename_new(&from, &ready.name, &to, target),
            };
            match moved {
                Err(Errno::EEXIST) => return Err(changed(&at)),
                moved => moved.map_err(io::Error::from).with_context(said)?,
            }
            self.touched.insert(parent(&step.path).to_vec());
            self.ready[number] = None;
            self.done += 1;
        }
        Ok(())
    }

    /// Looks once more at what is to be replaced.
    fn must_be_as_it_was(&self, step: &Step) -> Result<()> {
        let at = self.checkout.root.join(&step.path);
        let said = || format!("cannot look at '{}'", at.display());
        let Some(over) = &step.over else {
            let is_free = self.checkout.root.sort(&step.path).with_context(said)?.is_none();
            return if is_free { Ok(()) } else { Err(changed(&at)) };
        };
        let stat = self.checkout.root.stat(&step.path).with_context(said)?;
        if stat.map(|stat| seen(&stat)) != Some(over.seen) {
            return Err(changed(&at));
        }
        let sum = if over.is_link {
            self.checkout.root.link(&step.path).map(|to| hex(&Sha256::digest(to)))
        } else {
            self.checkout.sum(&step.path, None)
        };
        if sum.with_context(said)? == over.file.sum { Ok(()) } else { Err(changed(&at)) }
    }

    fn sync(&self) -> Result<()> {
        for dir in &self.touched {
            let root = &self.checkout.root;
            let said = || format!("cannot write '{}'", root.join(dir).display());
            // What is gone by now needs no sync.
            let Ok(dir) = root.dir(dir) else { continue };
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let Ok(dir) = openat(&dir, ".", flags, Mode::empty()) else { continue };
            nix::unistd::fsync(dir).map_err(io::Error::from).with_context(said)?;
        }
        Ok(())
    }
}

/// Lists what lies below a directory: directories with nothing but directories in them, and the first other
/// thing that `goes` does not name.
pub(super) fn inside(
    root: &Dir,
    dir: &[u8],
    goes: &BTreeSet<Vec<u8>>,
    left: &mut usize,
) -> io::Result<Result<BTreeSet<Vec<u8>>, Vec<u8>>> {
    let mut dirs = BTreeSet::from([dir.to_vec()]);
    let mut waiting = vec![dir.to_vec()];
    while let Some(dir) = waiting.pop() {
        let names = root.list(&dir, *left)?;
        *left -= names.len();
        for (name, sort) in names {
            let path = join(&dir, &name);
            if sort == Sort::Dir {
                dirs.insert(path.clone());
                waiting.push(path);
            } else if !goes.contains(&path) {
                return Ok(Err(path));
            }
        }
    }
    Ok(Ok(dirs))
}

/// Renames to a name that nothing has. Some file systems cannot say so.
fn rename_new(from: &Dir, name: &[u8], to: &Dir, new: &[u8]) -> nix::Result<()> {
    match renameat2(from, name, to, new, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP) => match to.sort(new) {
            Ok(None) => renameat(from, name, to, new),
            _ => Err(Errno::EEXIST),
        },
        renamed => renamed,
    }
}

/// Copies and returns the sum of what was copied.
fn copy(from: &mut File, to: &mut File) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&sum.finalize())),
            size => {
                sum.update(&buffer[..size]);
                to.write_all(&buffer[..size])?;
            }
        }
    }
}

fn changed(at: &std::path::Path) -> Error {
    Error::conflict(format!("'{}' changed on the host while this ran", at.display()))
        .hint("try again")
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(path, |at| &path[at + 1..])
}
