//! Rules of the tree, as tests: who depends on what, what every program has, pages that say what
//! the code says.

mod budgets;
mod bugs;
mod circles;
mod dependencies;
mod dial;
mod documents;
mod git;
mod hints;
mod jailed;
mod pages;
mod programs;
mod removal;
mod tars;
mod words;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the root of the tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the root of the tree").to_owned()
}

/// Reads a file of the tree.
fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names in a folder of the tree, sorted.
fn names(dir: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join(dir))
        .unwrap_or_else(|error| panic!("{dir}: {error}"))
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the paths of every file that git keeps or would keep.
fn files() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let git = git.expect("git");
    assert!(git.status.success(), "git ls-files: {}", String::from_utf8_lossy(&git.stderr));
    let text = String::from_utf8(git.stdout).expect("paths are text");
    text.lines().filter(|path| root().join(path).is_file()).map(str::to_owned).collect()
}

/// Keeps the paths of one ending.
fn ending(ending: &str, files: Vec<String>) -> Vec<String> {
    files
        .into_iter()
        .filter(|path| path.rsplit_once('.').is_some_and(|(_, e)| e == ending))
        .collect()
}

/// Fails with all complaints at once.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Returns the paths of the sources of the programs and the crates, files of tests left out.
fn sources() -> Vec<String> {
    let is_source = |path: &String| {
        ["bins/", "shared/"].iter().any(|top| path.starts_with(top))
            && !path.contains("/tests/")
            && !path.ends_with("/tests.rs")
    };
    ending("rs", files()).into_iter().filter(is_source).collect()
}

/// Returns the code of a source without its unit tests, which stand at its end.
fn code_of(path: &str) -> String {
    without_tests(&read(path)).to_owned()
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// Returns every line of code of the programs and the crates, unit tests and comments left out: its file, its
/// number, its words.
fn lines_of_code() -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for path in sources() {
        for (number, line) in (1..).zip(code_of(&path).lines()) {
            let code = line.split("//").next().unwrap_or_default();
            lines.push((path.clone(), number, code.to_owned()));
        }
    }
    lines
}
