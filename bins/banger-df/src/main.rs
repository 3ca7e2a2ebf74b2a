//! Shows the room that VMs, images, kernels and the cache take. Reads the state, writes nothing.

use banger_cli::{Out, human_bytes};
use banger_doc::{Document, Kind, Result, Status, Usage};
use banger_state::{Shelf, State, place};
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path, process::ExitCode};

/// Show what takes room on disk, and what could be freed
///
/// 'banger vm prune', 'banger image prune' and 'banger gc' free what is called reclaimable.
#[derive(clap::Parser)]
#[command(name = "banger-df", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(_: Args, out: &mut Out) -> Result<()> {
    let state = match State::open_read_only() {
        Ok(state) => state,
        Err(error) if error.kind() == Kind::NotFound => return show(out, &total(&[])),
        Err(error) => return Err(error),
    };
    let mut all = vms(&state)?;
    all.extend(objects(&state.images(), "image")?);
    all.extend(objects(&state.kernels(), "kernel")?);
    let cache = Size::of(&state.path(place::CACHE));
    all.push(Usage {
        what: "cache".into(),
        name: String::new(),
        exclusive_bytes: cache.allocated,
        shared_bytes: 0,
        apparent_bytes: cache.apparent,
        reclaimable_bytes: cache.allocated,
    });
    let litter = [state.vms().litter()?, state.images().litter()?, state.kernels().litter()?];
    for path in litter.into_iter().flatten() {
        let size = Size::of(&path);
        all.push(Usage {
            what: "litter".into(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            exclusive_bytes: size.allocated,
            shared_bytes: 0,
            apparent_bytes: size.apparent,
            reclaimable_bytes: size.allocated,
        });
    }
    all.extend(total(&all));
    show(out, &all)
}

fn show(out: &mut Out, all: &[Usage]) -> Result<()> {
    out.table(all, &["WHAT", "NAME", "EXCLUSIVE", "SHARED", "APPARENT", "RECLAIMABLE"], |usage| {
        vec![
            usage.what.clone(),
            usage.name.clone(),
            human_bytes(usage.exclusive_bytes),
            human_bytes(usage.shared_bytes),
            human_bytes(usage.apparent_bytes),
            human_bytes(usage.reclaimable_bytes),
        ]
    })
}

fn total(all: &[Usage]) -> Vec<Usage> {
    let sum = |of: fn(&Usage) -> u64| all.iter().map(of).sum();
    vec![Usage {
        what: "total".into(),
        name: String::new(),
        exclusive_bytes: sum(|usage| usage.exclusive_bytes),
        // Each shared byte is somebody's exclusive one and counted there.
        shared_bytes: 0,
        apparent_bytes: sum(|usage| usage.apparent_bytes),
        reclaimable_bytes: sum(|usage| usage.reclaimable_bytes),
    }]
}

fn vms(state: &State) -> Result<Vec<Usage>> {
    let mut all = Vec::new();
    for name in state.vms().names()? {
        // One that vanishes while it is looked at takes no room.
        let Ok(vm) = state.vm(&name).and_then(|folder| folder.view()) else { continue };
        let own = Size::of(&state.vms().folder(&name));
        let base = state.images().get(&vm.vm.image).map(|image| state.base_disk(&image));
        let modules = state.kernels().folder(&vm.vm.kernel).join(place::KERNEL_MODULES);
        let shared =
            base.map_or(0, |path| Size::of(&path).allocated) + Size::of(&modules).allocated;
        let idle = matches!(vm.status, Status::Created | Status::Stopped | Status::Error);
        all.push(Usage {
            what: "vm".into(),
            name: name.to_string(),
            exclusive_bytes: own.allocated,
            shared_bytes: shared,
            apparent_bytes: own.apparent,
            reclaimable_bytes: if idle { own.allocated } else { 0 },
        });
    }
    Ok(all)
}

fn objects<D: Document>(shelf: &Shelf<D>, what: &str) -> Result<Vec<Usage>> {
    let usage = |name: &banger_doc::Name| {
        let size = Size::of(&shelf.folder(name));
        Usage {
            what: what.into(),
            name: name.to_string(),
            exclusive_bytes: size.allocated,
            shared_bytes: 0,
            apparent_bytes: size.apparent,
            reclaimable_bytes: 0,
        }
    };
    Ok(shelf.names()?.iter().map(usage).collect())
}

/// What the files of a tree take and claim.
#[derive(Default)]
struct Size {
    allocated: u64,
    apparent: u64,
}

impl Size {
    /// Adds up a file or a tree. Links are not followed, a file with several names counts once.
    fn of(path: &Path) -> Self {
        let mut size = Self::default();
        size.add(path, &mut BTreeSet::new());
        size
    }

    fn add(&mut self, path: &Path, seen: &mut BTreeSet<(u64, u64)>) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        if meta.is_dir() {
            fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .for_each(|e| self.add(&e.path(), seen));
        } else if meta.nlink() > 1 && !seen.insert((meta.dev(), meta.ino())) {
            return;
        } else {
            self.apparent += meta.len();
        }
        self.allocated += meta.blocks() * 512;
    }
}
