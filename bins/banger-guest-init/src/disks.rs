//! From four block devices to one root.

use crate::{copy, grow, home::Home, homes, reach, say};
use banger_doc::{Context, Error, Guest, Result};
use banger_guest::place;
use banger_tree::remove_tree_if_there;
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    mount::{MsFlags, mount},
    sys::{
        stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat},
        statfs::{OVERLAYFS_SUPER_MAGIC, statfs},
    },
    unistd::{UnlinkatFlags, chdir, chroot, unlinkat},
};
use std::{
    fs,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where the new root is made, in the initramfs.
const ROOT: &str = "/sysroot";
/// How long a disk may take to appear.
const DISK_LIMIT: Duration = Duration::from_secs(20);
/// Notes on a directory of a disk of ours that it has got what the image has there. An extended
/// attribute, since a file would be seen by the user.
const SEEDED: &str = "trusted.banger.seeded";
/// What is never taken over from the image's `/run`: it would say that this machine is a container.
const NOT_OF_RUN: &[&str] = &["banger", ".containerenv"];

/// Where the image's disk is mounted until its root is entered.
const BASE: &str = "/disk/base";

const NONE: Option<&str> = None;

/// What copies of the image's files go to, and how whoever has the VM makes it larger.
#[derive(Clone, Copy, Debug)]
struct Room<'a> {
    name: &'static str,
    option: &'static str,
    vm: &'a str,
}

impl<'a> Room<'a> {
    fn memory(guest: &'a Guest) -> Self {
        Self { name: "memory", option: "--memory", vm: &guest.hostname }
    }

    fn work(guest: &'a Guest) -> Self {
        Self { name: "work disk", option: "--disk-size", vm: &guest.hostname }
    }

    fn overlay(guest: &'a Guest) -> Self {
        Self { name: "overlay disk", option: "--overlay-size", vm: &guest.hostname }
    }

    /// Says that so many bytes are too many for it.
    fn is_less(self, path: &str, wanted: u64, has: u64) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let Self { name, option, vm } = self;
        format!(
            "what the image has in '{path}' takes {} MiB, more than the {} MiB of the {name}; \
             'banger vm set {option} SIZE {vm}' makes it larger",
            mib(wanted),
            mib(has)
        )
    }
}

/// Returns the path a place of the new root has in the initramfs.
pub(crate) fn in_root(path: &str) -> PathBuf {
    PathBuf::from(format!("{ROOT}{path}"))
}

fn mount_at(source: &str, place: &str, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(source), place, Some(kind), flags, Some(options).filter(|text| !text.is_empty()))
        .with_context(|| format!("cannot mount '{source}' at '{place}'"))
}

fn make_dir(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("cannot make '{}'", path.display()))
}

/// Returns the device a document names, once it is there.
fn device(name: &str) -> Result<String> {
    let path = if name.starts_with('/') { name.to_owned() } else { format!("/dev/{name}") };
    let end = Instant::now() + DISK_LIMIT;
    while !Path::new(&path).exists() {
        if Instant::now() >= end {
            let found: Vec<String> = fs::read_dir("/sys/class/block")
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            return Err(Error::failed(format!(
                "no disk '{path}' after {} s; there are: {}",
                DISK_LIMIT.as_secs(),
                found.join(" ")
            )));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(path)
}

/// Mounts the disks and the root over them, with the file systems every Linux has.
pub(crate) fn make_root(guest: &Guest) -> Result<()> {
    for dir in [BASE, "/disk/overlay", "/disk/work", ROOT] {
        make_dir(dir)?;
    }
    let base = device(&guest.disks.base)?;
    mount_at(&base, BASE, "ext4", MsFlags::MS_RDONLY, "noload")?;
    for (name, place) in
        [(&guest.disks.overlay, "/disk/overlay"), (&guest.disks.work, "/disk/work")]
    {
        let device = device(name)?;
        // A sparse disk is zero where nothing was written: filling in inode tables would only cost.
        mount_at(&device, place, "ext4", MsFlags::empty(), "noinit_itable")?;
        say::or_warn(grow::to_device(place, &device));
    }
    let upper = Path::new("/disk/overlay/upper");
    if !upper.exists() {
        make_dir("/disk/overlay/work")?;
        // The root directory is the upper one: it has to look like the image's. Made under another
        // name, so that it is never seen half made.
        let new = Path::new("/disk/overlay/upper.new");
        make_dir(new)?;
        say::or_warn(copy::attributes(Path::new(BASE), new));
        fs::rename(new, upper).context("cannot make the upper layer of the root")?;
    }
    let options = "lowerdir=/disk/base,upperdir=/disk/overlay/upper,workdir=/disk/overlay/work,\
        redirect_dir=on,index=on,xino=auto,metacopy=off";
    mount_at("overlay", ROOT, "overlay", MsFlags::empty(), options)?;

    let secure = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_below("proc", "proc", secure, "")?;
    mount_below("sysfs", "sys", secure, "")?;
    mount_below("devtmpfs", "dev", MsFlags::MS_NOSUID, "mode=0755")
}

/// Mounts a file system at a directory right below the new root. What else has that name there, a link
/// of a hostile image's for example, gives way.
fn mount_below(kind: &str, name: &str, flags: MsFlags, options: &str) -> Result<()> {
    let failed = || format!("cannot make '/{name}' in the image's root");
    let root = Dir::open(ROOT, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty())
        .with_context(failed)?;
    let found = fstatat(&root, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    if found.is_ok_and(|stat| !is_dir(&stat)) {
        unlinkat(&root, name, UnlinkatFlags::NoRemoveDir).with_context(failed)?;
    }
    if found.is_err() || found.is_ok_and(|stat| !is_dir(&stat)) {
        match mkdirat(&root, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno).with_context(failed),
        }
    }
    let flags_of = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let dir: OwnedFd = openat(&root, name, flags_of, Mode::empty()).with_context(failed)?;
    let place = format!("/proc/self/fd/{}", dir.as_raw_fd());
    mount_at(kind, &place, kind, flags, options).with_context(failed)
}

fn is_dir(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// Mounts `/run` in the new root, with what the image has there and the folder of the guest programs.
pub(crate) fn mount_run(guest: &Guest) -> Result<()> {
    mount_below("tmpfs", "run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755,size=25%")?;
    let place = in_root("/run");
    take_over(BASE, "/run", &place, Room::memory(guest))?;
    let lock = place.join("lock");
    if fs::symlink_metadata(&lock).is_err() {
        make_dir(&lock)?;
        set_mode(&lock, 0o1777)?;
    }
    let is_link = fs::read_link(Path::new(BASE).join("run")).is_ok();
    let old = reach::existing(Path::new(BASE), "/run").filter(|old| is_link && old.is_dir());
    if let Some(old) = old {
        // The link has given way; what it led to stays the same directory.
        let inside = old.strip_prefix(BASE).unwrap_or(&old);
        let other = reach::directory(Path::new(ROOT), &inside.to_string_lossy(), 0o755)?;
        bind(&place.to_string_lossy(), &other.to_string_lossy())?;
    }
    let run = in_root(place::RUN);
    make_dir(&run)?;
    bind("/banger", &run.to_string_lossy())
}

/// Copies what the image, whose disk is mounted at `base`, has at a place into what was mounted over it, which
/// is memory.
fn take_over(base: &str, path: &str, place: &Path, room: Room<'_>) -> Result<()> {
    match reach::existing(Path::new(base), path).filter(|from| from.is_dir()) {
        Some(from) => fill(path, &from, place, NOT_OF_RUN, room).map(drop),
        None => Ok(()),
    }
}

/// Copies what the image has at a place; returns how many files there were.
fn fill(path: &str, from: &Path, to: &Path, except: &[&str], room: Room<'_>) -> Result<usize> {
    copy::tree(from, to, except).map_err(|error| {
        if !copy::is_full(&error) {
            return error;
        }
        let has =
            nix::sys::statvfs::statvfs(to).map_or(0, |stat| stat.blocks() * stat.fragment_size());
        Error::failed(room.is_less(path, copy::size(from), has))
    })
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of '{}'", path.display()))
}

/// Moves the disks to where the end of the guest, and whoever looks for them, finds them.
pub(crate) fn keep_disks() -> Result<()> {
    for (from, to) in
        [(BASE, place::BASE), ("/disk/overlay", place::OVERLAY), ("/disk/work", place::WORK)]
    {
        let to = in_root(to);
        make_dir(&to)?;
        mount(Some(from), &to, NONE, MsFlags::MS_MOVE, NONE)
            .with_context(|| format!("cannot move '{from}' to '{}'", to.display()))?;
    }
    let dir = in_root(place::RUN).join("disk");
    let dir = fs::File::open(&dir).with_context(|| format!("cannot open '{}'", dir.display()))?;
    // Files of the upper layer are not for everybody by this way.
    fchmod(&dir, Mode::S_IRWXU).context("cannot close the folder of the disks")
}

/// Makes the new root `/`.
pub(crate) fn enter_root() -> Result<()> {
    let enter = || -> nix::Result<()> {
        chdir(ROOT)?;
        mount(Some("."), "/", NONE, MsFlags::MS_MOVE, NONE)?;
        chroot(".")?;
        chdir("/")
    };
    enter().context("cannot enter the image's root")
}

/// Says whose the guest is, once its tree is `/`.
pub(crate) fn home(guest: &Guest) -> Home {
    Home::choose(guest, copy::has_attribute(Path::new(place::WORK), SEEDED))
}

/// Mounts the rest, in the image's own tree. Each is tried, whatever came of the others; only a copy of
/// what the image has that does not become whole ends the boot.
pub(crate) fn second_mounts(guest: &Guest, home: &Home) -> Result<()> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    say::or_warn(make_dir("/dev/pts"));
    say::or_warn(mount_at("devpts", "/dev/pts", "devpts", plain, "gid=5,mode=620,ptmxmode=666"));
    say::or_warn(make_dir("/dev/shm"));
    let shm = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if say::or_warn(mount_at("tmpfs", "/dev/shm", "tmpfs", shm, "mode=1777")).is_some() {
        take_over(place::BASE, "/dev/shm", Path::new("/dev/shm"), Room::memory(guest))?;
        // An image that was made in a container has one that only root may use.
        say::or_warn(set_mode(Path::new("/dev/shm"), 0o1777));
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, Path::new("/dev").join(name));
    }
    if !Path::new("/tmp").is_dir()
        && let Some(tmp) = say::or_warn(reach::directory(Path::new("/"), "/tmp", 0o755))
    {
        say::or_warn(set_mode(&tmp, 0o1777));
    }
    work(home, Room::work(guest))?;
    // An image of one program needs no engine's places.
    let base = Path::new(place::BASE);
    if ["/etc", "/var"].iter().any(|path| reach::existing(base, path).is_some()) {
        for path in place::DIRECT {
            direct(path, Room::overlay(guest))?;
        }
    }
    // What people have made of their homes ends no boot.
    for place in homes::places(Path::new("/")) {
        if is_overlay(&place) {
            say::or_warn(off_the_overlay(&place, Room::overlay(guest)));
        }
    }
    Ok(())
}

/// Makes the work disk the user's home or what stands in for it, with what the image has there.
fn work(home: &Home, room: Room<'_>) -> Result<()> {
    let disk = Path::new(place::WORK);
    let is_new = !copy::has_attribute(disk, SEEDED);
    let Some(real) = say::or_warn(home.make()) else { return Ok(()) };
    seed(&real, disk, room)?;
    if is_new {
        say::or_warn(home.give(disk));
    }
    say::or_warn(bind(place::WORK, &real.to_string_lossy()));
    Ok(())
}

/// Binds a directory of the overlay disk itself, so that it is no overlayfs.
fn direct(path: &str, room: Room<'_>) -> Result<()> {
    let Some(place) = say::or_warn(reach::directory(Path::new("/"), path, 0o755)) else {
        return Ok(());
    };
    // A link may lead to another disk, where nothing has to be done.
    if !is_overlay(&place) {
        return Ok(());
    }
    let Some(own) = say::or_warn(own_directory(&place)) else { return Ok(()) };
    seed(&place, &own, room)?;
    say::or_warn(bind(&own.to_string_lossy(), &place.to_string_lossy()));
    Ok(())
}

/// The same for a place that is there already and that a user fills: what cannot be copied stays where it is.
fn off_the_overlay(place: &Path, room: Room<'_>) -> Result<()> {
    let own = own_directory(place)?;
    seed(place, &own, room).inspect_err(|_| {
        say::or_warn(remove(&own));
    })?;
    bind(&own.to_string_lossy(), &place.to_string_lossy())
}

/// Returns the directory of the overlay disk that lies at a place of the root. No link in it leads out.
fn own_directory(place: &Path) -> Result<PathBuf> {
    let all = Path::new(place::OVERLAY).join("direct");
    make_dir(&all)?;
    reach::directory(&all, &place.to_string_lossy(), 0o755)
}

fn is_overlay(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == OVERLAYFS_SUPER_MAGIC)
}

fn bind(from: &str, to: &str) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("cannot bind '{from}' to '{to}'"))
}

fn remove(path: &Path) -> Result<()> {
    remove_tree_if_there(path).with_context(|| format!("cannot remove '{}'", path.display()))
}

/// Copies what the image has into a directory of a disk of ours, on the first boot only. Killed before
/// the mark is set, or failed, the next boot begins anew.
fn seed(from: &Path, to: &Path, room: Room<'_>) -> Result<()> {
    if copy::has_attribute(to, SEEDED) {
        return Ok(());
    }
    for entry in
        fs::read_dir(to).with_context(|| format!("cannot list '{}'", to.display()))?.flatten()
    {
        say::or_warn(remove(&entry.path()));
    }
    if fill(&from.to_string_lossy(), from, to, &[], room)? > 0 {
        // What was copied is on the disk before the mark is.
        let dir = fs::File::open(to).with_context(|| format!("cannot open '{}'", to.display()))?;
        nix::unistd::syncfs(&dir).with_context(|| format!("cannot sync '{}'", to.display()))?;
    }
    copy::set_attribute(to, SEEDED, b"1")
}

/// Mounts the modules' disk where `modprobe` looks.
pub(crate) fn kernel_modules(name: &str) -> Result<()> {
    let kernel = nix::sys::utsname::uname().context("cannot tell the running kernel")?;
    let path = Path::new("/lib/modules").join(kernel.release());
    let dir = reach::directory(Path::new("/"), &path.to_string_lossy(), 0o755)?;
    let place = dir.to_string_lossy().into_owned();
    let device = device(name)?;
    mount_at(&device, &place, "ext4", MsFlags::MS_RDONLY, "noload")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_disk_larger_can_be_typed() {
        let room = Room { name: "work disk", option: "--disk-size", vm: "web" };
        assert_eq!(
            room.is_less("/root", (24 << 20) + 1, 16 << 20),
            "what the image has in '/root' takes 25 MiB, more than the 16 MiB of the work disk; \
             'banger vm set --disk-size SIZE web' makes it larger"
        );
    }
}
