//! Removes what nothing owns: folders half made or half removed, temporary files, sockets, processes
//! and control groups of a run that ended without its supervisor. Touches nothing outside the state
//! directory but processes that bear its mark, empty control groups that banger made, references
//! below `refs/banger/` of repositories that keep what was pulled out of VMs long gone and files that
//! a killed apply had lying ready in a checkout, and nothing a living program holds a lock on.

mod process;
mod runs;

use banger_cli::{Out, human_bytes, note};
use banger_config::{Config, PULLED_KEEP_DAYS};
use banger_doc::{Allowed, Context, Document, Error, Kind, Removed, Result};
use banger_state::{Lock, Room, Shelf, State, clock_ms, place, read_document};
use banger_tree::remove_tree;
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Remove what killed programs left behind
///
/// VMs, images and kernels stay; 'banger vm prune' and 'banger image prune' are for those. Copies of exports
/// go that are older, or take more room, than the configuration lets them.
#[derive(clap::Parser)]
#[command(name = "banger-gc", version)]
struct Args {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let days = Config::load()?.pulled_keep_days.unwrap_or(PULLED_KEEP_DAYS);
    let state = State::open()?;
    let mut sweep = Sweep {
        root: state.root().to_owned(),
        dry_run: args.dry_run,
        removed: Vec::new(),
        failures: Vec::new(),
    };
    // Every step is tried, whatever becomes of the others.
    let shelves = [
        sweep.shelf(&state.images()),
        sweep.shelf(&state.kernels()),
        sweep.shelf(&state.vms()),
        sweep.shelf(&state.exports()),
        sweep.exports(&state),
        sweep.cache(&state),
        sweep.keys(&state),
        sweep.ended_runs(&state),
        sweep.leases(&state),
        sweep.kept(&state, days),
    ];
    sweep.allowed(&state);
    for path in state.abandoned_files() {
        sweep.remove("litter", &path);
    }
    sweep.failures.extend(shelves.into_iter().filter_map(Result::err));
    for document in &sweep.removed {
        out.put(document, words)?;
    }
    if sweep.removed.is_empty() && sweep.failures.is_empty() {
        out.note("nothing to remove");
    }
    let mut failures = sweep.failures.into_iter();
    let first = failures.next();
    failures.for_each(|other| note(&format!("error: {}", other.chain())));
    first.map_or(Ok(()), Err)
}

fn words(removed: &Removed) -> String {
    let name = &removed.name;
    match (removed.what.as_str(), removed.dry_run) {
        ("process", true) => format!("would end the process {name}"),
        ("process", false) => format!("ended the process {name}"),
        ("lease", true) => format!("would take back {name}, which is no VM's"),
        ("lease", false) => format!("took back {name}, which is no VM's"),
        ("allowed", true) => format!("would forget '{name}', whose repository is gone"),
        ("allowed", false) => format!("forgot '{name}', whose repository is gone"),
        ("kept", true) => format!("would let go of {name}"),
        ("kept", false) => format!("let go of {name}"),
        ("export", true) => format!("would forget the copy '{name}' of an export"),
        ("export", false) => format!("forgot the copy '{name}' of an export"),
        ("control group", true) => format!("would remove the control group {name}"),
        ("control group", false) => format!("removed the control group {name}"),
        (what, dry_run) => {
            let verb = if dry_run { "would free" } else { "freed" };
            format!("{verb} {} of {what} '{name}'", human_bytes(removed.freed_bytes))
        }
    }
}

struct Sweep {
    root: PathBuf,
    dry_run: bool,
    removed: Vec<Removed>,
    failures: Vec<Error>,
}

impl Sweep {
    /// Removes what a shelf lists as litter.
    fn shelf<D: Document>(&mut self, shelf: &Shelf<D>) -> Result<()> {
        let _lock = shelf.lock()?;
        for path in shelf.litter()? {
            self.remove("litter", &path);
        }
        Ok(())
    }

    /// Takes back addresses and ports that were given to VMs that are gone.
    fn leases(&mut self, state: &State) -> Result<()> {
        let orphans = banger_lease::release_orphans(state, self.dry_run)?;
        let dry_run = self.dry_run;
        self.removed.extend(orphans.into_iter().map(|lease| Removed {
            what: "lease".into(),
            name: lease.what,
            freed_bytes: 0,
            dry_run,
        }));
        Ok(())
    }

    /// Removes what a killed prune moved aside, and downloads that no other program goes on with.
    fn cache(&mut self, state: &State) -> Result<()> {
        let cache = state.path(place::CACHE);
        let dir = cache.parent().expect("because the cache lies in a folder of the state");
        // Who uses the cache shares this lock.
        let Some(_lock) = Lock::try_exclusive(dir)? else { return Ok(()) };
        for path in children(dir) {
            if begins(&path, ".old-") {
                self.remove("litter", &path);
            }
        }
        for path in children(&state.path(place::PARTIAL)) {
            // `DIGEST.PID` was one program's own; `DIGEST` is gone on with by the next pull.
            if path.extension().is_some() {
                self.remove("litter", &path);
            }
        }
        Ok(())
    }

    /// Removes copies of exports that are too old or too many.
    fn exports(&mut self, state: &State) -> Result<()> {
        let keep = Config::load()?.exports;
        for (copy, freed_bytes) in state.surplus_exports(keep.age(), keep.room(), clock_ms())? {
            if !self.dry_run {
                match state.remove_export(&copy.name) {
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    other => other?,
                };
            }
            let (what, name) = ("export".into(), copy.name.to_string());
            self.removed.push(Removed { what, name, freed_bytes, dry_run: self.dry_run });
        }
        Ok(())
    }

    /// Forgets what was allowed to repositories that are gone.
    fn allowed(&mut self, state: &State) {
        for path in children(&state.path(place::ALLOWED)) {
            if let Ok(allowed) = read_document::<Allowed>(&path)
                && matches!(fs::symlink_metadata(&allowed.path), Err(error) if error.kind() == ErrorKind::NotFound)
            {
                self.remove("allowed", &path);
            }
        }
    }

    /// Lets go of what repositories keep of VMs that are gone long enough.
    fn kept(&mut self, state: &State, days: u64) -> Result<()> {
        let (over, failures) = banger_workspace::remove_kept(state, days, self.dry_run)?;
        self.failures.extend(failures);
        let dry_run = self.dry_run;
        self.removed.extend(over.into_iter().map(|over| Removed {
            what: "kept".into(),
            name: format!("what came of VM '{}' in '{}'", over.vm, over.repository),
            freed_bytes: 0,
            dry_run,
        }));
        Ok(())
    }

    /// Removes a key that was not finished.
    fn keys(&mut self, state: &State) -> Result<()> {
        let dir = state.path(place::SSH);
        let Some(_lock) = Lock::try_exclusive(&dir)? else { return Ok(()) };
        children(&dir)
            .iter()
            .filter(|path| begins(path, ".new-"))
            .for_each(|path| self.remove("litter", path));
        Ok(())
    }

    fn remove(&mut self, what: &str, path: &Path) {
        let freed_bytes = Room::of(path).allocated;
        if !self.dry_run {
            let done = remove_tree(path);
            // Its owner may have come back for it at this moment.
            if done.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return;
            }
            if let Err(error) = done.with_context(|| format!("cannot remove '{}'", path.display()))
            {
                self.failures.push(error);
                return;
            }
        }
        let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        self.removed.push(Removed { what: what.into(), name, freed_bytes, dry_run: self.dry_run });
    }
}

/// Returns what lies in a folder, sorted; nothing if it is not there.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn begins(path: &Path, with: &str) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
}
