//! Keeps a VM's workspace up to date while its host is edited.
//!
//! Hears by inotify of what changes in the host's repository, which it only reads; writes the guest's files through
//! the VM's channel and the record in `vms/NAME/workspaces/ID/`. May be ended at any moment.

mod words;

use banger_channel::files::Files;
use banger_cli::{Out, interrupt};
use banger_config::Config;
use banger_doc::{Kind, Name, Result, Status, WorkspaceWatch};
use banger_state::{State, VmFolder, clock_ms};
use banger_workspace::{
    Batch, End, Guest, Leave, News, Scratch, Standing, allowed_files, budget, files_of, folder,
    read, watch,
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Keep a VM's workspace up to date while its host is edited
///
/// One way, from the host into the guest: what a second prepare would send goes as soon as it is saved. What the guest
/// changed itself is left as it is, and said. Ends with the VM, or by Ctrl-C.
#[derive(Debug, clap::Parser)]
#[command(name = "banger-workspace-watch", version)]
struct Args {
    /// The VM
    #[arg(value_name = "VM")]
    vm: Name,
    /// Which workspace, by its place in the guest; needed if the VM has several
    #[arg(long, value_name = "DIR")]
    guest_path: Option<String>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    let vm = state.vm(&args.vm)?;
    let dir = folder(&vm, args.guest_path.as_deref())?;
    read(&dir)?;
    vm.must_run()?;
    interrupt::watch()?;
    let _scratch = interrupt::begin(Scratch::make, Scratch::path)?;
    let config = Config::load()?;
    let leave = Leave {
        vm: args.vm.to_string(),
        configured_include: config.workspace_include.clone(),
        configured: config.git_dirs(),
        allowed: &|root| allowed_files(&state, root),
    };
    let guest = Running { vm: &vm, dir: dir.clone() };
    let end = watch(&dir, &guest, &leave, &mut |news| {
        match news {
            News::Begun { host_path, files, dirs } => {
                let files = if files == 1 { "1 file".into() } else { format!("{files} files") };
                let dirs =
                    if dirs == 1 { "1 directory".into() } else { format!("{dirs} directories") };
                out.note(&format!(
                    "watching '{host_path}' for VM '{}': {files} in {dirs}; Ctrl-C ends it",
                    args.vm
                ));
            }
            News::Note(note) => out.note(&format!("note: {note}")),
            News::Batch(batch) => out.put(&document(&args.vm, batch), words::line)?,
            News::Idle => {}
        }
        Ok(out.is_heard())
    })?;
    if let End::Guest(why) = end {
        out.note(&format!("note: {why}, so nothing is watched any more"));
    }
    Ok(())
}

fn document(vm: &Name, batch: Batch) -> WorkspaceWatch {
    let ms = |time: Duration| time.as_millis() as u64;
    WorkspaceWatch {
        vm: vm.clone(),
        changes: batch.changes,
        left: batch.left,
        git: batch.git,
        took_ms: ms(batch.took),
        guest_ms: batch.guest.map(ms),
        unix_ms: clock_ms(),
    }
}

/// A VM that runs, as long as it does.
struct Running<'a> {
    vm: &'a VmFolder,
    dir: PathBuf,
}

impl Guest for Running<'_> {
    fn standing(&self) -> Result<Standing> {
        let name = self.vm.name();
        let status = match self.vm.status() {
            Err(error) if error.kind() == Kind::NotFound => {
                return Ok(Standing::Ended(format!("VM '{name}' was deleted")));
            }
            status => status?,
        };
        let said = format!("VM '{name}' is {status}");
        Ok(match status {
            Status::Running => Standing::Runs,
            status if status.is_live() => Standing::Waits(said),
            _ => Standing::Ended(said),
        })
    }

    fn files(&self, time: Duration) -> Result<Files<'_>> {
        let files = files_of(self.vm, budget(self.vm, time)?);
        // Whose it is may be another one's since a prepare.
        let user = read(&self.dir)?.and_then(|record| record.user);
        Ok(files.by(user.unwrap_or_default(), false))
    }
}
