//! Frees the cache of downloaded layers. Removes what is in `cache/`; images are whole without it.

use banger_cli::{Out, human_bytes};
use banger_doc::{Removed, Result};
use banger_oci::Cache;
use banger_state::{State, place};
use std::process::ExitCode;

/// Free the cache of downloaded layers
///
/// Images stay: their disks are whole without it. Pulling one again downloads its layers again.
#[derive(clap::Parser)]
#[command(name = "banger-image-prune", version)]
struct Args {
    /// Only say what would be freed
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    let pruned = Cache::prune(&state, args.dry_run)?;
    let removed = Removed {
        what: "blob".into(),
        name: place::CACHE.into(),
        freed_bytes: pruned.bytes,
        dry_run: args.dry_run,
    };
    out.put(&removed, |removed| {
        if pruned.files == 0 {
            return "nothing to free: no downloaded layers are kept".into();
        }
        format!(
            "{} {}: {} downloaded layer{}",
            if removed.dry_run { "would free" } else { "freed" },
            human_bytes(removed.freed_bytes),
            pruned.files,
            if pruned.files == 1 { "" } else { "s" },
        )
    })
}
