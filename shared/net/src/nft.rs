//! Tells `nft` a ruleset, within bounds.

use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};
use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsFd,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// The most that is read of what it says.
const WORDS: u64 = 4096;

/// `nft` at work; it does not outlive this.
pub(crate) struct Loading {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it has not taken yet.
    rest: Vec<u8>,
    end: Instant,
}

/// Starts a command, which is `nft` without words, on a ruleset, for which it has so long.
pub(crate) fn load(mut command: Command, rules: &str, limit: Duration) -> Result<Loading> {
    let child = command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run '{}'", command.get_program().display()))?;
    let mut loading =
        Loading { child, stdin: None, rest: rules.into(), end: Instant::now() + limit };
    loading.stdin = loading.child.stdin.take();
    if let Some(stdin) = &loading.stdin {
        unblock(stdin).context("cannot write to 'nft'")?;
    }
    loading.push()?;
    Ok(loading)
}

fn unblock(file: impl AsFd) -> nix::Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

impl Loading {
    /// Gives it as much as it takes now.
    fn push(&mut self) -> Result<()> {
        while let Some(stdin) = &mut self.stdin {
            match stdin.write(&self.rest) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It ended without the rest, and says why.
                Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {
                    self.stdin = None;
                    return Ok(());
                }
                Err(error) => return Err(error).context("cannot write to 'nft'"),
            }
            if self.rest.is_empty() {
                self.stdin = None;
            }
        }
        Ok(())
    }

    /// Waits until the rules are in force.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = loop {
            self.push()?;
            if let Some(status) = self.child.try_wait().context("cannot wait for 'nft'")? {
                break status;
            }
            if Instant::now() >= self.end {
                return Err(Error::failed("'nft' does not end"));
            }
            thread::sleep(Duration::from_micros(300));
        };
        if status.success() && self.rest.is_empty() {
            return Ok(());
        }
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            unblock(&stderr).context("cannot hear 'nft'")?;
            let _ = stderr.take(WORDS).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words);
        let first = words.lines().next().unwrap_or("no reason given").trim().to_owned();
        Err(Error::failed(format!("'nft' refused the rules: {first}")))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than a pipe holds.
    const MUCH: usize = 1 << 20;

    /// Loads rules with a shell in the place of `nft`; returns its process number as well.
    fn loaded(script: &str, size: usize) -> (Result<()>, i32) {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        let loading = load(command, &"x".repeat(size), Duration::from_secs(2)).unwrap();
        let pid = loading.child.id() as i32;
        (loading.finish(), pid)
    }

    #[test]
    fn rules_are_told_within_bounds_however_nft_behaves() {
        let begun = Instant::now();
        assert!(loaded("test $(wc -c) = 1048576", MUCH).0.is_ok());
        for (script, size, words) in [
            ("exec sleep 60", MUCH, "does not end"),
            ("exec sleep 60", 1, "does not end"),
            ("exec 0<&-; echo 'no such table' >&2; exit 1", MUCH, "no such table"),
            ("exec 0<&-; exit 0", MUCH, "no reason given"),
            ("cat >/dev/null; exit 1", MUCH, "no reason given"),
            ("sleep 30 & echo 'no such table' >&2; exit 1", 1, "no such table"),
        ] {
            let (done, pid) = loaded(script, size);
            let error = done.unwrap_err().chain();
            assert!(error.contains(words), "{script}: {error}");
            let left = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
            assert_eq!(left, Err(Errno::ESRCH), "{script}");
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
