//! The way to a guest's ssh server: through the channel, so no address or route is needed.

use banger_channel::{connect, port, read_line};
use banger_doc::{Context, Error, Result};
use banger_state::{VmFolder, place};
use nix::sys::socket::{MsgFlags, recv};
use std::{
    io::Write,
    os::{fd::AsRawFd, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

/// How long a guest's ssh server may take to come up; on a first boot it may have to be installed.
pub const LIMIT: Duration = Duration::from_secs(90);

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long it may take at the very end: what the last one comes to is the reason that is given.
const LAST_ATTEMPT: Duration = Duration::from_secs(1);
/// Longest answer of the agent's, line end included.
const ANSWER_BYTES: usize = 512;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Connects to the ssh server of a running VM, waiting at most `limit` for it to come up. `waiting`
/// is called once, if it does not answer at once.
pub fn reach(folder: &VmFolder, limit: Duration, waiting: impl FnMut()) -> Result<UnixStream> {
    reach_until(folder, Instant::now() + limit, limit, waiting)
}

/// Connects as [`reach`] does, until `end` of a wait that is `limit` long in all.
pub fn reach_until(
    folder: &VmFolder,
    end: Instant,
    limit: Duration,
    mut waiting: impl FnMut(),
) -> Result<UnixStream> {
    folder.must_run()?;
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let error = match attempt(folder, end) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        folder.must_run()?;
        if Instant::now() + pause >= end {
            return Err(late(folder, limit, error));
        }
        if !told && pause > Duration::from_millis(300) {
            told = true;
            waiting();
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(LAST_PAUSE);
    }
}

/// Says that a server did not come up in time, and what to do.
pub fn late(folder: &VmFolder, limit: Duration, error: Error) -> Error {
    let name = folder.name();
    Error::failed(format!("ssh did not come up within {}s", limit.as_secs())).because(error).hint(
        format!(
            "the VM is kept; 'banger vm exec {name}' works without ssh, 'banger vm logs {name}' \
             shows what the guest says"
        ),
    )
}

/// Connects once; a server that accepts but does not greet counts as absent.
fn attempt(folder: &VmFolder, end: Instant) -> Result<UnixStream> {
    let left = end.saturating_duration_since(Instant::now()).clamp(LAST_ATTEMPT, ATTEMPT);
    let until = Instant::now() + left;
    let (_dir, path) = folder.short_path(place::VM_CHANNEL)?;
    let mut stream = connect(&path, port::FORWARD, left)?;
    stream.write_all(b"tcp 127.0.0.1:22\n").context("cannot ask the guest's agent")?;
    let answer = read_line(&mut stream, ANSWER_BYTES, until)
        .context("the guest's agent does not answer")?
        .unwrap_or_default();
    if answer != b"ok" {
        let words = String::from_utf8_lossy(&answer);
        let words = words.strip_prefix("error ").unwrap_or("the agent closed the connection");
        return Err(Error::failed("nothing listens on the guest's port 22")
            .because(std::io::Error::other(words.escape_debug().to_string())));
    }
    // What the server says stays in the socket for ssh.
    stream.set_read_timeout(Some(left)).context("cannot change a socket")?;
    let mut first = [0; 4];
    match recv(stream.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK) {
        Ok(0) => Err(Error::failed("the guest's ssh server closed the connection")),
        Ok(size) if !b"SSH-".starts_with(&first[..size]) => {
            Err(Error::failed("what listens on the guest's port 22 is no ssh server"))
        }
        Ok(_) => {
            stream.set_read_timeout(None).context("cannot change a socket")?;
            Ok(stream)
        }
        Err(errno) => Err(errno).context("the guest's ssh server says nothing"),
    }
}
