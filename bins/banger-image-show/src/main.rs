//! Shows images. Reads `images/NAME/image.json`; writes nothing.

use banger_cli::{Out, Page, human_bytes};
use banger_doc::{Image, Name, Result};
use banger_state::State;
use std::process::ExitCode;

/// Show images
#[derive(clap::Parser)]
#[command(name = "banger-image-show", version)]
struct Args {
    /// Names of the images
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<Name>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    out.each(&args.names, |name| state.images().get(name), |image| words(&state, image))
}

fn words(state: &State, image: &Image) -> String {
    let config = &image.config;
    let lines = [
        ("name", image.name.to_string()),
        ("source", image.source.clone()),
        ("digest", image.digest.clone().unwrap_or_default()),
        ("processor", image.architecture.clone()),
        ("kernel", image.kernel.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("disk", state.base_disk(image).display().to_string()),
        ("size", format!("{} in {} files", human_bytes(image.used_bytes), image.inodes)),
        ("user", config.user.clone().unwrap_or_default()),
        ("directory", config.working_dir.clone().unwrap_or_default()),
        ("entrypoint", quoted(&config.entrypoint)),
        ("command", quoted(&config.cmd)),
        ("stops by", config.stop_signal.clone().unwrap_or_default()),
    ];
    let mut page = Page::default();
    for (label, value) in lines {
        page.row(label, value);
    }
    for entry in &config.env {
        page.row("env", entry);
    }
    for (key, value) in &config.labels {
        page.row("label", format!("{key}={value}"));
    }
    page.words()
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}
