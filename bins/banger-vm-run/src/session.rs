//! Going into a VM.

use banger_cli::{Program, find, note};
use banger_doc::{Context, Error, Name, Removed, Result};
use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use std::{
    ffi::OsString,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
};

/// The command that is running, for the signal handler.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// A command, or a shell, in a VM.
pub(crate) struct Session {
    vm: Name,
    command: Command,
}

impl Session {
    pub(crate) fn new(vm: &Name, words: &[OsString]) -> Result<Self> {
        let mut command = Command::new(find("banger-vm-exec")?);
        if words.is_empty() {
            command.args(["--tty", vm.as_str()]);
        } else {
            command.arg(vm.as_str()).arg("--").args(words);
        }
        Ok(Self { vm: vm.clone(), command })
    }

    /// Becomes the command; returns only if that fails.
    pub(crate) fn become_it(mut self) -> Error {
        let error = self.command.exec();
        Error::failed(format!("cannot go into VM '{}'", self.vm)).because(error)
    }

    /// Runs the command, then deletes the VM, whatever became of the command.
    pub(crate) fn run_then_delete(mut self) -> Result<ExitCode> {
        // Ctrl-C is the command's; the VM still has to go.
        pass_signals_on().context("cannot handle signals")?;
        let ran = self
            .command
            .spawn()
            .and_then(|mut child| {
                CHILD.store(child.id() as i32, Ordering::Relaxed);
                child.wait()
            })
            .with_context(|| format!("cannot go into VM '{}'", self.vm));
        CHILD.store(0, Ordering::Relaxed);
        let deleted = Program::new("banger-vm-delete")?
            .args(["--force", "--quiet", self.vm.as_str()])
            .documents::<Removed>();
        let status = ran?;
        if let Err(error) = deleted {
            note(&format!("error: cannot delete VM '{}': {}", self.vm, error.chain()));
        }
        Ok(code(status))
    }
}

/// The status as a shell would say it.
fn code(status: ExitStatus) -> ExitCode {
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(number).unwrap_or(u8::MAX))
}

fn pass_signals_on() -> nix::Result<()> {
    extern "C" fn pass_on(signal: libc::c_int) {
        let child = CHILD.load(Ordering::Relaxed);
        // The terminal sends its own to the whole group.
        if child > 0 && signal != libc::SIGINT && signal != libc::SIGQUIT {
            // SAFETY: kill(2) may be called in a signal handler; the number is a child's that was
            // not waited for yet, or was a moment ago.
            unsafe { libc::kill(child, signal) };
        }
    }
    let action = SigAction::new(SigHandler::Handler(pass_on), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler makes one system call that is allowed there.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}
