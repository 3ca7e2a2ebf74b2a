//! Runs one VM: holds its lock, starts its VMM, serves its channel, and records how it ended.
//!
//! Reads the VM's documents, its image's and its kernel's. Writes `running.json`, `last-exit.json`,
//! `console.log`, `supervise.log` and `run/` in the VM's folder. The only long-lived program; ends
//! with its VM. Nothing it starts outlives it.

mod clock;
mod end;
mod file_sync;
mod halt;
mod life;
mod live;
mod log;
mod names;
mod network;
mod ports;
mod prepare;
mod stub;

use banger_cli::Out;
use banger_doc::{Context, Error, Name, Result};
use banger_state::{Lock, State, VmFolder, clock_ms, place};
use log::{CappedLog, SUPERVISE_LIMIT};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::{Mode, fstat, umask},
    unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid},
};
use std::{os::unix::fs::MetadataExt, process::ExitCode, time::Instant};

/// Run one VM in the foreground and hold its lock
///
/// Started by 'banger vm start'. Says nothing once it holds the lock: 'running.json' and
/// 'last-exit.json' in the VM's folder do.
#[derive(clap::Parser)]
#[command(name = "banger-vm-supervise", version)]
struct Args {
    /// Name of the VM
    #[arg(value_name = "VM")]
    vm: Name,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, _: &mut Out) -> Result<()> {
    let begun = Instant::now();
    // One heap for all threads: each of several keeps room that nobody uses.
    // SAFETY: mallopt only changes settings of the allocator, before any other thread runs.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    let state = State::open_read_only()?;
    let folder = state.vm(&args.vm)?;
    let lock = take_lock(&state, &folder)?;
    let begun_unix_ms = clock_ms();
    enter(&folder)?;
    mark(&state, &folder);
    // While somebody hears why it cannot be written.
    let mut log = CappedLog::append(place::VM_LOG, SUPERVISE_LIMIT)?;
    leave_terminal()?;
    log.say(&format!("the supervisor of '{}' begins", args.vm));
    let start = live::Start { state: &state, folder: &folder, begun, begun_unix_ms };
    let end = live::run(&start, &mut log);
    end::record(&folder, end, &mut log);
    drop(lock);
    Ok(())
}

/// Takes the VM's lock, and makes sure that it is the lock of a VM that was not deleted meanwhile.
fn take_lock(state: &State, folder: &VmFolder) -> Result<Lock> {
    let name = folder.name();
    let lock = folder.try_lock()?.ok_or_else(|| {
        let runs = Error::conflict(format!("VM '{name}' is running"))
            .hint(format!("'banger vm stop {name}' stops it"));
        folder.why_locked(runs)
    })?;
    // SAFETY: the descriptor belongs to `lock`, which outlives this borrow.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(lock.raw_fd()) };
    let held = fstat(fd).context("cannot look at the VM's lock")?;
    let named = std::fs::metadata(folder.join(place::VM_LOCK));
    if !named.is_ok_and(|named| named.ino() == held.st_ino && named.dev() == held.st_dev) {
        state.vms().must_exist(name)?;
        return Err(Error::conflict(format!("VM '{name}' was made anew at this moment")));
    }
    Ok(lock)
}

/// Has every process that this one starts bear the mark by which `banger gc` knows it. A record that
/// cannot be read is told of when the run is prepared.
fn mark(state: &State, folder: &VmFolder) {
    if let Ok(vm) = folder.vm() {
        // SAFETY: this process has only one thread yet.
        unsafe { std::env::set_var(place::MARK, format!("{} {}", vm.id, state.root().display())) };
    }
}

/// Leaves the session and the directory of whoever started this. Afterwards relative paths are in
/// the VM's folder, so no socket's path is too long.
fn enter(folder: &VmFolder) -> Result<()> {
    // Fails only where a session of its own is there already.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o077));
    chdir(folder.path()).with_context(|| format!("cannot enter '{}'", folder.path().display()))
}

/// Leaves the streams of whoever started this: afterwards nobody reads what is printed.
fn leave_terminal() -> Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .context("cannot open '/dev/null'")?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .context("cannot leave the terminal")
}
