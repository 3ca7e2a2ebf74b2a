//! What of the host's repository goes into a guest's: objects first, as one pack of the host's, then references.

use crate::{
    git::{Git, is_oid, lines},
    guest::{linked_heads, small_files},
    host::source::{Repository, lines_of_oids},
    prepare::ready::parse_packed_refs,
    prepare::send::{append, header},
    remote::offer::{Offer, is_plain},
    remote::pull::repository,
};
use banger_channel::files::{Files, Put};
use banger_doc::{Context, Error, Kind, PushedRef, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
};

/// Why a branch does not move, and what to do then.
const CHECKED_OUT: &str = "it is checked out in the guest";
const ELSEWHERE: &str = "push to another branch and merge it there";

/// What is asked of one reference of the guest's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Push {
    /// What names the object on the host; none deletes the reference.
    pub from: Option<String>,
    /// The full name of the reference.
    pub to: String,
    /// Whether what it names now may be lost.
    pub force: bool,
}

impl Push {
    /// Reads `[+]SRC:DST`, `[+]NAME` and `:DST`; a name of a branch need not be a full one.
    pub fn parse(text: &str) -> Result<Self> {
        let bare = text.strip_prefix('+').unwrap_or(text);
        let (from, to) = bare.split_once(':').unwrap_or((bare, bare));
        let to = if to.starts_with("refs/") { to.to_owned() } else { format!("refs/heads/{to}") };
        let is_named = !from.starts_with('-') && (!from.is_empty() || bare.starts_with(':'));
        if !is_named || !is_plain(&to) || matches!(to.as_str(), "refs/heads/" | "refs/heads/HEAD") {
            return Err(Error::usage(format!(
                "'{}' does not say what to push",
                text.escape_debug()
            ))
            .hint("give BRANCH, SRC:BRANCH, :BRANCH to delete it, or '+' before it to overwrite"));
        }
        let from = Some(from.to_owned()).filter(|from| !from.is_empty());
        Ok(Self { from, to, force: text.starts_with('+') })
    }
}

/// Checks what is read of references that somebody else wrote, as packed ones and as what is to be pushed.
/// Returns how many of them are taken.
pub fn check_refs(bytes: &[u8]) -> Result<usize> {
    let wrong = |what: &str| Err(Error::failed(what.to_owned()));
    let packed = parse_packed_refs(bytes);
    let gone: BTreeSet<&str> = packed.keys().map(String::as_str).step_by(2).collect();
    let left = parse_packed_refs(&without(bytes, &gone));
    if left.keys().any(|name| gone.contains(name.as_str())) {
        return wrong("a reference that was removed is still there");
    }
    if packed.iter().any(|(name, oid)| !gone.contains(name.as_str()) && left.get(name) != Some(oid))
    {
        return wrong("another reference was changed");
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        let Ok(push) = Push::parse(line) else { continue };
        let to = push.to.as_str();
        let leads_out = to.split('/').any(|part| part.is_empty() || part.starts_with(['.', '-']));
        if leads_out || !to.starts_with("refs/") || to.contains(char::is_control) {
            return wrong("a push goes where it must not");
        }
    }
    Ok(packed.len())
}

/// Returns the branch that the repository of the host's at `path` is on, as its full name.
pub fn branch_of(path: &Path, trusted: &[PathBuf]) -> Result<Option<String>> {
    let head = repository(path, trusted)?.head.clone();
    Ok(head.branch.filter(|_| head.commit.is_some()))
}

/// What became of one reference, or why nothing did.
pub type Outcome = std::result::Result<PushedRef, String>;

/// One that may be changed, with the object that it is to name.
struct Change<'a> {
    at: usize,
    to: &'a str,
    object: Option<String>,
}

impl Offer {
    /// Says for each what the guest's reference is to become, and makes it so unless it is a `dry_run`. Either
    /// all that can be are changed or, on an error, none is known to be. `files` write as the workspace's user.
    pub fn push(
        &mut self,
        files: &Files<'_>,
        path: &Path,
        trusted: &[PathBuf],
        wanted: &[Push],
        dry_run: bool,
    ) -> Result<Vec<Outcome>> {
        let repository = repository(path, trusted)?;
        if repository.format != self.record.object_format {
            return Err(Error::usage(format!(
                "'{}' has objects of format {}, the guest's repository of {}",
                repository.root.display(),
                repository.format,
                self.record.object_format
            )));
        }
        let root = self.record.guest_path.clone();
        let linked = linked_heads(files, &root)?;
        let mut outcomes = Vec::new();
        let mut changes: Vec<Change<'_>> = Vec::new();
        let mut checkout = None;
        for push in wanted {
            let mut judged = if changes.iter().any(|change| change.to == push.to) {
                Err("it was named twice".to_owned())
            } else {
                self.judge(&repository, push, &linked)?
            };
            if let Ok(Some(commit)) = &judged
                && self.is_open(&push.to, commit)
            {
                match self.checkout(files, &repository, commit)? {
                    Ok(made) => checkout = Some(made),
                    Err(why) => judged = Err(format!("{CHECKED_OUT}, and {why}; {ELSEWHERE}")),
                }
            }
            outcomes.push(judged.map(|object| {
                let before = self.position.refs.get(&push.to).cloned();
                changes.push(Change { at: outcomes.len(), to: &push.to, object: object.clone() });
                PushedRef { name: push.to.clone(), before, after: object }
            }));
        }
        if dry_run {
            return Ok(outcomes);
        }
        // What is so already needs no change, but is known to the host all the same: so it is after a push that
        // was killed before it wrote that down.
        changes.retain(|change| {
            let done = outcomes[change.at].as_ref();
            done.is_ok_and(|done| done.before != done.after)
        });
        let same = outcomes.iter().flatten().filter(|done| done.before == done.after);
        for (name, oid) in same.filter_map(|done| Some((&done.name, done.after.as_ref()?))) {
            self.record.given.refs.insert(name.clone(), oid.clone());
        }
        if changes.is_empty() && checkout.is_none() {
            self.folder.write(&self.record)?;
            return Ok(outcomes);
        }
        must_be_free(files, &root, &changes, checkout.is_some())?;
        if let Some(name) = self.pack(files, &repository, &changes)? {
            self.send_pack(files, &root, &name)?;
        }
        if let Some(checkout) = &mut checkout {
            let mut given = self.record.given.clone();
            for change in &changes {
                change.make(&mut given.refs);
            }
            self.announce(checkout, &given)?;
            self.put_files(files, checkout)?;
        }
        let index = checkout.as_ref().map(|checkout| checkout.index.as_slice());
        send_refs(files, &root, &changes, index)?;
        for change in &changes {
            change.make(&mut self.record.given.refs);
            change.make(&mut self.position.refs);
        }
        match &checkout {
            Some(checkout) => self.settle(checkout, &repository)?,
            None => self.folder.write(&self.record)?,
        }
        Ok(outcomes)
    }

    /// Says whether a reference is the branch that the guest has checked out, and its files are, or may be, those
    /// of another commit.
    fn is_open(&self, to: &str, commit: &String) -> bool {
        let is_at = self.position.refs.get(to) == Some(commit);
        self.is_checked_out(to) && (!is_at || self.record.next.is_some())
    }

    fn is_checked_out(&self, to: &str) -> bool {
        self.position.head.strip_prefix("ref: ").map(str::trim) == Some(to)
    }

    /// Returns the object that a reference of the guest's is to name, or words for why it is not to.
    fn judge(
        &self,
        repository: &Repository,
        push: &Push,
        linked: &[String],
    ) -> Result<std::result::Result<Option<String>, String>> {
        let refuse = |words: &str| Ok(Err(words.to_owned()));
        let to = push.to.as_str();
        let is_branch = to.starts_with("refs/heads/");
        if !is_plain(to) || !(is_branch || to.starts_with("refs/tags/")) {
            return refuse("only branches and tags are pushed");
        }
        let before = self.position.refs.get(to);
        let object = match &push.from {
            None if before.is_none() => return refuse("the guest has no such reference"),
            None => None,
            Some(from) => match object_of(&repository.git(), from)? {
                None => return refuse("the host has no such commit"),
                Some((_, sort)) if is_branch && sort != "commit" => {
                    return refuse("a branch names a commit");
                }
                Some((oid, _)) => Some(oid),
            },
        };
        if before == object.as_ref() {
            return Ok(Ok(object));
        }
        let is_checked_out = self.is_checked_out(to);
        if linked.iter().any(|head| head.strip_prefix("ref: ").map(str::trim) == Some(to)) {
            return Ok(Err(format!(
                "it is checked out in another work tree of the guest's; {ELSEWHERE}"
            )));
        }
        if is_checked_out && object.is_none() {
            return Ok(Err(format!("{CHECKED_OUT}, so it is not deleted")));
        }
        let meets = |other: &String| {
            let is_below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|r| r.starts_with('/'));
            is_below(to, other) || is_below(other, to)
        };
        if let Some(other) = self.position.refs.keys().find(|other| meets(other)) {
            return Ok(Err(format!("the guest has '{}'", other.escape_debug())));
        }
        let is_forced = push.force && !is_checked_out;
        let (Some(before), Some(after), false) = (before, &object, is_forced) else {
            return Ok(Ok(object));
        };
        if !is_branch {
            return refuse("the guest has another tag of this name");
        }
        let git = repository.git();
        let ended = git.attempt(["merge-base", "--is-ancestor", before.as_str(), after], b"")?;
        if ended.status.success() {
            return Ok(Ok(object));
        }
        if is_checked_out && push.force {
            let why = "non-fast-forward, which '+' does not allow of a branch that is checked out in the guest";
            return refuse(why);
        }
        refuse("non-fast-forward")
    }

    /// Makes a pack of what the guest lacks, in the store, which has to have it too: what goes in is given.
    fn pack(
        &self,
        files: &Files<'_>,
        repository: &Repository,
        changes: &[Change<'_>],
    ) -> Result<Option<String>> {
        let tips: BTreeSet<&String> = changes.iter().filter_map(|c| c.object.as_ref()).collect();
        if tips.is_empty() {
            return Ok(None);
        }
        let mut words = String::new();
        let shallow =
            small_files(files, &self.record.guest_path, &[b".git/shallow"], 1 << 20)?.remove(&0);
        let cut: BTreeSet<String> = self
            .store
            .history()
            .shallow
            .into_iter()
            .chain(lines_of_oids(&shallow.unwrap_or_default()))
            .filter(|oid| oid.len() == 2 * self.store.oid_len)
            .collect();
        for oid in &cut {
            let _ = writeln!(words, "--shallow {oid}");
        }
        words.push_str(&lines(tips));
        for oid in self.has_still()? {
            let _ = writeln!(words, "^{oid}");
        }
        let base = self.store.dir.join("objects/pack/pack");
        let pack =
            ["pack-objects", "--revs", "--shallow", "--delta-base-offset", "--non-empty", "-q"];
        let pack = pack.iter().map(OsString::from).chain([base.into_os_string()]);
        let git = self.store.reading(repository);
        let name = git.run(pack, words.as_bytes()).with_context(|| {
            format!("cannot read the history of '{}'", repository.root.display())
        })?;
        let name = String::from_utf8_lossy(&name).trim().to_owned();
        Ok(Some(name).filter(|name| is_oid(name)))
    }

    /// Returns what the store has, whole, and the guest's references still lead to.
    fn has_still(&self) -> Result<BTreeSet<String>> {
        let known = crate::remote::bring::known(&self.store, &self.record)?;
        let tips = self.position.refs.values().chain(&self.head);
        let tips = tips.filter(|oid| self.brought.whole.contains(*oid));
        let asked = tips.fold(lines(&known), |text, oid| text + "^" + oid + "\n");
        let git = self.brought.git(&self.store);
        let left = git.run(["rev-list", "--objects", "--stdin"], asked.as_bytes())?;
        let left: BTreeSet<&[u8]> = left
            .split(|byte| *byte == b'\n')
            .map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default())
            .collect();
        Ok(known.iter().filter(|oid| !left.contains(oid.as_bytes())).cloned().collect())
    }

    /// Writes a pack of objects.
    fn send_pack(&self, files: &Files<'_>, root: &str, name: &str) -> Result<()> {
        files.put(root, Put::Within, |writer| {
            let mut builder = tar::Builder::new(writer);
            // Git sees a pack once its list is there.
            for end in ["pack", "idx"] {
                let file = self.store.dir.join(format!("objects/pack/pack-{name}.{end}"));
                let said = || format!("cannot read '{}'", file.display());
                let open = File::open(file.as_path()).with_context(said)?;
                let size = open.metadata().with_context(said)?.len();
                let path = format!(".git/objects/pack/pack-{name}.{end}");
                let mut header = header(0o444, tar::EntryType::Regular, size, None);
                append(&mut builder, &mut header, path.as_bytes(), open)?;
            }
            builder.finish().context("cannot write to the guest's agent")
        })
    }
}

impl Change<'_> {
    /// Makes it among these references.
    fn make(&self, refs: &mut BTreeMap<String, String>) {
        match &self.object {
            Some(oid) => drop(refs.insert(self.to.to_owned(), oid.clone())),
            None => drop(refs.remove(self.to)),
        }
    }
}

/// Writes references, and before them an index, if there is one to go.
fn send_refs(
    files: &Files<'_>,
    root: &str,
    changes: &[Change<'_>],
    index: Option<&[u8]>,
) -> Result<()> {
    let gone: BTreeSet<&str> =
        changes.iter().filter(|c| c.object.is_none()).map(|c| c.to).collect();
    let mut small: Vec<(String, Vec<u8>)> = Vec::new();
    small.extend(index.map(|index| (".git/index".into(), index.to_vec())));
    if !gone.is_empty() {
        let name: &[u8] = b".git/packed-refs";
        if let Some(bytes) = small_files(files, root, &[name], 64 << 20)?.remove(&0) {
            let kept = parse_packed_refs(&bytes);
            if kept.keys().any(|name| gone.contains(name.as_str())) {
                small.push((".git/packed-refs".into(), without(&bytes, &gone)));
            }
        }
    }
    for change in changes {
        if let Some(oid) = &change.object {
            small.push((format!(".git/{}", change.to), format!("{oid}\n").into_bytes()));
        }
    }
    if !small.is_empty() {
        files.put(root, Put::Within, |writer| {
            let mut builder = tar::Builder::new(writer);
            for (path, bytes) in &small {
                let size = bytes.len() as u64;
                let mut header = header(0o644, tar::EntryType::Regular, size, None);
                append(&mut builder, &mut header, path.as_bytes(), bytes.as_slice())?;
            }
            builder.finish().context("cannot write to the guest's agent")
        })?;
    }
    // Below these, which stay when nothing is left in them: git takes no directory for a repository otherwise.
    for place in ["refs/heads", "refs/tags", "logs/refs/heads", "logs/refs/tags"] {
        let kind = place.trim_start_matches("logs/");
        let below = gone.iter().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('/'));
        let below: Vec<&[u8]> = below.map(str::as_bytes).collect();
        if below.is_empty() {
            continue;
        }
        match files.remove(&format!("{root}/.git/{place}"), &below) {
            Err(error) if error.kind() == Kind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// Returns a file of packed references without some of them.
fn without(bytes: &[u8], gone: &BTreeSet<&str>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut is_kept = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // What a tag leads to stands below it.
        if !line.starts_with(b"^") {
            // As `parse_packed_refs` reads it.
            let text = String::from_utf8_lossy(line);
            let name = text.lines().next().and_then(|line| line.split_once(' '));
            is_kept = !name.is_some_and(|(_, name)| gone.contains(name));
        }
        if is_kept {
            kept.extend_from_slice(line);
        }
    }
    kept
}

/// Returns the object that a name means on the host, and its sort.
fn object_of(git: &Git, name: &str) -> Result<Option<(String, String)>> {
    let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", name];
    let ended = git.attempt(words, b"")?;
    let oid = String::from_utf8_lossy(&ended.answer).trim().to_owned();
    if !ended.status.success() || !is_oid(&oid) {
        return Ok(None);
    }
    let sort = git.text(["cat-file", "-t", oid.as_str()])?;
    Ok(Some((oid, sort)))
}

/// Fails while git of the guest's changes one of them, or its index where that is to change too.
fn must_be_free(
    files: &Files<'_>,
    root: &str,
    changes: &[Change<'_>],
    with_index: bool,
) -> Result<()> {
    let mut locks: Vec<String> =
        changes.iter().map(|change| format!(".git/{}.lock", change.to)).collect();
    locks.push(".git/packed-refs.lock".into());
    if with_index {
        locks.extend([".git/index.lock".into(), ".git/HEAD.lock".into()]);
    }
    let asked: Vec<&[u8]> = locks.iter().map(String::as_bytes).collect();
    let found = files.stat(root, &asked)?;
    match locks.iter().zip(found).find(|(_, found)| found.is_some()) {
        None => Ok(()),
        Some((lock, _)) => {
            Err(Error::conflict(format!("git in the guest is at work: '{root}/{lock}' is there"))
                .hint("try again; if no git runs there, remove that file in the guest"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refspecs_are_read_as_git_reads_them() {
        let parsed = |text: &str| {
            Push::parse(text).ok().map(|push| (push.from.unwrap_or_default(), push.to, push.force))
        };
        let is = |from: &str, to: &str, force| Some((from.to_owned(), to.to_owned(), force));
        assert_eq!(parsed("HEAD:topic"), is("HEAD", "refs/heads/topic", false));
        assert_eq!(parsed("+main"), is("main", "refs/heads/main", true));
        assert_eq!(parsed(":a/b"), is("", "refs/heads/a/b", false));
        assert_eq!(parsed("v1:refs/tags/v1"), is("v1", "refs/tags/v1", false));
        for bad in ["", ":", "+", "a:", "-x", "a:..", "a:b c", "HEAD", "a:refs/banger/x", "+:"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn packed_references_lose_what_stands_below_them_too() {
        let packed =
            b"# pack-refs with: peeled\n1 refs/heads/a\n2 refs/tags/b\n^3\n4 refs/tags/c\n^5\n";
        let gone = BTreeSet::from(["refs/tags/b"]);
        let kept = b"# pack-refs with: peeled\n1 refs/heads/a\n4 refs/tags/c\n^5\n";
        assert_eq!(without(packed, &gone), kept);
    }
}
