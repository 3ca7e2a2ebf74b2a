//! The VM's name, for as long as it runs: `banger-dns` answers it.

use banger_cli::Program;
use banger_doc::{Context, Result};
use banger_state::{State, place};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

/// How long one that is about to leave may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
const STACK: usize = 64 << 10;

/// A share in `banger-dns`: it stays as long as anybody holds one.
#[derive(Debug)]
pub(crate) struct Share(#[allow(dead_code, reason = "held, not read")] Flock<File>);

impl Share {
    /// Takes a share, and starts `banger-dns`; where one serves already, the new one ends at once.
    pub(crate) fn take(state: &State) -> Result<Self> {
        let path = state.path(place::DNS_USERS);
        let end = Instant::now() + LEAVE_LIMIT;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open '{}'", path.display()))?;
        let lock = loop {
            match Flock::lock(file, FlockArg::LockSharedNonblock) {
                Ok(lock) => break lock,
                // Held for a moment by one that found nobody left to serve.
                Err((again, _)) if Instant::now() < end => {
                    file = again;
                    thread::sleep(Duration::from_millis(5));
                }
                Err((_, errno)) => {
                    return Err(errno).context(format!("cannot lock '{}'", path.display()));
                }
            }
        };
        let mut program = Program::new("banger-dns")?;
        let command = program.command();
        command
            .arg("--quiet")
            // It is not of this VM alone, and not to be ended with it.
            .env_remove(place::MARK)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: one system call. It outlives this supervisor if other VMs run.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
        let mut child = command.spawn().context("cannot run 'banger-dns'")?;
        thread::Builder::new()
            .name("dns".into())
            .stack_size(STACK)
            .spawn(move || child.wait())
            .context("cannot start a thread")?;
        Ok(Self(lock))
    }
}
