//! Reading with a bound, and replacing whole.

use crate::{Lock, process_of};
use banger_doc::{Context, Document, Error, Result};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
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

/// Like [`write_document`], for a document that was read, changed, and is written back: fields of a
/// newer banger that are in the file are kept.
pub fn rewrite_document<D: Document>(path: &Path, document: &D) -> Result<()> {
    let bytes = read_limited(path, MAX_DOCUMENT)?;
    let mut line = keeping_unknown(&bytes, document)?.to_string();
    line.push('\n');
    replace(path, line.as_bytes())
}

/// Returns a document with the fields that an earlier one of the same sort has and this banger does
/// not know.
pub(crate) fn keeping_unknown<D: Document>(earlier: &[u8], document: &D) -> Result<Value> {
    let known = D::from_slice(earlier)?.to_value();
    let mut value = document.to_value();
    if let (Ok(Value::Object(earlier)), Value::Object(fields)) =
        (serde_json::from_slice(earlier), &mut value)
    {
        for (name, field) in earlier {
            if known.get(&name).is_none() && !fields.contains_key(&name) {
                fields.insert(name, field);
            }
        }
    }
    Ok(value)
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
    let temporary = temporary(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        // Tells `banger gc` that somebody is at work here; without it, the number in the name does.
        let _mark = Flock::lock(file.try_clone()?, FlockArg::LockExclusiveNonblock).ok();
        file.write_all(bytes)?;
        if lasting {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)?;
        if lasting { sync_parent(path) } else { Ok(()) }
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::failed(format!("cannot write '{}'", path.display())).because(error)
    })
}

/// Returns where a file is written before it takes its place: `.FILE.PID.COUNT` beside it.
fn temporary(path: &Path) -> PathBuf {
    // These numbers keep two writers of one file from sharing a temporary one.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().expect("because places of the state have a name");
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    path.with_file_name(format!(".{}.{process}.{number}", name.to_string_lossy()))
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().expect("because places of the state have a parent"))?.sync_all()
}

/// Says whether a file is one that [`replace`] was writing when its program was killed.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut parts = name.rsplitn(3, '.');
    let (number, pid, rest) = (parts.next(), parts.next(), parts.next());
    let is_number = |part: Option<&str>| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    if !is_number(number) || !is_number(pid) || rest.is_none_or(|rest| rest.len() < 2) {
        return false;
    }
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    if !name.starts_with('.') || !meta.is_file() || Lock::is_held(path).unwrap_or(true) {
        return false;
    }
    // It may be a moment old, and its lock not yet taken: then its writer is there.
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
    let writer = pid.and_then(|pid| process_of(pid.parse().ok()?));
    age > Duration::from_mins(1) || writer.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::{Desire, Exit, Wanted};

    #[test]
    fn a_rewritten_document_keeps_what_only_a_newer_banger_knows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-exit.json");
        let text = r#"{"schema":"banger.exit/1","reason":"stopped","message":"m","disks_clean":true,
            "vmm_status":7,"ended_unix_s":1,"console_tail":[],"newer":{"a":[1]}}"#;
        fs::write(&path, text).unwrap();
        let mut exit: Exit = read_document(&path).unwrap();
        exit.vmm_status = None;
        exit.message = "changed".into();
        rewrite_document(&path, &exit).unwrap();
        let value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(value["newer"], serde_json::json!({"a": [1]}));
        assert_eq!(value["message"], "changed");
        // A field that this banger knows and took away stays away.
        assert!(value.get("vmm_status").is_none(), "{value}");
    }

    #[test]
    fn only_what_a_dead_writer_left_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            path
        };
        let living = std::process::id();
        assert!(is_abandoned(&file(".vm.json.4194999.0")));
        assert!(is_abandoned(&file(".vm.json.4194999.17")));
        assert!(!is_abandoned(&file(&format!(".vm.json.{living}.0"))));
        for name in [".lock", "vm.json", "vm.json.4194999.0", ".vm.json.4194999", "..1.2", ".1.2"] {
            assert!(!is_abandoned(&file(name)), "{name}");
        }
        let held = file(".spec.json.4194999.1");
        let _lock = Lock::try_exclusive(&held).unwrap().unwrap();
        assert!(!is_abandoned(&held));
        write_fleeting(&dir.path().join("wanted.json"), &Wanted::new(Desire::Running)).unwrap();
        assert!(dir.path().join("wanted.json").exists());
    }
}
