//! Running another program of banger's.

use banger_doc::{Context, Document, Error, Report, Result};
use std::{
    ffi::{OsStr, OsString},
    io::{ErrorKind, Read},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How often a program that closed its stdout is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// What helps whoever waited for a program in vain.
const LATE: &str = "the machine or the guest may be busy: 'banger vm stats' shows what the VMs do; type it again when they do less";

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

/// Takes out of `PATH` what is relative. It would be looked for in the directory of the moment, which may be
/// a repository that somebody else wrote, with a `git` of its own in `./node_modules/.bin`.
pub(crate) fn leave_relative_path() {
    let Some(path) = std::env::var_os("PATH") else { return };
    let Some(kept) = absolute(&path) else { return };
    // SAFETY: this is the beginning of a program, which has one thread.
    unsafe {
        match kept {
            // An empty one would mean the directory of the moment.
            kept if kept.is_empty() => std::env::remove_var("PATH"),
            kept => std::env::set_var("PATH", kept),
        }
    }
}

/// Returns the absolute directories of a `PATH`, if it has others.
fn absolute(path: &OsStr) -> Option<OsString> {
    let dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    if dirs.iter().all(|dir| dir.is_absolute()) {
        return None;
    }
    std::env::join_paths(dirs.iter().filter(|dir| dir.is_absolute())).ok()
}

/// A program of banger's that is about to run.
#[derive(Debug)]
pub struct Program {
    name: String,
    command: Command,
    limit: Option<Duration>,
}

impl Program {
    /// Prepares a program by its name.
    pub fn new(name: &str) -> Result<Self> {
        let mut command = Command::new(find(name)?);
        command.env_remove(CALLED);
        Ok(Self { name: name.to_owned(), command, limit: None })
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

    /// Ends it, which is an error, when it takes longer.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
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
        self.command
            .env(CALLED, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let output = match self.limit {
            None => self.command.output(),
            Some(limit) => within(&mut self.command, limit),
        };
        let output =
            output.with_context(|| format!("cannot run '{}'", self.name)).map_err(|error| {
                let is_late = std::error::Error::source(&error)
                    .and_then(|cause| cause.downcast_ref::<std::io::Error>())
                    .is_some_and(|cause| cause.kind() == ErrorKind::TimedOut);
                if is_late { error.or_hint(LATE) } else { error }
            })?;
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

/// Runs a command to its end, or ends it when its time is over; what it runs itself then finds nobody to
/// answer to.
fn within(command: &mut Command, limit: Duration) -> std::io::Result<Output> {
    let end = Instant::now() + limit;
    let mut child = command.spawn()?;
    let mut stdout = child.stdout.take().expect("because it is piped");
    let (send, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.read_to_end(&mut answer);
        // Nobody waits for it any more once the time is over.
        let _ = send.send(read.map(|_| answer));
    });
    if let Ok(answer) = ended.recv_timeout(limit) {
        // It closed its stdout, which is the last that a sound one does.
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Output { status, stdout: answer?, stderr: Vec::new() });
            }
            if Instant::now() >= end {
                break;
            }
            thread::sleep(PAUSE);
        }
    }
    let _ = child.kill();
    child.wait()?;
    let words = format!("it took longer than {:.1} s and was ended", limit.as_secs_f32());
    Err(std::io::Error::new(ErrorKind::TimedOut, words))
}

/// Runs a program to its end and returns its one document.
pub fn call<D: Document>(program: &str, words: &[&str]) -> Result<D> {
    Program::new(program)?
        .args(words)
        .documents()?
        .pop()
        .ok_or_else(|| Error::failed(format!("'{program}' said nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_path_keeps_its_absolute_directories() {
        let kept = |path: &str| absolute(path.as_ref()).map(|kept| kept.into_string().unwrap());
        assert_eq!(kept("/usr/bin:/bin"), None);
        for path in [
            "./node_modules/.bin:/usr/bin:/bin",
            "/usr/bin::/bin",
            "/usr/bin:/bin:.",
            ":/usr/bin:/bin:",
        ] {
            assert_eq!(kept(path).as_deref(), Some("/usr/bin:/bin"), "{path}");
        }
        for path in ["", ".", "bin:vendor/bin"] {
            assert_eq!(kept(path).as_deref(), Some(""), "{path}");
        }
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::piped());
            command
        };
        let output = within(&mut shell("echo said"), Duration::from_mins(1)).unwrap();
        assert!(output.status.success() && output.stdout == b"said\n");
        let begin = Instant::now();
        for script in [
            "exec sleep 60",
            "sleep 60 & wait",
            "trap '' TERM; while :; do :; done",
            "exec >&-; exec sleep 60",
            "echo said; exec >&-; trap '' TERM; while :; do :; done",
        ] {
            let error = within(&mut shell(script), Duration::from_millis(200)).unwrap_err();
            assert!(error.to_string().contains("longer than 0.2 s"), "{error}");
        }
        assert!(begin.elapsed() < Duration::from_secs(20));
        // One that only takes a moment to end is not ended.
        let output = within(&mut shell("exec >&-; sleep 0.1; exit 7"), Duration::from_mins(1));
        assert_eq!(output.unwrap().status.code(), Some(7));
    }

    #[test]
    fn who_waited_in_vain_is_told_what_to_do() {
        let mut command = Command::new("sh");
        command.args(["-c", "exec sleep 60"]);
        let limit = Some(Duration::from_millis(100));
        let program = Program { name: "banger-x".into(), command, limit };
        let error = program.answer::<Report>().unwrap_err();
        assert!(error.chain().starts_with("cannot run 'banger-x': it took longer"), "{error:?}");
        assert_eq!(error.hint_text(), Some(LATE));
    }
}
