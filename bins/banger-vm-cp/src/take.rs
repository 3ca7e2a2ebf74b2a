//! From a guest to the host.

use crate::{
    guest::{Guest, text},
    place::{How, Kind, NO_FILE, Source, decide, is_contents},
    progress::{Counted, bar},
    signals::Signals,
};
use banger_channel::files::{MARK, Take, Taken, Tar, Whom, relay};
use banger_cli::Out;
use banger_doc::{Context, Copy, Error, Result, shell_word};
use banger_tree::remove_tree_if_there;
use nix::sys::statvfs::statvfs;
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io::{ErrorKind, Write},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

/// Copies a file or a tree.
pub(crate) fn files(
    guest: &Guest,
    from: &str,
    to: &Path,
    many: bool,
    archive: bool,
    out: &Out,
) -> Result<Copy> {
    let (real, is_dir) = existing(guest, from)?;
    let source = Source {
        name: Path::new(from).file_name().or_else(|| real.file_name()).map(OsStr::to_owned),
        is_dir,
        contents: from.is_empty() || is_contents(from.as_bytes()),
        many,
    };
    let (path, how) = decide(&source, to, look)
        .map_err(|error| error.or_hint(format!("'mkdir -p {}' makes it", shell_word(to))))?;
    let signals = Signals::watch()?;
    let taken = take(guest, &real, &path, how, archive, out, &signals)
        .inspect_err(|_| signals.obey())
        .with_context(|| format!("cannot copy '{}'", guest.said(Path::new(from))))
        .map_err(|error| {
            error.or_hint(format!(
                "'banger vm cp {} - | tar -tv' shows what the guest sends, 'df -h {}' what room there is",
                shell_word(guest.said(Path::new(from))),
                shell_word(path.parent().unwrap_or(&path))
            ))
        })?;
    for skipped in &taken.first_skipped {
        let (path, why) = (skipped.path.escape_ascii(), skipped.why);
        out.note(&format!("note: '{path}' is {why}; left out"));
    }
    if taken.skipped > taken.first_skipped.len() as u64 {
        out.note(&format!("note: {} were left out in all", taken.skipped));
    }
    Ok(Copy {
        vm: guest.name().clone(),
        from: guest.said(Path::new(from)),
        to: path.display().to_string(),
        entries: taken.entries,
        size_bytes: taken.bytes,
        skipped: taken.skipped,
    })
}

/// Writes a file or a tree to stdout as a tar stream.
pub(crate) fn stream(guest: &Guest, from: &str) -> Result<()> {
    let (real, is_dir) = existing(guest, from)?;
    let named = real.file_name().filter(|_| !(is_dir && is_contents(from.as_bytes())));
    let mut tar = match (real.parent(), named) {
        (Some(dir), Some(name)) => guest.files().tar(text(dir)?, &[name.as_bytes()]),
        _ => guest.files().tar(text(&real)?, &[]),
    }?;
    let mut stdout = Outlet { to: std::io::stdout().lock(), is_closed: false };
    let done = relay(&mut tar, &mut stdout, Whom::Anybody);
    if stdout.is_closed {
        return Ok(());
    }
    done.map_err(|error| tar.failure().unwrap_or(error))
        .with_context(|| format!("cannot copy '{}'", guest.said(Path::new(from))))
        .map_err(|error| {
            error.or_hint(
                "the stream is not whole: throw away what was made of it; the guest may lie",
            )
        })?;
    stdout.flush().context("cannot write to stdout")
}

/// stdout, whose reader may go away: nobody is left to tell.
struct Outlet<W> {
    to: W,
    is_closed: bool,
}

impl<W: Write> Write for Outlet<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(buffer);
        self.is_closed |= matches!(&written, Err(error) if error.kind() == ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Returns where something really is, and whether it is a directory.
fn existing(guest: &Guest, from: &str) -> Result<(PathBuf, bool)> {
    match guest.look(Path::new(from))? {
        (path, Kind::Dir) => Ok((path, true)),
        (path, Kind::File) => Ok((path, false)),
        (path, Kind::Missing) => {
            let dir = path.parent().unwrap_or(Path::new("/"));
            Err(Error::not_found(format!("no '{}' in VM '{}'", path.display(), guest.name()))
                .hint(guest.ls(dir)))
        }
        (path, Kind::Other) => {
            Err(Error::conflict(format!("'{}' is neither file nor directory", guest.said(&path)))
                .hint(NO_FILE))
        }
    }
}

/// Says what is at a path of the host, and where that really is.
fn look(path: &Path) -> Result<(PathBuf, Kind)> {
    let said = || format!("cannot look at '{}'", path.display());
    match fs::metadata(path) {
        Ok(meta) => {
            let kind = match meta.file_type() {
                kind if kind.is_dir() => Kind::Dir,
                kind if kind.is_file() => Kind::File,
                _ => Kind::Other,
            };
            Ok((fs::canonicalize(path).with_context(said)?, kind))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let whole: PathBuf = path.components().collect();
            let parent = whole.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            if !parent.is_dir() {
                return Err(Error::not_found(format!("no directory '{}'", parent.display()))
                    .hint(format!("'mkdir -p {}' makes it", shell_word(parent))));
            }
            let name = whole.file_name().ok_or_else(|| Error::usage("a path without a name"))?;
            Ok((fs::canonicalize(parent).with_context(said)?.join(name), Kind::Missing))
        }
        Err(error) => Err(error).with_context(said),
    }
}

fn take(
    guest: &Guest,
    from: &Path,
    to: &Path,
    how: How,
    archive: bool,
    out: &Out,
    signals: &Signals,
) -> Result<Taken> {
    let parent = to.parent().unwrap_or(Path::new("/"));
    let budget = guest.budget().bytes(room(parent)?);
    let files = guest.files_by(budget, || signals.guard(guest.stream()?));
    let name = from.file_name().unwrap_or_default().as_bytes();
    let mut take = Take {
        asked: b".",
        name: b".",
        fresh: false,
        archive,
        budget: guest.budget(),
        stop: signals.came.clone(),
    };
    let (tar, root) = match how {
        How::File => {
            take.asked = name;
            take.name = to.file_name().unwrap_or_default().as_bytes();
            let dir = from.parent().unwrap_or(Path::new("/"));
            (files.tar(text(dir)?, &[name])?, parent.to_owned())
        }
        How::Merge => (files.tar(text(from)?, &[])?, to.to_owned()),
        How::Fresh => {
            let tar = files.tar(text(from)?, &[])?;
            let new = parent.join(format!("{MARK}{}", std::process::id()));
            DirBuilder::new()
                .mode(0o700)
                .create(&new)
                .with_context(|| format!("cannot make a directory in '{}'", parent.display()))?;
            take.fresh = true;
            // Seen whole or not at all.
            let done = unpack(take, tar, &new, out).and_then(|taken| {
                let renamed = fs::rename(&new, to);
                renamed.with_context(|| format!("cannot make '{}'", to.display()))?;
                Ok(taken)
            });
            return done.or_else(|error| match remove_tree_if_there(&new) {
                Ok(()) => Err(error),
                Err(left) => {
                    let place = new.display();
                    Err(error.hint(format!("'rm -r {}' removes what came of it", shell_word(&new))))
                        .context(format!("what came of it stays in '{place}' ({left})"))
                }
            });
        }
    };
    unpack(take, tar, &root, out)
}

fn unpack(take: Take<'_>, mut tar: Tar, root: &Path, out: &Out) -> Result<Taken> {
    let bar = bar(out, None);
    let done = take.unpack(&mut Counted { inner: &mut tar, bar: &bar }, root);
    bar.finish_and_clear();
    done.map_err(|error| tar.failure().unwrap_or(error))
}

/// Returns how much may come: a guest does not get to fill the disk.
fn room(dir: &Path) -> Result<u64> {
    let stat = statvfs(dir).with_context(|| format!("cannot look at '{}'", dir.display()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    Ok(free - free / 20)
}
