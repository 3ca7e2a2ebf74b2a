//! Shows the room that VMs, images, kernels, copies of exports and the cache take. Reads the state, writes nothing.

use banger_cli::{Out, human_bytes};
use banger_config::Config;
use banger_doc::{Document, Kind, Result, Status, Usage};
use banger_state::{Room, Shelf, State, clock_ms, place};
use std::process::ExitCode;

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
    all.push(exports(&state)?);
    let cache = state.path(place::CACHE);
    // Downloads under way lie beside the blobs, and go with them.
    let cache = Room::of(cache.parent().expect("because the cache lies in a folder of the state"));
    all.push(Usage {
        what: "cache".into(),
        name: String::new(),
        exclusive_bytes: cache.allocated,
        shared_bytes: 0,
        apparent_bytes: cache.apparent,
        reclaimable_bytes: cache.allocated,
    });
    let litter = [
        state.vms().litter()?,
        state.images().litter()?,
        state.kernels().litter()?,
        state.exports().litter()?,
    ];
    for path in litter.into_iter().flatten() {
        let size = Room::of(&path);
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
        let own = Room::of(&state.vms().folder(&name));
        let idle = matches!(vm.status, Status::Created | Status::Stopped | Status::Error);
        all.push(Usage {
            what: "vm".into(),
            name: name.to_string(),
            exclusive_bytes: own.allocated,
            shared_bytes: state.shared_bytes(&vm.vm),
            apparent_bytes: own.apparent,
            reclaimable_bytes: if idle { own.allocated } else { 0 },
        });
    }
    Ok(all)
}

/// All copies of exports as one: those that are too old or too many are freed by `banger gc`.
fn exports(state: &State) -> Result<Usage> {
    let shelf = state.exports();
    let sizes: Vec<Room> =
        shelf.names()?.iter().map(|name| Room::of(&shelf.folder(name))).collect();
    let keep = Config::load()?.exports;
    let surplus = state.surplus_exports(keep.age(), keep.room(), clock_ms())?;
    Ok(Usage {
        what: "exports".into(),
        name: String::new(),
        exclusive_bytes: sizes.iter().map(|size| size.allocated).sum(),
        shared_bytes: 0,
        apparent_bytes: sizes.iter().map(|size| size.apparent).sum(),
        reclaimable_bytes: surplus.iter().map(|(_, bytes)| bytes).sum(),
    })
}

fn objects<D: Document>(shelf: &Shelf<D>, what: &str) -> Result<Vec<Usage>> {
    let usage = |name: &banger_doc::Name| {
        let size = Room::of(&shelf.folder(name));
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
