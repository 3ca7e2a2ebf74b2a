//! Running another program of banger's.

use banger_doc::{Context, Document, Error, Report, Result};
use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Set for a program whose documents are read: the caller says its error, so it need not.
pub(crate) const CALLED: &str = "BANGER_CALLED";

/// Says whether another program of banger's reads the documents of this one, and talks to the
/// person itself.
pub fn is_called() -> bool {
    std::env::var_os(CALLED).is_some()
}

/// Finds a program of banger's as the front does: beside this one, then in `PATH`.
pub fn find(program: &str) -> Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(program)));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return Ok(path);
    }
    which::which(program).map_err(|_| {
        Error::unavailable(format!("cannot find the program '{program}'"))
            .hint("banger's programs belong into one directory; install all of them")
    })
}

/// A program of banger's that is about to run.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
}

impl Program {
    /// Prepares a program by its name.
    pub fn new(name: &str) -> Result<Self> {
        let mut command = Command::new(find(name)?);
        command.env_remove(CALLED);
        Ok(Self { name: name.to_owned(), command })
    }

    /// Adds a word to its command line.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    /// Adds words to its command line.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command.args(words);
        self
    }

    /// Returns the command, for what is not offered here.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Runs it to its end and returns its documents. Its words go to our stderr as they come; what
    /// it reports as an error is returned unchanged.
    pub fn documents<D: Document>(self) -> Result<Vec<D>> {
        let (documents, error) = self.answer()?;
        error.map_or(Ok(documents), Err)
    }

    /// Like [`Program::documents`], for one that does several things: what it did is returned also
    /// if it failed in the end.
    pub fn answer<D: Document>(mut self) -> Result<(Vec<D>, Option<Error>)> {
        let output = self
            .command
            .env(CALLED, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run '{}'", self.name))?;
        let lines = || output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        if output.status.success() {
            let documents = lines().map(D::from_slice).collect::<Result<_>>();
            let documents =
                documents.with_context(|| format!("cannot read what '{}' said", self.name))?;
            return Ok((documents, None));
        }
        let documents = lines().filter_map(|line| D::from_slice(line).ok()).collect();
        let report = lines().filter_map(|line| Report::from_slice(line).ok()).next_back();
        let error = report.map_or_else(
            || Error::failed(format!("'{}' ended with {}", self.name, output.status)),
            Error::from,
        );
        Ok((documents, Some(error)))
    }
}

/// Runs a program to its end and returns its one document.
pub fn call<D: Document>(program: &str, words: &[&str]) -> Result<D> {
    Program::new(program)?
        .args(words)
        .documents()?
        .pop()
        .ok_or_else(|| Error::failed(format!("'{program}' said nothing")))
}
