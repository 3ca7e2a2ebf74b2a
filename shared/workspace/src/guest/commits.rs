//! How many commits of its own a guest made: read one by one where they lie loose, for the words alone.
//! Where that is not to be told within its bounds, it is not told.

use super::found::small_files;
use crate::{
    git::{is_oid, lines},
    names::{hex, is_ref_name},
    record::store::{Store, each_object},
    scratch::Scratch,
};
use banger_channel::files::{Budget, Files};
use banger_doc::{Context, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

/// The most commits that are read.
const MAX_COMMITS: usize = 2000;
/// The most times that a guest is asked for the next ones.
const MAX_ROUNDS: usize = 32;
/// The largest commit, as it lies there and unpacked.
const MAX_COMMIT: u64 = 64 << 10;
/// The largest log of a reference that is looked into, and of how many references.
const MAX_LOG: u64 = 1 << 20;
const MAX_LOGS: usize = 16;

/// What counting may take: a status does not wait for it.
fn brief(budget: &Budget) -> Budget {
    budget.entries(10_000).bytes(32 << 20).time(Duration::from_secs(10))
}

/// Commits that a guest made, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct Own {
    read: BTreeMap<String, Read>,
    /// Those that banger gave it.
    given: BTreeSet<String>,
}

/// A commit, or a tag that leads to one.
#[derive(Debug)]
struct Read {
    is_commit: bool,
    leads_to: Vec<String>,
}

impl Own {
    /// Returns how many commits lead from `tip` to what was given or is in `out`; none if that is not known.
    pub(crate) fn count(&self, tip: &str, out: &BTreeSet<&str>) -> Option<usize> {
        let (mut seen, mut left, mut count) = (BTreeSet::new(), vec![tip], 0);
        while let Some(oid) = left.pop() {
            if self.given.contains(oid) || out.contains(oid) || !seen.insert(oid) {
                continue;
            }
            let read = self.read.get(oid)?;
            count += usize::from(read.is_commit);
            left.extend(read.leads_to.iter().map(String::as_str));
        }
        Some(count)
    }

    /// Returns the commits that a commit leads to, as far as they were read, itself among them.
    pub(crate) fn history(&self, tip: &str) -> BTreeSet<&str> {
        let (mut history, mut left) = (BTreeSet::new(), vec![tip]);
        while let Some(oid) = left.pop() {
            if let Some((oid, read)) = self.read.get_key_value(oid)
                && read.is_commit
                && history.insert(oid.as_str())
            {
                left.extend(read.leads_to.iter().map(String::as_str));
            }
        }
        history
    }

    /// Returns what `tips` lead to that was neither given nor read.
    fn open<'a>(&'a self, tips: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
        let (mut seen, mut open) = (BTreeSet::new(), BTreeSet::new());
        let mut left: Vec<&String> = tips.into_iter().collect();
        while let Some(oid) = left.pop() {
            if self.given.contains(oid) || !seen.insert(oid) {
                continue;
            }
            match self.read.get(oid) {
                Some(read) => left.extend(&read.leads_to),
                None => drop(open.insert(oid.clone())),
            }
        }
        open
    }

    /// Notes those that the store has as given, and returns the others.
    fn sort_out(&mut self, store: &Store, oids: BTreeSet<String>) -> Result<BTreeSet<String>> {
        if oids.is_empty() {
            return Ok(oids);
        }
        let git = store.git_for_guest(None);
        let answer = git.run(["cat-file", "--batch-check"], lines(&oids).as_bytes())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let missing = answer.lines().filter_map(|line| line.strip_suffix(" missing"));
        let missing: BTreeSet<String> = missing.map(ToOwned::to_owned).collect();
        self.given.extend(oids.into_iter().filter(|oid| !missing.contains(oid)));
        Ok(missing)
    }

    /// Takes over those of `oids` that lie loose in the guest and are what their names say.
    fn take(
        &mut self,
        files: &Files<'_>,
        root: &str,
        store: &Store,
        scratch: &Scratch,
        oids: &[String],
    ) -> Result<()> {
        let path = |oid: &String| format!(".git/objects/{}/{}", &oid[..2], &oid[2..]);
        let paths: Vec<String> = oids.iter().map(path).collect();
        let paths: Vec<&[u8]> = paths.iter().map(String::as_bytes).collect();
        let mut lying = Vec::new();
        for (at, object) in small_files(files, root, &paths, MAX_COMMIT)? {
            let dir = scratch.objects().join(&oids[at][..2]);
            fs::create_dir_all(&dir).context("cannot make a scratch directory")?;
            fs::write(dir.join(&oids[at][2..]), object).context("cannot write an object")?;
            lying.push(oids[at].clone());
        }
        if lying.is_empty() {
            return Ok(());
        }
        let git = store.git_for_guest(Some(scratch));
        let sizes = git.run(["cat-file", "--batch-check"], lines(&lying).as_bytes())?;
        let sizes = String::from_utf8_lossy(&sizes).into_owned();
        let small = sizes.lines().filter_map(|line| {
            let [oid, "commit" | "tag", size] = line.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            // It may unpack to a thousand times what it takes there.
            let is_small = size.parse::<u64>().is_ok_and(|size| size <= MAX_COMMIT);
            is_small.then(|| oid.to_owned())
        });
        let small: Vec<String> = small.collect();
        if small.is_empty() {
            return Ok(());
        }
        let answer = git.run(["cat-file", "--batch"], lines(&small).as_bytes())?;
        each_object(&answer, |oid, sort, body| {
            // Git does not look whether what lies under a name has that name.
            if name_of(sort, body, store.oid_len) == oid {
                let read = Read { is_commit: sort == "commit", leads_to: leads_to(body) };
                self.read.insert(oid.to_owned(), read);
            }
        })
    }
}

/// Reads the commits that lead from these references, by name, to what was given.
pub(crate) fn own_commits<'a>(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    refs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Own {
    let mut own = Own::default();
    let refs = refs.into_iter().filter(|(_, oid)| is_oid(oid)).take(MAX_COMMITS).collect();
    // The words do without what could not be read.
    let _ = read(&files.within(brief), root, store, &refs, &mut own);
    own
}

fn read(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    refs: &BTreeMap<&str, &str>,
    own: &mut Own,
) -> Result<()> {
    let tips: BTreeSet<String> = refs.values().map(|oid| (*oid).to_owned()).collect();
    let mut next = own.sort_out(store, tips.clone())?;
    if next.is_empty() {
        return Ok(());
    }
    let scratch = store.scratch()?;
    // A log may lie. It says what to look for, which saves asking for one after the other.
    let logs: Vec<String> = std::iter::once("HEAD")
        .chain(refs.keys().copied().filter(|name| is_ref_name(name)).take(MAX_LOGS))
        .map(|name| format!(".git/logs/{name}"))
        .collect();
    let logs: Vec<&[u8]> = logs.iter().map(String::as_bytes).collect();
    let mut named = Vec::new();
    for log in small_files(files, root, &logs, MAX_LOG)?.into_values() {
        let log = String::from_utf8_lossy(&log).into_owned();
        let new = log.lines().rev().filter_map(|line| line.split(' ').nth(1));
        named.extend(new.filter(|oid| is_oid(oid)).map(ToOwned::to_owned));
    }
    named.truncate(MAX_COMMITS / 2);
    next.extend(named);
    let mut tried = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        if next.is_empty() || tried.len() + next.len() > MAX_COMMITS {
            break;
        }
        own.take(files, root, store, &scratch, &next.iter().cloned().collect::<Vec<_>>())?;
        tried.append(&mut next);
        // What does not lie loose is not looked for.
        let open = own.open(&tips).difference(&tried).cloned().collect();
        next = own.sort_out(store, open)?;
    }
    scratch.remove()
}

/// Returns the parents of a commit, or what a tag is of.
fn leads_to(body: &[u8]) -> Vec<String> {
    let head = body.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let named =
        head.filter_map(|line| line.strip_prefix(b"parent ").or(line.strip_prefix(b"object ")));
    let named = named.filter_map(|oid| std::str::from_utf8(oid).ok().filter(|oid| is_oid(oid)));
    named.map(ToOwned::to_owned).collect()
}

/// Returns the name that an object has by its content.
fn name_of(sort: &str, body: &[u8], oid_len: usize) -> String {
    let head = format!("{sort} {}\0", body.len());
    if oid_len == 32 {
        hex(&Sha256::new().chain_update(head).chain_update(body).finalize())
    } else {
        hex(&Sha1::new().chain_update(head).chain_update(body).finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(letter: char) -> String {
        letter.to_string().repeat(40)
    }

    fn own(read: &[(char, bool, &str)], given: &str) -> Own {
        let read = read.iter().map(|(name, is_commit, next)| {
            let leads_to = next.chars().map(oid).collect();
            (oid(*name), Read { is_commit: *is_commit, leads_to })
        });
        Own { read: read.collect(), given: given.chars().map(oid).collect() }
    }

    #[test]
    fn commits_are_counted_up_to_what_is_known() {
        // A merge of two sides that begin at what was given, and a tag of it.
        let all = [('a', true, "bc"), ('b', true, "d"), ('c', true, "d"), ('d', true, "e")];
        let own = own(&[&all[..], &[('f', false, "a")]].concat(), "e");
        let count = |tip: char, out: &str| {
            let out: Vec<String> = out.chars().map(oid).collect();
            own.count(&oid(tip), &out.iter().map(String::as_str).collect())
        };
        assert_eq!(count('a', ""), Some(4));
        assert_eq!(count('f', ""), Some(4), "a tag is no commit");
        assert_eq!(count('a', "d"), Some(3));
        assert_eq!((count('e', ""), count('a', "a")), (Some(0), Some(0)));
        assert_eq!(own.open(&[oid('f')]), BTreeSet::new());
        let history =
            |tip: char| own.history(&oid(tip)).into_iter().map(|oid| &oid[..1]).collect::<String>();
        assert_eq!(
            (history('a'), history('c'), history('e')),
            ("abcd".into(), "cd".into(), String::new())
        );
        assert_eq!(history('f'), "", "what a tag says is in no history");
    }

    #[test]
    fn what_could_not_be_read_is_not_counted_and_a_circle_ends() {
        let own = own(&[('a', true, "b"), ('b', true, "a"), ('c', true, "9")], "");
        assert_eq!(own.count(&oid('c'), &BTreeSet::new()), None);
        assert_eq!(own.count(&oid('a'), &BTreeSet::new()), Some(2));
        assert_eq!(own.history(&oid('a')).len(), 2);
        assert_eq!(own.open(&[oid('c'), oid('a')]), BTreeSet::from([oid('9')]));
    }

    #[test]
    fn a_message_leads_nowhere() {
        let (a, b) = (oid('a'), oid('b'));
        let body = format!("tree {b}\nparent {a}\nparent x\nauthor x\n\nparent {b}\n");
        assert_eq!(leads_to(body.as_bytes()), [oid('a')]);
        assert_eq!(leads_to(format!("object {a}\ntype commit\n\nx").as_bytes()), [a]);
        assert_eq!(name_of("blob", b"", 20), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(name_of("blob", b"", 32).len(), 64);
    }
}
