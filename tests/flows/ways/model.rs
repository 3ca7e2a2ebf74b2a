//! What ought to come out: files as they lie, and what git says of them.

use crate::workspace::World;
use banger_tests::Answer;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

/// A file as git tells one from another.
#[derive(Clone, Eq, PartialEq)]
pub(super) enum File {
    Plain { is_executable: bool, bytes: Vec<u8> },
    Link(PathBuf),
}

impl File {
    /// Does what git does of `core.autocrlf` to text in which no line ends so.
    pub(super) fn end_lines_by_crlf(&mut self) {
        if let Self::Plain { bytes, .. } = self
            && !bytes.contains(&b'\r')
            && !bytes.contains(&0)
        {
            let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            *bytes = lines.join(&b"\r\n"[..]);
        }
    }
}

/// Files and links by their paths.
pub(super) type Tree = BTreeMap<PathBuf, File>;

/// Mode and object of each path, as git lists them.
pub(super) type Listing = BTreeMap<PathBuf, String>;

/// What of git's a directory has: everything but the files of the work tree.
pub(super) fn is_of_git(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == ".git") || !path.starts_with("host")
}

/// A path as documents show it.
pub(super) fn shown(path: &Path) -> String {
    let parts = path.as_os_str().as_bytes().utf8_chunks();
    let part = |part: std::str::Utf8Chunk<'_>| {
        part.valid().replace('\\', "\\\\") + &part.invalid().escape_ascii().to_string()
    };
    parts.map(part).collect()
}

/// Reads all files below a directory.
pub(super) fn read(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(below) = dirs.pop() {
        for entry in fs::read_dir(dir.join(&below)).expect("a directory") {
            let path = below.join(entry.expect("an entry").file_name());
            let at = dir.join(&path);
            let meta = fs::symlink_metadata(&at).expect("a file");
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_symlink() {
                tree.insert(path, File::Link(fs::read_link(&at).expect("a link")));
            } else {
                let is_executable = meta.permissions().mode() & 0o111 != 0;
                let bytes = fs::read(&at).expect("a file");
                tree.insert(path, File::Plain { is_executable, bytes });
            }
        }
    }
    tree
}

/// The same of a work tree: what is git's is left out.
pub(super) fn work_tree(dir: &Path) -> Tree {
    let mut tree = read(dir);
    tree.retain(|path, _| path.components().all(|part| part.as_os_str() != ".git"));
    tree
}

/// Returns the paths that are not the same in both.
pub(super) fn differing<T: Eq>(
    one: &BTreeMap<PathBuf, T>,
    other: &BTreeMap<PathBuf, T>,
) -> BTreeSet<PathBuf> {
    let all: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    all.into_iter().filter(|path| one.get(*path) != other.get(*path)).cloned().collect()
}

/// Fails with the paths that are not the same in both.
pub(super) fn same<T: Eq>(
    what: &str,
    one: &BTreeMap<PathBuf, T>,
    other: &BTreeMap<PathBuf, T>,
) -> Result<(), String> {
    let paths = differing(one, other);
    if paths.is_empty() {
        return Ok(());
    }
    let told = |path: &PathBuf| match (one.contains_key(path), other.contains_key(path)) {
        (true, true) => format!("{} differs", path.display()),
        (true, false) => format!("{} is too much", path.display()),
        _ => format!("{} is missing", path.display()),
    };
    Err(format!("{what}: {}", paths.iter().map(told).collect::<Vec<_>>().join(", ")))
}

/// Runs a script on the host, wherever.
pub(super) fn shell(world: &World, dir: &Path, script: &str) -> Answer {
    let programs = banger_tests::program("banger").parent().expect("a folder").to_owned();
    let path = format!("{}:{}", programs.display(), banger_tests::SYSTEM_PATH);
    let words = ["-euo", "pipefail", "-c", script];
    world.guest.sandbox.raw_with("/bin/bash", &words, |command| {
        command.env("PATH", path).env("GIT_TERMINAL_PROMPT", "0").current_dir(dir);
    })
}

/// What a script that has to succeed prints.
pub(super) fn said(world: &World, dir: &Path, script: &str) -> String {
    shell(world, dir, script).ok().text()
}

fn paths(answer: &Answer) -> impl Iterator<Item = PathBuf> {
    let paths = answer.ok().stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    paths.map(|path| PathBuf::from(OsStr::from_bytes(path)))
}

/// Lists a tree of git's; one that is not there has nothing.
pub(super) fn listing(world: &World, dir: &Path, tree: &str) -> Listing {
    let script = format!(
        "tree=$(git rev-parse -q --verify '{tree}^{{tree}}') || exit 0; git ls-tree -r -z $tree"
    );
    let answer = shell(world, dir, &script);
    let entries = answer.ok().stdout.split(|byte| *byte == 0);
    let entry = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let path = PathBuf::from(OsStr::from_bytes(&line[tab + 1..]));
        Some((path, String::from_utf8_lossy(&line[..tab]).into_owned()))
    };
    entries.filter_map(entry).collect()
}

/// What went in and what the guest has, told by files and by git alone.
pub(super) struct Model {
    /// What lies in the host's checkout as it was prepared.
    pub(super) host: Tree,
    /// What of it went in.
    pub(super) given: BTreeSet<PathBuf>,
    /// What the guest has, but for what its rules ignore.
    pub(super) guest: Tree,
    /// The guest's branches.
    pub(super) branches: BTreeMap<String, String>,
    /// The branch that the guest is on; none if it is on none.
    pub(super) branch: Option<String>,
    /// The commit that the guest is on; empty if there is none.
    pub(super) head: String,
}

impl Model {
    /// Looks at the host's checkout and at what a tar brought of the guest's.
    pub(super) fn of(world: &World, host: &Path, guest: &Path, with_untracked: bool) -> Self {
        let is_repository = guest.join(".git").exists();
        let all_of_host = work_tree(host);
        let all_of_guest = work_tree(guest);
        let (given, wanted) = if is_repository {
            let others = if with_untracked { "-o --exclude-standard" } else { "" };
            let given = shell(world, host, &format!("git ls-files -z -c {others}"));
            let wanted = shell(world, guest, "git ls-files -z -c -o --exclude-standard");
            (paths(&given).collect(), paths(&wanted).collect::<BTreeSet<_>>())
        } else {
            // All that goes in, `.bangerignore` read by git as if it were of git's.
            let script = "export GIT_DIR=$(mktemp -d); git init -q; export GIT_WORK_TREE=.; \
                          git ls-files -z -o --exclude-per-directory=.bangerignore";
            let [given, wanted] =
                [host, guest].map(|dir| paths(&shell(world, dir, script)).collect());
            (given, wanted)
        };
        let mut files = all_of_guest;
        files.retain(|path, _| wanted.contains(path));
        let mut branches = BTreeMap::new();
        let mut branch = None;
        let mut head = String::new();
        if is_repository {
            let format = "git for-each-ref --format='%(objectname) %(refname:lstrip=2)' refs/heads";
            for line in said(world, guest, format).lines() {
                let (oid, name) = line.split_once(' ').expect("a reference");
                branches.insert(name.to_owned(), oid.to_owned());
            }
            let text = |script| said(world, guest, script).trim().to_owned();
            branch = Some(text("git symbolic-ref -q --short HEAD || :")).filter(|b| !b.is_empty());
            head = text("git rev-parse -q --verify HEAD || :");
        }
        Self { host: all_of_host, given, guest: files, branches, branch, head }
    }

    /// What a checkout has to have once the guest's work is put onto it: the guest's files, and what stayed
    /// behind.
    pub(super) fn onto(&self, host: &Tree) -> Tree {
        let mut tree = host.clone();
        // A directory of the guest's is in no list: what a submodule has stays.
        tree.retain(|path, _| !self.given.contains(path));
        tree.extend(self.guest.iter().map(|(path, file)| (path.clone(), file.clone())));
        tree
    }

    /// Whether the guest left a path as the host has it.
    pub(super) fn is_left(&self, path: &Path) -> bool {
        self.guest.get(path) == self.host.get(path)
    }
}
