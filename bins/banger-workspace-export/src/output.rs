//! The file that an export goes to.

use banger_doc::{Context, Error, Result, shell_word};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Refuses, before the guest is asked, what no file can be put in the place of.
pub(crate) fn check(path: &Path) -> Result<()> {
    let no_file = || {
        Error::usage(format!("'{}' is no file", path.display()))
            .hint("name a file; without '--output' it goes to stdout")
    };
    match fs::metadata(path) {
        _ if path.file_name().is_none() => Err(no_file()),
        Ok(meta) if !meta.is_file() => Err(no_file()),
        _ if folder(path).is_dir() => Ok(()),
        _ => {
            let dir = folder(path);
            Err(Error::not_found(format!("no directory '{}'", dir.display()))
                .hint(format!("'mkdir -p {}' makes it", shell_word(dir))))
        }
    }
}

/// Writes beside the file and renames, so that the patch is there whole or not at all; once this returns it is
/// there after a crash too.
pub(crate) fn write(path: &Path, patch: &mut File) -> Result<()> {
    let said = || format!("cannot write '{}'", path.display());
    // A link goes on to lead to its file.
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        other => other.with_context(said)?,
    };
    let mut temporary = path.clone();
    temporary.as_mut_os_string().push(format!(".{}.tmp", std::process::id()));
    let mut write = || -> io::Result<()> {
        patch.seek(SeekFrom::Start(0))?;
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        io::copy(patch, &mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder(&path))?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(said)
}

/// Returns the directory that a file lies in.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}
