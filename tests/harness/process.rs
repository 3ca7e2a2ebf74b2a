//! Running a child under a limit: no test hangs, nothing of it stays.

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::{OpenptyResult, Winsize, openpty},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a program's output may stay open after the program itself ended.
const LINGER: Duration = Duration::from_secs(5);

/// Held while a terminal is opened and while a child is started: one that another test starts in
/// between would hold the terminal open as long as it runs.
static TURN: Mutex<()> = Mutex::new(());

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status, or 128 and the signal's number, as a shell counts.
    pub status: i32,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub took: Duration,
}

/// Runs a command to its end in a process group of its own; after `limit` the group is killed and
/// the test fails with what was printed so far.
pub fn run_bounded(command: &mut Command, stdin: Option<&[u8]>, limit: Duration) -> Ended {
    command.stdout(Stdio::piped());
    if stdin.is_some() {
        command.stdin(Stdio::piped());
    }
    start(command, stdin, None, limit)
}

/// Like [`run_bounded`]; its stdout is a terminal so many columns wide.
pub(crate) fn run_on_terminal(command: &mut Command, columns: u16, limit: Duration) -> Ended {
    let pty = terminal(columns).expect("a terminal");
    command.stdout(pty.slave);
    start(command, None, Some(File::from(pty.master)), limit)
}

fn terminal(columns: u16) -> nix::Result<OpenptyResult> {
    let size = Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let pty = openpty(Some(&size), None)?;
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(pty)
}

fn start(
    command: &mut Command,
    stdin: Option<&[u8]>,
    terminal: Option<File>,
    limit: Duration,
) -> Ended {
    command.process_group(0).stderr(Stdio::piped());
    let began = Instant::now();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", command.get_program().display()));
    drop(turn);
    // The command keeps its copy of a terminal open otherwise, and reading it would never end.
    command.stdout(Stdio::null());
    let group = Pid::from_raw(child.id() as i32);
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin.map(<[u8]>::to_vec)) {
        // A program that does not read to the end is its own affair.
        thread::spawn(move || pipe.write_all(&bytes));
    }
    let stdout = match terminal {
        Some(terminal) => collect(terminal),
        None => collect(child.stdout.take().expect("a pipe")),
    };
    let stderr = collect(child.stderr.take().expect("a pipe"));
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || ended.send(child.wait()));
    let status = end.recv_timeout(limit);
    let took = began.elapsed();
    if status.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let (stdout, stdout_open) = take(&stdout);
    let (stderr, stderr_open) = take(&stderr);
    let said = || {
        format!(
            "{command:?}\nstdout: {}\nstderr: {}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        )
    };
    assert!(status.is_ok(), "still running after {limit:?}, killed: {}", said());
    if stdout_open || stderr_open {
        let _ = killpg(group, Signal::SIGKILL);
        panic!("ended, but something it started holds its stdout or stderr open: {}", said());
    }
    let _ = waiter.join();
    let status = number(status.expect("because it was checked").expect("a child to wait for"));
    Ended { status, stdout, stderr, took }
}

fn number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads a pipe on a thread of its own.
fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut piece = vec![0; 1 << 16];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            if sender.send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns what a pipe gave, and whether it is still open.
fn take(pipe: &mpsc::Receiver<Vec<u8>>) -> (Vec<u8>, bool) {
    let end = Instant::now() + LINGER;
    let mut bytes = Vec::new();
    loop {
        match pipe.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(piece) => bytes.extend(piece),
            Err(RecvTimeoutError::Disconnected) => return (bytes, false),
            Err(RecvTimeoutError::Timeout) => return (bytes, true),
        }
    }
}

/// Ends the processes that a `running.json` names, if they are still the ones it names.
pub(crate) fn end_recorded(path: &Path) {
    let Ok(bytes) = fs::read(path) else { return };
    let Ok(running) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return };
    for role in ["supervisor", "stub", "vmm_process"] {
        let pid = running[role]["pid"].as_i64();
        let start = running[role]["start_ticks"].as_u64();
        if let (Some(pid), Some(start)) = (pid, start)
            && start_ticks(pid) == Some(start)
        {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn start_ticks(pid: i64) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
