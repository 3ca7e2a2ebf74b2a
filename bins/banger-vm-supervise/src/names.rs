//! The VM's name, for as long as it runs: `banger-dns` answers it.

use banger_cli::Program;
use banger_doc::{Context, Result};
use banger_state::{Lock, State, place};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long one that is about to leave may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait before another is started: at first, at most.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// One that served as long as this ended for a reason of its own.
const SERVED: Duration = Duration::from_secs(5);
const STACK: usize = 256 << 10;

/// A share in `banger-dns`: it stays as long as anybody holds one.
#[derive(Debug)]
pub(crate) struct Share {
    _lock: Flock<File>,
    wanted: Arc<AtomicBool>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

impl Share {
    /// Takes a share, and has `banger-dns` run; where one serves already, the new one ends at once, and
    /// another is started when that one is gone.
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
        let first = start()?;
        let wanted = Arc::new(AtomicBool::new(true));
        let (still, single) = (Arc::clone(&wanted), state.path(place::DNS_LOCK));
        thread::Builder::new()
            .name("dns".into())
            .stack_size(STACK)
            .spawn(move || keep(first, single, &still))
            .context("cannot start a thread")?;
        Ok(Self { _lock: lock, wanted })
    }
}

fn start() -> Result<Child> {
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
    command.spawn().context("cannot run 'banger-dns'")
}

/// Has one serve as long as that is wanted, whoever started it: when the one that serves is gone,
/// however it went, the kernel takes its lock back, and each of those who wait for that starts one.
fn keep(first: Child, single: PathBuf, wanted: &AtomicBool) {
    let mut child = Some(first);
    let mut pause = PAUSE;
    loop {
        let begun = Instant::now();
        if let Some(mut child) = child {
            let _ = child.wait();
        }
        let _ = Lock::await_free(&single);
        if !wanted.load(Ordering::Relaxed) {
            return;
        }
        // Several look at the lock for a moment, and whoever is just starting may take that for another.
        pause = if begun.elapsed() < SERVED { (pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
        thread::sleep(pause);
        child = start().ok();
    }
}
