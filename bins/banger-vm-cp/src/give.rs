//! From the host into a guest.

use crate::{
    guest::{Guest, text},
    place::{How, Kind, NO_FILE, Source, decide, is_contents},
    progress::{Counted, bar},
};
use banger_channel::files::{Put, Whole, Whom, append_link, relay};
use banger_cli::Out;
use banger_doc::{Context, Copy, Error, Result, shell_word};
use indicatif::ProgressBar;
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{ErrorKind, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Copies a file or a tree.
pub(crate) fn files(
    guest: &Guest,
    from: &Path,
    to: &str,
    many: bool,
    archive: bool,
    out: &Out,
) -> Result<Copy> {
    // A link that is named is followed; those in a tree are copied as they are.
    let real = real_path(from)?;
    let is_dir = real.is_dir();
    if !is_dir && !real.is_file() {
        return Err(Error::conflict(format!("'{}' is neither file nor directory", from.display()))
            .hint(NO_FILE));
    }
    let source = Source {
        name: from.file_name().or_else(|| real.file_name()).map(OsStr::to_owned),
        is_dir,
        contents: is_contents(from.as_os_str().as_bytes()),
        many,
    };
    let said = || format!("cannot copy '{}' to VM '{}'", from.display(), guest.name());
    let (path, how) = decide(&source, Path::new(to), |path| guest.look(path))
        .with_context(said)
        .map_err(|error| error.or_hint(guest.mkdir(Path::new(to))))?;
    let total = weigh(&real)?;
    let bar = bar(out, Some(total));
    let mut sent = Sent { bar: &bar, seen: HashMap::new(), copy: empty(guest, from, &path), out };
    let (root, name, put) = match how {
        How::Fresh => (path.as_path(), OsStr::new("."), Put::Fresh),
        How::Merge => (path.as_path(), OsStr::new("."), Put::Into),
        How::File => (
            path.parent().unwrap_or(Path::new("/")),
            path.file_name().unwrap_or_default(),
            Put::Into,
        ),
    };
    let done = guest.writer(archive).put_as(text(root)?, put, !archive, |writer| {
        let mut builder = tar::Builder::new(writer);
        sent.add(&mut builder, &real, Path::new(name))?;
        builder.finish().context("cannot write to the guest's agent")
    });
    bar.finish_and_clear();
    done.with_context(said).map_err(|error| {
        error.or_hint(format!(
            "'--user root' writes where the user may not, 'banger vm exec {} -- df -h {root}' shows what \
             room there is; no file is there half",
            guest.name(),
            root = shell_word(root)
        ))
    })?;
    Ok(sent.copy)
}

/// Unpacks a tar stream from stdin.
pub(crate) fn stream(guest: &Guest, to: &str, archive: bool) -> Result<Copy> {
    let (path, kind) = guest.look(Path::new(to))?;
    match kind {
        Kind::Dir => {}
        Kind::Missing => {
            let words = format!("no directory '{}' in VM '{}'", path.display(), guest.name());
            return Err(Error::not_found(words).hint(guest.mkdir(&path)));
        }
        _ => {
            return Err(Error::conflict(format!("'{}' is no directory", guest.said(&path)))
                .hint("name a directory: a tar stream is unpacked in one"));
        }
    }
    let mut copy = empty(guest, Path::new("-"), &path);
    let mut stdin = Plain { from: std::io::stdin().lock(), began: false };
    let done = guest.writer(archive).put(text(&path)?, Put::Into, |writer| {
        let mut counted = Measured { to: writer, size: 0 };
        copy.entries = relay(&mut stdin, &mut counted, Whom::Agent)?;
        copy.size_bytes = counted.size;
        Ok(())
    });
    done.with_context(|| format!("cannot unpack stdin in VM '{}'", guest.name())).map_err(
        |error| {
            error.or_hint(format!(
                "'tar -tv' shows what the stream holds; what came before is in '{}'",
                guest.said(&path)
            ))
        },
    )?;
    Ok(copy)
}

fn empty(guest: &Guest, from: &Path, to: &Path) -> Copy {
    Copy {
        vm: guest.name().clone(),
        from: from.display().to_string(),
        to: guest.said(to),
        entries: 0,
        size_bytes: 0,
        skipped: 0,
    }
}

fn real_path(from: &Path) -> Result<PathBuf> {
    fs::canonicalize(from).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            Error::not_found(format!("no '{}'", from.display()))
                .hint("'VM:PATH' is a path in a VM, all else one of this host")
        } else {
            Error::failed(format!("cannot look at '{}'", from.display()))
                .because(error)
                .hint(ls(from))
        }
    })
}

/// Returns how much of a file is there: holes are not sent.
fn weight(meta: &Metadata) -> u64 {
    if meta.is_file() { meta.len().min(meta.blocks() * 512) } else { 0 }
}

fn weigh(path: &Path) -> Result<u64> {
    let said = || format!("cannot look at '{}'", path.display());
    let hinted = |error: Error| error.or_hint(ls(path));
    let meta = fs::symlink_metadata(path).with_context(said).map_err(hinted)?;
    if !meta.is_dir() {
        return Ok(weight(&meta));
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).with_context(said).map_err(hinted)? {
        sum += weigh(&entry.with_context(said).map_err(hinted)?.path())?;
    }
    Ok(sum)
}

/// Returns how one sees who may read something.
fn ls(path: &Path) -> String {
    format!("'ls -ld {}' shows who may read it", shell_word(path))
}

/// What was sent so far.
struct Sent<'a> {
    bar: &'a ProgressBar,
    /// Files of several names, by the first.
    seen: HashMap<(u64, u64), PathBuf>,
    copy: Copy,
    out: &'a Out,
}

impl Sent<'_> {
    /// Appends one thing and what it holds.
    fn add<W: Write>(
        &mut self,
        builder: &mut tar::Builder<W>,
        from: &Path,
        to: &Path,
    ) -> Result<()> {
        let said = || format!("cannot copy '{}'", from.display());
        let meta = fs::symlink_metadata(from).with_context(said)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&meta);
        header.set_size(0);
        let kind = meta.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            self.copy.skipped += 1;
            let text = format!("note: '{}' is a device, socket or pipe; left out", from.display());
            self.bar.suspend(|| self.out.note(&text));
            return Ok(());
        }
        self.copy.entries += 1;
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = self.seen.entry((meta.dev(), meta.ino())).or_insert_with(|| to.to_owned());
            if first != to {
                header.set_entry_type(tar::EntryType::Link);
                let first = first.as_os_str().as_bytes();
                return append_link(builder, &mut header, to.as_os_str().as_bytes(), first)
                    .with_context(said);
            }
        }
        if kind.is_symlink() {
            let target = fs::read_link(from).with_context(said)?;
            let (to, target) = (to.as_os_str().as_bytes(), target.as_os_str().as_bytes());
            return append_link(builder, &mut header, to, target).with_context(said);
        }
        if kind.is_file() {
            self.copy.size_bytes += meta.len();
            let done = self.add_file(builder, header, from, to);
            let denied = matches!(&done, Err(error) if error.kind() == ErrorKind::PermissionDenied);
            let hinted = |error: Error| if denied { error.or_hint(ls(from)) } else { error };
            return done.with_context(said).map_err(hinted);
        }
        builder.append_data(&mut header, to, std::io::empty()).with_context(said)?;
        for entry in fs::read_dir(from).with_context(said)? {
            let entry = entry.with_context(said)?;
            let name = entry.file_name();
            let to = if to == Path::new(".") { name.into() } else { to.join(name) };
            self.add(builder, &entry.path(), &to)?;
        }
        Ok(())
    }

    fn add_file<W: Write>(
        &self,
        builder: &mut tar::Builder<W>,
        mut header: tar::Header,
        from: &Path,
        to: &Path,
    ) -> std::io::Result<()> {
        // A pipe put in the file's place since would block a plain open.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags).open(from)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(std::io::Error::other("it is no file any more"));
        }
        if meta.blocks() * 512 < meta.len() {
            // It has holes, which the stream then has too.
            builder.append_file(to, &mut file)?;
            self.bar.inc(weight(&meta));
            let after = file.metadata()?;
            let same = (after.len(), after.mtime(), after.mtime_nsec())
                == (meta.len(), meta.mtime(), meta.mtime_nsec());
            let changed = || std::io::Error::other("it changed while it was read");
            return if same { Ok(()) } else { Err(changed()) };
        }
        header.set_size(meta.len());
        let whole = Whole::new(file, meta.len());
        builder.append_data(&mut header, to, Counted { inner: whole, bar: self.bar })
    }
}

/// stdin, as long as it is no compressed stream.
struct Plain<R> {
    from: R,
    began: bool,
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(buffer)?;
        if !std::mem::replace(&mut self.began, true) {
            let packed = match &buffer[..count] {
                [0x1f, 0x8b, ..] => Some("gzip -d"),
                [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd -d"),
                [0xfd, b'7', b'z', ..] => Some("xz -d"),
                [b'B', b'Z', b'h', ..] => Some("bzip2 -d"),
                _ => None,
            };
            if let Some(tool) = packed {
                let words = format!("it is compressed; put '{tool} |' before 'banger'");
                return Err(std::io::Error::other(words));
            }
        }
        Ok(count)
    }
}

/// Counts what is written.
struct Measured<'a> {
    to: &'a mut dyn Write,
    size: u64,
}

impl Write for Measured<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(buffer)?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
