//! Brings in a kernel from files: a Debian package, a kernel with its modules, a folder, this host.
//! Reads those; writes `kernels/NAME`; runs nothing of what it reads.

use banger_cli::{Out, human_bytes, interrupt};
use banger_doc::{Error, Kernel, Kind, Name, Result};
use banger_kernel::{ARCHITECTURE, Source, bring};
use banger_state::{Staged, State, clock_s};
use std::{path::PathBuf, process::ExitCode};

/// Bring in a kernel from files
///
/// Without a source, the kernel this host runs is taken from /boot and /lib/modules.
#[derive(clap::Parser)]
#[command(name = "banger-kernel-import", version)]
struct Args {
    /// Name of the new kernel
    #[arg(value_name = "NAME")]
    name: Name,
    /// A Debian package; where modules come in a package of their own, give both
    #[arg(long, value_name = "PATH", conflicts_with_all = ["from", "vmlinuz", "release"])]
    deb: Vec<PathBuf>,
    /// A folder with a kernel, and its modules in modules/ or lib/modules/
    #[arg(long, value_name = "PATH", conflicts_with_all = ["vmlinuz", "release"])]
    from: Option<PathBuf>,
    /// A kernel: vmlinux, vmlinuz, bzImage or Image
    #[arg(long, visible_alias = "vmlinux", value_name = "PATH", conflicts_with = "release")]
    vmlinuz: Option<PathBuf>,
    /// Its modules; without, everything a guest boots with has to be built in
    #[arg(long, value_name = "PATH", requires = "vmlinuz")]
    modules: Option<PathBuf>,
    /// A kernel of this host, by its release
    #[arg(long)]
    release: Option<String>,
    /// What to note as its origin
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Replace a kernel of that name
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let (source, origin) = source_of(&args)?;
    let shelf = State::open()?.kernels();
    interrupt::watch()?;
    let begin = || if args.force { shelf.begin_over(&args.name) } else { shelf.begin(&args.name) };
    let staged = interrupt::begin(begin, Staged::path)?;
    let brought = bring(&source, staged.path()).map_err(|error| {
        error.or_hint(
            "'banger kernel import --help' says what a kernel is taken from; 'banger kernel pull' brings one that boots",
        )
    })?;
    let kernel = Kernel {
        name: args.name,
        release: brought.release,
        architecture: ARCHITECTURE.into(),
        source: args.source.unwrap_or(origin),
        format: brought.format,
        sha256: brought.sha256,
        size_bytes: brought.size_bytes,
        has_modules: brought.has_modules,
        boot_modules: brought.boot_modules,
        created_unix_s: clock_s(),
    };
    interrupt::settle(|| {
        if args.force {
            shelf.publish_over(&kernel.name, staged, &kernel)
        } else {
            shelf.publish(&kernel.name, staged, &kernel)
        }
    })?;
    out.put(&kernel, |kernel| {
        format!(
            "kernel '{}' is Linux {}, {}",
            kernel.name,
            kernel.release,
            human_bytes(kernel.size_bytes)
        )
    })
}

fn source_of(args: &Args) -> Result<(Source, String)> {
    if let Some(first) = args.deb.first() {
        let file = first.file_name().unwrap_or_default().to_string_lossy();
        return Ok((Source::Debs(args.deb.clone()), format!("deb:{file}")));
    }
    if let Some(dir) = &args.from {
        return Ok((Source::directory(dir)?, format!("dir:{}", absolute(dir)?)));
    }
    if let Some(kernel) = &args.vmlinuz {
        let source = Source::Files { kernel: kernel.clone(), modules: args.modules.clone() };
        return Ok((source, format!("file:{}", absolute(kernel)?)));
    }
    let source = Source::host(args.release.as_deref())?;
    let Source::Files { kernel, .. } = &source else {
        return Err(Error::failed("a host has its kernels as files"));
    };
    let origin = format!("file:{}", kernel.display());
    Ok((source, origin))
}

fn absolute(path: &std::path::Path) -> Result<String> {
    let failed = |error| {
        Error::new(Kind::NotFound, format!("cannot find '{}'", path.display())).because(error)
    };
    let path = path.canonicalize().map_err(failed)?;
    Ok(path.display().to_string())
}
