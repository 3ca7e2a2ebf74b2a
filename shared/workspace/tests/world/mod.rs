//! A host with a repository and a guest that is a directory behind the real files service.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::unused_self,
    unreachable_pub,
    missing_docs,
    reason = "each test program uses its part of this"
)]

use banger_channel::files::{Budget, Files, serve};
use banger_doc::{Context, Result, Work, Workspace, WorkspaceMode, WorkspacePull};
use banger_workspace::{Export, Keeper, Offer, Want, Wish};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// A host and a guest in one scratch directory.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Makes a host directory and runs `setup` in it.
    pub fn new(setup: &str) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["host", "vm", "home"] {
            fs::create_dir(world.dir.path().join(name)).unwrap();
        }
        fs::write(
            world.dir.path().join("home/.gitconfig"),
            "[user]\n\tname = Ann\n\temail = ann@example.org\n[init]\n\tdefaultBranch = main\n\
             [commit]\n\tgpgsign = false\n[protocol \"file\"]\n\tallow = always\n",
        )
        .unwrap();
        world.shell(&world.host(), setup);
        world
    }

    pub fn host(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    pub fn guest(&self) -> PathBuf {
        self.dir.path().join("guest/root/repo")
    }

    pub fn vm(&self) -> PathBuf {
        self.dir.path().join("vm")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a script that has to succeed and returns what it printed.
    pub fn shell(&self, dir: &Path, script: &str) -> String {
        let output = Command::new("timeout")
            .args(["60", "bash", "-euo", "pipefail", "-c", script])
            .current_dir(dir)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir.path().join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("TOP", self.dir.path())
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{script}\n{words}\n{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn wish(&self) -> Wish {
        let wish = Wish::of("web", &self.host(), self.guest().to_str().unwrap());
        Wish { is_named: true, ..wish }
    }

    pub fn files(&self) -> Files<'static> {
        files()
    }

    pub fn prepare(&self, wish: &Wish) -> Result<Workspace> {
        banger_workspace::prepare(&self.vm(), &self.files(), wish)
    }

    /// Exports against what went in, and returns the patch.
    pub fn export(&self) -> Vec<u8> {
        self.export_of(None)
    }

    /// Exports against a commit, and returns the patch.
    pub fn export_of(&self, base: Option<&str>) -> Vec<u8> {
        let want = Want { base_commit: base.map(ToOwned::to_owned), ..Want::default() };
        let mut export = Export::make(&self.vm(), &self.files(), &want).unwrap();
        let mut patch = Vec::new();
        export.patch.read_to_end(&mut patch).unwrap();
        export.done().unwrap();
        patch
    }

    /// Exports mails to the commit that was prepared, and returns them.
    pub fn mails(&self) -> Vec<u8> {
        let base_commit = Some("prepared".to_owned());
        let want = Want { base_commit, commits: true, ..Want::default() };
        let mut export = Export::make(&self.vm(), &self.files(), &want).unwrap();
        let mut mails = Vec::new();
        export.patch.read_to_end(&mut mails).unwrap();
        export.done().unwrap();
        mails
    }

    /// What remembers what is kept of the VM, which is called `web`.
    pub fn keeper(&self) -> Keeper {
        let shelf = self.dir.path().join("kept");
        Keeper { vm: "web".into(), vm_id: "id-of-web".into(), shelf }
    }

    /// Pulls into the host's repository.
    pub fn pull(&self) -> Result<WorkspacePull> {
        self.pull_by(&self.files())
    }

    pub fn pull_by(&self, files: &Files<'_>) -> Result<WorkspacePull> {
        let mut offer = Offer::make(&self.vm(), files)?;
        offer.pull(&self.host(), &[], &self.keeper(), "banger::web")
    }

    /// Says what would be lost with the guest, in words.
    pub fn unexported(&self) -> Vec<String> {
        self.work().into_iter().map(|work| work.words).collect()
    }

    pub fn work(&self) -> Vec<Work> {
        banger_workspace::status(&self.vm(), &self.files(), true, &[]).unwrap().unexported
    }
}

/// A guest that is this machine.
pub fn files() -> Files<'static> {
    files_within(Duration::from_mins(10))
}

/// The same, for a command that may last for so long.
pub fn files_within(time: Duration) -> Files<'static> {
    Files::new(Budget::new(time), connect)
}

/// Connects to a guest that is this machine.
pub fn connect() -> Result<UnixStream> {
    let (here, there) = UnixStream::pair().context("no pair")?;
    thread::spawn(move || serve(there));
    Ok(here)
}

/// A guest that answers as it likes.
pub fn files_by<'a>(connect: impl Fn() -> Result<UnixStream> + 'a) -> Files<'a> {
    Files::new(Budget::new(Duration::from_mins(10)), connect)
}

/// Prepares the repository that `setup` makes, whole, and works in the guest.
pub fn worked(setup: &str, work: &str) -> World {
    let world = World::new(setup);
    let wish = Wish { mode: WorkspaceMode::FullCopy, ..world.wish() };
    world.prepare(&wish).unwrap();
    assert_eq!(world.unexported(), [""; 0], "nothing to lose yet");
    world.shell(&world.guest(), work);
    world
}

/// Exports, applies the patch to the host's repository and returns what `git status` says there.
pub fn applied(world: &World) -> String {
    fs::write(world.path().join("patch"), world.export()).unwrap();
    world.shell(
        &world.host(),
        "git apply --index --binary --allow-empty $TOP/patch; git status --short --ignore-submodules=dirty",
    )
}

/// Some of what would be lost is said with these words.
#[track_caller]
pub fn counts(world: &World, words: &str) {
    let found = world.unexported();
    assert!(found.iter().any(|found| found.contains(words)), "{found:?}");
}

/// Every path below a directory with its type, mode, content and modification time.
pub fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_dir() {
                waiting.push(path.clone());
                Vec::new()
            } else if meta.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if meta.is_file() {
                fs::read(&path).unwrap()
            } else {
                // A pipe would be waited for.
                Vec::new()
            };
            // With the type.
            let mode = meta.mode();
            let mtime = (meta.mtime(), meta.mtime_nsec());
            seen.insert(path, format!("{mode:o} {mtime:?} {}", content.escape_ascii()));
        }
    }
    seen
}

/// The paths at which two fingerprints differ.
pub fn differing(a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
    let paths = a.keys().chain(b.keys());
    paths.filter(|path| a.get(*path) != b.get(*path)).cloned().collect()
}
