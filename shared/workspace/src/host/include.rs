//! Which untracked and ignored files go because somebody named them: patterns as in `.gitignore`, which git
//! matches in a repository of banger's own. Nothing that lies in the tree adds to them.

use crate::{
    git::{self, Git, check_ignore, split_zero},
    scratch::{Scratch, make_dirs},
};
use banger_doc::{Context, Error, Result};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// The most patterns, and the longest.
const MAX_PATTERNS: usize = 1000;
const MAX_PATTERN: usize = 4096;

/// What of a tree is taken along beside what is tracked.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// Whether all goes that no rule ignores.
    pub(crate) untracked: bool,
    /// What goes whatever rules say of it.
    pub(crate) include: Option<Include>,
    /// What went before, below the outermost root: it goes again.
    pub(crate) before: BTreeSet<Vec<u8>>,
}

impl Taking {
    /// Returns what went before of the repository at `at`.
    pub(crate) fn before_at(&self, at: &[u8]) -> impl Iterator<Item = &[u8]> {
        let inside = if at.is_empty() { Vec::new() } else { [at, b"/"].concat() };
        self.before.iter().filter_map(move |path| path.strip_prefix(inside.as_slice()))
    }
}

/// What patterns match.
#[derive(Debug, Default)]
pub(crate) struct Matched {
    /// What is wanted.
    pub(crate) wanted: BTreeSet<Vec<u8>>,
    /// Directories that lead to such.
    pub(crate) ways: BTreeSet<Vec<u8>>,
}

/// Patterns, ready to be matched.
#[derive(Debug)]
pub(crate) struct Include {
    scratch: Scratch,
    patterns: Vec<String>,
    wanted: Git,
    /// What matches directories that lead to something wanted.
    ways: Option<Git>,
    /// Whether some patterns are for directories alone.
    is_of_dirs: bool,
    hits: RefCell<BTreeSet<usize>>,
}

impl Include {
    /// Takes patterns; none if there are none.
    pub(crate) fn new(patterns: &[String]) -> Result<Option<Self>> {
        if patterns.is_empty() {
            return Ok(None);
        }
        if patterns.len() > MAX_PATTERNS {
            return Err(Error::usage(format!("more than {MAX_PATTERNS} patterns of '--include'"))
                .hint("one pattern matches many files, as '*.local' does"));
        }
        let lines = patterns.iter().map(|pattern| line_of(pattern));
        let lines: Vec<String> = lines.collect::<Result<_>>()?;
        let scratch = Scratch::new()?;
        let repository = scratch.path().join("rules.git");
        let init = ["init", "-q", "--bare", "--template=", "rules.git"];
        Git::at(scratch.path()).run(init, b"")?;
        let matching = |name: &str, lines: &[String]| -> Result<Git> {
            let file = scratch.path().join(name);
            fs::write(&file, git::lines(lines)).context("cannot write a list of patterns")?;
            Ok(Git::own(&repository)
                .work_tree(&scratch.tree())
                .env("GIT_INDEX_FILE", scratch.index())
                .set(format!("core.excludesFile={}", file.display())))
        };
        let ways: Vec<String> = lines.iter().flat_map(|line| ways_of(line)).collect();
        let ways = (!ways.is_empty()).then(|| matching("ways", &ways)).transpose()?;
        Ok(Some(Self {
            wanted: matching("wanted", &lines)?,
            ways,
            is_of_dirs: lines.iter().any(|line| line.trim_end().ends_with('/')),
            patterns: patterns.to_vec(),
            hits: RefCell::default(),
            scratch,
        }))
    }

    /// Returns those of these paths that are wanted, and the directories that lead to such.
    pub(crate) fn matched<'a>(
        &self,
        files: impl Iterator<Item = &'a Vec<u8>>,
        dirs: &'a [Vec<u8>],
    ) -> Result<Matched> {
        if self.is_of_dirs {
            // Git looks whether it is one.
            let tree = self.scratch.open_tree()?;
            dirs.iter().try_for_each(|dir| make_dirs(&tree, dir)).context("cannot match a path")?;
        }
        let answer = check_ignore(&self.wanted, files.chain(dirs), &["-v"])?;
        let fields: Vec<&[u8]> = answer.split(|byte| *byte == 0).collect();
        let mut wanted = BTreeSet::new();
        let mut hits = self.hits.borrow_mut();
        for fields in fields.chunks_exact(4) {
            let [_, line, pattern, path] = fields else { continue };
            if let Some(path) = path.strip_prefix(b"./").filter(|_| !pattern.starts_with(b"!")) {
                wanted.insert(path.to_vec());
                let line = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
                hits.extend(line.and_then(|line: usize| line.checked_sub(1)));
            }
        }
        let mut ways = BTreeSet::new();
        if let Some(git) = &self.ways {
            let answer = check_ignore(git, dirs.iter(), &[])?;
            let named = split_zero(&answer).filter_map(|path| path.strip_prefix(b"./"));
            ways.extend(named.map(<[u8]>::to_vec));
        }
        Ok(Matched { wanted, ways })
    }

    /// Returns those of these patterns that matched nothing so far.
    pub(crate) fn idle(&self, named: &[String]) -> Vec<String> {
        let hits = self.hits.borrow();
        let at: BTreeMap<&String, usize> =
            self.patterns.iter().enumerate().map(|(at, pattern)| (pattern, at)).collect();
        let is_idle = |pattern: &&String| {
            !pattern.starts_with('!') && at.get(pattern).is_some_and(|at| !hits.contains(at))
        };
        named.iter().filter(is_idle).cloned().collect()
    }
}

/// Returns the line of a list of rules that stands for a pattern.
fn line_of(pattern: &str) -> Result<String> {
    let bad = |why: &str| {
        let shown = banger_doc::visible(pattern, 80);
        Err(Error::usage(format!("'{shown}' is no pattern: {why}"))
            .hint("a pattern is one of '.gitignore', as '.env.local', '*.pem' or 'conf/local/'"))
    };
    if pattern.trim().is_empty() {
        return bad("it is empty");
    }
    if pattern.len() > MAX_PATTERN {
        return bad("it is too long");
    }
    if pattern.contains(['\n', '\r', '\0']) {
        return bad("it has more than one line");
    }
    if pattern.split('/').any(|part| part == "..") {
        return bad("it leads out of the directory");
    }
    Ok(match pattern.strip_prefix("./") {
        Some(below) => format!("/{below}"),
        None if pattern.starts_with('#') => format!("\\{pattern}"),
        None => pattern.to_owned(),
    })
}

/// Returns patterns of the directories that lead to what a pattern names by its way. One that may match
/// anywhere leads nowhere: what is ignored as a whole is not searched for it.
fn ways_of(line: &str) -> Vec<String> {
    if line.starts_with('!') {
        return Vec::new();
    }
    let parts: Vec<&str> = line.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    let all = (1..parts.len()).map(|end| &parts[..end]);
    let named = all.filter(|parts| parts.iter().any(|part| *part != "**"));
    named
        .map(|parts| match parts {
            ["**", ..] => parts.join("/"),
            _ => format!("/{}", parts.join("/")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(patterns: &[&str], files: &[&str], dirs: &[&str]) -> (Vec<String>, Vec<String>) {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let include = Include::new(&patterns).unwrap().unwrap();
        let bytes = |all: &[&str]| -> Vec<Vec<u8>> {
            all.iter().map(|path| path.as_bytes().to_vec()).collect()
        };
        let Matched { wanted, ways } = include.matched(bytes(files).iter(), &bytes(dirs)).unwrap();
        let text = |all: BTreeSet<Vec<u8>>| {
            all.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
        };
        (text(wanted), text(ways))
    }

    #[test]
    fn patterns_are_those_of_git() {
        let files = [".env", ".env.local", "a/.env.local", "a/b", "#x", ":x", "keys/k", "x y"];
        let wanted = |patterns: &[&str]| matched(patterns, &files, &["keys", "a"]).0;
        assert_eq!(wanted(&[".env.local"]), [".env.local", "a/.env.local"]);
        assert_eq!(wanted(&["/.env.local"]), [".env.local"]);
        assert_eq!(wanted(&["./.env.local"]), [".env.local"]);
        assert_eq!(wanted(&[".env*", "!.env"]), [".env.local", "a/.env.local"]);
        assert_eq!(wanted(&["keys/"]), ["keys", "keys/k"]);
        assert_eq!(wanted(&["#x", ":x", "x y"]), ["#x", ":x", "x y"]);
        assert_eq!(wanted(&["a/*"]), ["a/.env.local", "a/b"]);
        assert_eq!(wanted(&["none"]), [""; 0]);
    }

    #[test]
    fn a_pattern_leads_into_the_directories_that_it_names() {
        let dirs = ["build", "build/conf", "build/obj", "deps", "x/build"];
        let ways = |pattern: &str| matched(&[pattern], &[], &dirs).1;
        assert_eq!(ways("x.json"), [""; 0]);
        assert_eq!(ways("build/x.json"), ["build", "build/conf", "build/obj"]);
        assert_eq!(ways("build/conf/x"), ["build", "build/conf", "build/obj"]);
        assert_eq!(ways("**/x.json"), [""; 0]);
        assert_eq!(ways("**/build/x"), ["build", "build/conf", "build/obj", "x/build"]);
        assert_eq!(ways("!build/x"), [""; 0]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", " ", "a\nb", "../x", "a/../b", &"x".repeat(5000)] {
            let error = Include::new(&[bad.to_owned()]).unwrap_err();
            assert_eq!(error.kind(), banger_doc::Kind::Usage, "{bad:?}");
            assert!(error.hint_text().is_some());
        }
        Include::new(&vec!["x".to_owned(); 1001]).unwrap_err();
        assert!(Include::new(&[]).unwrap().is_none());
    }

    #[test]
    fn patterns_without_a_match_are_known() {
        let patterns = [".env".to_owned(), "gone".into(), "!x".into()];
        let include = Include::new(&patterns).unwrap().unwrap();
        assert_eq!(include.idle(&patterns), [".env", "gone"]);
        include.matched([b".env".to_vec()].iter(), &[]).unwrap();
        assert_eq!(include.idle(&patterns), ["gone"]);
        assert_eq!(include.idle(&patterns[..1]), [""; 0]);
    }
}
