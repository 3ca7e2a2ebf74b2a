//! Places of the image that may be links, or lie behind some: followed inside the root, and made where they
//! lead.

use banger_doc::{Context, Error, Result};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt,
    path::{Component, Path, PathBuf},
};

/// No path leads over more links (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Returns the directory that a path of the root leads to, as a path without links. What is missing is
/// made: the directory itself with `mode`, its parents with 0755. An image whose directories are made at
/// boot (bootc, ostree) has links there that lead to nothing.
pub(crate) fn directory(root: &Path, path: &str, mode: u32) -> Result<PathBuf> {
    follow(root, path, Some(mode))
}

/// Returns where a path of the root leads; nothing if it leads nowhere.
pub(crate) fn existing(root: &Path, path: &str) -> Option<PathBuf> {
    follow(root, path, None).ok()
}

fn follow(root: &Path, path: &str, make: Option<u32>) -> Result<PathBuf> {
    let failed = || format!("cannot make '{path}'");
    let mut real = root.to_owned();
    let mut rest = parts(Path::new(path));
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        let Some(name) = part else {
            if real != root {
                real.pop();
            }
            continue;
        };
        let next = real.join(&name);
        match (fs::symlink_metadata(&next), make) {
            (Ok(meta), _) if meta.is_symlink() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Error::failed("its links have no end")).with_context(failed);
                }
                let target = fs::read_link(&next).with_context(failed)?;
                if target.is_absolute() {
                    root.clone_into(&mut real);
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            (Ok(meta), Some(_)) if !meta.is_dir() => {
                let inside = Path::new("/").join(next.strip_prefix(root).unwrap_or(&next));
                let why = format!("'{}' is no directory", inside.display());
                return Err(Error::failed(why)).with_context(failed);
            }
            (Ok(_), _) => real = next,
            (Err(error), Some(mode)) if error.kind() == ErrorKind::NotFound => {
                let mode = if rest.is_empty() { mode } else { 0o755 };
                fs::DirBuilder::new().mode(mode).create(&next).with_context(failed)?;
                real = next;
            }
            (Err(error), _) => return Err(error).with_context(failed),
        }
    }
    Ok(real)
}

/// Returns the names of a path; nothing for each step up.
fn parts(path: &Path) -> VecDeque<Option<OsString>> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Some(name.to_owned())),
            Component::ParentDir => Some(None),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("banger-reach-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        root
    }

    #[test]
    fn links_to_nothing_lead_inside_the_root_and_are_made_there() {
        let root = root("links");
        for (link, target) in [
            ("root", "var/roothome"),
            ("home", "/var/home"),
            ("tmp", "../../sysroot/tmp"),
            ("chain", "home/there"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        for (path, leads_to, mode) in [
            ("/root", "var/roothome", 0o700),
            ("/home/app", "var/home/app", 0o755),
            ("/tmp", "sysroot/tmp", 0o755),
            ("/chain/deep", "var/home/there/deep", 0o750),
            ("/plain/../other", "other", 0o755),
        ] {
            let made = directory(&root, path, mode).unwrap();
            assert_eq!(made, root.join(leads_to), "{path}");
            let found = fs::symlink_metadata(&made).unwrap();
            assert!(found.is_dir(), "{path}");
            assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
            assert_eq!(existing(&root, path), Some(made), "{path}");
        }
        assert!(fs::symlink_metadata(root.join("root")).unwrap().is_symlink());
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_cannot_be_a_directory_is_said() {
        let root = root("not");
        fs::write(root.join("file"), "").unwrap();
        symlink("self", root.join("self")).unwrap();
        let said = |path: &str| directory(&root, path, 0o755).unwrap_err().chain();
        assert_eq!(said("/file/below"), "cannot make '/file/below': '/file' is no directory");
        assert_eq!(said("/self"), "cannot make '/self': its links have no end");
        assert_eq!(existing(&root, "/nothing"), None);
        assert_eq!(existing(&root, "/file/below"), None);
        assert_eq!(existing(&root, "/file"), Some(root.join("file")));
        fs::remove_dir_all(&root).unwrap();
    }
}
