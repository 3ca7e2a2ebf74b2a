//! The programs beside this one, asked for what they take.

use crate::pages;
use banger_cli::Out;
use banger_doc::{Context, Document, Error, Program, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long the programs may take to answer, all of them together.
const PATIENCE: Duration = Duration::from_secs(10);

/// The one whose name git demands.
const CALLED_BY_GIT: &str = "git-remote-banger";

/// Describes every program that lies beside this one, by name. One that does not answer is said
/// and left out: it is somebody else's.
pub(crate) fn beside(out: &Out) -> Result<Vec<Program>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder()?)
        .context("cannot look for programs")?
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_program))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let end = Instant::now() + PATIENCE;
    let answers: Vec<_> = paths.iter().map(|path| asked(path)).collect();
    let mut programs = Vec::new();
    for (path, answer) in paths.iter().zip(answers) {
        let left = end.saturating_duration_since(Instant::now());
        match answer.recv_timeout(left).unwrap_or_else(|_| Err(silent(path))) {
            Ok(program) => programs.push(program),
            Err(error) => out.note(&format!("left out: {}", error.chain())),
        }
    }
    Ok(programs)
}

/// Describes one program, named with or without `banger-` before it, or as it is typed; `None` if
/// there is none.
pub(crate) fn one(name: &str) -> Option<Result<Program>> {
    let name = name.replace(' ', "-");
    let is_whole = name.starts_with("banger-") || name == CALLED_BY_GIT;
    let name = if is_whole { name } else { format!("banger-{name}") };
    let path = folder().ok()?.join(&name);
    (is_program(&name) && path.is_file())
        .then(|| asked(&path).recv_timeout(PATIENCE).unwrap_or_else(|_| Err(silent(&path))))
}

fn folder() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot find this program")?;
    Ok(exe.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Only plain words name programs; those of guests and of the tree's own tasks are not for callers.
fn is_program(name: &str) -> bool {
    name == CALLED_BY_GIT
        || name.strip_prefix("banger-").is_some_and(|words| {
            words.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
                && !words.starts_with("guest-")
                && words != "xtask"
        })
}

fn asked(path: &Path) -> mpsc::Receiver<Result<Program>> {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || {
        let _ = sender.send(ask(&path));
    });
    receiver
}

fn ask(path: &Path) -> Result<Program> {
    let output = Command::new(path)
        .arg("--describe")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run '{}'", path.display()))?;
    let mut program = Program::from_slice(output.stdout.trim_ascii_end())
        .with_context(|| format!("'{}' does not describe itself", path.display()))?;
    program.prints = pages::prints(&program.name);
    Ok(program)
}

fn silent(path: &Path) -> Error {
    Error::failed(format!("'{}' does not answer", path.display()))
}
