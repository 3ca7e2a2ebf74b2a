//! Asks a program of the host something, such as its version, within bounds.

use banger_doc::{Context, Error, Result, shell_words};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The most of an answer that is read.
const ANSWER: u64 = 4096;

/// Runs a command, which has to succeed by then, and returns the beginning of what it printed.
pub fn ask(command: &mut Command, until: Instant) -> Result<String> {
    let words = shell_words([command.get_program()].into_iter().chain(command.get_args()));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run '{words}'"))?;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_micros(300)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::unavailable(format!("'{words}' does not end")));
            }
        }
    };
    if !status.success() {
        return Err(Error::unavailable(format!("'{words}' ended with {status}")));
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // What it started may keep the pipe open: what is not there by now is not waited for.
        fcntl(&stdout, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot read its answer")?;
        let _ = stdout.take(ANSWER).read_to_end(&mut answer);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(script: &str) -> Result<String> {
        let until = Instant::now() + Duration::from_secs(1);
        ask(Command::new("sh").args(["-c", script]), until)
    }

    #[test]
    fn an_answer_has_an_end_in_time_and_size() {
        assert_eq!(asked("echo 1.2; echo more >&2").unwrap(), "1.2\n");
        assert!(asked("exit 3").unwrap_err().chain().contains("exit status: 3"));
        let much = asked("head -c 20000 /dev/zero").unwrap();
        assert_eq!(much.len() as u64, ANSWER);
        let begun = Instant::now();
        for endless in ["exec sleep 60", "exec cat /dev/zero"] {
            let error = asked(endless).unwrap_err();
            assert!(error.chain().contains("does not end"), "{}", error.chain());
        }
        // Whoever it left behind has the pipe still.
        assert_eq!(asked("sleep 30 & echo 1.2").unwrap(), "1.2\n");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
