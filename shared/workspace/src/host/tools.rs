//! Files of a repository that have a guest install and run something by itself, and what the user said of
//! them: a yes is to these files as they were.

use crate::{
    host::{self, Dir, Sort},
    names::hex,
};
use banger_doc::{Allowed, AllowedFile, Context, Error, Result, ToolRefusal};
use banger_state::{State, clock_ms, place, read_document, write_document};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The largest such file.
const MAX_FILE: u64 = 1 << 20;
/// The most of them.
const MAX_FILES: usize = 100;
/// Directories of a repository that mise looks into.
const DIRS: [&str; 8] = [
    "",
    ".config",
    ".config/mise",
    ".config/mise/conf.d",
    ".mise",
    ".mise/conf.d",
    "mise",
    "mise/conf.d",
];

/// Says whether mise reads a file of this path below the root of a repository.
pub(crate) fn is_of_tools(path: &str) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_toml = Path::new(name).extension().is_some_and(|end| end == "toml");
    // In the place of a directory that mise looks into lies no file of a repository but a link: it leads to
    // what nobody was shown.
    if DIRS[1..].contains(&path) {
        return true;
    }
    match dir {
        "" => {
            name == ".tool-versions"
                || is_toml
                    && ["mise.", ".mise.", ".rtx.", ".miserc."]
                        .iter()
                        .any(|begin| name.starts_with(begin))
        }
        ".config" => is_toml && (name.starts_with("mise.") || name.starts_with("miserc.")),
        ".config/mise" | ".mise" | "mise" => {
            name == ".tool-versions"
                || is_toml && (name.starts_with("config.") || name.starts_with("mise."))
        }
        _ => is_toml && DIRS.contains(&dir),
    }
}

/// A file that names tools.
#[derive(Clone, Debug)]
pub struct ToolFile {
    /// Path below the root.
    pub path: String,
    /// What it holds.
    pub content: Vec<u8>,
}

/// Returns the directory that a repository's files lie in, or a directory without one.
pub fn root_of(path: &Path) -> Result<PathBuf> {
    let real = fs::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("no '{}'", path.display())),
        _ => Error::failed(format!("cannot look at '{}'", path.display())).because(error),
    })?;
    if !real.is_dir() {
        return Err(Error::usage(format!("'{}' is no directory", path.display())));
    }
    Ok(host::find(&real)?.map_or_else(|| real.clone(), Path::to_owned))
}

/// Reads the files below a root that name tools. A link is none: what it leads to may change.
pub fn tool_files(root: &Path) -> Result<Vec<ToolFile>> {
    let dir = Dir::open(root)?;
    let mut files = Vec::new();
    for below in DIRS {
        if dir.sort(below.as_bytes()).ok().flatten() != Some(Sort::Dir) {
            continue;
        }
        let said = || format!("cannot list '{}'", dir.join(below.as_bytes()).display());
        for (name, sort) in dir.list(below.as_bytes(), 1_000_000).with_context(said)? {
            let Ok(name) = String::from_utf8(name) else { continue };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if sort != Sort::File || !is_of_tools(&path) {
                continue;
            }
            let at = dir.join(path.as_bytes());
            let file = dir.file(path.as_bytes());
            let file = file.with_context(|| format!("cannot read '{}'", at.display()))?;
            let content = host::read(&file, MAX_FILE, &at)?;
            files.push(ToolFile { path, content });
            if files.len() > MAX_FILES {
                return Err(Error::failed(format!(
                    "'{}' has more than {MAX_FILES} files that name tools",
                    root.display()
                )));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn sums(files: &[ToolFile]) -> Vec<AllowedFile> {
    let sum = |file: &ToolFile| hex(&Sha256::digest(&file.content));
    files.iter().map(|file| AllowedFile { path: file.path.clone(), sha256: sum(file) }).collect()
}

fn place_of(state: &State, root: &Path) -> PathBuf {
    let sum = hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
    state.path(place::ALLOWED).join(format!("{}.json", &sum[..32]))
}

/// Remembers that the user says yes to these files of the repository at `root`.
pub fn allow(state: &State, root: &Path, files: &[ToolFile]) -> Result<Allowed> {
    let path = root.to_str().ok_or_else(|| {
        Error::usage("a path that is not UTF-8 cannot be remembered").hint("rename it")
    })?;
    let allowed =
        Allowed { path: path.to_owned(), files: sums(files), allowed_unix_ms: clock_ms() };
    let to = place_of(state, root);
    let dir = state.path(place::ALLOWED);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make '{}'", dir.display()))?;
    write_document(&to, &allowed)?;
    Ok(allowed)
}

/// Returns what the user said yes to, sorted by path, with where each lies; and why one cannot be read, if any
/// cannot.
pub fn all_allowed(state: &State) -> (Vec<(PathBuf, Allowed)>, Option<Error>) {
    let dir = state.path(place::ALLOWED);
    let (mut all, mut damaged) = (Vec::new(), None);
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_document = path.extension().is_some_and(|end| end == "json");
        if is_document && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            match read_document::<Allowed>(&path) {
                Ok(allowed) => all.push((path, allowed)),
                // One that is gone meanwhile was forgotten.
                Err(_) if !path.exists() => {}
                Err(error) => {
                    let hint =
                        "removing that file forgets what it says; 'banger allow PATH' says it anew";
                    damaged.get_or_insert(error.or_hint(hint));
                }
            }
        }
    }
    all.sort_by(|a, b| a.1.path.cmp(&b.1.path));
    (all, damaged)
}

/// Forgets a yes; says what it was.
pub fn forget(state: &State, path: &Path) -> Result<Allowed> {
    let root = root_of(path).unwrap_or_else(|_| path.to_owned());
    let (all, damaged) = all_allowed(state);
    let found = all
        .into_iter()
        .find(|(_, allowed)| Path::new(&allowed.path) == root || Path::new(&allowed.path) == path);
    let (at, allowed) = found.ok_or_else(|| {
        // It may be the one.
        damaged.unwrap_or_else(|| {
            Error::not_found(format!("nothing of '{}' was allowed", path.display()))
                .hint("'banger allow --list' shows what was")
        })
    })?;
    fs::remove_file(&at).with_context(|| format!("cannot remove '{}'", at.display()))?;
    Ok(allowed)
}

/// Returns the files of the repository at `root` that the user said yes to, as they were then.
pub fn allowed_files(state: &State, root: &Path) -> Vec<AllowedFile> {
    let allowed = read_document::<Allowed>(&place_of(state, root)).ok();
    let allowed = allowed.filter(|allowed| Path::new(&allowed.path) == root);
    allowed.map(|allowed| allowed.files).unwrap_or_default()
}

/// Returns the first of the files with these sums that the user did not say yes to; a link has none.
pub(crate) fn first_refused<'a>(
    files: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    allowed: &[AllowedFile],
) -> Option<ToolRefusal> {
    files.into_iter().find_map(|(path, sum)| {
        let known = allowed.iter().find(|file| file.path == path);
        let why = match (sum, known) {
            (None, _) => "link",
            (_, None) => "new",
            (Some(sum), Some(known)) if sum != known.sha256 => "changed",
            _ => return None,
        };
        Some(ToolRefusal { path: path.to_owned(), why: why.into() })
    })
}

/// Returns the first of `names`, files of the repository at `root`, that the user did not say yes to as it is
/// now.
pub fn refused(
    root: &Path,
    names: &[String],
    allowed: &[AllowedFile],
) -> Result<Option<ToolRefusal>> {
    let now = sums(&tool_files(root)?);
    let sum =
        |name: &String| now.iter().find(|file| file.path == *name).map(|file| file.sha256.as_str());
    Ok(first_refused(names.iter().map(|name| (name.as_str(), sum(name))), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mise_reads_is_of_tools() {
        for yes in [
            ".tool-versions",
            "mise.toml",
            ".mise.toml",
            "mise.local.toml",
            ".mise.ci.toml",
            ".config/mise.toml",
            ".config/mise/config.toml",
            ".config/mise/conf.d/x.toml",
            "mise/config.toml",
            ".mise/config.local.toml",
            ".rtx.toml",
            ".miserc.toml",
            ".config/miserc.toml",
            ".config/mise",
            ".mise",
        ] {
            assert!(is_of_tools(yes), "{yes}");
        }
        for no in
            ["a", "Cargo.toml", "x/.tool-versions", "mise/src/x.toml", "mise.rs", ".config/x.toml"]
        {
            assert!(!is_of_tools(no), "{no}");
        }
    }

    #[test]
    fn a_yes_is_to_what_was_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (state, root) = (State::at(dir.path().join("state")).unwrap(), dir.path().join("r"));
        fs::create_dir_all(root.join(".config")).unwrap();
        fs::write(root.join(".tool-versions"), "node 22").unwrap();
        fs::write(root.join(".config/mise.toml"), "x = 1").unwrap();
        let root = fs::canonicalize(root).unwrap();
        let names = [".config/mise.toml".to_owned(), ".tool-versions".to_owned()];
        let why = |names: &[String]| {
            let refused = refused(&root, names, &allowed_files(&state, &root)).unwrap();
            refused.map(|refused| format!("{} {}", refused.path, refused.why))
        };
        let said = |words: &str| Some(words.to_owned());
        assert_eq!(why(&names), said(".config/mise.toml new"));
        let files = tool_files(&root).unwrap();
        allow(&state, &root, &files[1..]).unwrap();
        assert_eq!(why(&names[1..]), None);
        assert_eq!(why(&names), said(".config/mise.toml new"));
        allow(&state, &root, &files).unwrap();
        assert_eq!(why(&names), None);
        fs::write(root.join(".tool-versions"), "node 23").unwrap();
        assert_eq!(why(&names), said(".tool-versions changed"));
        fs::remove_file(root.join(".tool-versions")).unwrap();
        std::os::unix::fs::symlink(".config/mise.toml", root.join(".tool-versions")).unwrap();
        assert_eq!(why(&names), said(".tool-versions link"));
        assert_eq!(all_allowed(&state).0.len(), 1);
        assert_eq!(forget(&state, &root).unwrap().files.len(), 2);
        assert_eq!(why(&names[..1]), said(".config/mise.toml new"));
        forget(&state, &root).unwrap_err();
    }
}
