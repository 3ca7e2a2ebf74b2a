//! One program under strace(1): what it changes, and what becomes of it if it is killed or refused
//! at one of these points.

use banger_tests::{Sandbox, program};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// System calls that change something others see: files, folders, locks, processes, sockets.
const CHANGES: &str = "openat,creat,mkdir,mkdirat,rmdir,rename,renameat,renameat2,unlink,unlinkat,\
link,linkat,symlink,symlinkat,mknod,mknodat,write,writev,pwrite64,pwritev,sendfile,copy_file_range,\
ftruncate,fallocate,fsync,fdatasync,syncfs,chmod,fchmod,fchmodat,flock,bind,connect,clone,clone3,\
vfork,kill,unshare,setns,mount";

/// Calls that matter whatever path they name.
const PATHLESS: &[&str] = &["clone", "clone3", "vfork", "kill", "unshare", "setns", "mount"];

/// A moment in the life of a program: before its `when`th call of `call` on one thread.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Point {
    pub(crate) program: String,
    pub(crate) call: String,
    pub(crate) when: usize,
    /// What it is about: the path below the state, numbers replaced.
    pub(crate) class: String,
}

/// Programs of which some are run under strace. They find each other as installed ones do.
pub(crate) struct Stage {
    dir: PathBuf,
    log: PathBuf,
    state: PathBuf,
}

impl Stage {
    /// Makes the folder of programs in a sandbox.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let dir = sandbox.dir().join("staged");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a folder");
        let built = program("banger");
        let built = built.parent().expect("the folder of the build");
        for entry in fs::read_dir(built).expect("the programs").flatten() {
            let name = entry.file_name();
            let plain = name.to_str().is_some_and(|n| n.starts_with("banger") && !n.contains('.'));
            if plain && entry.path().is_file() {
                // A hard link, since a program looks for others beside its own true place.
                let to = dir.join(&name);
                let linked = fs::hard_link(entry.path(), &to);
                linked.or_else(|_| fs::copy(entry.path(), &to).map(drop)).expect("a program");
            }
        }
        std::os::unix::fs::symlink(built.join("guest"), dir.join("guest")).expect("a link");
        Self { dir, log: sandbox.dir().join("strace.log"), state: sandbox.state().to_owned() }
    }

    /// Returns a program of the stage.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Has a program run under strace from now on, with `words` for it. Only the program itself is
    /// traced, not what it runs.
    pub(crate) fn trace(&self, name: &str, words: &str) {
        self.plain(name);
        let _ = fs::remove_file(&self.log);
        let real = self.dir.join(format!("{name}.real"));
        let path = self.dir.join(name);
        fs::rename(&path, &real).expect("a program moved");
        // The tracer is a process apart, so that the program keeps its number and its parent; it
        // holds none of the program's pipes.
        let script = format!(
            "#!/bin/sh\nexec strace -D -q -q -f -b execve -y -s 0 -e trace={CHANGES} {words} -o {} {} \"$@\"\n",
            self.log.display(),
            real.display()
        );
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }

    /// Has it run by itself again.
    pub(crate) fn plain(&self, name: &str) {
        let real = self.dir.join(format!("{name}.real"));
        if real.exists() {
            fs::rename(&real, self.dir.join(name)).expect("a program in its place");
        }
    }

    /// Returns all points of the last traced run, in order.
    pub(crate) fn points(&self, program: &str) -> Vec<Point> {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut points = Vec::new();
        for line in self.lines() {
            let Some((thread, call, rest)) = split(&line) else { continue };
            let when = counts.entry((thread.to_owned(), call.to_owned())).or_default();
            *when += 1;
            if let Some(class) = self.class(call, rest) {
                points.push(Point {
                    program: program.to_owned(),
                    call: call.to_owned(),
                    when: *when,
                    class,
                });
            }
        }
        points
    }

    /// Says whether the last traced run was disturbed.
    pub(crate) fn was_hit(&self) -> bool {
        let signs = ["+++ killed by SIGKILL +++", "(INJECTED)"];
        self.lines().iter().any(|line| signs.iter().any(|sign| line.contains(sign)))
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Returns the class of a call's subject; nothing for one that changes nothing of ours.
    fn class(&self, call: &str, rest: &str) -> Option<String> {
        if PATHLESS.contains(&call) {
            let thread = rest.contains("CLONE_THREAD");
            return (!thread).then(|| "process".to_owned());
        }
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"];
        if call == "openat" && !writes.iter().any(|flag| rest.contains(flag)) {
            return None;
        }
        let root = self.state.display().to_string();
        let begin = rest.find(&root)?;
        let path = &rest[begin + root.len()..];
        let path = &path[..path.find(['"', '>', ','])?];
        Some(without_numbers(path.trim_start_matches('/')))
    }
}

/// Splits a line of strace's into thread, call and what follows.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (thread, rest) = line.trim_start().split_once(' ')?;
    let rest = rest.trim_start();
    // The second half of a call that was reported in two.
    if rest.starts_with('<') || rest.starts_with("+++") || rest.starts_with("---") {
        return None;
    }
    let (call, rest) = rest.split_once('(')?;
    Some((thread, call, rest))
}

/// Digests and numbers of processes differ from run to run.
fn without_numbers(path: &str) -> String {
    let mut words = String::new();
    for part in path.split_inclusive(['/', '.', '-']) {
        let end = part.trim_end_matches(['/', '.', '-']);
        let digest = end.len() == 64 && end.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
        words.push_str(if digest || number { "#" } else { end });
        words.push_str(&part[end.len()..]);
    }
    words
}

/// Returns one point of each class, in order, at most `most` of them spread over all.
pub(crate) fn one_of_each(points: &[Point], most: usize) -> Vec<Point> {
    let mut seen = BTreeSet::new();
    let firsts: Vec<Point> = points
        .iter()
        .filter(|point| {
            seen.insert((point.program.clone(), point.call.clone(), point.class.clone()))
        })
        .cloned()
        .collect();
    if firsts.len() <= most {
        return firsts;
    }
    (0..most).map(|n| firsts[n * firsts.len() / most].clone()).collect()
}

/// Returns the path of everything below a folder, sizes of files with it, for comparing two states.
pub(crate) fn tree(root: &Path) -> BTreeSet<String> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("inside").display().to_string();
            if path.is_dir() {
                walk(root, &path, found);
                found.insert(format!("{name}/"));
            } else {
                found.insert(name);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

#[test]
fn points_are_told_apart_by_what_they_are_about() {
    assert_eq!(without_numbers("vms/.new-web-12/.spec.json.12.0"), "vms/.new-web-#/.spec.json.#.#");
    let digest = "0a".repeat(32);
    assert_eq!(without_numbers(&format!("cache/partial/{digest}.7-1")), "cache/partial/#.#-#");
    assert_eq!(split("12 mkdir(\"/x\", 0700) = 0"), Some(("12", "mkdir", "\"/x\", 0700) = 0")));
    assert_eq!(split("12 +++ exited with 0 +++"), None);
    assert_eq!(split("12 <... write resumed>) = 1"), None);
}
