//! References of a repository of the host's, written as git writes them but without its hooks and settings:
//! git runs in a directory of banger's that leads to the references and the objects, and to nothing else.

use crate::{
    git::{Git, is_oid},
    host::{Dir, Sort},
    names::is_ref_name,
    temporary::Temporary,
};
use banger_doc::{Context, Error, Result};
use std::{collections::BTreeMap, fmt::Write as _, fs, os::unix::fs::symlink, path::Path};

/// References of a repository of the host's.
pub(crate) struct HostRefs {
    common: Dir,
    shadow: Temporary,
}

/// What becomes of each: the object it is to name, or nothing where it is to go.
pub(crate) type Changes = BTreeMap<String, Option<String>>;

impl HostRefs {
    /// Opens those of the repository whose git directory, the one that all its work trees share, is `common`.
    pub(crate) fn open(common: &Dir, format: &str) -> Result<Self> {
        let refs = Self { common: common.clone(), shadow: Temporary::new()? };
        refs.lay(format).context("cannot make a scratch directory")?;
        Ok(refs)
    }

    fn lay(&self, format: &str) -> std::io::Result<()> {
        let (common, at) = (self.common.path(), self.shadow.path());
        let has_tables = self.common.sort(b"reftable")? == Some(Sort::Dir);
        let is_plain = format == "sha1" && !has_tables;
        let mut config = String::from("[core]\n\tbare = true\n\tlogAllRefUpdates = true\n");
        let _ = writeln!(config, "\trepositoryformatversion = {}", i32::from(!is_plain));
        config.push_str("[extensions]\n");
        if format != "sha1" {
            let _ = writeln!(config, "\tobjectFormat = {format}");
        }
        let lead = |name: &str| symlink(common.join(name), at.join(name));
        if has_tables {
            config.push_str("\trefStorage = reftable\n");
            fs::create_dir(at.join("refs"))?;
            lead("reftable")?;
        } else {
            lead("refs")?;
            lead("packed-refs")?;
        }
        if self.common.sort(b"logs")? == Some(Sort::Dir) {
            lead("logs")?;
        }
        fs::write(at.join("config"), config)?;
        fs::write(at.join("HEAD"), "ref: refs/heads/none\n")
    }

    fn git(&self) -> Git {
        Git::own(self.shadow.path())
            .env("GIT_OBJECT_DIRECTORY", self.common.join(b"objects"))
            .env("GIT_COMMITTER_NAME", "banger")
            .env("GIT_COMMITTER_EMAIL", "banger@localhost")
    }

    /// Returns those below a name whose objects are there.
    pub(crate) fn list(&self, below: &str) -> Result<BTreeMap<String, String>> {
        let form = "--format=%(objectname) %(objecttype) %(refname)";
        let answer = self.git().run(["for-each-ref", form, below], b"")?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let listed = text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ' ');
            let (oid, _, name) = (fields.next()?, fields.next()?, fields.next()?);
            (is_oid(oid) && is_ref_name(name)).then(|| (name.to_owned(), oid.to_owned()))
        });
        Ok(listed.collect())
    }

    /// Changes all of them or none.
    pub(crate) fn change(&self, changes: &Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut lines = String::from("start\n");
        for (name, oid) in changes {
            self.must_lie_inside(name)?;
            let _ = match oid {
                Some(oid) => writeln!(lines, "update {name} {oid}"),
                None => writeln!(lines, "delete {name}"),
            };
        }
        lines.push_str("prepare\ncommit\n");
        let words = ["update-ref", "--no-deref", "-m", "banger", "--stdin"];
        self.git().run(words, lines.as_bytes()).map(drop).with_context(|| {
            format!("cannot write references of '{}'", self.common.path().display())
        })
    }

    /// Fails where a link on the way would have git write elsewhere.
    fn must_lie_inside(&self, name: &str) -> Result<()> {
        if !is_ref_name(name) {
            return Err(Error::failed(format!("'{}' is no reference", name.escape_debug())));
        }
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for way in ends.map(|end| &name[..end]) {
            for way in [way.to_owned(), format!("logs/{way}")] {
                let at = self.common.join(way.as_bytes());
                let said = || format!("cannot look at '{}'", at.display());
                let sort = self.common.sort(way.as_bytes()).with_context(said)?;
                if matches!(sort, Some(Sort::Link | Sort::Other)) {
                    return Err(Error::failed(format!(
                        "'{}' is nothing that belongs among references",
                        at.display()
                    ))
                    .hint("move it away"));
                }
            }
        }
        Ok(())
    }
}

/// Opens the git directory of a repository of the host's that was written down.
pub(crate) fn open_common(path: &str, format: &str) -> Result<HostRefs> {
    HostRefs::open(&Dir::open(Path::new(path))?, format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_change_all_or_none_and_nothing_of_the_repository_runs() {
        for form in ["--ref-format=files", "--ref-format=reftable"] {
            let dir = tempfile::tempdir().unwrap();
            let (at, mark) = (dir.path().join("r"), dir.path().join("ran"));
            let git = Git::at(dir.path()).set("user.name=A").set("user.email=a@b");
            // Git before 2.45 knows no tables.
            if git.run(["init", "-q", form, "r"], b"").is_err() && form.ends_with("table") {
                continue;
            }
            let git = Git::at(&at).set("user.name=A").set("user.email=a@b");
            git.run(["commit", "-q", "--allow-empty", "-m", "x"], b"").unwrap();
            let oid = git.text(["rev-parse", "HEAD"]).unwrap();
            let hook = at.join(".git/hooks/reference-transaction");
            fs::create_dir_all(hook.parent().unwrap()).unwrap();
            fs::write(&hook, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&hook, mode).unwrap();
            let common = Dir::open(&fs::canonicalize(at.join(".git")).unwrap()).unwrap();
            let refs = HostRefs::open(&common, "sha1").unwrap();
            let name = format!("refs/banger/web/{oid}");
            let set = |changes: &[(&str, Option<&str>)]| {
                let changes = changes.iter();
                let changes = changes.map(|(n, o)| ((*n).to_owned(), o.map(ToOwned::to_owned)));
                refs.change(&changes.collect())
            };
            set(&[(&name, Some(&oid)), ("refs/remotes/web/a/b", Some(&oid))]).unwrap();
            let absent = "f".repeat(40);
            set(&[("refs/remotes/web/c", Some(&oid)), ("refs/remotes/web/d", Some(&absent))])
                .unwrap_err();
            set(&[("refs/remotes/web/a", Some(&oid))]).unwrap_err();
            assert_eq!(refs.list("refs/banger").unwrap().len(), 1);
            assert_eq!(refs.list("refs/remotes").unwrap().len(), 1);
            assert_eq!(git.text(["rev-parse", &name]).unwrap(), oid);
            git.run(["pack-refs", "--all"], b"").unwrap();
            set(&[(&name, None), ("refs/remotes/web/a/b", None)]).unwrap();
            set(&[("refs/remotes/web/a", Some(&oid))]).unwrap();
            assert!(refs.list("refs/banger").unwrap().is_empty());
            assert_eq!(git.text(["rev-parse", "web/a"]).unwrap(), oid);
            git.run(["fsck"], b"").unwrap();
            assert!(!mark.exists());
        }
    }

    #[test]
    fn a_link_among_references_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::at(dir.path()).set("user.name=A").set("user.email=a@b");
        git.run(["init", "-q"], b"").unwrap();
        git.run(["commit", "-q", "--allow-empty", "-m", "x"], b"").unwrap();
        let oid = git.text(["rev-parse", "HEAD"]).unwrap();
        let out = tempfile::tempdir().unwrap();
        symlink(out.path(), dir.path().join(".git/refs/banger")).unwrap();
        let common = fs::canonicalize(dir.path().join(".git")).unwrap();
        let refs = HostRefs::open(&Dir::open(&common).unwrap(), "sha1").unwrap();
        let error = refs.change(&[("refs/banger/x".to_owned(), Some(oid))].into()).unwrap_err();
        assert!(error.to_string().contains("refs/banger"), "{error}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
