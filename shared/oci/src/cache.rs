//! The blob cache: an OCI image layout that `skopeo` and `umoci` can read, too.
//!
//! A blob is downloaded into `cache/partial/HEX`, whose `flock` says who is at it, and appears in
//! `cache/oci/blobs/sha256` by a rename once its digest was checked. A download that was cut off
//! stays and is continued by the next pull. Whatever is read back is checked again, so a blob torn
//! by a power cut is fetched anew.

use crate::{
    digest::{Digest, Hasher},
    manifest::Blob,
};
use banger_doc::{Context, Error, Result};
use banger_state::{Lock, State, place, read_limited, replace};
use banger_tree::remove_tree;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{
    ANNOTATION_REF_NAME, Descriptor, DescriptorBuilder, ImageIndexBuilder, MediaType,
    OciLayoutBuilder, SCHEMA_VERSION,
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long a peer's download may stand still before it is no use to wait for it.
const PEER_STALLED: Duration = Duration::from_secs(45);
/// How long to wait for another program to leave the cache.
const BUSY: Duration = Duration::from_secs(5);
/// How long others may take to write the index, which waits for the disk.
const INDEX_BUSY: Duration = Duration::from_secs(20);
/// Files larger than this are not read as the cache's index.
const MAX_INDEX: u64 = 16 << 20;
/// The version of the layout (OCI image-spec, `image-layout.md`).
const LAYOUT_VERSION: &str = "1.0.0";
/// Why the making of a document does not fail.
const COMPLETE: &str = "because every required field is given";

/// The opened cache. While it is open, nobody prunes it.
#[derive(Debug)]
pub struct Cache {
    layout: PathBuf,
    partial: PathBuf,
    _shared: Flock<File>,
}

/// What [`Cache::prune`] freed, or would free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pruned {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

impl Cache {
    /// Opens the cache of a state, making what is missing.
    pub fn open(state: &State) -> Result<Self> {
        let layout = state.path(place::CACHE);
        let partial = state.path(place::PARTIAL);
        let shared = lock(state, FlockArg::LockSharedNonblock)?;
        for dir in [&layout.join("blobs/sha256"), &partial] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make '{}'", dir.display()))?;
        }
        let cache = Self { layout, partial, _shared: shared };
        let mark = cache.layout.join("oci-layout");
        if !mark.exists() {
            let layout = OciLayoutBuilder::default().image_layout_version(LAYOUT_VERSION).build();
            write_json(&mark, &layout.expect(COMPLETE))?;
        }
        if !cache.index().exists() {
            let _turn = cache.index_turn()?;
            // Another pull may have made it, and have something in it.
            if !cache.index().exists() {
                cache.write_index(Vec::new())?;
            }
        }
        Ok(cache)
    }

    /// Empties the cache, or says what that would free.
    pub fn prune(state: &State, dry_run: bool) -> Result<Pruned> {
        let _exclusive = lock(state, FlockArg::LockExclusiveNonblock)?;
        let dir = state.path(place::CACHE);
        let dir = dir.parent().expect("because the cache lies in a folder of the state");
        let mut pruned = Pruned::default();
        measure(dir, 0, &mut pruned)?;
        if dry_run {
            return Ok(pruned);
        }
        // Aside first, so that a prune that is cut off leaves no half cache.
        let mut failures = Vec::new();
        let entries =
            fs::read_dir(dir).with_context(|| format!("cannot list '{}'", dir.display()))?;
        for (number, entry) in entries.filter_map(std::io::Result::ok).enumerate() {
            let aside = dir.join(format!(".old-{}-{number}", process::id()));
            if let Err(error) = fs::rename(entry.path(), &aside).and_then(|()| remove_tree(&aside))
            {
                failures.push(format!("{}: {error}", entry.path().display()));
            }
        }
        if failures.is_empty() {
            Ok(pruned)
        } else {
            Err(Error::failed(format!("cannot empty the cache: {}", failures.join("; "))))
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout.join("blobs/sha256").join(digest.hex())
    }

    /// Returns a folder for files that have no name.
    pub(crate) fn scratch(&self) -> &Path {
        &self.partial
    }

    fn index(&self) -> PathBuf {
        self.layout.join("index.json")
    }

    /// Returns a small blob, if it is there and whole.
    pub(crate) fn small(&self, blob: &Blob) -> Option<Vec<u8>> {
        let bytes = read_limited(&self.blob_path(&blob.digest), blob.size).ok()?;
        (Digest::of(&bytes) == blob.digest).then_some(bytes)
    }

    /// Keeps a small blob whose digest was checked.
    pub(crate) fn keep(&self, blob: &Blob, bytes: &[u8]) -> Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.partial.join(format!("{}.{}-{number}", blob.digest.hex(), process::id()));
        fs::write(&path, bytes)
            .and_then(|()| fs::rename(&path, self.blob_path(&blob.digest)))
            .with_context(|| {
                let _ = fs::remove_file(&path);
                format!("cannot write '{}'", path.display())
            })
    }

    /// Keeps a small blob unless it is there already.
    pub(crate) fn keep_new(&self, blob: &Blob, bytes: &[u8]) -> Result<()> {
        if self.small(blob).is_some() { Ok(()) } else { self.keep(blob, bytes) }
    }

    /// Returns what a reference led to last time.
    pub(crate) fn recall(&self, reference: &str) -> Option<Blob> {
        let entries = self.entries().ok()?;
        let entry = entries.iter().find(|entry| name(entry) == Some(reference))?;
        Some(Blob { digest: entry.digest().as_ref().parse().ok()?, size: entry.size() })
    }

    /// Writes down what a reference leads to.
    pub(crate) fn remember(&self, reference: &str, blob: &Blob, kind: MediaType) -> Result<()> {
        if self.recall(reference) == Some(*blob) {
            return Ok(());
        }
        let _turn = self.index_turn()?;
        // Another pull of the same may have been faster.
        if self.recall(reference) == Some(*blob) {
            return Ok(());
        }
        let mut entries = self.entries()?;
        entries.retain(|entry| name(entry) != Some(reference));
        let digest: oci_spec::image::Digest =
            blob.digest.to_string().parse().expect("because it is a digest");
        let entry = DescriptorBuilder::default()
            .media_type(kind)
            .digest(digest)
            .size(blob.size)
            .annotations(HashMap::from([(ANNOTATION_REF_NAME.to_owned(), reference.to_owned())]));
        entries.push(entry.build().expect(COMPLETE));
        self.write_index(entries)
    }

    /// Takes the right to change the index.
    fn index_turn(&self) -> Result<Lock> {
        Lock::exclusive_dir(&self.layout.join("blobs"), INDEX_BUSY, "the image cache")
    }

    /// Returns what the index leads to. What is no descriptor leads nowhere and is left out.
    fn entries(&self) -> Result<Vec<Descriptor>> {
        let bytes = read_limited(&self.index(), MAX_INDEX)?;
        let mut index: Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("cannot read '{}'", self.index().display()))?;
        Ok(match index["manifests"].take() {
            Value::Array(entries) => {
                entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect()
            }
            _ => Vec::new(),
        })
    }

    fn write_index(&self, entries: Vec<Descriptor>) -> Result<()> {
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests(entries)
            .build();
        write_json(&self.index(), &index.expect(COMPLETE))
    }

    /// Returns a blob that is there, checked, or the right to download it. Waits while another
    /// pull is at it and gets on.
    pub(crate) fn claim(&self, blob: &Blob) -> Result<Claim> {
        let path = self.partial.join(blob.digest.hex());
        let mut seen = (0, Instant::now());
        loop {
            if let Some(file) = self.whole(blob)? {
                return Ok(Claim::Whole(file));
            }
            if let Some(partial) = self.try_claim(blob, &path)? {
                return Ok(Claim::Partial(partial));
            }
            let length = fs::metadata(&path).map_or(0, |meta| meta.len());
            if length != seen.0 {
                seen = (length, Instant::now());
            } else if seen.1.elapsed() > PEER_STALLED {
                let own = self.partial.join(format!("{}.{}", blob.digest.hex(), process::id()));
                if let Some(partial) = self.try_claim(blob, &own)? {
                    return Ok(Claim::Partial(partial));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_claim(&self, blob: &Blob, path: &Path) -> Result<Option<Partial>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(|| format!("cannot open '{}'", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("cannot lock '{}'", path.display()));
            }
        };
        let own =
            file.metadata().with_context(|| format!("cannot look at '{}'", path.display()))?;
        // Between the open and the lock, its last holder may have made it a blob or removed it.
        if fs::metadata(path).map_or(true, |meta| meta.ino() != own.ino()) {
            return Ok(None);
        }
        let partial = Partial { file, path: path.into(), target: self.blob_path(&blob.digest) };
        if partial.target.exists() {
            partial.discard();
            return Ok(None);
        }
        if own.len() > blob.size {
            partial.file.set_len(0).with_context(|| format!("cannot cut '{}'", path.display()))?;
        }
        Ok(Some(partial))
    }

    /// Opens a blob and reads it through; a damaged one is removed.
    fn whole(&self, blob: &Blob) -> Result<Option<File>> {
        let path = self.blob_path(&blob.digest);
        let context = || format!("cannot read '{}'", path.display());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(context),
        };
        let mut good = file.metadata().with_context(context)?.len() == blob.size;
        if good {
            let mut hasher = Hasher::default();
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer).with_context(context)? {
                    0 => break,
                    n => hasher.update(&buffer[..n]),
                }
            }
            good = hasher.finish() == blob.digest;
            file.rewind().with_context(context)?;
        }
        if good {
            return Ok(Some(file));
        }
        fs::remove_file(&path).with_context(|| format!("cannot remove '{}'", path.display()))?;
        Ok(None)
    }
}

/// Returns the reference that an entry of the index stands for.
fn name(entry: &Descriptor) -> Option<&str> {
    entry.annotations().as_ref()?.get(ANNOTATION_REF_NAME).map(String::as_str)
}

fn write_json(path: &Path, document: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(document)
        .with_context(|| format!("cannot write '{}'", path.display()))?;
    replace(path, &bytes)
}

/// What [`Cache::claim`] found.
pub(crate) enum Claim {
    /// The blob, checked.
    Whole(File),
    /// The right to download it.
    Partial(Partial),
}

/// A download that only this process may go on with.
#[derive(Debug)]
pub(crate) struct Partial {
    file: Flock<File>,
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the download a blob. Its digest must have been checked.
    pub(crate) fn publish(&self) -> std::io::Result<()> {
        fs::rename(&self.path, &self.target)
    }

    /// Forgets what was downloaded.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Locks the cache's folder: shared to use it, exclusive to empty it.
fn lock(state: &State, how: FlockArg) -> Result<Flock<File>> {
    let dir = state.path(place::CACHE);
    let dir = dir.parent().expect("because the cache lies in a folder of the state");
    let end = Instant::now() + BUSY;
    let mut file = File::open(dir).with_context(|| format!("cannot open '{}'", dir.display()))?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => file = back,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(Error::conflict("the image cache is in use by another program")
                    .hint("try again when its pull or prune has ended"));
            }
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("cannot lock '{}'", dir.display()));
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn measure(dir: &Path, depth: u32, pruned: &mut Pruned) -> Result<()> {
    let context = || format!("cannot list '{}'", dir.display());
    for entry in fs::read_dir(dir).with_context(context)? {
        let entry = entry.with_context(context)?;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth < 8 {
            measure(&entry.path(), depth + 1, pruned)?;
        } else if !is_frame(&entry.path()) {
            pruned.bytes += meta.blocks() * 512;
            pruned.files += 1;
        }
    }
    Ok(())
}

/// Says whether a file belongs to every layout, also to an empty one.
fn is_frame(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "oci-layout" || name == "index.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::{ImageIndex, OciLayout};

    #[test]
    fn what_is_written_is_what_the_specification_says() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&State::at(dir.path().join("state")).unwrap()).unwrap();
        let mark = OciLayout::from_file(cache.layout.join("oci-layout")).unwrap();
        assert_eq!(mark.image_layout_version(), "1.0.0");
        let index = || ImageIndex::from_file(cache.index()).unwrap();
        assert_eq!(index().media_type(), &Some(MediaType::ImageIndex));
        assert_eq!((index().schema_version(), index().manifests().len()), (2, 0));

        let kinds = [MediaType::ImageManifest, MediaType::ImageIndex, "x/y+json".into()];
        for (number, kind) in kinds.iter().enumerate() {
            let (reference, blob) = (format!("a/b:{number}"), Blob::of(&[number as u8; 9]));
            // It moves.
            cache.remember(&reference, &Blob::of(b"older"), MediaType::ImageManifest).unwrap();
            cache.remember(&reference, &blob, kind.clone()).unwrap();
            assert_eq!(cache.recall(&reference), Some(blob));
            let index = index();
            assert_eq!(index.manifests().len(), number + 1);
            let entry = &index.manifests()[number];
            assert_eq!(entry.media_type(), kind);
            assert_eq!(entry.digest().to_string(), blob.digest.to_string());
            assert_eq!(entry.size(), 9);
            let notes = entry.annotations().as_ref().unwrap();
            assert_eq!(notes["org.opencontainers.image.ref.name"], reference);
        }
        assert_eq!(cache.recall("a/b:9"), None);
    }

    #[test]
    fn entries_that_lead_nowhere_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&State::at(dir.path().join("state")).unwrap()).unwrap();
        let blob = Blob::of(b"one");
        cache.remember("a/b:1", &blob, MediaType::ImageManifest).unwrap();
        let mut index: Value = serde_json::from_slice(&fs::read(cache.index()).unwrap()).unwrap();
        let good = index["manifests"][0].clone();
        for change in ["digest", "size", "mediaType"] {
            let mut bad = good.clone();
            bad[change] = serde_json::json!(["x"]);
            index["manifests"].as_array_mut().unwrap().insert(0, bad);
        }
        index["manifests"].as_array_mut().unwrap().insert(0, Value::Null);
        replace(&cache.index(), index.to_string().as_bytes()).unwrap();
        assert_eq!(cache.recall("a/b:1"), Some(blob));
        cache.remember("a/b:2", &blob, MediaType::ImageManifest).unwrap();
        let index = ImageIndex::from_file(cache.index()).unwrap();
        assert_eq!(index.manifests().len(), 2);
    }
}
