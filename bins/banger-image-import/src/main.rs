//! Makes a disk of a root file system in a tar archive. Reads the archive or stdin; writes
//! `images/NAME`.

use banger_cli::{Out, human_bytes};
use banger_config::Config;
use banger_doc::{Context, Error, Image, ImageConfig, Name, Result, shell_word};
use banger_image::{Top, interrupt, limits, progress, publish, write_root};
use banger_layer::{Layer, Opener, Progress, other_packing};
use banger_state::{State, place};
use clap::Parser;
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
    process::ExitCode,
};

/// Make an image of a root file system in a tar archive
///
/// The archive is what 'docker export', 'mmdebstrap' or 'tar' write, or what a distribution publishes
/// as its root file system, as it is or compressed by gzip, zstd or xz. One whose root lies in a
/// directory of its own, such as 'rootfs/', is taken out of that.
#[derive(Parser)]
#[command(name = "banger-image-import", version)]
struct Args {
    /// The archive, or '-' for stdin
    #[arg(value_name = "PATH")]
    archive: String,
    /// Name of the image; by default that of the archive without its endings
    #[arg(long)]
    name: Option<Name>,
    /// Kernel the image boots with
    #[arg(long, value_name = "KERNEL")]
    kernel_ref: Option<Name>,
}

/// What stdin is called.
const STDIN: &str = "stdin";
const PIPED: &str = "write it as 'docker export NAME | banger image import - --name NAME'";

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let limits = limits(&Config::load()?.image_limits);
    let (source, size, open) = open(&args.archive)?;
    let name = match args.name {
        Some(name) => name,
        None => default_name(&args.archive)?,
    };
    let state = State::open()?;
    if state.images().has(&name) {
        return Err(Error::conflict(format!("image '{name}' exists"))
            .hint(format!("choose another name, or 'banger image delete {name}' first")));
    }
    interrupt::watch()?;
    let layer = Layer { name: args.archive.clone(), diff_id: None, size, open };
    let done = Progress::default();
    let mut below = None;
    let (staged, summary) = progress::stream(
        out,
        &done,
        || if args.archive == "-" { "stdin".to_owned() } else { args.archive.clone() },
        || {
            let judge = |top: &Top| {
                below = judged(top, &args.archive)?;
                Ok(())
            };
            write_root(&state, &name, layer, &limits, &done, judge)
        },
    )
    .map_err(|error| {
        error.or_hint(
            "it has to be a tar of a root file system; 'banger image pull docker-archive:PATH' \
             takes what 'docker save' wrote",
        )
    })?;
    if let Some(directory) = below {
        out.note(&format!("note: the root of the archive is its directory '{directory}'"));
    }
    let image = Image {
        name,
        source,
        digest: None,
        managed: true,
        rootfs: place::IMAGE_DISK.into(),
        size_bytes: summary.size_bytes,
        used_bytes: summary.used_bytes,
        inodes: summary.inodes,
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
        kernel: args.kernel_ref,
        config: ImageConfig::default(),
        created_unix_s: banger_state::clock_s(),
    };
    publish(&state, staged, &image, |there| {
        Err(Error::conflict(format!("image '{}' appeared meanwhile", there.name)))
    })?;
    out.put(&image, |image| {
        format!(
            "imported image '{}': {} in {} files",
            image.name,
            human_bytes(image.used_bytes),
            image.inodes
        )
    })
}

/// Refuses an archive that is for another command; returns the directory its root is in.
fn judged(top: &Top, archive: &str) -> Result<Option<String>> {
    let (what, kind) = match top {
        Top::Root => return Ok(None),
        Top::Below(directory) => return Ok(Some(directory.clone())),
        Top::Saved => ("what 'docker save' wrote", "docker-archive"),
        Top::Layout => ("an OCI image layout", "oci-archive"),
    };
    let (archive, more) = if archive == "-" {
        (STDIN, "- --name NAME".to_owned())
    } else {
        (archive, shell_word(archive))
    };
    Err(Error::failed(format!("'{archive}' is {what}, no root file system"))
        .hint(format!("'banger image pull {kind}:{more}' takes it")))
}

/// Opens the archive and returns what to note as its origin, its size if it is known, and how to
/// read it.
fn open(archive: &str) -> Result<(String, Option<u64>, Opener)> {
    if archive == "-" {
        if io::stdin().is_terminal() {
            return Err(Error::usage("stdin is a terminal, not an archive").hint(PIPED));
        }
        let stdin: Opener = Box::new(|| plain(STDIN, Box::new(io::stdin())));
        return Ok((STDIN.into(), None, stdin));
    }
    let path = Path::new(archive)
        .canonicalize()
        .map_err(|error| Error::not_found(format!("cannot find '{archive}'")).because(error))?;
    let file = File::open(&path).with_context(|| format!("cannot open '{archive}'"))?;
    let meta = file.metadata().with_context(|| format!("cannot look at '{archive}'"))?;
    if meta.is_dir() {
        return Err(Error::usage(format!("'{archive}' is a directory")).hint(format!(
            "'tar -C {} -c . | banger image import - --name NAME' takes one",
            shell_word(archive)
        )));
    }
    let name = archive.to_owned();
    let size = meta.is_file().then_some(meta.len());
    Ok((format!("file:{}", path.display()), size, Box::new(move || plain(&name, Box::new(file)))))
}

/// Refuses the compressions that are not read, by name.
fn plain(name: &str, mut reader: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    reader
        .by_ref()
        .take(6)
        .read_to_end(&mut head)
        .with_context(|| format!("cannot read '{name}'"))?;
    if let Some(other) = other_packing(&head) {
        let hint = match other.unpack {
            Some(command) => format!(
                "'{command} {} | banger image import - --name NAME' takes a tar out of it",
                shell_word(if name == STDIN { "FILE" } else { name })
            ),
            None => "it has to be a tar, as it is or compressed by gzip, zstd or xz".to_owned(),
        };
        return Err(Error::failed(format!("'{name}' {}", other.what)).hint(hint));
    }
    if head.is_empty() {
        return Err(if name == STDIN {
            Error::failed("stdin is empty: no archive came").hint(PIPED)
        } else {
            Error::failed(format!("'{name}' is empty"))
        });
    }
    Ok(Box::new(io::Cursor::new(head).chain(reader)))
}

fn default_name(archive: &str) -> Result<Name> {
    let file = Path::new(archive).file_name().unwrap_or_default().to_string_lossy();
    let mut stem = file.as_ref();
    for ending in [".gz", ".zst", ".xz", ".tgz", ".txz", ".tar"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    Name::from_lossy(stem).ok_or_else(|| {
        Error::usage(format!("'{archive}' gives no name for the image")).hint("name it with --name")
    })
}
