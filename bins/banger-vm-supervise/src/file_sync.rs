//! `[[file_sync]]` of the configuration: files of the host that every guest is given.

use banger_config::FileSync;
use banger_doc::{Context, Error, GuestFile, Result};
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// They travel in the guest's memory.
const MAX_BYTES: u64 = 16 << 20;
const MAX_FILES: usize = 4096;
const MAX_DEPTH: usize = 40;

/// What is given to a guest.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    pub(crate) files: Vec<GuestFile>,
    /// A path inside the archive, and bytes.
    pub(crate) contents: Vec<(String, Vec<u8>)>,
    pub(crate) notes: Vec<String>,
    bytes: u64,
}

/// Reads what the entries name; `home` stands for `~` on the host. Nothing that is missing is an error.
pub(crate) fn read(entries: &[FileSync], home: Option<&Path>) -> Result<Synced> {
    let mut synced = Synced::default();
    for (number, entry) in entries.iter().enumerate() {
        let words = || format!("cannot follow file_sync entry {}", number + 1);
        let host = match entry.host.strip_prefix("~/") {
            Some(rest) => home
                .map(|home| home.join(rest))
                .ok_or_else(|| Error::failed("HOME is not set").hint("give an absolute path"))
                .with_context(words)?,
            None => PathBuf::from(&entry.host),
        };
        // What `~/` is, the guest knows.
        let guest = entry.guest.trim_end_matches('/');
        let meta = match fs::metadata(&host) {
            Ok(meta) => meta,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                synced.notes.push(format!("file_sync: no '{}', skipped", host.display()));
                continue;
            }
            Err(error) => {
                let failed = format!("cannot look at '{}'", host.display());
                return Err(error).context(failed).with_context(words);
            }
        };
        if meta.is_dir() {
            synced.directory(&host, guest, 0).with_context(words)?;
        } else {
            synced.file(&host, guest, entry.mode_bits()?).with_context(words)?;
        }
    }
    Ok(synced)
}

impl Synced {
    /// Takes a directory's files with the modes they have. A link to a file is that file; one to a
    /// directory is not followed.
    fn directory(&mut self, host: &Path, guest: &str, depth: usize) -> Result<()> {
        let said = || format!("cannot list '{}'", host.display());
        if depth > MAX_DEPTH {
            return Err(Error::failed(format!("'{}' is too deep", host.display())));
        }
        let mut names: Vec<_> = fs::read_dir(host)
            .with_context(said)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<std::io::Result<_>>()
            .with_context(said)?;
        names.sort();
        for name in names {
            let path = host.join(&name);
            let Some(name) = name.to_str() else {
                self.skip(&path, "its name is not UTF-8");
                continue;
            };
            let below = format!("{guest}/{name}");
            let is_link = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink());
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() && !is_link => {
                    self.directory(&path, &below, depth + 1)?;
                }
                Ok(meta) if meta.is_file() => self.file(&path, &below, meta.mode() & 0o777)?,
                Ok(_) => self.skip(&path, "it is no file"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.skip(&path, "it leads nowhere");
                }
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot look at '{}'", path.display()));
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, host: &Path, guest: &str, mode: u32) -> Result<()> {
        let said = || format!("cannot read '{}'", host.display());
        // A pipe would never end.
        if !fs::metadata(host).with_context(said)?.is_file() {
            return Err(Error::failed(format!("'{}' is no file", host.display())));
        }
        let left = MAX_BYTES - self.bytes;
        let mut bytes = Vec::new();
        File::open(host)
            .and_then(|file| file.take(left + 1).read_to_end(&mut bytes))
            .with_context(said)?;
        if bytes.len() as u64 > left || self.files.len() >= MAX_FILES {
            return Err(Error::failed(format!(
                "all files together are more than {} MiB or {MAX_FILES} files",
                MAX_BYTES >> 20
            ))
            .hint("'banger workspace prepare' is for what is large"));
        }
        self.bytes += bytes.len() as u64;
        let content = format!("banger/sync/{}", self.files.len());
        self.files.push(GuestFile { path: guest.to_owned(), mode, content: content.clone() });
        self.contents.push((content, bytes));
        Ok(())
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.notes.push(format!("file_sync: '{}' is skipped: {why}", path.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn entry(host: impl Into<String>, guest: &str, mode: Option<&str>) -> FileSync {
        FileSync { host: host.into(), guest: guest.into(), mode: mode.map(ToOwned::to_owned) }
    }

    #[test]
    fn files_and_directories_are_taken_as_the_rules_say() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("dir");
        fs::create_dir_all(dir.join("in")).unwrap();
        for (name, mode) in [("rc", 0o777), ("dir/a", 0o755), ("dir/in/b", 0o640)] {
            let path = home.path().join(name);
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("a", dir.join("link")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        symlink("..", dir.join("loop")).unwrap();
        let absolute = dir.to_str().unwrap().to_owned();
        let entries = [
            entry("~/rc", "~/.rc", None),
            entry("~/rc", "/root/x/rc", Some("0644")),
            entry(absolute, "~/d/", Some("0600")),
            entry("~/missing", "~/missing", None),
        ];
        let synced = read(&entries, Some(home.path())).unwrap();
        let found: Vec<_> = synced.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
        assert_eq!(
            found,
            [
                ("~/.rc", 0o600),
                ("/root/x/rc", 0o644),
                ("~/d/a", 0o755),
                ("~/d/in/b", 0o640),
                ("~/d/link", 0o755),
            ]
        );
        assert_eq!(synced.contents[3].1, b"dir/in/b");
        for words in ["dangling' is skipped", "loop' is skipped", "missing', skipped"] {
            assert!(synced.notes.iter().any(|note| note.contains(words)), "{:?}", synced.notes);
        }
    }

    #[test]
    fn too_much_or_no_file_is_refused_by_the_entry_s_number() {
        let home = tempfile::tempdir().unwrap();
        File::create(home.path().join("huge")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = read(&[entry("~/huge", "~/h", None)], Some(home.path())).unwrap_err();
        assert!(error.chain().contains("file_sync entry 1: all files together"), "{error:?}");
        let error = read(&[entry("/dev/zero", "~/h", None)], None).unwrap_err();
        assert!(error.chain().contains("'/dev/zero' is no file"), "{error:?}");
        let error = read(&[entry("~/x", "~/h", None)], None).unwrap_err();
        assert!(error.chain().contains("HOME is not set"), "{error:?}");
    }
}
