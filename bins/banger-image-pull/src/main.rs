//! Pulls an image and makes it a bootable disk. Reads a registry, files or the catalog; writes
//! `cache/` and `images/NAME`.

mod catalog;
mod layers;
mod recipe;
mod turn;

use banger_cli::{Out, human_bytes};
use banger_config::Config;
use banger_doc::{Error, Image, Name, Result, visible};
use banger_image::{Limits, interrupt, progress};
use banger_oci::{Cache, Client, Platform, Puller, Say, Settings, Source};
use banger_state::{State, place, rewrite_document};
use catalog::Way;
use clap::Parser;
use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Pull an image and make it a bootable disk
///
/// The image is a name of the catalog (`debian-bookworm`), a reference to a registry
/// (`debian:12`, `registry.example/team/app:1.2`), a directory (`oci:PATH[:TAG]`), the same in a file
/// (`oci-archive:PATH[:TAG]`) or a file that `docker save` wrote (`docker-archive:PATH[:TAG]`); files
/// as they are or compressed by gzip, zstd or xz, or stdin where PATH is '-'.
#[derive(Parser)]
#[command(name = "banger-image-pull", version)]
struct Args {
    /// What to pull
    #[arg(value_name = "REFERENCE")]
    image: String,
    /// Name of the image here; by default made of the last part of the reference and its tag
    #[arg(long)]
    name: Option<Name>,
    /// Kernel the image boots with
    #[arg(long, value_name = "KERNEL")]
    kernel_ref: Option<Name>,
    /// Pull for this platform instead of the host's, such as linux/arm64
    #[arg(long)]
    platform: Option<Platform>,
}

/// What helps where nothing better is known: what is wrong was in the image when it was made.
const BROKEN: &str = "choose another tag, or tell who made the image";
const BROKEN_HERE: &str = "it was written like this; make it anew with what made it";

fn main() -> ExitCode {
    // What a shell asks at TAB time.
    if std::env::args_os().skip(1).eq(["--catalog-names"]) {
        let names = Config::load().map(|config| catalog::names(&config)).unwrap_or_default();
        let _ = std::io::stdout().write_all(names.as_bytes());
        return ExitCode::SUCCESS;
    }
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let config = Config::load()?;
    let platform = args.platform.unwrap_or_else(Platform::host);
    let (ways, default_name, default_kernel) =
        if let Some(entry) = catalog::find(&config, &args.image)? {
            (entry.ways, Some(entry.name), entry.kernel)
        } else {
            let source: Source = args.image.parse()?;
            let name = source.default_name();
            (vec![Way::Oci(source)], name, None)
        };
    let name = args.name.or(default_name).ok_or_else(|| {
        Error::usage(format!("'{}' gives no name for the image", args.image))
            .hint("name it with --name")
    })?;
    let limits = banger_image::limits(&config.image_limits);
    let wish = Wish { name, kernel: args.kernel_ref, default_kernel, platform, limits };
    let state = State::open()?;
    interrupt::watch()?;
    let _turn = turn::take(&state, &wish.name, out)?;

    let mirrors: Vec<_> =
        config.mirrors.iter().map(|one| (one.registry.clone(), one.mirror.clone())).collect();
    let start = Instant::now();
    let mut failures: Vec<Error> = Vec::new();
    let patience = if ways.len() > 1 { 5 } else { 10 };
    for (number, way) in ways.iter().enumerate() {
        let result = match way {
            Way::Oci(source) => {
                let settings = Settings {
                    insecure: config.insecure_registries.clone(),
                    mirrors: mirrors.clone(),
                    connect: Duration::from_secs(patience),
                    say: if out.is_quiet() { Say::default() } else { Say::by(progress::note) },
                    ..Settings::default()
                };
                from_oci(&state, source, settings, &wish, out)
            }
            Way::Mmdebstrap(recipe) => from_recipe(&state, &args.image, recipe, &wish, out),
        };
        match result {
            Ok(image) => {
                let words = |image: &Image| {
                    format!(
                        "{}: {} in {} files, ready in {:.1} s",
                        image.name,
                        human_bytes(image.used_bytes),
                        image.inodes,
                        start.elapsed().as_secs_f32()
                    )
                };
                return out.put(&image, words);
            }
            Err(error) if error.kind() == banger_doc::Kind::Conflict => return Err(error),
            Err(error) => {
                if number + 1 < ways.len() {
                    out.note(&format!("{}; trying the next source", error.chain()));
                }
                failures.push(error);
            }
        }
    }
    Err(joined(&wish.name, failures))
}

/// What the caller asked for.
struct Wish {
    name: Name,
    kernel: Option<Name>,
    default_kernel: Option<Name>,
    platform: Platform,
    limits: Limits,
}

impl Wish {
    fn kernel(&self) -> Option<Name> {
        self.kernel.clone().or_else(|| self.default_kernel.clone())
    }
}

fn from_oci(
    state: &State,
    source: &Source,
    settings: Settings,
    wish: &Wish,
    out: &Out,
) -> Result<Image> {
    let there = existing(state, &wish.name)?;
    let text = source.to_string();
    if let Some(image) = there.as_ref().filter(|image| image.source != text) {
        return Err(taken(image));
    }
    let puller = Puller::new(
        Client::new(settings),
        Cache::open(state)?,
        wish.platform.clone(),
        wish.limits.clone(),
    );
    let found = match source.archive() {
        None => puller.find(source),
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            progress::unpacking(out, &name, puller.unpacked(), || puller.find(source))
                .map_err(banger_image::no_room)
        }
    };
    tell(&puller, out);
    let broken = match source {
        Source::Registry(_) => BROKEN,
        _ => BROKEN_HERE,
    };
    let found = found.map_err(|error| error.or_hint(broken))?;
    let digest = found.digest.to_string();
    if let Some(image) = there {
        if image.digest.as_ref() == Some(&digest)
            && image.architecture == found.platform.architecture
        {
            return unchanged(state, image, wish);
        }
        unused(state, &image)?;
    }
    let written = layers::write(state, &wish.name, &found.layers, &wish.limits, out);
    tell(&puller, out);
    let (staged, summary) = written.map_err(|error| error.or_hint(broken))?;
    let image = Image {
        name: wish.name.clone(),
        source: text,
        digest: Some(digest),
        managed: true,
        rootfs: place::IMAGE_DISK.into(),
        size_bytes: summary.size_bytes,
        used_bytes: summary.used_bytes,
        inodes: summary.inodes,
        architecture: found.platform.architecture,
        kernel: wish.kernel(),
        config: found.config,
        created_unix_s: banger_state::clock_s(),
    };
    banger_image::publish(state, staged, &image, |there| unused(state, there))?;
    Ok(image)
}

/// Says which mirrors were of no use, and why.
fn tell(puller: &Puller, out: &Out) {
    for words in puller.passed_over() {
        out.note(&words);
    }
}

fn from_recipe(
    state: &State,
    entry: &str,
    recipe: &recipe::Recipe,
    wish: &Wish,
    out: &Out,
) -> Result<Image> {
    let source = format!("recipe:{entry}");
    if let Some(image) = existing(state, &wish.name)? {
        if image.source == source && image.architecture == wish.platform.architecture {
            return unchanged(state, image, wish);
        }
        return Err(taken(&image));
    }
    let (staged, summary) = recipe::write(state, recipe, wish, out)?;
    let image = Image {
        name: wish.name.clone(),
        source,
        digest: None,
        managed: true,
        rootfs: place::IMAGE_DISK.into(),
        size_bytes: summary.size_bytes,
        used_bytes: summary.used_bytes,
        inodes: summary.inodes,
        architecture: wish.platform.architecture.clone(),
        kernel: wish.kernel(),
        config: banger_doc::ImageConfig::default(),
        created_unix_s: banger_state::clock_s(),
    };
    banger_image::publish(state, staged, &image, |there| unused(state, there))?;
    Ok(image)
}

fn existing(state: &State, name: &Name) -> Result<Option<Image>> {
    let images = state.images();
    if images.has(name) { images.get(name).map(Some) } else { Ok(None) }
}

/// Answers with the image that is there, with the kernel that was asked for.
fn unchanged(state: &State, mut image: Image, wish: &Wish) -> Result<Image> {
    if wish.kernel.is_some() && wish.kernel != image.kernel {
        let images = state.images();
        let path = images.folder(&image.name).join(place::IMAGE_DOCUMENT);
        let _lock = images.lock()?;
        image = images.get(&image.name)?;
        image.kernel.clone_from(&wish.kernel);
        rewrite_document(&path, &image)?;
    }
    Ok(image)
}

/// Refuses to change an image under the VMs that are made of it.
fn unused(state: &State, image: &Image) -> Result<()> {
    let Some(users) = banger_image::users(state, &image.name)? else { return Ok(()) };
    Err(Error::conflict(format!(
        "'{}' leads to another image now, and image '{}' is used by {users}",
        image.source, image.name
    ))
    .hint("pull it under another name with --name"))
}

fn taken(image: &Image) -> Error {
    Error::conflict(format!("image '{}' exists and comes from '{}'", image.name, image.source))
        .hint(format!("choose another name with --name, or 'banger image delete {}'", image.name))
}

/// Makes one error of what each source failed with.
fn joined(name: &Name, mut failures: Vec<Error>) -> Error {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    // Each is to be seen, and its reason.
    let room = 340 / failures.len().max(1);
    let words: Vec<String> =
        failures.iter().map(|error| visible(&error.chain(), room.max(100))).collect();
    let hint: Vec<&str> = failures.iter().filter_map(Error::hint_text).collect();
    let error = Error::failed(format!("no source of '{name}' works: {}", words.join("; ")));
    if hint.is_empty() { error } else { error.hint(hint.join("; or: ")) }
}
