//! What git and the files say of a repository, and what of it a host lacks.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// An object without content, which any git has.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

/// A file, link or submodule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Body {
    mode: &'static str,
    /// The object of a submodule or of what is absent on purpose, else the content.
    what: Vec<u8>,
}

/// What lies in a work tree and its repository.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// What is tracked or untracked, and not ignored.
    pub(super) files: BTreeMap<Vec<u8>, Body>,
    /// What the index lists, by path and stage: mode and object.
    pub(super) index: BTreeMap<(Vec<u8>, u8), (String, String)>,
    /// What is absent on purpose.
    skipped: BTreeSet<Vec<u8>>,
    /// References but those of remotes.
    refs: BTreeMap<String, String>,
    head: Option<String>,
    /// HEAD's commits.
    pub(super) history: BTreeSet<String>,
    /// What HEAD's commit holds.
    committed: BTreeMap<Vec<u8>, String>,
    /// Repositories inside, which no rule ignores, and what is in each that the outer one does not see.
    inner: BTreeMap<Vec<u8>, BTreeSet<String>>,
    /// Directories with a `.git`.
    begun: BTreeSet<Vec<u8>>,
    /// Linked work trees: place, what is in each.
    linked: BTreeMap<String, BTreeSet<String>>,
    /// Commits of linked work trees that are gone, by name.
    orphans: BTreeMap<String, String>,
    /// Submodules by the place of their `.git`: what each has.
    modules: BTreeMap<String, BTreeSet<String>>,
    /// Ignored files.
    ignored: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A checkout with the patch applied: of the prepared commit, or as it lay when it went in.
pub(super) struct Clean {
    files: BTreeMap<Vec<u8>, Body>,
    objects: BTreeSet<String>,
}

fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["60", "git"])
        .args(words)
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        // A broken repository is not taken for the one around it.
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Asks git; nothing if it cannot tell.
fn git(dir: &Path, words: &[&str]) -> Option<Vec<u8>> {
    let output = command(dir, words).output().unwrap();
    output.status.success().then_some(output.stdout)
}

fn fields(answer: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let answer = answer.unwrap_or_default();
    let fields = answer.split(|byte| *byte == 0).filter(|field| !field.is_empty());
    fields.map(<[u8]>::to_vec).collect()
}

fn lines(answer: Option<Vec<u8>>) -> Vec<String> {
    let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
    answer.lines().map(ToOwned::to_owned).collect()
}

fn on_disk(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// Returns a path as people are shown it.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).replace('\\', "\\\\")
}

impl View {
    pub(super) fn of(root: &Path) -> Self {
        let mut view = Self { files: BTreeMap::new(), ..Self::default() };
        for line in fields(git(root, &["ls-files", "-z", "-s", "-t"])) {
            let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
            let (head, path) =
                (String::from_utf8_lossy(&line[..tab]).into_owned(), &line[tab + 1..]);
            let [tag, mode, oid, stage] = head.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{head}")
            };
            if tag == "S" {
                view.skipped.insert(path.to_vec());
            }
            let stage = stage.parse().unwrap();
            view.index.insert((path.to_vec(), stage), (mode.to_owned(), oid.to_owned()));
        }
        for ((path, _), (mode, oid)) in &view.index {
            let body = match mode.as_str() {
                "160000" => Some(Body { mode: "160000", what: oid.clone().into_bytes() }),
                mode => body(&on_disk(root, path)).or_else(|| {
                    let mode = ["100644", "100755", "120000"].into_iter().find(|m| *m == mode);
                    let content = git(root, &["cat-file", "blob", oid]);
                    let mut above = Path::new(OsStr::from_bytes(path)).ancestors().skip(1);
                    // Nothing is absent on purpose below what is no directory.
                    let fits = !above.any(|dir| {
                        fs::symlink_metadata(root.join(dir)).is_ok_and(|meta| !meta.is_dir())
                    });
                    let content = content.filter(|_| fits && view.skipped.contains(path));
                    mode.zip(content).map(|(mode, what)| Body { mode, what })
                }),
            };
            view.files.extend(body.map(|body| (path.clone(), body)));
        }
        for path in fields(git(root, &["ls-files", "-z", "-o", "--exclude-standard"])) {
            view.files.extend(body(&on_disk(root, &path)).map(|body| (path, body)));
        }
        for path in fields(git(root, &["ls-files", "-z", "-o", "-i", "--exclude-standard"])) {
            view.ignored.extend(fs::read(on_disk(root, &path)).ok().map(|bytes| (path, bytes)));
        }
        view.refs = refs(root);
        view.head = lines(git(root, &["rev-parse", "-q", "--verify", "HEAD"])).pop();
        view.history = lines(git(root, &["rev-list", "HEAD"])).into_iter().collect();
        for line in fields(git(root, &["ls-tree", "-r", "-z", "HEAD"])) {
            let tab = line.iter().position(|byte| *byte == b'\t').unwrap();
            let oid = line[..tab].rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            view.committed
                .insert(line[tab + 1..].to_vec(), String::from_utf8_lossy(oid).into_owned());
        }
        view.add_inner(root);
        view.add_linked(root);
        view.add_modules(root);
        view
    }

    fn add_inner(&mut self, root: &Path) {
        let mut waiting = vec![Vec::new()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(on_disk(root, &dir)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
                let path = [&dir[..], slash, name.as_bytes()].concat();
                if name == ".git" {
                    self.add_one_inside(root, &dir);
                } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(path);
                }
            }
        }
    }

    fn add_one_inside(&mut self, root: &Path, dir: &[u8]) {
        if dir.is_empty() {
            return;
        }
        self.begun.insert(dir.to_vec());
        let place = on_disk(root, dir);
        let ask = ["check-ignore", "-q", "--no-index", "--", &String::from_utf8_lossy(dir)];
        let is_linked = fs::read(place.join(".git"))
            .is_ok_and(|link| link.windows(11).any(|part| part == b"/worktrees/"));
        if is_linked || git(root, &ask).is_some() {
            return;
        }
        let mut has = repository(&place);
        for path in fields(git(&place, &["ls-files", "-z", "-c", "-o", "--exclude-standard"])) {
            let full = [dir, b"/", &path].concat();
            if self.files.contains_key(&full) {
                continue;
            }
            if let Some(body) = body(&on_disk(root, &full)) {
                has.insert(format!("{} {body:?}", full.escape_ascii()));
            }
        }
        self.inner.insert(dir.to_vec(), has);
    }

    fn add_linked(&mut self, root: &Path) {
        for entry in fs::read_dir(root.join(".git/worktrees")).into_iter().flatten().flatten() {
            let dir = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let place = fs::read_to_string(dir.join("gitdir")).unwrap_or_default();
            let place = place.trim().trim_end_matches("/.git").to_owned();
            let head = fs::read_to_string(dir.join("HEAD")).unwrap_or_default().trim().to_owned();
            let tree = PathBuf::from(&place);
            let mut has: BTreeSet<String> = BTreeSet::new();
            if !head.starts_with("ref: ") {
                has.insert(format!("commit {head}"));
            }
            if !tree.exists() {
                self.orphans.insert(name, head);
                continue;
            }
            let status = ["status", "--porcelain", "-uall", "--ignore-submodules=none"];
            for line in lines(git(&tree, &status)) {
                let content = fs::read(tree.join(line.get(3..).unwrap_or_default()));
                has.insert(format!("{line} {}", content.unwrap_or_default().escape_ascii()));
            }
            self.linked.insert(place, has);
        }
    }

    fn add_modules(&mut self, root: &Path) {
        let mut waiting = vec![root.join(".git/modules")];
        while let Some(dir) = waiting.pop() {
            if dir.join("HEAD").is_file() && dir.join("objects").is_dir() {
                let name = dir.strip_prefix(root.join(".git/modules")).unwrap();
                let name = name.to_string_lossy().into_owned();
                self.modules.insert(name, repository(&dir));
            }
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_dir && name != "objects" && name != "refs" && name != "logs" {
                    waiting.push(entry.path());
                }
            }
        }
    }

    /// Returns all that is not to go away, in words.
    pub(super) fn facts(&self, top: &Path) -> BTreeSet<String> {
        let mut facts = BTreeSet::new();
        let absent = absent(top, self.refs.values().chain(&self.head));
        for (name, oid) in self.refs.iter().filter(|(_, oid)| absent.contains(*oid)) {
            facts.insert(format!("{name} at {oid}"));
        }
        for (path, content) in &self.ignored {
            facts.insert(format!("'{}' {}", path.escape_ascii(), content.escape_ascii()));
        }
        for (dir, has) in &self.inner {
            facts.extend(has.iter().map(|has| format!("'{}': {has}", dir.escape_ascii())));
        }
        for (dir, has) in self.linked.iter().chain(&self.modules) {
            facts.extend(has.iter().map(|has| format!("'{dir}': {has}")));
        }
        facts
    }

    /// Returns what a host lacks: in words, and any of the names that stand for it. `is_fresh` says whether
    /// what was brought is of right now, so that no change may be left.
    pub(super) fn lost(
        &self,
        top: &Path,
        given: &Self,
        brought: Option<&Clean>,
        summed: &BTreeSet<String>,
        is_fresh: bool,
    ) -> Vec<(String, Vec<String>)> {
        let mut lost: Vec<(String, Vec<String>)> = Vec::new();
        let mut add = |what: String, names: &[String]| lost.push((what, names.to_vec()));
        let change = || vec!["changed file".to_owned()];
        // As of now, as it was given, or as it was brought.
        if self.files != given.files || is_fresh {
            match brought {
                None => {
                    let differs = |path: &&Vec<u8>| self.files.get(*path) != given.files.get(*path);
                    let path = self.files.keys().chain(given.files.keys()).find(differs).unwrap();
                    let mut names = change();
                    names.extend(self.names_around(path));
                    add(format!("'{}' is work", shown(path)), &names);
                }
                Some(clean) => {
                    for (path, why) in self.apart(given, clean) {
                        // What is left out is never deleted, and a tracked file is not left out for
                        // a repository around it.
                        let is_tracked = self.index.contains_key(&(path.clone(), 0));
                        let is_deleted = given.files.contains_key(path)
                            && self.files.contains_key(path)
                            && !clean.files.contains_key(path);
                        let mut names = match (is_fresh, is_deleted, is_tracked) {
                            (true, true, _) => Vec::new(),
                            (_, _, true) => self.names_around(path)[..2].to_vec(),
                            _ => self.names_around(path),
                        };
                        if !is_fresh {
                            names.extend(change());
                        }
                        if !is_deleted {
                            names.push("no '.git'".into());
                        }
                        if given.is_in_module(path) {
                            names.push("submodule".into());
                        }
                        if self.skipped.contains(path) {
                            names.push("absent on purpose".into());
                        }
                        add(format!("'{}' {why}", shown(path)), &names);
                    }
                }
            }
        }
        let is_listed = |view: &Self, path: &[u8]| {
            (0..4).any(|stage| view.index.contains_key(&(path.to_vec(), stage)))
        };
        let has_index = !self.index.is_empty();
        for path in self.files.keys().filter(|path| {
            has_index
                && is_listed(given, path)
                && given.committed.contains_key(*path)
                && !is_listed(self, path)
        }) {
            let words = format!("'{}' left the index", shown(path));
            add(words, &["from the index".to_owned()]);
        }
        let staged: Vec<_> = self.index.iter().filter(|(_, (mode, _))| mode != "160000").collect();
        let unknown = absent(top, staged.iter().map(|(_, (_, oid))| oid));
        for ((path, stage), (_, oid)) in staged {
            let is_known = !unknown.contains(oid)
                || EMPTY.contains(&oid.as_str())
                || *stage != 0
                || self.committed.get(path) == Some(oid)
                || brought.is_some_and(|clean| {
                    clean.objects.contains(oid) || clean.files.contains_key(path)
                })
                || (!is_fresh && self.files.contains_key(path));
            if !is_known {
                let words = format!("'{}' is staged as {oid}", shown(path));
                add(words, &["index alone".to_owned()]);
            }
        }
        self.lost_commits(top, summed, &mut add);
        for (dir, has) in &self.inner {
            let is_known =
                |has: &String| has.starts_with("staged") && !is_absent_in_modules(top, has);
            let is_given = given
                .inner
                .get(dir)
                .is_some_and(|given| has.iter().all(|has| given.contains(has) || is_known(has)));
            if !is_given && !has.is_empty() {
                let mut names = self.names_around(dir);
                names.extend([format!("'{}/", shown(dir)), "submodule".to_owned()]);
                if !is_fresh {
                    names.extend(change());
                }
                add(format!("the repository '{}' has {has:?}", shown(dir)), &names);
            }
        }
        lost
    }

    fn lost_commits(
        &self,
        top: &Path,
        summed: &BTreeSet<String>,
        add: &mut impl FnMut(String, &[String]),
    ) {
        let known = |oid: &String| summed.contains(oid);
        let mut oids: BTreeSet<&String> = self.refs.values().chain(&self.head).collect();
        oids.extend(self.orphans.values());
        let absent = absent(top, oids);
        for (name, oid) in self.refs.iter().filter(|(_, oid)| absent.contains(*oid)) {
            let short = name.trim_start_matches("refs/heads/").trim_start_matches("refs/tags/");
            let short = match short.trim_start_matches("refs/") {
                "stash" => "stashed".to_owned(),
                short => format!("'{short}'"),
            };
            if !known(oid) {
                add(format!("{name} is at {oid}"), &[short, "no '.git'".into()]);
            }
        }
        if let Some(head) = self.head.as_ref().filter(|head| absent.contains(*head))
            && !known(head)
        {
            add(
                format!("HEAD is at {head}"),
                &["commit".into(), "HEAD at".into(), "checked out".into(), "no '.git'".into()],
            );
        }
        for (name, head) in self.orphans.iter().filter(|(_, head)| absent.contains(*head)) {
            let is_named = self.refs.values().any(|oid| oid == head) || known(head);
            if !is_named {
                add(
                    format!("the work tree '{name}' that went was at {head}"),
                    &[format!("'{name}'")],
                );
            }
        }
        for (place, has) in &self.linked {
            let inside = Path::new(place).strip_prefix(top.join("guest/root/repo"));
            let mut names = vec![format!("'{place}'")];
            if let Ok(inside) = inside {
                names.extend(self.names_around(inside.as_os_str().as_bytes()));
            }
            if !has.is_empty() {
                add(format!("the work tree '{place}' has {has:?}"), &names);
            }
        }
        for (name, has) in &self.modules {
            let new: Vec<&String> =
                has.iter().filter(|has| is_absent_in_modules(top, has)).collect();
            if !new.is_empty() {
                add(
                    format!("the submodule '{name}' has {new:?}"),
                    &["submodule".into(), format!("'{name}' inside")],
                );
            }
        }
    }

    /// Returns paths that are neither as they were given nor in the checkout as they are here.
    fn apart<'a>(&'a self, given: &Self, clean: &'a Clean) -> Vec<(&'a Vec<u8>, &'static str)> {
        let mut apart = Vec::new();
        for (path, body) in &self.files {
            if clean.files.get(path) != Some(body) {
                let why =
                    if clean.files.contains_key(path) { "differs" } else { "did not come out" };
                apart.push((path, why));
            }
        }
        for path in clean.files.keys().filter(|path| !self.files.contains_key(*path)) {
            // What was untracked on the host and is ignored now is there as it was.
            let was_tracked = given.index.contains_key(&(path.clone(), 0));
            if was_tracked || !given.files.contains_key(path) {
                apart.push((path, "is still there"));
            }
        }
        apart
    }

    /// Says whether a submodule is around a path.
    fn is_in_module(&self, path: &[u8]) -> bool {
        let links = self.index.iter().filter(|(_, (mode, _))| mode == "160000");
        let mut links = links.map(|((link, _), _)| [link.as_slice(), b"/"].concat());
        links.any(|link| path.starts_with(&link))
    }

    /// Returns what a path may be named by: itself, or a repository around it.
    fn names_around(&self, path: &[u8]) -> Vec<String> {
        let mut names =
            vec![format!("'{}'", shown(path)), format!("'{}'", shown(path).escape_debug())];
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends {
            let dir = &path[..end];
            if self.begun.contains(dir) {
                names.push(format!("'{}'", shown(dir)));
            }
        }
        names
    }
}

/// Returns what lies there, as git would take it.
fn body(path: &Path) -> Option<Body> {
    let meta = fs::symlink_metadata(path).ok()?;
    if meta.is_symlink() {
        let what = fs::read_link(path).ok()?.as_os_str().as_bytes().to_vec();
        return Some(Body { mode: "120000", what });
    }
    let mode = if meta.mode() & 0o100 == 0 { "100644" } else { "100755" };
    meta.is_file().then(|| Some(Body { mode, what: fs::read(path).ok()? }))?
}

/// Returns what a repository inside another has: commits and the like, versions in its index.
fn repository(dir: &Path) -> BTreeSet<String> {
    let mut has: BTreeSet<String> =
        refs(dir).into_iter().map(|(name, oid)| format!("{name} {oid}")).collect();
    let head = lines(git(dir, &["rev-parse", "-q", "--verify", "HEAD"])).pop();
    has.extend(head.map(|head| format!("HEAD {head}")));
    let staged = lines(git(dir, &["ls-files", "-s"]));
    let staged = staged.iter().filter_map(|line| line.split([' ', '\t']).nth(1));
    has.extend(staged.filter(|oid| !EMPTY.contains(oid)).map(|oid| format!("staged {oid}")));
    has
}

fn refs(dir: &Path) -> BTreeMap<String, String> {
    let listed = git(dir, &["for-each-ref", "--format=%(refname) %(objectname)"]);
    let listed = lines(listed).into_iter();
    let pairs =
        listed.filter_map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())));
    pairs.filter(|(name, _)| !name.starts_with("refs/remotes/")).collect()
}

/// Returns which objects the host's repository has not.
fn absent<'a>(top: &Path, oids: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let oids: BTreeSet<&str> = oids.into_iter().map(String::as_str).collect();
    missing(&top.join("host"), &oids, "")
}

/// Says whether no repository of a submodule on the host has the last word's object.
fn is_absent_in_modules(top: &Path, has: &str) -> bool {
    let oid = has.rsplit(' ').next().unwrap_or_default();
    let source = top.join("s");
    // Host and guest may both have the source of a submodule; the host's is the first.
    let lacks = |place: &Path| !missing(place, &BTreeSet::from([oid]), "").is_empty();
    lacks(&top.join("host")) && (!source.exists() || lacks(&source))
}

fn missing(dir: &Path, oids: &BTreeSet<&str>, more: &str) -> BTreeSet<String> {
    use std::io::Write as _;
    let input: String =
        oids.iter().filter(|oid| !oid.is_empty()).fold(String::new(), |t, o| t + o + "\n");
    if input.is_empty() {
        return BTreeSet::new();
    }
    let mut command = command(dir, &["cat-file", "--batch-check"]);
    command
        .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let answer = child.wait_with_output().unwrap().stdout;
    let answer = lines(Some(answer));
    answer.iter().filter_map(|line| line.strip_suffix(" missing").map(ToOwned::to_owned)).collect()
}

impl Clean {
    /// Applies a patch to a checkout of the commit.
    pub(super) fn make(top: &Path, base: Option<&str>, patch: &[u8]) -> Result<Self, String> {
        Self::checkout(top, base)?;
        apply(top, patch).map_err(|words| format!("to the commit, {words}"))?;
        Ok(Self::of(&top.join("clean")))
    }

    /// Has git make commits of mails on a checkout of the commit.
    pub(super) fn mailed(top: &Path, base: Option<&str>, mails: &[u8]) -> Result<Self, String> {
        Self::checkout(top, base)?;
        let dir = top.join("clean");
        fs::write(top.join("mbox"), mails).unwrap();
        if !mails.is_empty() {
            let words = ["-c", "user.name=A", "-c", "user.email=a@b", "am", "-q", "../mbox"];
            let output = command(&dir, &words).stderr(Stdio::piped()).output().unwrap();
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("the mails are not taken: {words}"));
            }
        }
        Ok(Self::of(&dir))
    }

    fn of(dir: &Path) -> Self {
        let view = View::of(dir);
        let objects = view.index.values().map(|(_, oid)| oid.clone()).collect();
        Self { files: view.files, objects }
    }

    fn checkout(top: &Path, base: Option<&str>) -> Result<(), String> {
        let dir = top.join("clean");
        let _ = fs::remove_dir_all(&dir);
        git(top, &["clone", "-q", "--no-checkout", "--shared", "--template=", "host", "clean"])
            .ok_or("the host's repository cannot be cloned")?;
        if let Some(base) = base {
            git(&dir, &["checkout", "-q", "--detach", base])
                .ok_or_else(|| format!("{base} cannot be checked out"))?;
        } else {
            let _ = git(&dir, &["symbolic-ref", "HEAD", "refs/heads/none"]);
            let _ = git(&dir, &["read-tree", "--empty"]);
        }
        Ok(())
    }

    /// Keeps the host's checkout as it lies.
    pub(super) fn keep(top: &Path) {
        let keep = ["60", "sh", "-c", "rm -rf lies && cp -a host lies"];
        let kept = Command::new("timeout").args(keep).current_dir(top).status().unwrap();
        assert!(kept.success());
    }

    /// Applies a patch to the checkout that was kept, as anybody would. What did not go in is not in the way.
    pub(super) fn lying(top: &Path, untracked: bool, patch: &[u8]) -> Result<Self, String> {
        let dir = top.join("clean");
        let _ = fs::remove_dir_all(&dir);
        let copy = ["60", "cp", "-a", "lies", "clean"];
        assert!(Command::new("timeout").args(copy).current_dir(top).status().unwrap().success());
        let _ = git(&dir, &["clean", "-ffdq", if untracked { "-X" } else { "-x" }]);
        // Submodules are in an index alone. This one is of what lies there, with the patch; the checkout's own
        // stays as it is until the files are patched.
        let script = "if grep -aq '^deleted file mode 160000' ../patch; then
              # Where it is to become files, somebody has to put a submodule aside, and is told so.
              git ls-files -s | sed -n 's/^160000 [^ ]* .\t//p' | while read -r m; do rm -rf \"$m\"; mkdir \"$m\"; done
            fi
            i=$(git rev-parse --git-path index); test ! -e $i || cp $i ../index
            git ls-files -z -c -o --exclude-standard | grep -zv '/$' |
            GIT_INDEX_FILE=$PWD/../index git update-index --ignore-skip-worktree-entries --add --remove -z --stdin
            GIT_INDEX_FILE=$PWD/../index git apply --cached --allow-empty ../patch
            git apply --allow-empty ../patch && mv ../index $i";
        fs::write(top.join("patch"), patch).unwrap();
        let _ = fs::remove_file(top.join("index"));
        // Git as the others call it, through a shell.
        let alias = format!("alias.x=!{script}");
        let output = command(&dir, &["-c", &alias, "x"]).stderr(Stdio::piped()).output().unwrap();
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("as it lies, the patch does not apply: {words}"));
        }
        Ok(Self::of(&dir))
    }
}

fn apply(top: &Path, patch: &[u8]) -> Result<(), String> {
    fs::write(top.join("patch"), patch).unwrap();
    let words = ["apply", "--index", "--allow-empty", "../patch"];
    let output = command(&top.join("clean"), &words).stderr(Stdio::piped()).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("the patch does not apply: {words}"))
}
