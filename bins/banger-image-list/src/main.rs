//! Lists images. Reads `images/`; writes nothing.

use banger_cli::{Out, human_bytes};
use banger_doc::{Image, Kind, Result};
use banger_state::State;
use std::process::ExitCode;

/// List images
///
/// MANAGED says whether banger keeps the disk itself; 'no' is a disk that 'banger image register' named
/// where it lies.
#[derive(clap::Parser)]
#[command(name = "banger-image-list", version)]
struct Args {}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(_: Args, out: &mut Out) -> Result<()> {
    let shelf = match State::open_read_only() {
        Ok(state) => state.images(),
        Err(error) if error.kind() == Kind::NotFound => return empty(out),
        Err(error) => return Err(error),
    };
    let mut images = Vec::new();
    let mut failure = None;
    for name in shelf.names()? {
        match shelf.get(&name) {
            Ok(image) => images.push(image),
            // Deleted since its name was read.
            Err(_) if !shelf.has(&name) => {}
            // One that cannot be read does not hide the others.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => out.table(&images, HEAD, row).and(Err(error)),
        None if images.is_empty() => empty(out),
        None => out.table(&images, HEAD, row),
    }
}

fn empty(out: &mut Out) -> Result<()> {
    out.table(&[], HEAD, row)?;
    out.suggest("no images; 'banger image pull alpine' brings one");
    Ok(())
}

const HEAD: &[&str] = &["NAME", "SIZE", "KERNEL", "MANAGED", "SOURCE"];

fn row(image: &Image) -> Vec<String> {
    vec![
        image.name.to_string(),
        human_bytes(image.used_bytes),
        image.kernel.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        if image.managed { "yes" } else { "no" }.to_owned(),
        image.source.clone(),
    ]
}
