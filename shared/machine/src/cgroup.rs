//! Control groups of a jailed VMM: what the jailer is asked for, and taking it away afterwards
//! (cgroups(7)).

use banger_doc::{Error, Result};
use nix::{errno::Errno, unistd::AccessFlags};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The group that all of banger's are in.
const PARENT: &str = "banger";
/// Threads of Firecracker besides those of the guest's processors, with room to spare.
const THREADS: u32 = 32;
/// Memory that Firecracker and the cache of its disks may take besides the guest's.
const LEAST_EXTRA_MIB: u64 = 256;
/// How often a group is tried that a dying process is still in, 5 ms apart.
const TRIES: u32 = 100;
/// How long a group nobody is in may be just being made: the jailer fills it within milliseconds.
const YOUNG: Duration = Duration::from_mins(1);

/// A mounted hierarchy.
#[derive(Debug, Eq, PartialEq)]
struct Hierarchy {
    place: PathBuf,
    /// The controllers a hierarchy of version 1 has; `None`, it is of version 2.
    controllers: Option<Vec<String>>,
}

/// Returns the jailer's words for the limits of a VM, or why it gets none.
pub(crate) fn words(id: &str, vcpu: u32, memory_mib: u64) -> Result<Vec<String>, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    let found = hierarchies(&mounts);
    let (version, places) = choose(&found, |place| {
        fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default()
    })
    .ok_or("no hierarchy has the controllers 'memory' and 'pids'")?;
    for place in &places {
        nix::unistd::access(*place, AccessFlags::W_OK)
            .map_err(|errno| format!("'{}': {}", place.display(), errno.desc()))?;
        // What a killed supervisor left would be used again with its old limits.
        remove(&place.join(PARENT).join(id)).map_err(|errno| errno.desc().to_owned())?;
    }
    Ok(limits(version, vcpu, memory_mib))
}

fn limits(version: u8, vcpu: u32, memory_mib: u64) -> Vec<String> {
    let bytes = (memory_mib + (memory_mib / 8).max(LEAST_EXTRA_MIB)) << 20;
    let memory = if version == 1 { "memory.limit_in_bytes" } else { "memory.max" };
    let mut words = vec!["--cgroup-version".to_owned(), version.to_string()];
    words.extend(["--parent-cgroup", PARENT].map(String::from));
    words.extend(["--cgroup".to_owned(), format!("{memory}={bytes}")]);
    words.extend(["--cgroup".to_owned(), format!("pids.max={}", THREADS + vcpu)]);
    words
}

/// Finds the hierarchies that have both controllers: those of version 1, else the one of version 2.
fn choose(found: &[Hierarchy], controllers: impl Fn(&Path) -> String) -> Option<(u8, Vec<&Path>)> {
    let with = |wanted: &str| {
        let has = |one: &&Hierarchy| {
            one.controllers.as_ref().is_some_and(|all| all.iter().any(|name| name == wanted))
        };
        found.iter().find(has).map(|one| one.place.as_path())
    };
    if let (Some(memory), Some(pids)) = (with("memory"), with("pids")) {
        return Some((1, vec![memory, pids]));
    }
    found.iter().filter(|one| one.controllers.is_none()).find_map(|one| {
        let text = controllers(&one.place);
        let has = |wanted| text.split_whitespace().any(|name| name == wanted);
        (has("memory") && has("pids")).then(|| (2, vec![one.place.as_path()]))
    })
}

/// Reads proc_pid_mounts(5).
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
            let controllers = match kind {
                "cgroup" => Some(options.split(',').map(String::from).collect()),
                "cgroup2" => None,
                _ => return None,
            };
            Some(Hierarchy { place: place.into(), controllers })
        })
        .collect()
}

/// Returns the control groups of a VM that are there.
pub fn groups(id: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let all = hierarchies(&mounts).into_iter().map(|one| one.place.join(PARENT).join(id));
    all.filter(|group| group.is_dir()).collect()
}

/// Returns the groups that are named as those of VMs are, that nobody is in, and that are of none of
/// `known`: left by a VM that is gone. One that may be just being made is none.
pub fn strays(known: &[String]) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let parents = hierarchies(&mounts).into_iter().map(|one| one.place.join(PARENT));
    let groups = parents.flat_map(|parent| {
        fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path())
    });
    groups.filter(|group| is_stray(group, known)).collect()
}

fn is_stray(group: &Path, known: &[String]) -> bool {
    let name = group.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !named || known.iter().any(|id| id == name) {
        return false;
    }
    let age = fs::metadata(group).and_then(|meta| meta.modified()).ok();
    let old = age.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > YOUNG);
    let inside = fs::read_to_string(group.join("cgroup.procs"));
    old && inside.is_ok_and(|inside| inside.trim().is_empty())
}

/// Removes a group; one that somebody stays in stays as well, which is an error.
pub fn remove_group(group: &Path) -> Result<()> {
    remove(group).map_err(|errno| {
        Error::failed(format!("cannot remove '{}'", group.display())).because(errno)
    })
}

/// Removes the groups of a VM that does not run, wherever there are any. All are tried.
pub fn forget(id: &str) -> Result<()> {
    let mut failed = Ok(());
    for group in groups(id) {
        if let Err(error) = remove_group(&group) {
            failed = Err(error);
        }
    }
    failed
}

/// Removes a group, waiting a moment for what is dying in it; one that is not there is fine.
fn remove(group: &Path) -> nix::Result<()> {
    for _ in 0..TRIES {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::ENOENT | Errno::ENOTDIR => return Ok(()),
                Errno::EBUSY => thread::sleep(Duration::from_millis(5)),
                errno => return Err(errno),
            },
        }
    }
    Err(Errno::EBUSY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
        time::Instant,
    };

    const V1: &str = "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/pids cgroup rw,pids 0 0\n\
                      none /c/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\n";

    #[test]
    fn the_version_is_that_of_the_controllers() {
        let found = hierarchies(V1);
        let (version, places) = choose(&found, |_| String::new()).unwrap();
        assert_eq!((version, places), (1, vec![Path::new("/c/memory"), Path::new("/c/pids")]));
        let found = hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
        assert_eq!(choose(&found, |_| "cpuset cpu pids".into()), None);
        let (version, places) = choose(&found, |_| "cpu memory pids".into()).unwrap();
        assert_eq!((version, places), (2, vec![Path::new("/sys/fs/cgroup")]));
    }

    #[test]
    fn limits_leave_room() {
        let words = limits(1, 2, 512).join(" ");
        assert_eq!(
            words,
            "--cgroup-version 1 --parent-cgroup banger --cgroup \
             memory.limit_in_bytes=805306368 --cgroup pids.max=34"
        );
        assert!(limits(2, 1, 8192).join(" ").contains("memory.max=9663676416"));
    }

    #[test]
    fn only_an_old_empty_group_of_no_known_vm_is_a_stray() {
        let dir = tempfile::tempdir().unwrap();
        let group = |name: &str, inside: &str, age: u64| {
            let group = dir.path().join(name);
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cgroup.procs"), inside).unwrap();
            let made = std::time::SystemTime::now() - Duration::from_secs(age);
            fs::File::open(&group).unwrap().set_modified(made).unwrap();
            group
        };
        let id = |digit: char| digit.to_string().repeat(32);
        let known = [id('a')];
        assert!(is_stray(&group(&id('b'), "", 90), &known));
        assert!(!is_stray(&group(&id('a'), "", 90), &known), "a VM's");
        assert!(!is_stray(&group(&id('c'), "1\n", 90), &known), "somebody is in it");
        assert!(!is_stray(&group(&id('d'), "", 5), &known), "it may be just being made");
        assert!(!is_stray(&group("user.slice", "", 90), &known), "not banger's");
    }

    #[test]
    fn a_group_that_is_not_there_is_forgotten() {
        assert!(forget("no-such-machine-of-bangers").is_ok());
    }

    /// Run by itself in a guest whose control groups are of version 2, with the real Firecracker and
    /// its jailer in the folder that `BANGER_VMM` names.
    #[test]
    fn the_real_jailer_limits_a_vm_in_version_2() {
        let Some(programs) = std::env::var_os("BANGER_VMM").map(PathBuf::from) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: this is for a guest");
            return;
        };
        let id = "0123456789abcdef0123456789abcdef";
        let limits = words(id, 2, 64).unwrap();
        assert_eq!(limits[..2], ["--cgroup-version", "2"]);
        let dir = tempfile::tempdir().unwrap();
        let mut jailer = Command::new(programs.join("jailer"));
        jailer.args(["--id", id, "--uid", "1879048193", "--gid", "1879048193"]);
        jailer.arg("--exec-file").arg(programs.join("firecracker"));
        jailer.arg("--chroot-base-dir").arg(dir.path()).args(limits);
        jailer.args(["--", "--api-sock", "/api.sock"]);
        jailer.stdin(Stdio::null()).stdout(Stdio::null());
        let mut vmm = jailer.spawn().unwrap();
        let socket = dir.path().join("firecracker").join(id).join("root/api.sock");
        let end = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < end && vmm.try_wait().unwrap().is_none(), "no Firecracker");
            thread::sleep(Duration::from_millis(20));
        }
        let group = groups(id).pop().unwrap();
        let place = fs::read_to_string(format!("/proc/{}/cgroup", vmm.id())).unwrap();
        assert!(place.contains(&format!("0::/{PARENT}/{id}\n")), "{place}");
        let limit = |name| fs::read_to_string(group.join(name)).unwrap().trim().to_owned();
        assert_eq!(limit("memory.max"), ((64_u64 + 256) << 20).to_string());
        assert_eq!(limit("pids.max"), "34");
        // A VM that runs keeps its group; one that has ended leaves none.
        assert!(forget(id).is_err());
        vmm.kill().unwrap();
        vmm.wait().unwrap();
        forget(id).unwrap();
        assert_eq!(groups(id), Vec::<PathBuf>::new());
        let _ = writeln!(std::io::stdout(), "version 2 was tried");
    }
}
