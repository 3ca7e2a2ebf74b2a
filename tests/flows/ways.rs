//! Each way out of a VM, for every sort of repository: what comes is what the guest has, the same from the
//! running and from the stopped VM, and nothing else of the host's changes.
//!
//! The guest's git is the host's (`World::bring_git`), so what a tar brings of a workspace is asked with that.

mod judge;
mod model;

use crate::{
    survive::{say, soak},
    workspace::{
        World,
        cases::{CASES, Case},
    },
};
use banger_tests::{Answer, have, program};
use judge::Judge;
use model::{Model, Tree, differing, is_of_git, read, said, same, shell, shown, work_tree};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// What is not of git's.
const DIRECTORY: Case = Case {
    name: "a directory without git",
    setup: "mkdir d; echo a >a; echo b >d/b; ln -s a l; echo '*.o' >.bangerignore; echo o >x.o",
    work: "echo more >>a; rm d/b; echo n >d/n",
    full: false,
    untracked: false,
};

/// Those of which each differs most from the others.
const SELECTION: [&str; 7] = [
    "local edits on the host",
    "unborn branch with an index",
    "linked worktree",
    "line ends",
    "sha-256",
    "submodules",
    "a directory without git",
];

/// What of a day's work is done beside the case's own.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Day {
    /// Nothing: the case would be another one by it.
    None,
    /// Edits; the case has no commit to go on from, or no git.
    Edits,
    /// Commits, branches and a merge too.
    All,
}

/// Files for it, on the host.
const BEGIN: &str = "seq 20 >day-both; for f in edit mode gone old commit carried dropped staged; do seq 9 | sed \"s/^/$f /\" >day-$f; done; \
                     printf 'b\\0y' >day-binary; ln -s day-edit day-link";
const COMMITS: &str = "meant=$(git diff --name-only --diff-filter=A); [ -z \"$meant\" ] || git reset -q -- $meant
dirty=; git diff --cached --quiet || { git stash -q; dirty=1; }
export GIT_AUTHOR_NAME='Grace Höpper' GIT_AUTHOR_EMAIL=grace@example.org GIT_AUTHOR_DATE='1700000001 +0530'
echo c >>day-commit; git mv day-carried day-taken; git rm -q day-dropped; git commit -qm 'Carry a file' -m 'And drop one.'
git checkout -qb day/side; echo s >day-side; git add day-side; git commit -qm 'Say s'
git checkout -q -; printf 'm\\0\\1' >day-main; chmod +x day-commit; git add day-main day-commit; git commit -qm 'Say m'
git merge -q --no-edit day/side
git checkout -qb day/other; echo o >day-other; git add day-other; git commit -qm 'Stay apart'; git checkout -q -
[ -z \"$dirty\" ] || git stash pop -q --index
[ -z \"$meant\" ] || git add -N $meant";
const EDITS: &str = "sed -i '2s/.*/two of the guest/' day-both; echo more >>day-edit; mv day-old day-new; chmod +x day-mode; rm day-gone
printf '\\0\\1\\n' >>day-binary; ln -sfn day-mode day-link; mkdir -p 'day dir'; echo new >'day dir/a b'";
const STAGED: &str = "echo one >>day-staged; git add day-staged; echo two >>day-staged";
/// What the host does in the meantime, and the file that comes of both.
const MEANWHILE: &str = "sed -i '19s/.*/nineteen of the host/' host/day-both";

/// Which commands bring work out.
const WAYS: [&str; 6] =
    ["export", "export --base-commit prepared", "export --commits", "apply", "pull", "git fetch"];

/// A repository in a workspace of its own.
struct Sort {
    case: &'static Case,
    /// Where everything that the case made is `bed`, with the repository in `host`; copies of it go beside.
    top: PathBuf,
    place: String,
    /// What the guest has there, as its tar writes it.
    tar: Vec<u8>,
    /// The commit that was prepared; empty if there is none.
    base: String,
    day: Day,
}

/// What came.
#[derive(PartialEq)]
struct Outcome {
    status: i32,
    /// A patch, mails; what is said of a failure.
    bytes: Vec<u8>,
    document: Value,
    /// Files of the host's checkout afterwards.
    files: Tree,
    /// References that came.
    refs: BTreeMap<String, String>,
}

type Outcomes = BTreeMap<(usize, &'static str), Outcome>;

impl Sort {
    fn day(name: &str) -> Day {
        match name {
            "untouched" | "empty repository" => Day::None,
            "in the middle of a merge"
            | "unborn branch with an index"
            | "a directory without git" => Day::Edits,
            _ => Day::All,
        }
    }

    /// Puts it in, and has the guest work on it.
    fn work(world: &World, number: usize, case: &'static Case) -> (Self, Model) {
        let day = Self::day(case.name);
        let begin = match day {
            Day::None => String::new(),
            Day::All => {
                // Some cases count their commits.
                let how = if case.work.contains("wc -l) =") {
                    "--amend --no-edit"
                } else {
                    "-m 'Begin a day'"
                };
                format!("cd $TOP/host; {BEGIN}; git add day-*; git commit -q {how} -- day-*")
            }
            Day::Edits if case.name == DIRECTORY.name => BEGIN.to_owned(),
            Day::Edits => format!("{BEGIN}; git add day-*"),
        };
        let bed =
            world.repository(&format!("sort-{number}/bed"), &format!("{}\n{begin}", case.setup));
        let top = bed.parent().expect("a directory").to_owned();
        let place = format!("/root/{number}");
        let mut words = vec!["--guest-path", &place];
        words.extend(case.full.then_some("--mode=full_copy"));
        words.extend(case.untracked.then_some("--include-untracked"));
        let prepared = world.prepare(&bed, &words);
        let base = prepared.ok().document()["host_commit"].as_str().unwrap_or_default().to_owned();
        let (commits, edits, staged) = match day {
            Day::None => ("", "", ""),
            Day::Edits => ("", EDITS, ""),
            Day::All => (COMMITS, EDITS, STAGED),
        };
        let script = format!(
            "exec 3>&1 >&2\n{}\n{commits}\n{edits}\n{staged}\nexec >&3; tar -cf - .",
            case.work
        );
        let at = format!("--workdir={place}");
        let words = [&at, "web", "--", "bash", "-euo", "pipefail", "-c", &script];
        let worked = world.guest.sandbox.raw(program("banger-vm-exec"), &words);
        let tar = worked.ok().stdout.clone();
        world.unpack(&top, "guest", &tar);
        let model = Model::of(world, &bed.join("host"), &top.join("guest"), case.untracked);
        (Self { case, top, place, tar, base, day }, model)
    }

    fn is_directory(&self) -> bool {
        self.case.name == DIRECTORY.name
    }

    fn apply_to(&self, world: &World, copy: &Path) -> Answer {
        let host = copy.join("host");
        let words = ["web", host.to_str().expect("text"), "--guest-path", &self.place];
        world.guest.run("workspace-apply", &words)
    }

    /// What refuses an apply at first, in which words, and what ends it.
    fn hindrance(&self) -> Option<(&'static str, &'static str)> {
        match self.case.name {
            "local edits on the host" => {
                Some(("1 path is in conflict; nothing was changed", "git restore --staged ."))
            }
            "in the middle of a merge" => {
                Some(("a merge is going on in '", "git merge --quit; git reset -q"))
            }
            _ => None,
        }
    }

    /// Has an apply be refused, which touches nothing, and does what has to be done first.
    fn end_hindrance(&self, world: &World, copy: &Path, wrong: &mut Vec<String>) {
        let Some((words, end)) = self.hindrance() else { return };
        let before = read(copy);
        self.apply_to(world, copy).fails(4, words);
        let touched = differing(&before, &read(copy));
        if !touched.is_empty() {
            wrong.push(format!("{}: a refused apply touched {touched:?}", self.case.name));
        }
        said(world, &copy.join("host"), end);
    }

    /// Applies to the checkout in a copy.
    fn apply(&self, world: &World, copy: &Path) -> Answer {
        if !self.base.is_empty() || self.is_directory() {
            return self.apply_to(world, copy);
        }
        // Without a commit a checkout is known by its place alone, and so is what it got before.
        let (bed, aside) = (self.top.join("bed"), self.top.join("aside"));
        let rename = |from: &Path, to: &Path| fs::rename(from, to).expect("another name");
        rename(&bed, &aside);
        rename(copy, &bed);
        let mut answer = self.apply_to(world, &bed);
        rename(&bed, copy);
        rename(&aside, &bed);
        said(world, &world.guest.folder(), "rm -rf workspaces/*/applied");
        answer.stderr =
            answer.stderr.replace(bed.to_str().expect("text"), copy.to_str().expect("text"));
        answer
    }

    /// Makes a copy of all that the case made.
    fn copy(&self, world: &World, name: &str) -> PathBuf {
        let copy = self.top.join(name.replace(' ', "-"));
        // The work tree of a copy is linked to the repository of the copy.
        let script = format!(
            "cp -a bed '{0}'; cd '{0}'; [ ! -f host/.git ] || {{ echo \"gitdir: $PWD/main/.git/worktrees/host\" >host/.git; \
             echo \"$PWD/host/.git\" >main/.git/worktrees/host/gitdir; }}",
            copy.display(),
        );
        said(world, &self.top, &script);
        copy
    }

    /// Says which way ends in an error, how, and with which words.
    fn refusal(&self, way: &str) -> Option<(i32, &'static str)> {
        match (self.case.name, way) {
            ("a directory without git", "export --commits" | "pull") => {
                Some((2, "was a directory without git when it was put there"))
            }
            ("a directory without git", "git fetch") => {
                Some((128, "was a directory without git when it was put there"))
            }
            _ => None,
        }
    }

    /// Takes one way out, into a copy of the host's.
    fn take(
        &self,
        world: &World,
        when: &str,
        way: &'static str,
        wrong: &mut Vec<String>,
    ) -> (PathBuf, Outcome) {
        let copy = self.copy(world, &format!("{when}-{way}"));
        let host = copy.join("host");
        let address = format!("banger::web:{}", self.place);
        if way == "apply" {
            if self.day != Day::None {
                said(world, &copy, MEANWHILE);
            }
            self.end_hindrance(world, &copy, wrong);
        }
        if way == "git fetch" {
            // Where there is no repository one is made, so that git asks the VM.
            let script = format!(
                "[ -e .git ] || {{ mkdir ../other; cd ../other; git init -q; }}; git remote add web {address}; \
                 git config --add remote.web.fetch '+refs/banger/*:refs/remotes/web/*'"
            );
            said(world, &host, &script);
        }
        let before = read(&copy);
        let text = host.to_str().expect("text");
        let at = ["--guest-path", &self.place];
        let sandbox = &world.guest.sandbox;
        let export = |more: &[&str]| {
            sandbox.raw(program("banger-workspace-export"), &[&["web"], &at[..], more].concat())
        };
        let answer = match way {
            "export" => export(&[]),
            "export --base-commit prepared" => export(&["--base-commit", "prepared"]),
            "export --commits" => export(&["--commits"]),
            "apply" => self.apply(world, &copy),
            "pull" => world.guest.run("workspace-pull", &[&["web", text], &at[..]].concat()),
            _ => shell(world, &host, "[ -e .git ] || cd ../other; git fetch -q web"),
        };
        let after = read(&copy);
        let outcome = outcome(world, &host, way, &answer);
        let strange = strange(way, &outcome, &before, &after);
        if !strange.is_empty() {
            wrong.push(format!("{}: {way}, {when}: touched {strange:?}", self.case.name));
        }
        match self.refusal(way) {
            None if answer.status != 0 => {
                wrong.push(format!("{}: {way}, {when}:\n{}", self.case.name, answer.all()));
            }
            Some((status, words)) if answer.status != status || !answer.stderr.contains(words) => {
                wrong.push(format!(
                    "{}: {way}, {when}: not {status} and '{words}':\n{}",
                    self.case.name,
                    answer.all()
                ));
            }
            _ => {}
        }
        (copy, outcome)
    }
}

/// Looks at what came.
fn outcome(world: &World, host: &Path, way: &str, answer: &Answer) -> Outcome {
    let copy = host.parent().and_then(Path::to_str).expect("text");
    let mut document = answer.documents.last().cloned().unwrap_or_default();
    if let Some(document) = document.as_object_mut() {
        // Each goes into a copy of its own.
        document.remove("host_path");
    }
    let bytes = match (answer.status, way.starts_with("export")) {
        (0, true) => answer.stdout.clone(),
        (0, false) => Vec::new(),
        _ => {
            document = Value::Null;
            answer.stderr.replace(copy, "").into_bytes()
        }
    };
    let mut refs = BTreeMap::new();
    if host.join(".git").exists() {
        let format = "git for-each-ref --format='%(objectname) %(refname)' refs/remotes/web";
        for line in said(world, host, format).lines() {
            let (oid, name) = line.split_once(' ').expect("a reference");
            refs.insert(name.trim_start_matches("refs/remotes/web/").to_owned(), oid.to_owned());
        }
    }
    Outcome { status: answer.status, bytes, document, files: work_tree(host), refs }
}

/// Returns what changed and may not.
fn strange(way: &str, outcome: &Outcome, before: &Tree, after: &Tree) -> BTreeSet<PathBuf> {
    let mut changed = differing(before, after);
    let named: BTreeSet<String> = match outcome.document["changes"].as_array() {
        Some(changes) if way == "apply" => changes
            .iter()
            .map(|change| format!("host/{}", change["path"].as_str().expect("a path")))
            .collect(),
        _ => BTreeSet::new(),
    };
    let silent = named.iter().filter(|path| !changed.iter().any(|c| shown(c) == **path));
    let mut strange: BTreeSet<PathBuf> =
        silent.map(|path| Path::new("named, but the same").join(path)).collect();
    changed.retain(|path| {
        let text = path.to_string_lossy();
        let Some((_, of_git)) = text.split_once(".git/") else {
            return is_of_git(path) || !named.contains(&shown(path));
        };
        let below = |places: &[&str]| places.iter().any(|place| of_git.starts_with(place));
        let refs = ["refs/remotes/web/", "refs/banger/web/", "logs/refs/remotes/web/"];
        let is_new = below(&["objects/"]) && !before.contains_key(path);
        match way {
            "pull" => !(below(&refs) || is_new || of_git == "config"),
            "git fetch" => !(below(&refs) || is_new || of_git.ends_with("FETCH_HEAD")),
            _ => true,
        }
    });
    strange.append(&mut changed);
    strange
}

#[test]
fn each_way_out_brings_the_same_from_a_running_and_from_a_stopped_vm() {
    if !have("git") {
        return;
    }
    let only = std::env::var("BANGER_SORT").ok();
    let wanted = |case: &Case| match &only {
        Some(names) => names.split("; ").any(|name| name == case.name),
        None => soak() || SELECTION.contains(&case.name),
    };
    let cases: Vec<&'static Case> =
        CASES.iter().chain([&DIRECTORY]).filter(|case| wanted(case)).collect();
    assert!(!cases.is_empty(), "no such sort: {only:?}");
    let world = World::boot();
    world.bring_git();
    let mut wrong = Vec::new();
    let mut sorts = Vec::new();
    let begin = Instant::now();
    for (number, case) in cases.into_iter().enumerate() {
        let begin = Instant::now();
        sorts.push(Sort::work(&world, number, case));
        say(&format!("{}: work {:.1} s", case.name, begin.elapsed().as_secs_f64()));
    }
    say(&format!("all work: {:.1} s", begin.elapsed().as_secs_f64()));
    let running = take_all(&world, "running", &sorts, &mut wrong);
    world.anywhere("sync").ok();
    world.guest.run("vm-stop", &["web"]).ok();
    let stopped = take_all(&world, "stopped", &sorts, &mut wrong);
    for (number, (sort, _)) in sorts.iter().enumerate() {
        if running[&(number, "pull")].refs != running[&(number, "git fetch")].refs {
            wrong.push(format!("{}: pull and git fetch brought other references", sort.case.name));
        }
    }
    for way in WAYS {
        let (mut came, mut refused, mut alike) = (0, 0, 0);
        for (number, (sort, _)) in sorts.iter().enumerate() {
            let [one, other] = [&running, &stopped].map(|taken| &taken[&(number, way)]);
            *if one.status == 0 { &mut came } else { &mut refused } += 1;
            if one == other {
                alike += 1;
            } else {
                let (name, told) = (sort.case.name, differ(one, other));
                wrong.push(format!("{name}: {way}: of the stopped VM comes another: {told}"));
            }
        }
        say(&format!("{way}: {came} came, {refused} refused, {alike} alike from the stopped VM"));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    // All of it is out, so nothing refuses.
    let begin = Instant::now();
    world.guest.run("vm-delete", &["web"]).ok();
    say(&format!("deleted: {:.1} s", begin.elapsed().as_secs_f64()));
}

/// Tells how they differ.
fn differ(one: &Outcome, other: &Outcome) -> String {
    let mut told = Vec::new();
    if one.status != other.status {
        told.push(format!("status {} and {}", one.status, other.status));
    }
    if one.bytes != other.bytes {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(4000).collect::<String>();
        told.push(format!("bytes\n{}\n---\n{}", text(&one.bytes), text(&other.bytes)));
    }
    if one.document != other.document {
        told.push(format!("{}\n{}", one.document, other.document));
    }
    if one.refs != other.refs {
        told.push(format!("{:?}\n{:?}", one.refs, other.refs));
    }
    told.extend(same("files", &one.files, &other.files).err());
    told.join("; ")
}

fn take_all(
    world: &World,
    when: &'static str,
    sorts: &[(Sort, Model)],
    wrong: &mut Vec<String>,
) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for (number, (sort, model)) in sorts.iter().enumerate() {
        let begin = Instant::now();
        let mut times = String::new();
        for way in WAYS {
            let begin = Instant::now();
            let (copy, outcome) = sort.take(world, when, way, wrong);
            // What comes of the stopped one is held beside this.
            if outcome.status == 0 && when == "running" {
                let judge = Judge { world, sort, model, copy: &copy, outcome: &outcome };
                if let Err(told) = judge.judge(way) {
                    wrong.push(format!("{}: {way}: {told}", sort.case.name));
                }
            }
            // What was pulled counts as out for as long as it is there.
            if way != "pull" {
                fs::remove_dir_all(&copy).expect("no copy");
            }
            outcomes.insert((number, way), outcome);
            let _ = write!(times, " {:.1}", begin.elapsed().as_secs_f64());
        }
        if when == "running" {
            let tar = world.anywhere(&format!("tar -C {} -cf - .", sort.place));
            if tar.ok().stdout != sort.tar {
                wrong.push(format!("{}: the guest is touched", sort.case.name));
            }
        }
        say(&format!("{}: {when} {:.1} s:{times}", sort.case.name, begin.elapsed().as_secs_f64()));
    }
    outcomes
}
