//! A root with a program's own files, and nothing else.
//!
//! A process is put there by [`Jail::enter`]: a mount namespace whose root is an empty memory file system
//! with the files bound into it, no privileges, no new ones, Landlock where the kernel has it; a
//! root's becomes a user of its own. A root's Firecracker is put there by its own jailer, which also
//! gives it a control group; [`Jail::enter`] then only lays the files out for it. Either way all of it
//! is in a namespace of the process's own, so nothing is left of it when the process ends.

use crate::{
    confine,
    elf::{is_dynamic, is_elf},
    mapped::Tree,
};
use banger_doc::{Context, Error, Result, VMM_USERS};
use nix::{
    errno::Errno,
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl, resource,
        stat::{Mode, SFlag, mknod, umask},
        statvfs,
    },
    unistd::{Gid, Uid, chdir, chown, getpid, mkdir, pivot_root, setgroups, setresgid, setresuid},
};
use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Where the jail of a VMM is laid out, an empty folder below the VM's.
pub const JAIL: &str = "run/jail";
/// How many users each kind has.
const USERS: u32 = VMM_USERS.end - VMM_USERS.start;
/// What a dynamically linked program needs besides the VM's files.
const LIBRARIES: &[&str] =
    &["lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "nix/store", "gnu/store"];

/// Where packages lie as a whole, programs with what they need.
const STORES: &[&str] = &["/nix/store", "/gnu/store"];

/// The most that the root of a jail may hold; the jailer copies Firecracker into it.
const ROOT: &str = "size=64m,mode=0755";

/// A file of the host in a jail.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it lies; relative to the directory of whoever enters, which for a VMM is the VM's folder.
    pub host: PathBuf,
    /// Where it is seen, below `/`.
    pub inside: String,
    /// Whether it may be written.
    pub writable: bool,
}

/// A root of a process's own.
#[derive(Clone, Debug)]
pub struct Jail {
    /// What it sees.
    pub files: Vec<Seen>,
    /// An existing folder to lay the root out in, which hides what is in it; seen by nobody else.
    pub base: PathBuf,
    /// Where below `base` the root is.
    pub root: PathBuf,
    /// Whether it is in no network at all.
    pub unplugged: bool,
    /// Whether it makes connections itself, as a VMM that carries the guest's.
    pub connects: bool,
    /// Who makes `root` the root.
    pub end: End,
    /// What it sees besides, as if it belonged to whom it becomes.
    pub(crate) trees: Vec<Tree>,
}

/// What a user of a process's own is for. Each kind has its own, since what a VMM that was broken out of
/// runs as is not to have power over the rest of the VM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    /// A VMM.
    Vmm,
    /// What leads a VM's network out.
    Network,
    /// A tool that parses what a guest wrote.
    Tool,
}

/// What comes after the files are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Firecracker's jailer does the rest.
    Jailer,
    /// The process itself does, and becomes this user, to whom its devices belong then.
    Own(Option<Uid>),
}

impl Jail {
    /// A root with these files, laid out in `base`, for a process that becomes another one or stays.
    pub fn new(files: Vec<Seen>, base: impl Into<PathBuf>, end: End) -> Self {
        let (base, root) = (base.into(), PathBuf::new());
        Self { files, base, root, unplugged: true, connects: false, end, trees: Vec::new() }
    }

    /// Puts the calling process into the jail. It is to have one thread; it is of no use for
    /// anything but running the program afterwards. The error names the step.
    pub fn enter(&self) -> Result<()> {
        self.part()?;
        self.settle()
    }

    /// Takes the process apart from the host: what a host may forbid.
    pub(crate) fn part(&self) -> Result<()> {
        let mut apart = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
        if self.unplugged {
            apart |= CloneFlags::CLONE_NEWNET;
        }
        unshare(apart).context("cannot make namespaces for the jail")?;
        change(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)
            .context("cannot take the jail's mounts apart from the host's")?;
        let base = fs::canonicalize(&self.base)
            .with_context(|| format!("cannot find '{}'", self.base.display()))?;
        let mut flags = MsFlags::MS_NOSUID;
        if self.end == End::Own(None) {
            flags |= MsFlags::MS_NODEV;
        }
        mount(Some("banger"), &base, Some("tmpfs"), flags, Some(ROOT))
            .context("cannot mount the jail's root")
    }

    /// Lays the files out and locks the process in with them.
    pub(crate) fn settle(&self) -> Result<()> {
        let base = fs::canonicalize(&self.base)
            .with_context(|| format!("cannot find '{}'", self.base.display()))?;
        let root = base.join(&self.root);
        // What is made here is for another user too, who sees nothing but this.
        let mask = umask(Mode::from_bits_truncate(0o022));
        fs::create_dir_all(&root).context("cannot make the jail's root")?;
        for file in &self.files {
            self.show(file, &root)
                .with_context(|| format!("cannot show '{}' in the jail", file.host.display()))?;
        }
        for tree in &self.trees {
            tree.show(&root)
                .with_context(|| format!("cannot show '/{}' in the jail", tree.inside))?;
        }
        umask(mask);
        let End::Own(user) = self.end else { return plain() };
        turn_round(&root, user.is_some()).context("cannot change the jail's root")?;
        drop_powers(user).context("cannot give up privileges")?;
        plain()?;
        let files = self.files.iter().map(|file| (file.inside.as_str(), file.writable));
        let trees = self.trees.iter().map(|tree| (tree.inside.as_str(), tree.writable));
        confine::restrict(files.chain(trees), self.connects)
            .context("cannot restrict it with Landlock")
    }

    /// Shows one file; a device to a user of its own as a device of that user's own.
    fn show(&self, file: &Seen, root: &Path) -> Result<()> {
        let meta = fs::metadata(&file.host).context("it is not there")?;
        match self.end {
            End::Own(Some(user)) if meta.file_type().is_char_device() => {
                let to = root.join(&file.inside);
                let parent = to.parent().expect("because every file is below the root");
                fs::create_dir_all(parent).context("no folder for it")?;
                let mode = Mode::from_bits_truncate(0o600);
                mknod(&to, SFlag::S_IFCHR, mode, meta.rdev())
                    .and_then(|()| chown(&to, Some(user), Some(Gid::from_raw(user.as_raw()))))
                    .context("it cannot be made anew")
            }
            _ => bind(file, root),
        }
    }
}

/// Returns the user that what this process starts as root becomes: one that nothing else has.
pub fn own_user(kind: User) -> Uid {
    let first = match kind {
        User::Vmm => 0,
        User::Network => USERS,
        User::Tool => 2 * USERS,
    };
    Uid::from_raw(VMM_USERS.start + first + getpid().as_raw() as u32)
}

/// Returns a program as a jail has it, a path without links; none where it is a script, which needs what
/// nobody knows, unless it lies in a store, of which a jail has all.
pub fn program(path: &Path) -> Result<Option<PathBuf>> {
    let path =
        fs::canonicalize(path).with_context(|| format!("cannot find '{}'", path.display()))?;
    let known = in_store(&path)
        || is_elf(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    Ok(known.then_some(path))
}

fn in_store(program: &Path) -> bool {
    STORES.iter().any(|store| program.starts_with(store))
}

/// Returns a program and what it needs to be loaded, with those of `more` that are there: folders of the
/// prefix that it was installed to, and of `/usr`.
pub fn loaded(program: &Path, more: &[&str]) -> Vec<Seen> {
    let mut files = libraries(program);
    if in_store(program) && files.is_empty() {
        files.extend(STORES.iter().map(Path::new).filter(|s| s.is_dir()).map(Seen::as_it_is));
    }
    let own = program.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    let mut places: Vec<PathBuf> = [Path::new("/usr"), own]
        .iter()
        .flat_map(|prefix| more.iter().map(move |dir| prefix.join(dir)))
        .collect();
    places.extend(["lib", "lib64"].map(|dir| own.join(dir)));
    places.extend([program.to_owned(), "/etc/ld.so.cache".into()]);
    for place in places {
        let host = |seen: &Seen| place.starts_with(&seen.host);
        if place.exists() && !files.iter().any(host) {
            files.push(Seen::as_it_is(&place));
        }
    }
    files
}

/// Returns what a program needs to be loaded.
pub fn libraries(program: &Path) -> Vec<Seen> {
    if !is_dynamic(program) {
        return Vec::new();
    }
    let all = LIBRARIES.iter().map(|inside| Path::new("/").join(inside));
    all.filter(|host| host.is_dir()).map(|host| Seen::as_it_is(&host)).collect()
}

impl Seen {
    /// Something of the system's, seen to read where it lies.
    pub fn as_it_is(host: &Path) -> Self {
        let inside = host.strip_prefix("/").unwrap_or(host).to_string_lossy().into_owned();
        Self { host: host.to_owned(), inside, writable: false }
    }
}

/// Takes every capability from what this process becomes, and makes it another user.
pub(crate) fn drop_powers(user: Option<Uid>) -> nix::Result<()> {
    for number in 0..64 {
        // SAFETY: it takes a number, and one that no capability has is refused.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(done) {
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let Some(user) = user else { return Ok(()) };
    let group = Gid::from_raw(user.as_raw());
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)
}

/// Takes from the calling process what it does not need: new privileges, and a dump of its memory, in
/// which a guest's may be.
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
    match change(Some(&file.host), &to, MsFlags::MS_BIND) {
        // Something lies below it that an ordinary user may not uncover: it comes along, protected.
        Err(Errno::EINVAL) if meta.is_dir() && !file.writable => {
            return change(Some(&file.host), &to, MsFlags::MS_BIND | MsFlags::MS_REC)
                .and_then(|()| protect_all(&to))
                .context("it cannot be bound with what lies below it");
        }
        bound => bound.context("it cannot be bound")?,
    }
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

/// Makes a mount and all below it readable only (mount_setattr(2), of Linux 5.12).
fn protect_all(to: &Path) -> nix::Result<()> {
    let path = CString::new(to.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let wanted = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let size = size_of::<libc::mount_attr>();
    // SAFETY: path and attributes live through the call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const wanted,
            size,
        )
    };
    Errno::result(done).map(drop)
}

/// Makes a folder the root and forgets the one before (pivot_root(2)); `devices`, there are some of
/// its own in it.
fn turn_round(root: &Path, devices: bool) -> nix::Result<()> {
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let mut flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
    if !devices {
        flags |= MsFlags::MS_NODEV;
    }
    change(None, "/", flags)
}

/// Says why this process cannot be the kind of root that Firecracker's jailer needs, if it cannot.
pub fn weak_root() -> Result<()> {
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
