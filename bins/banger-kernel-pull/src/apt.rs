//! Debian's package client. It needs no root to download, and checks the archive's signatures.

use banger_cli::interrupt;
use banger_doc::{Context, Error, Result};
use std::{
    fs,
    io::Read,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// How long the list of packages may take.
const LIST: Duration = Duration::from_secs(30);
/// How long fresh lists may take.
const UPDATE: Duration = Duration::from_mins(3);
/// How long a download may take.
const DOWNLOAD: Duration = Duration::from_mins(5);
/// More than this is not read of what the client says.
const MAX_WORDS: u64 = 4 << 20;

/// A downloaded package; dropped, it is removed.
pub(crate) struct Download {
    pub(crate) file: PathBuf,
    _dir: TempDir,
}

/// The client with lists of packages in which to look: the host's, or some of our own.
pub(crate) struct Apt {
    /// Options that every call gets.
    options: Vec<String>,
    /// Our own lists; dropped, they are removed.
    _lists: Option<TempDir>,
}

impl Apt {
    /// Uses the lists that the host has.
    pub(crate) fn of_the_host() -> Self {
        Self { options: Vec::new(), _lists: None }
    }

    /// Fetches lists from the host's sources, signatures checked, into a temporary directory: the
    /// host's own may be old or absent, and only root may renew them.
    pub(crate) fn with_fresh_lists() -> Result<Self> {
        let dir = temporary()?;
        // What is installed plays no part, but the client wants to read of it.
        let mut options = vec!["-o".into(), "Dir::State::status=/var/lib/dpkg/status".into()];
        for (option, folder) in [("Dir::State", "state"), ("Dir::Cache", "cache")] {
            let folder = dir.path().join(folder);
            fs::create_dir(&folder)
                .with_context(|| format!("cannot make '{}'", folder.display()))?;
            options.extend(["-o".into(), format!("{option}={}", folder.display())]);
        }
        let apt = Self { options, _lists: Some(dir) };
        output(apt.call("apt-get").args(RETRIES).args(["-q", "update"]), UPDATE)
            .context("cannot fetch a list of packages")
            .map_err(|error| error.or_hint("look at the network and at the sources of apt"))?;
        Ok(apt)
    }

    /// Returns the newest package whose name is `begin`, a version, `end`.
    pub(crate) fn newest(&self, begin: &str, end: &str) -> Result<String> {
        let pattern = format!("^{}", begin.replace('.', "\\."));
        let mut search = self.call("apt-cache");
        let list = output(search.args(["search", "--names-only", &pattern]), LIST)?;
        pick(&list, begin, end).ok_or_else(|| {
            Error::not_found(format!("apt knows no package '{begin}*{end}'")).hint(
                "look at the sources of apt; 'banger kernel import' takes a kernel from files",
            )
        })
    }

    /// Downloads a package into a temporary directory.
    pub(crate) fn download(&self, package: &str) -> Result<Download> {
        let dir = temporary()?;
        let mut get = self.call("apt-get");
        get.args(RETRIES).args(["-q", "download", package]).current_dir(dir.path());
        output(&mut get, DOWNLOAD)
            .with_context(|| format!("cannot download '{package}'"))
            .map_err(|error| error.or_hint("look at the network and at the sources of apt"))?;
        Ok(Download { file: only_file(dir.path())?, _dir: dir })
    }

    fn call(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// A mirror that does not answer is given up soon.
const RETRIES: [&str; 6] = [
    "-o",
    "Acquire::Retries=1",
    "-o",
    "Acquire::http::Timeout=20",
    "-o",
    "Acquire::https::Timeout=20",
];

/// Makes a directory in which the client can work. An interrupt removes it.
fn temporary() -> Result<TempDir> {
    let make = || tempfile::Builder::new().prefix("banger-kernel-").tempdir();
    let dir = interrupt::begin(make, TempDir::path).context("cannot make a temporary directory")?;
    // Run by root, the client downloads as a user of its own, who needs to write here.
    if nix::unistd::geteuid().is_root()
        && let Ok(Some(user)) = nix::unistd::User::from_name("_apt")
    {
        chown(dir.path(), Some(user.uid.as_raw()), None)
            .context("cannot hand the temporary directory to '_apt'")?;
    }
    Ok(dir)
}

/// Picks the newest package of a list: a name and a description a line.
fn pick(list: &str, begin: &str, end: &str) -> Option<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let fits = names.filter(|name| {
        name.starts_with(begin)
            && name.ends_with(end)
            && name[begin.len()..].starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+.-".contains(&b))
    });
    fits.max_by_key(|name| numbers(&name[begin.len()..])).map(str::to_owned)
}

/// Returns the numbers in a version, in order: `117+deb12` is 117, 12.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).context("cannot list the temporary directory")?;
    let debs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "deb") && path.is_file())
        .collect();
    match <[PathBuf; 1]>::try_from(debs) {
        Ok([deb]) => Ok(deb),
        Err(_) => Err(Error::failed("apt-get did not leave the package it was asked for")),
    }
}

/// Runs a program for at most `limit` and returns its stdout.
fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that its helpers end with it.
        .process_group(0)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::unavailable(format!(
                "this host has no '{name}'"
            ))
            .hint("'banger kernel import' takes a kernel from files, such as this host's own"),
            _ => Error::failed(format!("cannot run '{name}'")).because(error),
        })?;
    let group = nix::unistd::Pid::from_raw(-(child.id() as i32));
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        let _ = ended.send(());
        status
    });
    interrupt::end(Some(group.as_raw().unsigned_abs()));
    let in_time = end.recv_timeout(limit).is_ok();
    interrupt::end(None);
    if !in_time {
        let _ = nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL);
    }
    let status = waiter.join().map_err(|_| Error::failed("a thread panicked"))?;
    let status = status.with_context(|| format!("cannot wait for '{name}'"))?;
    let words = |drain: Option<thread::JoinHandle<String>>| {
        drain.and_then(|drain| drain.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (words(stdout), words(stderr));
    if !in_time {
        return Err(Error::failed(format!("'{name}' took longer than {} s", limit.as_secs()))
            .hint("look at the network, then try again"));
    }
    if status.success() {
        return Ok(stdout);
    }
    let said = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    Err(Error::failed(format!("'{name}' ended with {status} and said: {}", said.trim())))
}

fn drain(input: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut input = input;
        let _ = input.by_ref().take(MAX_WORDS).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut input, &mut std::io::sink());
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_picked_by_its_numbers() {
        let list = "linux-image-6.12-cloud-amd64 - meta\n\
            linux-image-6.12.99+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12\n\
            linux-image-6.12.117+deb12-cloud-amd64-dbg - Debug symbols\n\
            linux-image-6.12.118+deb12-cloud-amd64-unsigned - Linux 6.12\n\
            linux-image-6.12.120+deb12-amd64 - Linux 6.12\n";
        let found = pick(list, "linux-image-6.12.", "-cloud-amd64");
        assert_eq!(found.as_deref(), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(pick("", "linux-image-6.12.", "-cloud-amd64"), None);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let start = std::time::Instant::now();
        let error = output(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo E: no network >&2; exit 100"]);
        let error = output(&mut command, LIST).unwrap_err();
        assert!(error.to_string().contains("E: no network"), "{error}");
        let error = output(&mut Command::new("banger-no-such-program"), LIST).unwrap_err();
        assert_eq!(error.kind(), banger_doc::Kind::Unavailable);
    }
}
