//! Running the host's `git`: direct words, a scrubbed environment, every wait and size bounded.

use banger_doc::{Context, Error, Result};
use banger_jail::{Limits, Tool};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Type of an entry in a tree of git: a link, a submodule.
pub(crate) const LINK: u32 = 0o120_000;
pub(crate) const MODULE: u32 = 0o160_000;
/// A directory; not in git's trees as such.
pub(crate) const DIR: u32 = 0o040_000;

/// What gives a look at a guest more time.
pub(crate) const MORE_TIME: &str = "'--timeout SECONDS' gives it more time";
/// How long one call may take.
const LIMIT: Duration = Duration::from_mins(20);
/// What may be why it takes so long.
const SLOW: &str = "the disk may be slow, or the repository too large; 'git gc' in it may help";
/// The most bytes a call may answer.
const MAX_ANSWER: u64 = 1 << 30;
/// The most bytes kept of what a call says on stderr.
const MAX_WORDS: u64 = 64 << 10;
/// What a call on a guest's files may use of the host. Packs are mapped, in parts that are let go of.
const JAILED: Limits = Limits { memory: 4 << 30, mapped: 4 << 30, file: 64 << 30, time: LIMIT };
/// Keeps what is mapped of packs within that.
const MAPPED: &[&str] = &["core.packedGitWindowSize=64m", "core.packedGitLimit=1g"];

/// Nothing that a repository or a user configures runs: no hook, no monitor, no pager, no remote.
const SWITCHES: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.pager=cat",
    "protocol.allow=never",
    // A setting of one protocol would count before that.
    "protocol.ext.allow=never",
    "protocol.fd.allow=never",
    "protocol.file.allow=never",
    "protocol.ftp.allow=never",
    "protocol.ftps.allow=never",
    "protocol.git.allow=never",
    "protocol.http.allow=never",
    "protocol.https.allow=never",
    "protocol.ssh.allow=never",
    "safe.bareRepository=explicit",
    "core.excludesFile=/dev/null",
    "core.attributesFile=/dev/null",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "safe.directory=*",
    "submodule.recurse=false",
    "advice.detachedHead=false",
];

/// A way to call git.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    dir: PathBuf,
    env: Vec<(OsString, OsString)>,
    switches: Vec<String>,
    as_user: bool,
    end: Option<Instant>,
    /// What it sees in a jail, and whether it may write there; none, it runs as the user does.
    jail: Option<Vec<(PathBuf, bool)>>,
}

/// What a call ended with.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it answered.
    pub(crate) answer: Vec<u8>,
    /// What it said.
    pub(crate) words: String,
}

impl Git {
    /// Calls in a repository that banger made.
    pub(crate) fn own(git_dir: &Path) -> Self {
        Self::at(git_dir).env("GIT_DIR", git_dir)
    }

    /// Calls in a directory, without the user's and the system's configuration.
    pub(crate) fn at(dir: &Path) -> Self {
        let switches = SWITCHES.iter().map(ToString::to_string).collect();
        Self::new(dir, switches, false)
    }

    /// Calls as the user would, to read what the user configured and to learn whether git trusts a
    /// repository.
    pub(crate) fn as_user(dir: &Path) -> Self {
        let switches = [
            "core.fsmonitor=false",
            "core.hooksPath=/dev/null",
            "core.pager=cat",
            "safe.bareRepository=explicit",
        ];
        let switches = switches.iter().map(ToString::to_string).collect();
        Self::new(dir, switches, true)
    }

    fn new(dir: &Path, switches: Vec<String>, as_user: bool) -> Self {
        Self { dir: dir.to_owned(), env: Vec::new(), switches, as_user, end: None, jail: None }
    }

    /// Has calls end by then, if it is sooner than they have to anyway.
    pub(crate) fn until(mut self, end: Option<Instant>) -> Self {
        self.end = end;
        self
    }

    /// Returns how long a call may take, or says that there is no time for it.
    fn limit(&self) -> Result<Duration> {
        let left = self.end.map(|end| end.saturating_duration_since(Instant::now()));
        match left {
            Some(Duration::ZERO) => Err(Error::failed("the guest took too long").hint(MORE_TIME)),
            left => Ok(left.map_or(LIMIT, |left| left.min(LIMIT))),
        }
    }

    /// Adds a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Adds a setting, `section.key=value`.
    pub(crate) fn set(mut self, setting: impl Into<String>) -> Self {
        self.switches.push(setting.into());
        self
    }

    /// Sets the work tree and goes there.
    pub(crate) fn work_tree(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.dir);
        self.env("GIT_WORK_TREE", dir)
    }

    /// Has calls run in a jail that shows these folders, to read, and `written`: for what parses a guest's
    /// bytes.
    pub(crate) fn jailed(
        mut self,
        read: impl IntoIterator<Item = PathBuf>,
        written: Option<&Path>,
    ) -> Self {
        let read = read.into_iter().map(|dir| (dir, false));
        self.jail = Some(read.chain(written.map(|dir| (dir.to_owned(), true))).collect());
        self.switches.extend(MAPPED.iter().map(ToString::to_string));
        self
    }

    /// Returns the jail to run in, if there is to be one.
    fn tool(&self) -> Result<Option<Tool>> {
        let Some(folders) = &self.jail else { return Ok(None) };
        let mut tool = Tool::new(&find(&std::env::var_os("PATH").unwrap_or_default())?, JAILED)?;
        for (dir, written) in folders {
            let dir = std::path::absolute(dir).context("a folder has no path")?;
            tool = tool.sees(dir, *written);
        }
        Ok(Some(tool))
    }

    fn command<S: AsRef<OsStr>>(
        &self,
        tool: Option<&Tool>,
        words: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = tool.map_or_else(|| Command::new(first()), Tool::command);
        if self.as_user {
            for (name, _) in std::env::vars_os() {
                if name.as_encoded_bytes().starts_with(b"GIT_") {
                    command.env_remove(name);
                }
            }
        } else {
            command.env_clear();
            if let Some(path) = std::env::var_os("PATH") {
                command.env("PATH", path);
            }
            command.envs([
                ("GIT_CONFIG_NOSYSTEM", "1"),
                ("GIT_CONFIG_GLOBAL", "/dev/null"),
                ("GIT_ATTR_NOSYSTEM", "1"),
                // Nothing can lie below it.
                ("HOME", "/dev/null"),
                ("GIT_ALLOW_PROTOCOL", "none"),
            ]);
        }
        command.envs([
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_PAGER", "cat"),
        ]);
        for (name, value) in &self.env {
            command.env(name, value);
        }
        for switch in &self.switches {
            command.arg("-c").arg(switch);
        }
        command.args(words).current_dir(&self.dir);
        command
    }

    /// Calls git and returns its answer; any status but 0 is an error with git's own words.
    pub(crate) fn run<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S> + Clone,
        input: &[u8],
    ) -> Result<Vec<u8>> {
        let ended = self.attempt(words.clone(), input)?;
        if ended.status.success() {
            return Ok(ended.answer);
        }
        Err(failure(words, &ended))
    }

    /// Calls git and returns its answer as text without the last line end.
    pub(crate) fn text<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S> + Clone,
    ) -> Result<String> {
        let answer = String::from_utf8(self.run(words, b"")?).context("git answered bytes")?;
        Ok(answer.trim_end_matches('\n').to_owned())
    }

    /// Calls git and returns how it ended.
    pub(crate) fn attempt<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<Ended> {
        let limit = self.limit()?;
        let tool = self.tool()?;
        let mut command = self.command(tool.as_ref(), words);
        command.stdout(Stdio::piped());
        let jail = tool.as_ref().map(|tool| (tool, self.dir.as_path()));
        bounded(command, input, limit, jail)
    }

    /// Calls git with its answer going to a file.
    pub(crate) fn to_file<S: AsRef<OsStr>>(
        &self,
        words: impl IntoIterator<Item = S> + Clone,
        file: File,
    ) -> Result<()> {
        let limit = self.limit()?;
        let tool = self.tool()?;
        let mut command = self.command(tool.as_ref(), words.clone());
        command.stdout(file);
        let jail = tool.as_ref().map(|tool| (tool, self.dir.as_path()));
        let ended = bounded(command, b"", limit, jail)?;
        if ended.status.success() { Ok(()) } else { Err(failure(words, &ended)) }
    }
}

fn failure<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>, ended: &Ended) -> Error {
    let verb = words.into_iter().next();
    let verb = verb.map_or(String::new(), |verb| verb.as_ref().to_string_lossy().into_owned());
    Error::failed(format!("'git {verb}' failed: {}", said(ended)))
}

/// Asks git which of these paths rules ignore; returns its answer, in which each is `./PATH`.
pub(crate) fn check_ignore<'a>(
    git: &Git,
    paths: impl Iterator<Item = &'a Vec<u8>>,
    words: &[&str],
) -> Result<Vec<u8>> {
    let mut input = Vec::new();
    for path in paths {
        // A first ':' would be taken for a pattern's magic.
        input.extend_from_slice(b"./");
        input.extend_from_slice(path);
        input.push(0);
    }
    if input.is_empty() {
        return Ok(Vec::new());
    }
    let ended = git.attempt(["check-ignore", "-z", "--stdin"].iter().chain(words), &input)?;
    if ended.status.code().is_none_or(|code| code > 1) {
        return Err(Error::failed("cannot tell what is ignored").because(said(&ended)));
    }
    Ok(ended.answer)
}

/// Returns git's own words of why it failed, in one line.
pub(crate) fn said(ended: &Ended) -> String {
    let lines: Vec<&str> = ended.words.trim().lines().collect();
    let is_why = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    let at = lines.iter().rposition(is_why).unwrap_or(lines.len().saturating_sub(1));
    let mut said = lines.get(at).map_or_else(|| ended.status.to_string(), ToString::to_string);
    // What it is about may stand below.
    for line in lines.iter().skip(at + 1).take_while(|line| line.starts_with(['\t', ' '])) {
        said = format!("{said} {}", line.trim());
    }
    // Git quotes names as people do; only what a terminal would obey is to be shown otherwise.
    said.chars()
        .flat_map(|c| if c.is_control() { c.escape_debug().collect() } else { vec![c] })
        .collect()
}

/// Returns the git that the user would call. By its path it is started without a copy of this process, which may be
/// large.
fn first() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join("git")).find(is_program).unwrap_or_else(|| "git".into())
}

fn is_program(path: &PathBuf) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// Finds git as a jail has to know it: the first in `PATH` that is no script, of which people have some
/// before the real one.
fn find(path: &OsStr) -> Result<PathBuf> {
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    let all: Vec<PathBuf> = dirs.map(|dir| dir.join("git")).filter(is_program).collect();
    let held = all.iter().find(|path| matches!(banger_jail::program(path), Ok(Some(_))));
    held.or(all.first()).cloned().ok_or_else(absent)
}

fn absent() -> Error {
    Error::unavailable("cannot find the program 'git'").hint("install git on this host")
}

/// Runs a command to its end, or kills it when its time is over; in a jail, in this folder, if there is to
/// be one.
fn bounded(
    mut command: Command,
    input: &[u8],
    limit: Duration,
    jail: Option<(&Tool, &Path)>,
) -> Result<Ended> {
    command.stderr(Stdio::piped());
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let started = match jail {
        Some((tool, dir)) => tool.spawn(command, dir),
        None => command.spawn().map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                absent()
            } else {
                Error::failed("cannot run 'git'").because(error)
            }
        }),
    };
    let mut child = started?;
    let pid = Pid::from_raw(child.id() as i32);
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (ended, wait) = mpsc::channel::<()>();
    let mut answer = Vec::new();
    let mut words = Vec::new();
    let mut late = false;
    thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let over = wait.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if over {
                let _ = kill(pid, Signal::SIGKILL);
            }
            over
        });
        if let Some(mut stdin) = stdin {
            scope.spawn(move || {
                // A git that ends early says why on stderr.
                let _ = stdin.write_all(input);
            });
        }
        let words = &mut words;
        scope.spawn(move || {
            if let Some(mut stderr) = stderr {
                let _ = (&mut stderr).take(MAX_WORDS).read_to_end(words);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            }
        });
        if let Some(stdout) = stdout {
            let _ = stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer);
        }
        // Not reaped before the watchdog is gone, so the number stays this child's.
        let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = ended.send(());
        late = watchdog.join().unwrap_or(false);
    });
    let status = child.wait().context("cannot wait for 'git'")?;
    if late {
        let late = Error::failed(format!("'git' took longer than {:.1} s", limit.as_secs_f32()));
        return Err(late.hint(if limit < LIMIT { MORE_TIME } else { SLOW }));
    }
    if answer.len() as u64 > MAX_ANSWER {
        return Err(Error::failed(format!("'git' answered more than {MAX_ANSWER} bytes")));
    }
    Ok(Ended { status, answer, words: String::from_utf8_lossy(&words).into_owned() })
}

/// Splits an answer at zero bytes.
pub(crate) fn split_zero(answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    answer.split(|byte| *byte == 0).filter(|part| !part.is_empty())
}

/// Makes a line of each item.
pub(crate) fn lines<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    items.into_iter().fold(String::new(), |text, item| text + item + "\n")
}

/// Says whether `text` is an object's name in hexadecimal.
pub(crate) fn is_oid(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_call_without_time_left_says_what_gives_more() {
        let late = |end: Instant| {
            let git = Git::at(Path::new("/")).until(Some(end));
            git.run(["cat-file", "--batch"], b"").unwrap_err()
        };
        let over = late(Instant::now());
        assert_eq!(over.to_string(), "the guest took too long");
        assert_eq!(over.hint_text(), Some(MORE_TIME));
    }

    #[test]
    fn a_script_before_git_is_passed_over_for_a_jail() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str, content: &[u8], mode: u32| {
            let path = dir.path().join(name).join("git");
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let elf = fs::read("/proc/self/exe").unwrap();
        let script = place("script", b"#!/bin/sh\n", 0o755);
        place("page", &elf[..64], 0o644);
        let real = place("real", &elf[..64], 0o755);
        let found = |names: &[&str]| {
            let dirs = names.iter().map(|name| dir.path().join(name));
            find(&std::env::join_paths(dirs).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(found(&["none", "script", "page", "real"]), Ok(real));
        assert_eq!(found(&["none", "script"]), Ok(script));
        assert!(found(&["none", "page"]).unwrap_err().contains("cannot find the program 'git'"));
    }
}
