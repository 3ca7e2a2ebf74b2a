//! What runs left whose supervisors were killed.

use crate::{
    Sweep, begins, children,
    process::{self, Marked},
};
use banger_doc::{Error, Kind, Removed, Result};
use banger_state::{Lock, Room, State, VmFolder, place};
use banger_workspace::clear_ready;
use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

impl Sweep {
    /// Removes what runs left whose supervisors are gone.
    pub(crate) fn ended_runs(&mut self, state: &State) -> Result<()> {
        let marked = process::marked(&self.root);
        // Asked after that: a VM that was made meanwhile, and one whose record cannot be read, may
        // well live.
        let mut known = Some(Vec::new());
        for name in state.vms().names()? {
            match state.vms().get(&name) {
                Ok(vm) => {
                    let done = state.vm(&name).and_then(|folder| {
                        self.half_prepared(&folder)?;
                        self.ended_run(&folder, &vm.id, &marked)
                    });
                    // One that was deleted meanwhile has left nothing.
                    let failure = done.err().filter(|error| error.kind() != Kind::NotFound);
                    self.failures.extend(failure);
                    if let Some(ids) = &mut known {
                        ids.push(vm.id.clone());
                    }
                }
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(_) => known = None,
            }
        }
        let Some(known) = known else { return Ok(()) };
        for found in marked.iter().filter(|found| !known.contains(&found.vm)) {
            self.end(found);
        }
        // A VM that was deleted while its last process was dying has no folder any more.
        for group in banger_machine::strays(&known) {
            self.control_group(&group);
        }
        Ok(())
    }

    /// Removes what a run of one VM left: processes, then what they had open.
    fn ended_run(&mut self, folder: &VmFolder, id: &str, marked: &[Marked]) -> Result<()> {
        let left = || Left::look(folder, id, marked);
        if left().is_nothing() || folder.is_live()? {
            return Ok(());
        }
        // Keeps a start from coming between; whoever has it is at work on the VM.
        let Some(_lock) = folder.try_lock()? else { return Ok(()) };
        if folder.vm()?.id != id {
            return Ok(());
        }
        let left = left();
        left.processes.iter().for_each(|found| self.end(found));
        for path in &left.files {
            let kind = fs::symlink_metadata(path).map(|meta| meta.file_type());
            let is_socket = kind.is_ok_and(|kind| kind.is_socket());
            self.remove(if is_socket { "socket" } else { "litter" }, path);
        }
        left.groups.iter().for_each(|group| self.control_group(group));
        Ok(())
    }

    /// Removes what killed prepares, exports and applies left of one VM, running or not: work in progress, what
    /// lay ready in a checkout of the host's, and folders that no workspace came of.
    fn half_prepared(&mut self, folder: &VmFolder) -> Result<()> {
        for path in children(&folder.join(place::VM_WORKSPACES)) {
            let mut half = children(&path);
            half.retain(|path| begins(path, ".tmp-"));
            let has = |name| path.join(name).exists();
            let is_none = || !has(place::WORKSPACE_DOCUMENT);
            if half.is_empty() && !is_none() && !has(place::WORKSPACE_APPLYING) {
                continue;
            }
            let lock = match Lock::exclusive_dir(&path, Duration::ZERO, "the workspace") {
                Ok(lock) => lock,
                // Somebody is at work there, or it is gone.
                Err(error) if error.kind() == Kind::Conflict || !path.exists() => continue,
                Err(error) => return Err(error),
            };
            if !lock.is_of(&path) {
                continue;
            }
            let is_clear = self.lay_ready(&path);
            if is_none() && is_clear {
                self.remove("litter", &path);
            } else {
                for path in &half {
                    self.remove("litter", path);
                }
            }
        }
        Ok(())
    }

    /// Removes what a killed apply left lying ready in a checkout of the host's; says whether none of it is left
    /// that a later look may find.
    fn lay_ready(&mut self, workspace: &Path) -> bool {
        let found = clear_ready(workspace, true).and_then(|found| {
            let room = |path: PathBuf| (Room::of(&path).allocated, path);
            let found = found.map(|found| found.into_iter().map(room).collect::<Vec<_>>());
            if !self.dry_run {
                clear_ready(workspace, false)?;
            }
            Ok(found)
        });
        let is_clear = matches!(found, Ok(Some(_)));
        match found {
            Ok(found) => {
                self.removed.extend(found.into_iter().flatten().map(|(room, path)| Removed {
                    what: "litter".into(),
                    name: path.display().to_string(),
                    freed_bytes: room,
                    dry_run: self.dry_run,
                }));
            }
            Err(error) => self.failures.push(error),
        }
        is_clear
    }

    /// Removes a control group that a root's VM was in, outside the state directory as it is: its
    /// name is the VM's identity. One that somebody is in stays.
    fn control_group(&mut self, group: &Path) {
        if !self.dry_run
            && let Err(error) = banger_machine::remove_group(group)
        {
            self.failures.push(error);
            return;
        }
        self.removed.push(Removed {
            what: "control group".into(),
            name: group.display().to_string(),
            freed_bytes: 0,
            dry_run: self.dry_run,
        });
    }

    fn end(&mut self, found: &Marked) {
        if self.dry_run || found.end() {
            self.removed.push(Removed {
                what: "process".into(),
                name: format!("{} '{}'", found.process.pid, found.command),
                freed_bytes: 0,
                dry_run: self.dry_run,
            });
        } else {
            self.failures.push(Error::failed(format!(
                "the process {} '{}' of a VM that does not run cannot be ended",
                found.process.pid, found.command
            )));
        }
    }
}

/// What a run of a VM may leave when its supervisor is killed.
struct Left<'a> {
    processes: Vec<&'a Marked>,
    /// Sockets, the initramfs, the place of the jail; measurements.
    files: Vec<PathBuf>,
    groups: Vec<PathBuf>,
}

impl<'a> Left<'a> {
    fn look(folder: &VmFolder, id: &str, marked: &'a [Marked]) -> Self {
        let mut files = children(&folder.join(place::VM_RUN));
        files.extend(Some(folder.join(place::VM_METRICS)).filter(|path| path.exists()));
        Self {
            processes: marked.iter().filter(|found| found.vm == id).collect(),
            files,
            groups: banger_machine::groups(id),
        }
    }

    fn is_nothing(&self) -> bool {
        self.processes.is_empty() && self.files.is_empty() && self.groups.is_empty()
    }
}
