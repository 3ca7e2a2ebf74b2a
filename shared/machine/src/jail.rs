//! What a VMM gets to see of the host: a root with the VM's own files, and nothing else.
//!
//! An ordinary user's VMM is put there by [`Jail::enter`]: a mount namespace whose root is an empty
//! memory file system with the VM's files bound into it, no new privileges, Landlock where the kernel
//! has it. A root's VMM is put there by Firecracker's own jailer, which also gives it a user and a
//! control group of its own; [`Jail::enter`] then only lays the files out for it. Either way all of it
//! is in a namespace of the process's own, so nothing is left of it when the process ends.

use crate::confine;
use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{prctl, resource, stat::Mode, statvfs},
    unistd::{chdir, mkdir, pivot_root},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The most that the root of a jail may hold; the jailer copies Firecracker into it.
const ROOT: &str = "size=64m,mode=0755";

/// A file of the host in a jail.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Where it lies; relative to the VM's folder.
    pub(crate) host: PathBuf,
    /// Where the VMM sees it, below `/`.
    pub(crate) inside: String,
    /// Whether the VMM may write to it.
    pub(crate) writable: bool,
}

/// A root of a VMM's own.
#[derive(Clone, Debug)]
pub struct Jail {
    pub(crate) files: Vec<Seen>,
    /// An existing empty folder to lay the root out in; seen by nobody else.
    pub(crate) base: PathBuf,
    /// Where below `base` the root is.
    pub(crate) root: PathBuf,
    /// Whether the VMM is in no network at all.
    pub(crate) unplugged: bool,
    /// Whether Firecracker's jailer makes `root` the root.
    pub(crate) jailer: bool,
}

impl Jail {
    /// Says whether the jail is made of namespaces that its maker has to own: an ordinary user's.
    pub fn needs_user_namespace(&self) -> bool {
        !self.jailer
    }

    /// Puts the calling process into the jail. It is to have one thread; it is of no use for
    /// anything but running the VMM afterwards. The error names the step.
    pub fn enter(&self) -> Result<()> {
        let mut apart = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        if self.unplugged {
            apart |= CloneFlags::CLONE_NEWNET;
        }
        unshare(apart).context("cannot make namespaces for the VMM")?;
        change(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)
            .context("cannot take the VMM's mounts apart from the host's")?;
        let base = fs::canonicalize(&self.base)
            .with_context(|| format!("cannot find '{}'", self.base.display()))?;
        let mut flags = MsFlags::MS_NOSUID;
        if !self.jailer {
            flags |= MsFlags::MS_NODEV;
        }
        mount(Some("banger"), &base, Some("tmpfs"), flags, Some(ROOT))
            .context("cannot mount the VMM's root")?;
        let root = base.join(&self.root);
        fs::create_dir_all(&root).context("cannot make the VMM's root")?;
        for file in &self.files {
            bind(file, &root)
                .with_context(|| format!("cannot show '{}' to the VMM", file.host.display()))?;
        }
        if !self.jailer {
            turn_round(&root).context("cannot change the VMM's root")?;
            confine::restrict(&self.files).context("cannot restrict the VMM with Landlock")?;
        }
        plain()
    }
}

/// Takes from the calling process what no VMM needs: new privileges, and a dump of the guest's memory.
pub fn plain() -> Result<()> {
    resource::setrlimit(resource::Resource::RLIMIT_CORE, 0, 0)
        .context("cannot switch core dumps off")?;
    prctl::set_no_new_privs().context("cannot give up new privileges")
}

fn change(from: Option<&Path>, to: impl AsRef<Path>, flags: MsFlags) -> nix::Result<()> {
    mount(from, to.as_ref(), None::<&str>, flags, None::<&str>)
}

/// Binds a file or a folder to its place below `root`.
fn bind(file: &Seen, root: &Path) -> Result<()> {
    let to = root.join(&file.inside);
    let meta = fs::metadata(&file.host).context("it is not there")?;
    let parent = to.parent().expect("because every file is below the root");
    fs::create_dir_all(parent).context("no folder for it")?;
    if meta.is_dir() {
        match mkdir(&to, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).context("no folder for it"),
        }
    } else {
        File::create_new(&to).context("no place for it")?;
    }
    change(Some(&file.host), &to, MsFlags::MS_BIND).context("it cannot be bound")?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID;
    if !file.writable {
        flags |= MsFlags::MS_RDONLY;
    }
    // What is forbidden outside an ordinary user cannot allow inside, nor leave unsaid.
    let outside = statvfs::statvfs(&to).context("it cannot be looked at")?.flags();
    for (there, wanted) in [
        (statvfs::FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (statvfs::FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (statvfs::FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (statvfs::FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (statvfs::FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (statvfs::FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ] {
        if outside.contains(there) {
            flags |= wanted;
        }
    }
    change(None, &to, flags).context("it cannot be protected")
}

/// Makes a folder the root and forgets the one before (pivot_root(2)).
fn turn_round(root: &Path) -> nix::Result<()> {
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV;
    change(None, "/", flags)
}

/// Says why this process cannot be the kind of root that Firecracker's jailer needs, if it cannot.
pub(crate) fn weak_root() -> Result<()> {
    let map = fs::read_to_string("/proc/self/uid_map").context("cannot read '/proc'")?;
    let mut words = map.split_whitespace();
    if words.next() == Some("0") && words.next() == Some("0") && words.next() == Some("4294967295")
    {
        return Ok(());
    }
    Err(Error::unavailable(
        "this root is one of a user namespace, which Firecracker's jailer cannot use",
    )
    .hint("start the VM as an ordinary user, or with '--vmm qemu'"))
}
