//! Bringing objects of a guest's repository to the host. Git never runs in that repository: its packs and
//! loose objects come as bytes, in a jail git makes one pack of what is asked for of them, and only what
//! that pack holds, object by object under the name that its content gives it, is taken for brought.

use crate::{
    git::{Git, is_oid, lines},
    guest::is_no_directory,
    record::store::Store,
    scratch::Scratch,
};
use banger_channel::files::{Files, Got, What};
use banger_doc::{Context, Error, Kind, Result, Workspace};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The most packs of a guest's repository that are read.
const MAX_PACKS: usize = 2000;
/// The most tips of which each is tried alone, where not all of them can be brought together.
const MAX_ALONE: usize = 200;
/// How often is looked again where the guest's git moved objects meanwhile.
const LOOKS: usize = 3;
/// What repositories that are otherwise sound have of old; everything else that fsck complains of refuses.
const STRICT: &str = "--strict=zeroPaddedFilemode=ignore,badTimezone=ignore,missingSpaceBeforeDate=ignore,\
                      missingSpaceBeforeEmail=ignore,multipleAuthors=ignore";
/// Keep what making a pack takes within a jail's memory.
const SPARING: &[&str] = &["core.bigFileThreshold=64m", "pack.threads=2", "pack.windowMemory=512m"];

/// What was brought of a guest's repository.
pub(crate) struct Brought {
    /// Its objects are those that the store lacks.
    pub(crate) scratch: Scratch,
    /// Those tips that are there with all they lead to, up to where the history that the guest was given was cut.
    pub(crate) whole: BTreeSet<String>,
    /// The others, with words for why.
    pub(crate) broken: BTreeMap<String, String>,
}

impl Brought {
    /// Checks as strictly a tip that banger made in the scratch of what was brought.
    pub(crate) fn add(&mut self, store: &Store, record: &Workspace, tip: &str) -> Result<()> {
        let mut known = known(store, record)?;
        known.extend(self.whole.iter().cloned());
        let raw = self.scratch.objects();
        let maker = Maker { store, scratch: &self.scratch, raw: &raw };
        maker.make(&[&tip.to_owned()], &known)?;
        self.whole.insert(tip.to_owned());
        Ok(())
    }

    /// Returns a way to call git on what was brought and the store together.
    pub(crate) fn git(&self, store: &Store) -> Git {
        store.git_for_guest(Some(&self.scratch))
    }
}

/// Brings `tips`, objects of any sort, with all they lead to out of the repository at `root`. A tip that is
/// not whole there, or holds what git's own check refuses, keeps none of the others from being brought.
pub(crate) fn bring(
    files: &Files<'_>,
    record: &Workspace,
    store: &Store,
    tips: &BTreeSet<String>,
) -> Result<Brought> {
    let scratch = store.scratch()?;
    let mut brought = Brought { scratch, whole: BTreeSet::new(), broken: BTreeMap::new() };
    let wanted = missing(store, tips)?;
    brought.whole = tips.difference(&wanted).cloned().collect();
    if wanted.is_empty() {
        return Ok(brought);
    }
    let known = known(store, record)?;
    let raw = brought.scratch.path().join("raw");
    let notes = fetch(files, &record.guest_path, store, &brought.scratch, &raw)?;
    let maker = Maker { store, scratch: &brought.scratch, raw: &raw };
    let all: Vec<&String> = wanted.iter().collect();
    match maker.make(&all, &known) {
        Ok(()) => brought.whole.extend(wanted),
        Err(error) if files.budget().left().is_err() => return Err(error),
        Err(error) => {
            if all.len() > MAX_ALONE {
                return Err(error).context("cannot take over what the guest's repository holds");
            }
            let mut known = known;
            for tip in all {
                match maker.make(&[tip], &known) {
                    Ok(()) => {
                        known.insert(tip.clone());
                        brought.whole.insert(tip.clone());
                    }
                    Err(error) => {
                        files.budget().left()?;
                        let why = [error.chain()].into_iter().chain(notes.last().cloned());
                        brought.broken.insert(tip.clone(), why.collect::<Vec<_>>().join("; "));
                    }
                }
            }
        }
    }
    crate::temporary::remove(&raw)?;
    Ok(brought)
}

/// Returns those of `oids` that the store lacks.
fn missing(store: &Store, oids: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let oids: BTreeSet<&String> = oids.iter().filter(|oid| is_of(store, oid)).collect();
    if oids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let git = store.git_for_guest(None);
    let answer = git.run(["cat-file", "--batch-check"], lines(oids).as_bytes())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let missing = answer.lines().filter_map(|line| line.strip_suffix(" missing"));
    Ok(missing.map(ToOwned::to_owned).collect())
}

/// Says whether a name is one that an object of the store's format may have.
fn is_of(store: &Store, oid: &str) -> bool {
    is_oid(oid) && oid.len() == 2 * store.oid_len
}

/// Returns what the store has with all it leads to.
pub(crate) fn known(store: &Store, record: &Workspace) -> Result<BTreeSet<String>> {
    let history = store.history();
    let given = [Some(&record.given), record.next.as_ref()].into_iter().flatten();
    let given = given.flat_map(|position| position.refs.values().chain([&position.head]));
    let base = record.base_commit.iter().chain(&record.host_commit);
    let all = given.chain(history.refs.values()).chain(base);
    let all: BTreeSet<String> = all.filter(|oid| is_of(store, oid)).cloned().collect();
    let lacking = missing(store, &all)?;
    Ok(all.difference(&lacking).cloned().collect())
}

/// Reads the guest's objects that the store lacks into `raw`, where nothing is believed yet. Returns words
/// for what is not followed there.
fn fetch(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    scratch: &Scratch,
    raw: &Path,
) -> Result<Vec<String>> {
    let mut looks = 1;
    loop {
        crate::temporary::remove(raw)?;
        fs::create_dir_all(raw.join("pack")).context("cannot make a scratch directory")?;
        match fetch_once(files, root, store, scratch, raw) {
            // Git of the guest's packs its objects, or writes new ones.
            Err(error) if error.kind() == Kind::Conflict && looks < LOOKS => looks += 1,
            done => return done,
        }
    }
}

fn fetch_once(
    files: &Files<'_>,
    root: &str,
    store: &Store,
    scratch: &Scratch,
    raw: &Path,
) -> Result<Vec<String>> {
    let dir = format!("{root}/.git/objects");
    let budget = files.budget();
    let (mut loose, mut packs, mut listed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut notes = Vec::new();
    let scanned = files.scan(&dir, |entry| {
        if entry.what != What::File {
            return Ok(());
        }
        let path = String::from_utf8(entry.path).unwrap_or_default();
        if let Some(name) = path.strip_prefix("pack/") {
            budget.take_name(name.len())?;
            if let Some(name) = name.strip_suffix(".pack") {
                packs.insert(name.to_owned());
            } else if let Some(name) = name.strip_suffix(".idx") {
                listed.insert(name.to_owned());
            } else if name.strip_suffix(".promisor").is_some() {
                notes.push("the guest's repository is a partial clone".to_owned());
            }
        } else if matches!(path.as_str(), "info/alternates" | "info/http-alternates") {
            notes.push(
                "the guest's repository has objects of another one, which are not read".into(),
            );
        } else if let Some((start, rest)) = path.split_once('/') {
            let oid = format!("{start}{rest}");
            if start.len() == 2 && is_of(store, &oid) {
                budget.take_name(2 * oid.len())?;
                loose.insert(oid);
            }
        }
        Ok(())
    });
    match scanned {
        Err(error) if is_no_directory(&error) => {
            return Err(Error::failed("the guest's repository has no objects of its own"));
        }
        other => other?,
    }
    notes.sort();
    notes.dedup();
    // A pack of banger's is in the store as it was made; without a list of its own git does not see a pack.
    let given = store.packs()?;
    let packs: Vec<String> =
        packs.into_iter().filter(|name| listed.contains(name) && !given.contains(name)).collect();
    if packs.len() > MAX_PACKS {
        return Err(Error::failed(format!(
            "the guest's repository has more than {MAX_PACKS} packs"
        ))
        .hint("'git gc' in the guest makes one of them"));
    }
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let mut places: Vec<PathBuf> = Vec::new();
    for (number, name) in packs.iter().enumerate() {
        paths.push(format!("pack/{name}.pack").into_bytes());
        // What the guest calls it names nothing here.
        places.push(raw.join(format!("pack/pack-{number}.pack")));
    }
    for oid in missing(store, &loose)? {
        let (start, rest) = oid.split_at(2);
        paths.push(format!("{start}/{rest}").into_bytes());
        places.push(raw.join(start).join(rest));
    }
    let asked: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    if !asked.is_empty() {
        files.get(&dir, &asked, |index, got| match got {
            Got::File { content, .. } => {
                let place = &places[index];
                let said = "cannot write an object of the guest's";
                fs::create_dir_all(place.parent().unwrap_or(raw)).context(said)?;
                let mut file = File::create_new(place).context(said)?;
                std::io::copy(content, &mut file).context(said).map(drop)
            }
            Got::Link(_) => Ok(()),
            Got::Missing => {
                Err(Error::conflict("the guest's objects moved while they were read")
                    .hint("try again"))
            }
        })?;
    }
    let git = store.git_for_guest_in(raw, scratch);
    for (place, name) in places.iter().zip(&packs).filter(|(place, _)| place.exists()) {
        let words = ["index-pack".as_ref(), place.as_os_str()];
        if let Err(error) = git.run(words, b"") {
            budget.left()?;
            fs::remove_file(place).context("cannot remove a pack of the guest's")?;
            notes.push(format!("its pack '{}' is damaged: {}", name.escape_debug(), error.chain()));
        }
    }
    Ok(notes)
}

/// Makes packs of what lies in `raw`, for the scratch.
struct Maker<'a> {
    store: &'a Store,
    scratch: &'a Scratch,
    raw: &'a Path,
}

impl Maker<'_> {
    /// Brings tips with all they lead to into the scratch; `known` are what the store or the scratch has.
    fn make(&self, tips: &[&String], known: &BTreeSet<String>) -> Result<()> {
        let mut asked = lines(tips.iter().copied());
        for oid in known {
            let _ = writeln!(asked, "^{oid}");
        }
        let new = self.scratch.path().join("new");
        crate::temporary::remove(&new)?;
        fs::create_dir(&new).context("cannot make a scratch directory")?;
        let mut git = self.store.git_for_guest_in(self.raw, self.scratch);
        for setting in SPARING {
            git = git.set(*setting);
        }
        let base = new.join("pack");
        let words = ["pack-objects", "--revs", "--delta-base-offset", "--non-empty", "-q"];
        let words = words.iter().map(AsRef::as_ref).chain([base.as_os_str()]);
        let name = git.run(words, asked.as_bytes())?;
        let name = String::from_utf8_lossy(&name).trim().to_owned();
        let git = self.store.git_for_guest(Some(self.scratch)).set("core.bigFileThreshold=64m");
        if is_oid(&name) {
            let dir = self.scratch.objects().join("pack");
            fs::create_dir_all(&dir).context("cannot make a scratch directory")?;
            let pack = dir.join(format!("pack-{name}.pack"));
            fs::rename(new.join(format!("pack-{name}.pack")), &pack)
                .context("cannot move a pack")?;
            let checked = git.run(["index-pack".as_ref(), STRICT.as_ref(), pack.as_os_str()], b"");
            if let Err(error) = checked {
                fs::remove_file(&pack).context("cannot remove a pack")?;
                return Err(error);
            }
        }
        // A name that nothing in the pack has by its content is one that the guest made up.
        git.run(["rev-list", "--objects", "--quiet", "--stdin"], asked.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Wish, prepare};
    use banger_channel::files::{Budget, serve};
    use std::{os::unix::net::UnixStream, thread, time::Duration};

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn git(&self, name: &str, words: &[&str]) -> String {
            let git = Git::at(&self.at(name)).set("user.name=A").set("user.email=a@b");
            git.text(words).unwrap()
        }

        fn commit(&self, name: &str, file: &str, content: &str) -> String {
            fs::write(self.at(name).join(file), content).unwrap();
            self.git(name, &["add", "-A"]);
            self.git(name, &["commit", "-qm", content]);
            self.git(name, &["rev-parse", "HEAD"])
        }

        fn files() -> Files<'static> {
            Files::new(Budget::new(Duration::from_mins(1)), || {
                let (here, there) = UnixStream::pair().context("no pair")?;
                thread::spawn(move || serve(there));
                Ok(here)
            })
        }

        fn bring(&self, record: &Workspace, tips: &[&String]) -> (Store, Brought) {
            let store = Store::open(&self.at("vm"), &record.object_format).unwrap();
            let tips = tips.iter().map(ToString::to_string).collect();
            let brought = bring(&Self::files(), record, &store, &tips).unwrap();
            (store, brought)
        }
    }

    /// A host with twelve commits, of which ten went into a guest.
    fn prepared(format: &str) -> (Place, Workspace) {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        for name in ["host", "vm"] {
            fs::create_dir(place.at(name)).unwrap();
        }
        let form = format!("--object-format={format}");
        place.git("host", &["init", "-q", "-b", "main", &form]);
        for n in 0..12 {
            place.commit("host", "a", &format!("{n}\n"));
        }
        let guest = place.at("guest");
        let wish = Wish::of("web", &place.at("host"), guest.to_str().unwrap());
        let record = prepare(&place.at("vm"), &Place::files(), &wish).unwrap();
        (place, record)
    }

    #[test]
    fn commits_come_loose_and_packed_in_either_format() {
        for format in ["sha1", "sha256"] {
            let (place, record) = prepared(format);
            let base = place.git("guest", &["rev-parse", "HEAD"]);
            let (_, brought) = place.bring(&record, &[&base]);
            assert_eq!(
                (brought.whole.len(), brought.scratch.path().join("raw").exists()),
                (1, false)
            );
            let one = place.commit("guest", "b", "one\n");
            place.git("guest", &["checkout", "-q", "-b", "other", "HEAD~1"]);
            let two = place.commit("guest", "c", "two\n");
            for pack in [false, true] {
                if pack {
                    place.git("guest", &["gc", "-q", "--prune=now"]);
                }
                let (store, brought) = place.bring(&record, &[&one, &two]);
                assert_eq!(brought.whole.len(), 2, "{:?}", brought.broken);
                let git = brought.git(&store);
                assert_eq!(git.text(["show", &format!("{two}:c")]).unwrap(), "two");
                let count = git.text(["rev-list", "--count", &one, &two]).unwrap();
                assert_eq!(count, "12", "ten that went in and two");
            }
        }
    }

    #[test]
    fn what_is_not_whole_keeps_nothing_else_back() {
        let (place, record) = prepared("sha1");
        let good = place.commit("guest", "b", "good\n");
        place.git("guest", &["checkout", "-q", "-b", "other", "HEAD~1"]);
        let bad = place.commit("guest", "c", "bad\n");
        let blob = place.git("guest", &["rev-parse", &format!("{bad}:c")]);
        fs::remove_file(place.at("guest/.git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
        // An object under a name that its content does not have.
        let made_up = "1234567890".repeat(4);
        let objects = place.at("guest/.git/objects");
        fs::create_dir_all(objects.join(&made_up[..2])).unwrap();
        fs::copy(
            objects.join(&good[..2]).join(&good[2..]),
            objects.join(&made_up[..2]).join(&made_up[2..]),
        )
        .unwrap();
        fs::write(objects.join("pack/pack-x.pack"), "PACK no pack").unwrap();
        fs::write(objects.join("pack/pack-x.idx"), "").unwrap();
        let absent = "f".repeat(40);
        let (store, brought) = place.bring(&record, &[&good, &bad, &made_up, &absent]);
        assert_eq!(brought.whole.iter().collect::<Vec<_>>(), [&good]);
        assert_eq!(brought.broken.len(), 3, "{:?}", brought.broken);
        let there = brought.git(&store).attempt(["cat-file", "-e", &made_up], b"").unwrap();
        assert!(!there.status.success());
    }
}
