//! A base disk nobody sees before it is whole, and nobody loses while it is used.

use crate::interrupt;
use banger_config::{ImageLimits, Size};
use banger_doc::{Context, Error, Image, Name, Result};
use banger_layer::{Layer, Limits, Progress, Summary, Top};
use banger_state::{Staged, State, place};
use nix::unistd::{Whence, lseek};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Returns what an image may ask for: what the user chose, else the layers' own limits.
pub fn limits(chosen: &ImageLimits) -> Limits {
    let usual = Limits::default();
    let size = |chosen: Option<Size>, usual| chosen.map_or(usual, Size::bytes);
    let count = |chosen: Option<u32>, usual| chosen.map_or(usual, |count| count as usize);
    Limits {
        layers: count(chosen.layers, usual.layers),
        entries: chosen.entries.unwrap_or(usual.entries),
        path_bytes: count(chosen.path_bytes, usual.path_bytes),
        depth: count(chosen.depth, usual.depth),
        name_bytes: size(chosen.name_bytes, usual.name_bytes),
        header_bytes: size(chosen.header_bytes, usual.header_bytes),
        xattrs: count(chosen.xattrs, usual.xattrs),
        bytes: size(chosen.bytes, usual.bytes),
        file_bytes: size(chosen.file_bytes, usual.file_bytes),
        extents: chosen.extents.unwrap_or(usual.extents),
        ratio: chosen.ratio.unwrap_or(usual.ratio),
        window_log: chosen.window.map_or(usual.window_log, |window| window.bytes().ilog2()),
    }
}

/// Writes layers to the disk of a begun image and syncs it. An interrupt removes it.
pub fn write(
    state: &State,
    name: &Name,
    layers: Vec<Layer>,
    limits: &Limits,
    progress: &Progress,
) -> Result<(Staged, Summary)> {
    written(state, name, |disk| banger_layer::build(layers, disk, limits, progress))
}

/// Like [`write()`], for an archive that is to be a root file system; `judge` may refuse it.
pub fn write_root(
    state: &State,
    name: &Name,
    archive: Layer,
    limits: &Limits,
    progress: &Progress,
    judge: impl FnOnce(&Top) -> Result<()>,
) -> Result<(Staged, Summary)> {
    written(state, name, |disk| banger_layer::build_root(archive, disk, limits, progress, judge))
}

fn written(
    state: &State,
    name: &Name,
    build: impl FnOnce(&File) -> Result<Summary>,
) -> Result<(Staged, Summary)> {
    let (staged, file) = begin(state, name)?;
    let path = staged.path().join(place::IMAGE_DISK);
    let summary = build(&file).map_err(no_room)?;
    file.sync_all()
        .with_context(|| format!("cannot sync '{}'", path.display()))
        .map_err(no_room)?;
    Ok((staged, summary))
}

/// Says what to do about a host's disk that is full.
pub fn no_room(error: Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        let kind = one.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return error
                .hint("'banger df' shows what takes room; 'banger image prune' frees the cache");
        }
        cause = one.source();
    }
    error
}

/// Copies a disk to a begun image, holes as holes, and syncs it. An interrupt removes it.
pub fn copy(state: &State, name: &Name, from: &File) -> Result<Staged> {
    let (staged, to) = begin(state, name)?;
    let path = staged.path().join(place::IMAGE_DISK);
    copy_sparse(from, &to)
        .and_then(|()| to.sync_all())
        .with_context(|| format!("cannot copy the disk to '{}'", path.display()))?;
    Ok(staged)
}

fn begin(state: &State, name: &Name) -> Result<(Staged, File)> {
    let staged = interrupt::begin(|| state.images().begin_over(name), Staged::path)?;
    let path = staged.path().join(place::IMAGE_DISK);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot make '{}'", path.display()))?;
    Ok((staged, file))
}

fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size as i64 {
        // From hole to hole (lseek(2)).
        let start = match lseek(from, at, Whence::SeekData) {
            Ok(start) => start,
            Err(nix::errno::Errno::ENXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        at = lseek(from, start, Whence::SeekHole).map_err(io::Error::from)?;
        let mut position = start as u64;
        while position < at as u64 {
            let want = (at as u64 - position).min(buffer.len() as u64) as usize;
            let n = from.read_at(&mut buffer[..want], position)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&buffer[..n], position)?;
            position += n as u64;
        }
    }
    Ok(())
}

/// Publishes an image in place of one of its name that may be there. `check` sees that one under
/// the lock that VMs are created under, and may refuse.
pub fn publish(
    state: &State,
    staged: Staged,
    image: &Image,
    check: impl FnOnce(&Image) -> Result<()>,
) -> Result<()> {
    interrupt::settle(|| state.images().replace(&image.name, staged, image, check))
}

/// Like [`publish`], for an image that is there and was changed: fields of a newer banger are kept.
pub fn republish(
    state: &State,
    staged: Staged,
    image: &Image,
    check: impl FnOnce(&Image) -> Result<()>,
) -> Result<()> {
    interrupt::settle(|| state.images().rewrite(&image.name, staged, image, check))
}

/// Returns the VMs that are made of an image, as an error shows them: `'web', 'db'`.
pub fn users(state: &State, name: &Name) -> Result<Option<String>> {
    let vms = state.vms();
    let users: Vec<String> = vms
        .names()?
        .into_iter()
        .filter(|vm| vms.get(vm).is_ok_and(|vm| vm.image == *name))
        .map(|vm| format!("'{vm}'"))
        .collect();
    Ok((!users.is_empty()).then(|| users.join(", ")))
}

/// Returns the bytes on disk that removing a folder of files frees.
pub fn freed_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = dir.path().join(name);
            OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
        };
        let (from, to) = (open("from"), open("to"));
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"middle", 32 << 20).unwrap();
        from.write_all_at(b"end", (64 << 20) - 3).unwrap();
        copy_sparse(&from, &to).unwrap();
        let meta = to.metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{}", meta.blocks());
        let mut bytes = [0; 6];
        to.read_exact_at(&mut bytes, 32 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
    }
}
