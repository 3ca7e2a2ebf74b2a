//! Asking systemd, by the image's own program for it.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    io::Read,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// No more of an answer is read.
const MOST_BYTES: usize = 16 << 10;

/// Returns what `systemctl` answers within `limit`, which may be cut; nothing if it cannot be asked. It answers
/// root over a socket of systemd's own, without a bus.
pub fn ask(words: &[&str], limit: Duration) -> String {
    let mut command = Command::new("systemctl");
    command.args(words).env_clear().env("PATH", "/usr/bin:/bin:/usr/local/bin");
    command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0").current_dir("/");
    answer(&mut command, limit)
}

/// Runs a program of the image's, which may do anything, and returns what it says in time. Then it is
/// ended with all of its group: what it leaves behind may hold the pipe for ever.
fn answer(command: &mut Command, limit: Duration) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let end = Instant::now() + limit;
    let Ok(mut child) = command.spawn() else { return String::new() };
    let Some(mut stdout) = child.stdout.take() else { return String::new() };
    let mut said = vec![0; MOST_BYTES];
    let mut count = 0;
    while count < MOST_BYTES {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(1..) => match stdout.read(&mut said[count..]) {
                Ok(more @ 1..) => count += more,
                _ => break,
            },
            _ => break,
        }
    }
    // Not waited for before: until then the number is nobody else's.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
    String::from_utf8_lossy(&said[..count]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (String, Duration) {
        let began = Instant::now();
        let said = answer(Command::new("/bin/sh").args(["-c", script]), limit);
        (said, began.elapsed())
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_no_longer() {
        let long = Duration::from_secs(30);
        assert_eq!(shell("echo a; sleep 0.1; echo b", long).0, "a\nb\n");
        let (said, took) = shell("yes | head -c 1000000", long);
        assert_eq!(said.len(), MOST_BYTES);
        assert!(took < long / 2, "{took:?}");
        // One that leaves something behind which holds its output, or says nothing.
        for script in ["echo first; sleep 60 & exit", "echo first; exec sleep 60"] {
            let (said, took) = shell(script, Duration::from_millis(300));
            assert_eq!(said, "first\n");
            assert!(took < long / 2, "{took:?}");
        }
        assert_eq!(answer(&mut Command::new("/no/such/program"), long), "");
    }
}
