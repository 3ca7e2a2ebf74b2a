//! Where it lies: every path of the state directory, its locks, its whole-file changes.
//!
//! One object, one folder, one document. Objects appear whole, change whole and disappear whole, so
//! readers take no lock and a program killed at any instruction leaves a valid state behind.
//! `docs/state.md` describes the tree in words; a test compares it with [`place`].

mod exports;
mod file;
mod lock;
pub mod place;
mod process;
mod room;
mod shelf;
mod stray;
mod vm;
mod watch;

pub use file::{
    read_document, read_limited, replace, replace_fleeting, rewrite_document, write_document,
    write_fleeting,
};
pub use lock::Lock;
pub use process::process_of;
pub use room::Room;
pub use shelf::{Shelf, Staged};
pub use vm::{VmFolder, clock_ms, clock_s, workspaces};
pub use watch::Watch;

use banger_doc::{Context, Document, Error, Image, Kernel, Name, Result, shell_word};
use std::{
    env,
    fs::{self, Metadata},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

/// The number in the file `layout`; a larger one is refused.
pub const LAYOUT: u32 = 1;

/// An opened state directory.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Returns where the state lies: `$BANGER_STATE`, else `$XDG_STATE_HOME/banger`, else
    /// `~/.local/state/banger`.
    pub fn location() -> Result<PathBuf> {
        let from = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let root = from("BANGER_STATE")
            .or_else(|| from("XDG_STATE_HOME").map(|dir| dir.join("banger")))
            .or_else(|| from("HOME").map(|dir| dir.join(".local/state/banger")))
            .ok_or_else(|| {
                Error::unavailable("cannot tell where the state lies: HOME is not set")
                    .hint("set BANGER_STATE to a directory")
            })?;
        std::path::absolute(&root)
            .with_context(|| format!("cannot make '{}' an absolute path", root.display()))
    }

    /// Opens the state, making what is missing.
    pub fn open() -> Result<Self> {
        Self::at(Self::location()?)
    }

    /// Opens the state in a directory, making what is missing.
    pub fn at(root: PathBuf) -> Result<Self> {
        let state = Self { root };
        for dir in place::DIRS {
            make_dir(&state.root.join(dir))?;
        }
        let layout = state.root.join(place::LAYOUT);
        if !layout.exists() {
            replace(&layout, format!("{LAYOUT}\n").as_bytes())?;
        }
        state.check_layout()?;
        Ok(state)
    }

    /// Opens the state without writing anything; an absent one is [`banger_doc::Kind::NotFound`].
    pub fn open_read_only() -> Result<Self> {
        Self::read_only(Self::location()?)
    }

    fn read_only(root: PathBuf) -> Result<Self> {
        let state = Self { root };
        let hint = "BANGER_STATE names the directory that banger keeps all in";
        let found = match fs::metadata(&state.root) {
            Ok(meta) if !meta.is_dir() => {
                return Err(
                    Error::failed(format!("'{}' is no directory", state.root.display())).hint(hint)
                );
            }
            Ok(meta) => {
                must_be_own(&state.root, &meta)?;
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read the state at '{}'", state.root.display()))
                    .map_err(|error| error.hint(hint));
            }
        };
        if !found {
            return Err(Error::not_found(format!("no state at '{}'", state.root.display()))
                .hint("the first 'banger image pull' or 'banger vm run' makes it"));
        }
        state.check_layout()?;
        Ok(state)
    }

    fn check_layout(&self) -> Result<()> {
        let path = self.root.join(place::LAYOUT);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(format!("cannot read '{}'", path.display())),
        };
        match text.trim().parse::<u32>() {
            Ok(LAYOUT) => Ok(()),
            Ok(newer) if newer > LAYOUT => Err(Error::unavailable(format!(
                "the state at '{}' has layout {newer}; this banger knows {LAYOUT}",
                self.root.display()
            ))
            .hint("use the newer banger that wrote it, or set BANGER_STATE to another directory")),
            _ => Err(Error::failed(format!("'{}' holds no layout number", path.display()))
                .hint("'banger doctor' checks the whole state")),
        }
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of a place in [`place`].
    pub fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }

    /// The images.
    pub fn images(&self) -> Shelf<Image> {
        Shelf::new(self.root.join(place::IMAGES), place::IMAGE_DOCUMENT, "image")
    }

    /// The kernels.
    pub fn kernels(&self) -> Shelf<Kernel> {
        Shelf::new(self.root.join(place::KERNELS), place::KERNEL_DOCUMENT, "kernel")
    }

    /// The VMs, by their fixed record.
    pub fn vms(&self) -> Shelf<banger_doc::Vm> {
        Shelf::new(self.root.join(place::VMS), place::VM_DOCUMENT, "VM")
    }

    /// Returns the folder of a VM, which has to exist.
    pub fn vm(&self, name: &Name) -> Result<VmFolder> {
        let shelf = self.vms();
        shelf.must_exist(name)?;
        Ok(VmFolder::new(shelf.folder(name), name.clone()))
    }

    /// Returns the absolute path of an image's base disk.
    pub fn base_disk(&self, image: &Image) -> PathBuf {
        self.images().folder(&image.name).join(&image.rootfs)
    }
}

/// Makes a directory of mode 0700 and its parents; one that is there must be the user's own.
fn make_dir(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot make the state directory '{}'", dir.display()))
            .map_err(|error| error.hint("set BANGER_STATE to a directory you can write to"))?;
    }
    let meta = fs::metadata(dir).with_context(|| format!("cannot look at '{}'", dir.display()))?;
    must_be_own(dir, &meta)
}

/// Refuses a directory of the state that is another user's, or that others may write to: whoever can put a
/// record or a socket there is believed.
fn must_be_own(dir: &Path, meta: &Metadata) -> Result<()> {
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::unavailable(format!("'{}' belongs to another user", dir.display()))
            .hint("set BANGER_STATE to a directory of your own"));
    }
    if meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::unavailable(format!("others may write to the state directory '{}'", dir.display()))
        .hint(format!(
            "'chmod go-w {}' takes that away; look first at what is in it",
            shell_word(dir)
        )))
}

/// Reads the document of one object and says which one when it cannot.
pub(crate) fn load<D: Document>(path: &Path, what: &str, name: &Name) -> Result<D> {
    read_document(path)
        .with_context(|| format!("cannot read {what} '{name}'"))
        .map_err(|error| error.or_hint("'banger doctor' looks at the whole state"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_state_that_others_may_write_to_is_refused_with_the_command_that_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("my state");
        drop(State::at(root.clone()).unwrap());
        let set = |place: &Path, mode| {
            fs::set_permissions(place, fs::Permissions::from_mode(mode)).unwrap();
        };
        for place in [root.clone(), root.join(place::VMS)] {
            for mode in [0o777, 0o770, 0o702, 0o1777] {
                set(&place, mode);
                let error = State::at(root.clone()).unwrap_err();
                assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
                let hint = error.hint_text().unwrap();
                let fix = hint.strip_prefix('\'').unwrap().split("' ").next().unwrap();
                let mended = std::process::Command::new("sh").args(["-c", fix]).status().unwrap();
                assert!(mended.success(), "{hint}");
                State::at(root.clone()).unwrap();
            }
            // To look at it does no harm.
            set(&place, 0o755);
            State::at(root.clone()).unwrap();
        }
    }

    #[test]
    fn a_state_of_another_user_is_refused_to_read_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state");
        drop(State::at(root.clone()).unwrap());
        State::read_only(root.clone()).unwrap();
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(&root, Some(12345), None).unwrap();
        for opened in [State::at(root.clone()), State::read_only(root)] {
            let error = opened.unwrap_err();
            assert!(error.to_string().contains("belongs to another user"), "{error}");
        }
    }
}
