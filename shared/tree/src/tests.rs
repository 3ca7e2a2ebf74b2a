use super::*;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::mkdirat,
};
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

/// Makes `depth` directories below one another, each with a file, a link to `to` and an empty directory.
fn nest(root: &Path, depth: usize, to: &Path) {
    fs::create_dir_all(root).unwrap();
    let mut fd = openat(AT_FDCWD, root, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&fd, "d", Mode::S_IRWXU).unwrap();
        mkdirat(&fd, "empty", Mode::S_IRWXU).unwrap();
        nix::unistd::symlinkat(to, &fd, "link").unwrap();
        let file = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(&fd, ".gone-1", file, Mode::S_IRWXU).unwrap();
        fd = openat(&fd, "d", DIRECTORY, Mode::empty()).unwrap();
    }
}

/// Something outside that has to stay.
fn outside(dir: &Path) -> PathBuf {
    let outside = dir.join("outside");
    fs::create_dir_all(outside.join("in")).unwrap();
    fs::write(outside.join("in/file"), "mine").unwrap();
    outside
}

#[test]
fn a_tree_goes_however_deep_it_is_and_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let outside = outside(dir.path());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
    for depth in [0, 1, HELD - 1, HELD, HELD + 1, HELD + 2, 1200] {
        let root = dir.path().join(format!("deep-{depth}"));
        nest(&root, depth, &outside);
        nest(&root.join("d/beside"), depth.min(60), &outside);
        remove_tree(&root).unwrap_or_else(|error| panic!("{depth}: {error}"));
        assert!(!root.exists(), "{depth}");
    }
    assert_eq!(fs::read_to_string(outside.join("in/file")).unwrap(), "mine", "no link is followed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside");
}

#[test]
fn many_directories_beside_one_another_below_a_deep_one_go_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut root = dir.path().join("wide");
    for _ in 0..HELD + 5 {
        root.push("d");
    }
    for at in 0..500 {
        // The names that directories are moved up to are taken already.
        fs::create_dir_all(root.join(format!(".gone-{at}/a/b"))).unwrap();
        fs::write(root.join(format!(".gone-{at}/a/b/file")), "").unwrap();
        fs::create_dir_all(root.join(format!("x{at}/.gone-{at}/c"))).unwrap();
    }
    remove_tree(&dir.path().join("wide")).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_link_a_file_and_an_empty_directory_go_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let outside = outside(dir.path());
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(&outside, at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("empty")).unwrap();
    for name in ["link", "dangling", "file", "empty"] {
        remove_tree(&at(name)).unwrap();
        assert!(fs::symlink_metadata(at(name)).is_err(), "{name}");
        let again = remove_tree(&at(name)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::NotFound);
        remove_tree_if_there(&at(name)).unwrap();
    }
    assert!(outside.join("in/file").exists());
    let below_a_file = remove_tree(&outside.join("in/file/x")).unwrap_err();
    assert_eq!(below_a_file.kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn what_cannot_go_is_told() {
    let error = remove_tree(Path::new("/proc/self/fdinfo")).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::NotFound, "{error}");
}

/// Modes bind root nowhere, so this needs another user.
#[test]
fn directories_closed_to_their_owner_go_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("closed");
    nest(&root, HELD + 4, Path::new("/nowhere"));
    let mut paths = vec![root.clone()];
    for _ in 0..HELD + 4 {
        paths.push(paths[paths.len() - 1].join("d"));
    }
    let is_root = nix::unistd::geteuid().is_root();
    let nobody = nix::unistd::Uid::from_raw(65534);
    for path in paths.iter().rev() {
        if is_root {
            nix::unistd::chown(path, Some(nobody), None).unwrap();
        }
        let mode = if path.ends_with("closed") { 0o500 } else { 0 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    if is_root {
        nix::unistd::chown(dir.path(), Some(nobody), None).unwrap();
        nix::unistd::seteuid(nobody).unwrap();
        // What the change of user took from this process: a look at its own '/proc'.
        nix::sys::prctl::set_dumpable(true).unwrap();
    }
    let removed = remove_tree(&root);
    if is_root {
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(0)).unwrap();
    }
    removed.unwrap();
    assert!(fs::symlink_metadata(&root).is_err());
}

/// Somebody puts links in the place of directories while they are removed.
#[test]
fn a_race_for_links_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let outside = outside(dir.path());
    let over = std::sync::atomic::AtomicBool::new(false);
    let root = dir.path().join("raced");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let (at, away) = (root.join("d/d"), root.join("d/away"));
                let _ = fs::rename(&at, &away);
                let _ = std::os::unix::fs::symlink(&outside, &at);
                let _ = fs::rename(&away, &at);
            }
        });
        for _ in 0..5 {
            let new = dir.path().join("new");
            nest(&new, 40, &outside);
            let _ = fs::rename(&new, &root);
            // It may be told that somebody writes there; what is outside stays.
            for path in [&root, &root, &root, &new] {
                let _ = remove_tree_if_there(path);
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_to_string(outside.join("in/file")).unwrap(), "mine");
}
