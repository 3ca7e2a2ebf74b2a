//! A guest's commits as mails with a patch each, which `git am` takes, and what it has not committed as the
//! last of them.

use crate::{
    export::mbox,
    export::sides::Sides,
    git::{Git, is_oid, lines, split_zero},
    guest::{How, differences},
    host::index::index_line,
    path::{join, parents, shown},
    record::store::each_object,
};
use banger_doc::{Context, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
};

/// The most commits that mails are made of.
const MAX_COMMITS: usize = 20_000;
/// The most bytes of all of these, which are kept in memory.
const MAX_WORDS: u64 = 64 << 20;
/// Whose the mail of what is not committed is.
const WHO: &str = "banger <banger@localhost>";
/// What else brings commits.
const HINT: &str = "'banger workspace pull' brings commits as they are; without '--commits' all of it is one patch";

/// What mails come to.
pub(crate) struct Mails {
    /// Their sum on the commit that was prepared.
    pub(crate) sum: String,
    /// The tree that is out with them.
    pub(crate) out: String,
    /// The guest's commits that are among them.
    pub(crate) commits: BTreeSet<String>,
    /// What the user is to know.
    pub(crate) notes: Vec<String>,
}

/// A commit of the guest's.
#[derive(Clone)]
struct Commit {
    oid: String,
    parents: Vec<String>,
    tree: String,
    author: Vec<u8>,
    /// The line that says in what letters the message is, if there is one.
    encoding: Vec<u8>,
    message: Vec<u8>,
}

/// Writes mails into `file`: the guest's commits since the one that was prepared, and the rest of what the guest
/// did; with `all`, of what it has, local edits of the host's that went in included.
pub(crate) fn write(sides: &Sides, all: bool, file: &File) -> Result<Mails> {
    let git = sides.git_for_guest().work_tree(&sides.scratch.tree());
    let mut notes = Vec::new();
    let base = sides.record.base_commit.as_deref();
    let empty = sides.empty_tree()?;
    let base_tree = base.unwrap_or(&empty);
    let mut commits = BTreeSet::new();
    let mut oids = chain(&git, sides, (base, base_tree), &mut commits, &mut notes)?;
    let tip = oids.last().map(String::as_str).or(base);
    let sum = sum(&git, sides, all, base_tree, tip.unwrap_or(base_tree), &mut notes)?;
    let (sum, out) = without_ignored(&git, sides, tip.unwrap_or(base_tree), sum, &mut notes)?;
    let is_clean = match tip {
        Some(tip) => differences(&git, tip, &sum)?.is_empty(),
        None => sum == base_tree,
    };
    if !is_clean {
        let date = tip.map(|tip| git.text(["show", "-s", "--format=%ct", tip])).transpose()?;
        let date = date.and_then(|date| date.parse::<u32>().ok()).unwrap_or(0);
        let rest = Commit {
            oid: String::new(),
            parents: tip.iter().map(ToString::to_string).collect(),
            tree: sum.clone(),
            author: format!("{WHO} {date} +0000").into_bytes(),
            encoding: Vec::new(),
            message: b"uncommitted work\n".to_vec(),
        };
        oids.push(rest.make(&git)?);
    }
    let Some(end) = oids.last() else { return Ok(Mails { sum, out, commits, notes }) };
    let range = base.map_or_else(|| end.clone(), |base| format!("{base}..{end}"));
    let raw = tempfile::tempfile_in(sides.scratch.path()).context("cannot make a file")?;
    let copy = raw.try_clone().context("cannot copy a descriptor")?;
    let words = [
        "format-patch",
        "--stdout",
        "--root",
        "--binary",
        "--full-index",
        "-M",
        "--no-ext-diff",
        "--no-textconv",
        "--ignore-submodules=none",
        "--submodule=short",
        "--no-signature",
        "--no-numbered",
        "--no-thread",
        "--no-cover-letter",
        "--no-notes",
        "--no-stat",
        "--encode-email-headers",
        range.as_str(),
    ];
    // No rules of a work tree's count.
    sides
        .git_for_guest()
        .to_file(words, copy)
        .context("cannot make mails of the guest's commits")?;
    let written = mbox::write(raw, file, &oids).context("cannot write the mails")?;
    match oids.len() - written {
        0 => {}
        1 => notes.push("a commit that changes nothing is not among the mails".into()),
        count => notes.push(format!("{count} commits that change nothing are not among the mails")),
    }
    Ok(Mails { sum, out, commits, notes })
}

/// Returns commits, each the parent of the next, that come to the guest's HEAD, and of which each makes one good
/// mail: the guest's own where they are such. Those that the mails tell of go into `out`.
fn chain(
    git: &Git,
    sides: &Sides,
    (base, base_tree): (Option<&str>, &str),
    out: &mut BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let Some(head) = sides.head()? else { return Ok(Vec::new()) };
    if base == Some(head.as_str()) {
        return Ok(Vec::new());
    }
    let elsewhere = || {
        Error::conflict("the guest's HEAD does not follow the commit that was prepared").hint(HINT)
    };
    if let Some(base) = base
        && !git.attempt(["merge-base", "--is-ancestor", base, &head], b"")?.status.success()
    {
        return Err(elsewhere());
    }
    let mut words = vec!["rev-list", "--reverse", "--topo-order", head.as_str()];
    let before = base.map(|base| format!("^{base}"));
    words.extend(before.as_deref());
    let mut commits = read(git, &words)?;
    let own: BTreeMap<String, String> =
        commits.iter().map(|commit| (commit.oid.clone(), commit.tree.clone())).collect();
    let mut is_straight = true;
    if commits.iter().any(|commit| commit.parents.len() > 1) {
        if let Some(straight) = straight(git, &commits, (base, base_tree), &head)? {
            commits = straight;
        } else {
            is_straight = false;
            let (count, first) = (commits.len(), "--first-parent");
            words.insert(1, first);
            commits = read(git, &words)?;
            if commits.first().and_then(|commit| commit.parents.first()).map(String::as_str) != base
            {
                return Err(elsewhere());
            }
            notes.push(format!(
                "the guest's merges cannot be told one commit after the other: each is one mail, and {} commits \
                 that came in by them have none; 'banger workspace pull' brings all",
                count - commits.len()
            ));
        }
    }
    // A merge comes to nothing of its own where all that it merges is told.
    let told = commits.iter().map(|commit| &commit.oid);
    out.extend(if is_straight {
        own.keys().cloned().collect()
    } else {
        told.cloned().collect::<Vec<_>>()
    });
    let mut oids: Vec<String> = Vec::new();
    for mut commit in commits {
        let parent = oids.last().map(String::as_str).or(base).map(ToOwned::to_owned);
        let parents: Vec<String> = parent.into_iter().collect();
        let good = mbox::harmless(&commit.message);
        let author = mbox::named(&commit.author);
        // One that comes after another, or to another tree, is made anew.
        let is_own = own.get(&commit.oid) == Some(&commit.tree) && commit.parents == parents;
        if is_own && good.is_none() && author.is_none() {
            oids.push(commit.oid);
            continue;
        }
        commit.parents = parents;
        commit.message = good.unwrap_or(commit.message);
        commit.author = author.unwrap_or(commit.author);
        oids.push(commit.make(git)?);
    }
    Ok(oids)
}

/// Reads the commits that `git rev-list` names.
fn read(git: &Git, words: &[&str]) -> Result<Vec<Commit>> {
    let listed = String::from_utf8_lossy(&git.run(words, b"")?).into_owned();
    let oids: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
    if oids.len() > MAX_COMMITS {
        let many = format!("the guest has {} commits; mails are made of {MAX_COMMITS}", oids.len());
        return Err(Error::failed(many).hint(HINT));
    }
    let sizes = git.run(["cat-file", "--batch-check=%(objectsize)"], lines(&oids).as_bytes())?;
    let sizes = String::from_utf8_lossy(&sizes).into_owned();
    let size: u64 = sizes.lines().filter_map(|size| size.parse::<u64>().ok()).sum();
    if size > MAX_WORDS {
        let many =
            format!("the guest's commits have {size} bytes of messages; {MAX_WORDS} are read");
        return Err(Error::failed(many).hint(HINT));
    }
    let answer = git.run(["cat-file", "--batch"], lines(&oids).as_bytes())?;
    let mut commits = Vec::new();
    each_object(&answer, |oid, _, body| commits.push(Commit::parse(oid, body)))?;
    Ok(commits)
}

impl Commit {
    fn parse(oid: &str, body: &[u8]) -> Self {
        let end = body.windows(2).position(|pair| pair == b"\n\n").unwrap_or(body.len());
        let (head, message) = (&body[..end], body.get(end + 2..).unwrap_or_default());
        let all = |name: &str| {
            let start = format!("{name} ");
            let lines = head.split(|byte| *byte == b'\n');
            lines
                .filter_map(|line| line.strip_prefix(start.as_bytes()).map(<[u8]>::to_vec))
                .collect::<Vec<_>>()
        };
        let oids = |name| {
            let oids = all(name).into_iter().filter_map(|oid| String::from_utf8(oid).ok());
            oids.filter(|oid| is_oid(oid)).collect::<Vec<_>>()
        };
        Self {
            oid: oid.to_owned(),
            parents: oids("parent"),
            tree: oids("tree").pop().unwrap_or_default(),
            author: all("author").into_iter().next().unwrap_or_default(),
            encoding: all("encoding").into_iter().next().unwrap_or_default(),
            message: message.to_vec(),
        }
    }

    /// Writes the commit into the scratch, and returns its name.
    fn make(&self, git: &Git) -> Result<String> {
        let mut body = format!("tree {}\n", self.tree).into_bytes();
        for parent in &self.parents {
            body.extend(format!("parent {parent}\n").bytes());
        }
        for who in ["author ", "committer "] {
            body.extend([who.as_bytes(), &self.author, b"\n"].concat());
        }
        if !self.encoding.is_empty() {
            body.extend([b"encoding ", &self.encoding[..], b"\n"].concat());
        }
        body.push(b'\n');
        body.extend_from_slice(&self.message);
        let oid = git.run(["hash-object", "-t", "commit", "-w", "--stdin"], &body)?;
        Ok(String::from_utf8_lossy(&oid).trim().to_owned())
    }
}

/// Returns the commits that are no merges one after another, with the trees that they come to so, if the last of
/// these is the one of `head`.
fn straight(
    git: &Git,
    commits: &[Commit],
    (base, base_tree): (Option<&str>, &str),
    head: &str,
) -> Result<Option<Vec<Commit>>> {
    let mut straight: Vec<Commit> = Vec::new();
    git.run(["read-tree", base_tree], b"")?;
    let mut at = git.text(["write-tree", "--missing-ok"])?;
    // The commit that the tree so far is of.
    let mut last = base.map(ToOwned::to_owned);
    for commit in commits.iter().filter(|commit| commit.parents.len() < 2) {
        if commit.parents.first() == last.as_ref() {
            git.run(["read-tree", &commit.tree], b"")?;
            at.clone_from(&commit.tree);
        } else {
            let words = ["diff-tree", "-p", "--root", "--no-commit-id", "--binary", "--full-index"];
            let more = ["--no-ext-diff", "--no-textconv", "--ignore-submodules=none", &commit.oid];
            let patch = git.run(words.iter().chain(&more), b"")?;
            if !patch.is_empty() {
                let words = ["apply", "--cached", "--whitespace=nowarn", "-"];
                if !git.attempt(words, &patch)?.status.success() {
                    return Ok(None);
                }
            }
            at = git.text(["write-tree", "--missing-ok"])?;
        }
        last = Some(commit.oid.clone()).filter(|_| at == commit.tree);
        straight.push(Commit { tree: at.clone(), ..commit.clone() });
    }
    let of_head = commits.iter().find(|commit| commit.oid == head);
    Ok(Some(straight).filter(|_| of_head.is_some_and(|commit| commit.tree == at)))
}

/// Returns the tree that all mails come to on the commit that was prepared: what the guest has, but for local edits of
/// the host's at which the guest did nothing.
fn sum(
    git: &Git,
    sides: &Sides,
    all: bool,
    base: &str,
    tip: &str,
    notes: &mut Vec<String>,
) -> Result<String> {
    let (prepared, whole) = (sides.record.prepared_tree.as_str(), sides.whole.as_str());
    let edited = differences(git, base, prepared)?;
    if all || edited.is_empty() {
        return Ok(whole.to_owned());
    }
    let (worked, committed) = (differences(git, prepared, whole)?, differences(git, base, tip)?);
    let is_touched = |path: &Vec<u8>| worked.contains_key(path) || committed.contains_key(path);
    let (touched, left): (Vec<&Vec<u8>>, Vec<&Vec<u8>>) =
        edited.keys().partition(|path| is_touched(path));
    if let Some(first) = touched.first() {
        let first = shown(first);
        let what = match touched.len() {
            1 => format!("'{first}' went in with a local edit, which is in the mails too"),
            count => {
                format!(
                    "{count} files, as '{first}', went in with local edits, which are in the mails too"
                )
            }
        };
        notes.push(format!("{what}: 'git am' takes these mails where such edits are put aside"));
    }
    let listed = git.run(["ls-tree", "-r", "-z", whole], b"")?;
    let mut there: BTreeSet<&[u8]> = split_zero(&listed).map(path_of).collect();
    for path in &left {
        there.remove(path.as_slice());
    }
    let is_free = |path: &[u8]| {
        let inside = join(path, b"");
        let below = there.range(inside.as_slice()..).next();
        !below.is_some_and(|below| below.starts_with(&inside))
            && !parents(path).any(|dir| there.contains(dir))
    };
    let of_base = git.run(["ls-tree", "-r", "-z", "--full-tree", base], b"")?;
    let of_base: BTreeMap<&[u8], &[u8]> =
        split_zero(&of_base).map(|line| (path_of(line), line)).collect();
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    for path in left {
        if edited[path] != How::Added && !is_free(path) {
            continue;
        }
        gone.extend_from_slice(path);
        gone.push(0);
        if let Some((mode, oid)) = of_base.get(path.as_slice()).and_then(|line| mode_and_oid(line))
        {
            index_line(&mut back, mode, oid, path);
        }
    }
    git.run(["read-tree", whole], b"")?;
    if !gone.is_empty() {
        git.run(["update-index", "-z", "--force-remove", "--stdin"], &gone)?;
    }
    if !back.is_empty() {
        git.run(["update-index", "-z", "--index-info"], &back)?;
    }
    git.text(["write-tree", "--missing-ok"])
}

/// Leaves out of a sum what went in although a rule of the host's ignores it: mails to a commit would give away all
/// of such a file. Returns also the tree that is out then.
fn without_ignored(
    git: &Git,
    sides: &Sides,
    tip: &str,
    sum: String,
    notes: &mut Vec<String>,
) -> Result<(String, String)> {
    let whole = sides.whole.clone();
    let mut ignored = sides.ignored();
    // What the guest committed of it is in its commits.
    let listed = git.run(["ls-tree", "-r", "-z", "--name-only", "--full-tree", tip], b"")?;
    for path in split_zero(&listed) {
        ignored.remove(path);
    }
    if ignored.is_empty() {
        return Ok((sum, whole));
    }
    let mut gone = Vec::new();
    for path in &ignored {
        gone.extend_from_slice(path);
        gone.push(0);
    }
    git.run(["read-tree", &sum], b"")?;
    git.run(["update-index", "-z", "--force-remove", "--stdin"], &gone)?;
    let sum = git.text(["write-tree", "--missing-ok"])?;
    let worked = differences(git, &sides.record.prepared_tree, &whole)?;
    let Some(first) = worked.keys().find(|path| ignored.contains(*path)) else {
        return Ok((sum, whole));
    };
    let first = shown(first);
    notes.push(format!(
        "not in the mails: what the guest did to '{first}', and to whatever else is ignored on the host; \
         without '--commits' it is in the patch"
    ));
    Ok((sum, sides.with_ignored(whole)?))
}

/// Returns the path in a line of `git ls-tree -z`.
fn path_of(line: &[u8]) -> &[u8] {
    let tab = line.iter().position(|byte| *byte == b'\t');
    tab.map_or(line, |tab| &line[tab + 1..])
}

fn mode_and_oid(line: &[u8]) -> Option<(u32, &str)> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    let mut fields = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let oid = fields.nth(1).filter(|oid| is_oid(oid))?;
    Some((mode, oid))
}
