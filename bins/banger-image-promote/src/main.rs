//! Copies a registered image's disk into the state. Reads the registered file; replaces
//! `images/NAME`.

use banger_cli::{Out, human_bytes};
use banger_doc::{Context, Error, Image, Name, Result};
use banger_image::{check, copy, interrupt, republish};
use banger_state::{State, place};
use std::{fs::File, process::ExitCode};

/// Copy a registered image's disk in; its file may then go
#[derive(clap::Parser)]
#[command(name = "banger-image-promote", version)]
struct Args {
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    name: Name,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open()?;
    let image = state.images().get(&args.name)?;
    if image.managed {
        // Done already, like stopping a stopped VM.
        return put(&image, out);
    }
    interrupt::watch()?;
    let from = state.base_disk(&image);
    let file = File::open(&from).map_err(|error| {
        Error::not_found(format!("cannot open the disk '{}' of '{}'", from.display(), image.name))
            .because(error)
    })?;
    check(&from)?;
    let staged = copy(&state, &image.name, &file)?;
    // Of the copy: the file may have changed since it was registered.
    let checked = check(&staged.path().join(place::IMAGE_DISK))
        .with_context(|| format!("cannot promote image '{}'", image.name))?;
    let promoted = Image {
        managed: true,
        rootfs: place::IMAGE_DISK.into(),
        size_bytes: checked.size_bytes,
        used_bytes: checked.used_bytes,
        inodes: checked.inodes,
        ..image.clone()
    };
    republish(&state, staged, &promoted, |there| {
        if there.rootfs == image.rootfs && !there.managed {
            return Ok(());
        }
        Err(Error::conflict(format!("image '{}' changed meanwhile", image.name)).hint("try again"))
    })?;
    put(&promoted, out)
}

fn put(image: &Image, out: &mut Out) -> Result<()> {
    out.put(image, |image| {
        format!("copied the disk of image '{}': {}", image.name, human_bytes(image.used_bytes))
    })
}
