//! Reading with a bound, and replacing whole.

use banger_doc::{Context, Document, Error, Result};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Documents larger than this are refused; banger writes none of a tenth of it.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Reads a file of at most `limit` bytes.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot open '{}'", path.display()))?;
    // Room for all of it at once, and for seeing the end: a thousand documents are read often.
    let size = file.metadata().map_or(0, |meta| meta.len()).min(limit);
    let mut bytes = Vec::with_capacity(size as usize + 32);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read '{}'", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(Error::failed(format!("'{}' is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads one document.
pub fn read_document<D: Document>(path: &Path) -> Result<D> {
    let bytes = read_limited(path, MAX_DOCUMENT)?;
    D::from_slice(&bytes).with_context(|| format!("cannot read '{}'", path.display()))
}

/// Replaces one document whole: readers see the old or the new one, also after a crash.
pub fn write_document<D: Document>(path: &Path, document: &D) -> Result<()> {
    let mut line = document.to_line();
    line.push('\n');
    replace(path, line.as_bytes())
}

/// Replaces one document whole without waiting for the disk: for what means nothing any more once
/// the host has crashed.
pub fn write_fleeting<D: Document>(path: &Path, document: &D) -> Result<()> {
    let mut line = document.to_line();
    line.push('\n');
    replace_fleeting(path, line.as_bytes())
}

/// Replaces a file whole: a temporary one beside it, synced, renamed over it, the folder synced.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, true)
}

/// Replaces a file whole without waiting for the disk.
pub fn replace_fleeting(path: &Path, bytes: &[u8]) -> Result<()> {
    put(path, bytes, false)
}

fn put(path: &Path, bytes: &[u8], lasting: bool) -> Result<()> {
    // These numbers keep two writers of one file from sharing a temporary one.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let dir = path.parent().expect("because places of the state have a parent");
    let file_name = path.file_name().expect("because places of the state have a name");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let temporary = dir.join(format!(".{}.{process}.{number}", file_name.to_string_lossy()));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if lasting {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)?;
        if lasting { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::failed(format!("cannot write '{}'", path.display())).because(error)
    })
}
