//! Registers a disk that lies elsewhere. Reads the disk; writes `images/NAME`, and `kernels/NAME` by
//! `banger-kernel-import` if a kernel is given. The disk is never written to.

use banger_cli::{Out, Program, human_bytes};
use banger_doc::{Context, Error, Image, ImageConfig, Kernel, Name, Result};
use banger_image::check;
use banger_state::State;
use clap::Parser;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Register an ext4 disk that lies elsewhere as an image
///
/// VMs read the disk and write to disks of their own, so it stays as it is. It has to stay where it
/// is, too; 'banger image promote' copies it.
#[derive(Parser)]
#[command(name = "banger-image-register", version)]
struct Args {
    /// Name of the image
    #[arg(long)]
    name: Name,
    /// The disk: one clean ext4 file system, without partitions
    #[arg(long, value_name = "PATH")]
    rootfs: PathBuf,
    /// Kernel the image boots with
    #[arg(long, value_name = "KERNEL", conflicts_with_all = ["kernel", "initrd", "modules"])]
    kernel_ref: Option<Name>,
    /// A kernel file; it is imported under the name of the image
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk; banger boots with one of its own, so this one is not used
    #[arg(long, value_name = "PATH", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Its modules directory, as in /lib/modules
    #[arg(long, value_name = "PATH", requires = "kernel")]
    modules: Option<PathBuf>,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let rootfs = absolute(&args.rootfs)?;
    let initrd = args.initrd.as_deref().map(absolute).transpose()?;
    let checked = check(&rootfs)?;
    let state = State::open()?;
    let staged = state.images().begin(&args.name)?;
    if let Some(initrd) = initrd {
        let path = initrd.display();
        out.note(&format!(
            "'{path}' is not used: banger boots with an initial RAM disk of its own"
        ));
    }
    let kernel = match &args.kernel {
        Some(kernel) => Some(import(&args.name, kernel, args.modules.as_deref())?),
        None => args.kernel_ref,
    };
    let image = Image {
        name: args.name,
        source: format!("file:{}", rootfs.display()),
        digest: None,
        managed: false,
        rootfs,
        size_bytes: checked.size_bytes,
        used_bytes: checked.used_bytes,
        inodes: checked.inodes,
        architecture: architecture().to_owned(),
        kernel,
        config: ImageConfig::default(),
        created_unix_s: banger_state::clock_s(),
    };
    state.images().publish(&image.name, staged, &image)?;
    out.put(&image, |image| {
        format!(
            "registered image '{}': {} in {} files",
            image.name,
            human_bytes(image.used_bytes),
            image.inodes
        )
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().map_err(|error| {
        Error::not_found(format!("cannot find '{}'", path.display())).because(error)
    })?;
    if path.to_str().is_none() {
        return Err(Error::usage(format!("the path '{}' is not UTF-8", path.display())));
    }
    Ok(path)
}

fn import(name: &Name, kernel: &Path, modules: Option<&Path>) -> Result<Name> {
    let mut program = Program::new("banger-kernel-import")?
        .arg(name.as_str())
        .arg("--vmlinuz")
        .arg(absolute(kernel)?);
    if let Some(modules) = modules {
        program = program.arg("--modules").arg(absolute(modules)?);
    }
    let kernels: Vec<Kernel> = program.documents().context("cannot import the kernel")?;
    kernels
        .into_iter()
        .next_back()
        .map(|kernel| kernel.name)
        .ok_or_else(|| Error::failed("'banger-kernel-import' said nothing"))
}

/// Returns this host's processor: a disk does not say what it is for.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
