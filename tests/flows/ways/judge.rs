//! Holds what came out beside what ought to, by plain git and by the files alone.

use super::{
    Day, Outcome, Sort,
    model::{File, Listing, Model, listing, said, same, shell, work_tree},
};
use crate::workspace::World;
use banger_tests::Answer;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What came by one way, into a copy of the host's.
pub(super) struct Judge<'a> {
    pub(super) world: &'a World,
    pub(super) sort: &'a Sort,
    pub(super) model: &'a Model,
    pub(super) copy: &'a Path,
    pub(super) outcome: &'a Outcome,
}

impl Judge<'_> {
    /// Compares what came with what ought to.
    pub(super) fn judge(&self, way: &str) -> Result<(), String> {
        match way {
            "export" => self.patch(),
            // There is no commit; it is the same.
            _ if way.starts_with("export") && self.sort.is_directory() => self.patch(),
            "export --base-commit prepared" => self.sum(),
            "export --commits" => self.mails(),
            "apply" => self.applied(),
            _ => self.pulled(),
        }
    }

    /// Plain `git apply` puts it onto the checkout as it lies.
    fn patch(&self) -> Result<(), String> {
        fs::write(self.copy.join("patch"), &self.outcome.bytes).expect("a patch");
        done(&shell(self.world, &self.copy.join("host"), "git apply --allow-empty ../patch"))?;
        let mut expected = self.model.onto(&self.model.host);
        if self.sort.case.name == "line ends" {
            // Git writes text as the settings of the checkout want it.
            for (path, file) in &mut expected {
                if self.model.host.get(path) != Some(file) {
                    file.end_lines_by_crlf();
                }
            }
        }
        same("the patch", &work_tree(&self.copy.join("host")), &expected)
    }

    /// The guest's files lie there, merged with what the host did meanwhile.
    fn applied(&self) -> Result<(), String> {
        let mut host = self.model.host.clone();
        let mut expected = self.model.onto(&host);
        if self.sort.day != Day::None {
            let mut lines: Vec<String> = (1..=20).map(|line| line.to_string()).collect();
            lines[18] = "nineteen of the host".into();
            let both = |lines: &[String]| File::Plain {
                is_executable: false,
                bytes: (lines.join("\n") + "\n").into_bytes(),
            };
            host.insert("day-both".into(), both(&lines));
            lines[1] = "two of the guest".into();
            expected.insert("day-both".into(), both(&lines));
            if self.outcome.document["merged"] != serde_json::json!(["day-both"]) {
                return Err(format!("merged: {}", self.outcome.document["merged"]));
            }
        }
        same("the checkout", &self.outcome.files, &expected)
    }

    /// Makes a clean checkout of the commit that was prepared, in which no filter and no end of line is another.
    fn clean(&self) -> PathBuf {
        let clean = self.copy.join("clean");
        let script = format!(
            "git clone -q host clean; cd clean; [ -z '{0}' ] || git checkout -q --detach {0}",
            self.sort.base
        );
        said(self.world, self.copy, &script);
        clean
    }

    /// Plain `git apply` puts it onto a clean checkout.
    fn sum(&self) -> Result<(), String> {
        fs::write(self.copy.join("patch"), &self.outcome.bytes).expect("a patch");
        let clean = self.clean();
        done(&shell(self.world, &clean, "git apply --index --allow-empty ../patch"))?;
        let tree = said(self.world, &clean, "git write-tree");
        same("the sum", &listing(self.world, &clean, tree.trim()), &self.all())
    }

    /// What git would take of all that the guest has.
    fn all(&self) -> Listing {
        let script =
            "rm -rf ../all; cp -a . ../all; cd ../all; git add -A --sparse; git write-tree";
        let tree = said(self.world, &self.sort.top.join("guest"), script);
        listing(self.world, &self.sort.top.join("all"), tree.trim())
    }

    /// Plain `git am` makes the guest's commits anew.
    fn mails(&self) -> Result<(), String> {
        fs::write(self.copy.join("mbox"), &self.outcome.bytes).expect("mails");
        let clean = self.clean();
        done(&shell(self.world, &clean, "[ ! -s ../mbox ] || git am -q --keep-non-patch ../mbox"))?;
        let guest = self.sort.top.join("guest");
        let range = if self.sort.base.is_empty() {
            "HEAD".to_owned()
        } else {
            format!("{}..HEAD", self.sort.base)
        };
        let log = format!(
            "git rev-parse -q --verify HEAD >/dev/null || exit 0; git log --reverse --topo-order --no-merges --raw --no-abbrev --no-renames \
             --format='%an|%ae|%ad|%B' {range}"
        );
        let (was, mut has) = (said(self.world, &guest, &log), said(self.world, &clean, &log));
        let is_rest = has.contains("banger|banger@localhost|");
        has = has.split("banger|banger@localhost|").next().unwrap_or_default().to_owned();
        if was.trim() != has.trim() {
            return Err(format!("commits:\n{was}\nin mails:\n{has}"));
        }
        let commits = if is_rest { "HEAD~" } else { "HEAD" };
        same(
            "the commits",
            &listing(self.world, &clean, commits),
            &listing(self.world, &guest, "HEAD"),
        )?;
        // Local edits at which the guest did nothing stay out.
        let base = listing(self.world, &guest, &self.sort.base);
        let head = listing(self.world, &guest, "HEAD");
        let mut expected = self.all();
        let paths: BTreeSet<&PathBuf> = self.model.given.iter().chain(base.keys()).collect();
        for path in paths {
            if self.model.is_left(path) && base.get(path) == head.get(path) {
                expected.remove(path);
                expected.extend(base.get(path).map(|entry| (path.clone(), entry.clone())));
            }
        }
        let tree = said(self.world, &clean, "git write-tree");
        same("all mails", &listing(self.world, &clean, tree.trim()), &expected)
    }

    /// Branches are the guest's, and uncommitted work is what git itself makes of it.
    fn pulled(&self) -> Result<(), String> {
        let host = self.copy.join("host");
        done(&shell(self.world, &host, "git fsck --no-dangling --no-progress"))?;
        let mut expected = self.model.branches.clone();
        if self.model.branch.is_none() {
            expected.insert("detached".into(), self.model.head.clone());
        }
        let stash = self.can_stash().then(|| Stash::of(self.world, &self.sort.top));
        let mut refs = self.outcome.refs.clone();
        let wip = refs.remove("wip");
        if refs != expected {
            return Err(format!("references: {refs:?}, expected {expected:?}"));
        }
        let Some(wip) = wip else {
            let is_clean = stash.is_some_and(|stash| stash.is_empty());
            return if is_clean { Ok(()) } else { Err("uncommitted work did not come".into()) };
        };
        let parent = said(self.world, &host, &format!("git rev-parse {wip}^1"));
        if !self.model.head.is_empty() && parent.trim() != self.model.head {
            return Err(format!("it follows {parent}, not {}", self.model.head));
        }
        let part = |parent: &str| listing(self.world, &host, &format!("{wip}{parent}"));
        // What went in untracked and was left lies on the host, and is no work.
        let is_work =
            |path: &PathBuf| !self.model.given.contains(path) || !self.model.is_left(path);
        if let Some(mut stash) = stash {
            stash.others.retain(|path, _| is_work(path));
            same("uncommitted files", &part(""), &stash.files)?;
            same("untracked files", &part("^3"), &stash.others)?;
            return same("staged files", &part("^2"), &stash.index);
        }
        let mut files = part("");
        files.append(&mut part("^3"));
        same("uncommitted files", &files, &self.all())?;
        same("staged files", &part("^2"), &self.index())
    }

    /// Whether git has a stash for what the guest did.
    fn can_stash(&self) -> bool {
        !matches!(
            self.sort.case.name,
            // Without a commit, with conflicts and with `add -N` it makes none.
            "unborn branch with an index" | "in the middle of a merge" | "intent to add"
            // It forgets that a directory is where a file was, so that not even its own takes it back.
            | "a file becomes a directory and the other way round"
        )
    }

    /// What is staged in the guest. A conflict has no one version, so it is as HEAD has it.
    fn index(&self) -> Listing {
        let guest = self.sort.top.join("guest");
        let script = "rm -rf ../index; cp -a . ../index; cd ../index; \
                      git diff --name-only --diff-filter=U -z | xargs -0r git reset -q --; git write-tree";
        let tree = said(self.world, &guest, script);
        listing(self.world, &self.sort.top.join("index"), tree.trim())
    }
}

/// What git itself makes of uncommitted work.
struct Stash {
    files: Listing,
    index: Listing,
    others: Listing,
}

impl Stash {
    fn of(world: &World, top: &Path) -> Self {
        let script = "rm -rf ../stashed; cp -a . ../stashed; cd ../stashed; git stash push -q -u";
        said(world, &top.join("guest"), script);
        let list = |what: &str| listing(world, &top.join("stashed"), &format!("refs/stash{what}"));
        Self { files: list(""), index: list("^2"), others: list("^3") }
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.index.is_empty() && self.others.is_empty()
    }
}

fn done(answer: &Answer) -> Result<(), String> {
    if answer.status == 0 { Ok(()) } else { Err(answer.all()) }
}
