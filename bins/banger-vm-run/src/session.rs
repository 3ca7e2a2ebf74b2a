//! Going into a VM.

use banger_cli::{Program, find, note, runs_on, speak_for};
use banger_doc::{Context, Error, Kind, Name, Removed, Result};
use banger_stages::Times;
use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use std::{
    ffi::OsString,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

/// The command that is running, for the signal handler.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// Whether somebody pressed Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Keeps Ctrl-C, which ends what this program runs, from ending this program too.
pub(crate) fn notice_interrupts() -> Result<()> {
    handle(&[Signal::SIGINT, Signal::SIGQUIT])
}

/// Says whether somebody pressed Ctrl-C since then.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Ends as Ctrl-C asks, with or without the VM.
pub(crate) fn give_up(vm: &Name, rm: bool) -> Result<ExitCode> {
    if rm {
        match delete(vm) {
            Err(error) if stays(&error) => note(&kept(vm, &error)),
            done => done.with_context(|| format!("cannot delete VM '{vm}'"))?,
        }
    } else {
        note(&runs_on(vm, "exec"));
    }
    Ok(ExitCode::from(128 + libc::SIGINT as u8))
}

/// Says whether a VM stays for its work's sake, or because somebody did not wait for it to go.
fn stays(error: &Error) -> bool {
    error.kind() == Kind::Conflict || interrupted()
}

/// Says in one line why a VM stays that was to go.
fn kept(vm: &Name, error: &Error) -> String {
    if error.kind() != Kind::Conflict {
        return format!(
            "VM '{vm}' is kept: its removal was interrupted ({}); 'banger vm delete --force {vm}' deletes it",
            error.chain()
        );
    }
    let subject = format!("VM '{vm}' ");
    let why = error.chain();
    let why = why.strip_prefix(&subject).map_or_else(|| why.clone(), |why| format!("it {why}"));
    let out = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{subject}is kept and runs on: {why}{out}")
}

/// A command, or a shell, in a VM.
pub(crate) struct Session {
    vm: Name,
    command: Command,
}

impl Session {
    /// Plans to run `words`, or a shell, with these variables, in `dir`, the workspace or where the image says.
    pub(crate) fn new(
        vm: &Name,
        dir: Option<&str>,
        env: &[String],
        tty: bool,
        words: &[OsString],
    ) -> Result<Self> {
        let mut command = Command::new(find("banger-vm-exec")?);
        command.args(env.iter().map(|entry| format!("--env={entry}")));
        command.args(dir.map(|dir| format!("--workdir={dir}")));
        command.args((tty || words.is_empty()).then_some("--tty"));
        command.args(["--interactive", vm.as_str()]);
        if !words.is_empty() {
            command.arg("--").args(words);
        }
        Ok(Self { vm: vm.clone(), command })
    }

    /// Becomes the command; returns only if that fails.
    pub(crate) fn become_it(mut self) -> Error {
        let error = self.command.exec();
        Error::failed(format!("cannot go into VM '{}'", self.vm)).because(error)
    }

    /// Runs the command, then deletes the VM, whatever became of the command.
    pub(crate) fn run_then_delete(mut self, times: &mut Times) -> Result<ExitCode> {
        // Ctrl-C is the command's; the VM still has to go.
        handle(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP])?;
        let ran = speak_for(&mut self.command)
            .spawn()
            .and_then(|mut child| {
                CHILD.store(child.id() as i32, Ordering::Relaxed);
                child.wait()
            })
            .with_context(|| format!("cannot go into VM '{}'", self.vm));
        CHILD.store(0, Ordering::Relaxed);
        times.part("command");
        let deleted = delete(&self.vm);
        times.part("end");
        let status = ran?;
        let vm = &self.vm;
        match deleted {
            // Work that was not exported is no failure.
            Err(error) if stays(&error) => note(&kept(vm, &error)),
            Err(error) => note(&format!("error: cannot delete VM '{vm}': {}", error.chain())),
            Ok(()) => {}
        }
        Ok(code(status))
    }
}

/// The status as a shell would say it.
fn code(status: ExitStatus) -> ExitCode {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(number).unwrap_or(u8::MAX))
}

/// Deletes the VM. Whether Ctrl-C interrupts that is asked anew.
pub(crate) fn delete(vm: &Name) -> Result<()> {
    INTERRUPTED.store(false, Ordering::Relaxed);
    Program::new("banger-vm-delete")?
        .args(["--force", "--quiet", vm.as_str()])
        .documents::<Removed>()
        .map(drop)
}

/// Notes signals, and passes those on that a terminal does not send to the command itself.
fn handle(signals: &[Signal]) -> Result<()> {
    extern "C" fn pass_on(signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
        let child = CHILD.load(Ordering::Relaxed);
        // The terminal sends its own to the whole group.
        if child > 0 && signal != libc::SIGINT && signal != libc::SIGQUIT {
            // SAFETY: kill(2) may be called in a signal handler; the number is a child's that was
            // not waited for yet, or was a moment ago.
            unsafe { libc::kill(child, signal) };
        }
    }
    let action = SigAction::new(SigHandler::Handler(pass_on), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler stores, loads, and makes one system call that is allowed there.
        unsafe { sigaction(*signal, &action) }.context("cannot handle signals")?;
    }
    Ok(())
}
