//! Where an image comes from, and how that becomes layers and a configuration.

use crate::{
    archive::{Archive, Layout, Room, STDIN, Wanted},
    cache::Cache,
    digest::{Digest, shown},
    fields::{self, Fields},
    layer::{Layer, Origin},
    manifest::{self, Blob, Config, Entry, MAX_CONFIG, MAX_MANIFEST, Manifest, OTHERS},
    platform::Platform,
    reference::Reference,
    registry::{Client, Fetched},
};
use banger_doc::{Context, Error, ImageConfig, Kind, Name, Result, shell_word, visible};
use banger_layer::{Limits, Progress};
use oci_spec::image::MediaType;
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

/// How deep indexes may be nested.
const MAX_DEPTH: u32 = 2;
/// The most bytes of a platform that somebody would type.
const PLATFORM: usize = 64;

/// Where an image comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A registry.
    Registry(Reference),
    /// `oci:PATH[:TAG]`: a directory with an OCI image layout.
    Layout {
        /// The directory.
        path: PathBuf,
        /// The name of one of its images.
        tag: Option<String>,
    },
    /// `oci-archive:PATH[:TAG]`: a file with such a directory.
    LayoutArchive {
        /// The file.
        path: PathBuf,
        /// The name of one of its images.
        tag: Option<String>,
    },
    /// `docker-archive:PATH[:TAG]`: a file that `docker save` wrote.
    Archive {
        /// The file.
        path: PathBuf,
        /// The name of one of its images.
        tag: Option<String>,
    },
}

impl Source {
    /// Returns the name the image gets unless another is asked for.
    pub fn default_name(&self) -> Option<Name> {
        match self {
            Self::Registry(reference) => reference.default_name(),
            Self::Layout { path, tag } | Self::LayoutArchive { path, tag } => {
                let folder = match self {
                    Self::Layout { .. } => path.file_name()?.to_string_lossy().into_owned(),
                    _ => stem(path)?,
                };
                match tag.as_deref().filter(|tag| *tag != "latest") {
                    // A layout that is a cache holds whole references.
                    Some(tag) if tag.contains('/') => tag.parse::<Reference>().ok()?.default_name(),
                    Some(tag) => Name::from_lossy(&format!("{folder}-{tag}")),
                    None => Name::from_lossy(&folder),
                }
            }
            Self::Archive { path, tag } => match tag.as_deref().map(str::parse::<Reference>) {
                Some(Ok(reference)) => reference.default_name(),
                _ => Name::from_lossy(&stem(path)?),
            },
        }
    }

    /// Returns the same place without the name of an image.
    fn untagged(&self) -> Self {
        let mut all = self.clone();
        match &mut all {
            Self::Registry(_) => {}
            Self::Layout { tag, .. }
            | Self::LayoutArchive { tag, .. }
            | Self::Archive { tag, .. } => *tag = None,
        }
        all
    }

    /// Returns the file that has to be read, and unpacked if it is packed, to know what is in it.
    pub fn archive(&self) -> Option<&Path> {
        match self {
            Self::LayoutArchive { path, .. } | Self::Archive { path, .. } => Some(path),
            Self::Registry(_) | Self::Layout { .. } => None,
        }
    }
}

/// Returns the name of an archive without the endings that say what it is.
fn stem(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_string_lossy();
    let mut stem = file.as_ref();
    if path == Path::new(STDIN) {
        return None;
    }
    for ending in [".gz", ".zst", ".xz", ".tgz", ".txz", ".tar"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    Some(stem.to_owned())
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let local = |rest: &str| -> Result<(PathBuf, Option<String>)> {
            if rest.is_empty() {
                return Err(Error::usage(format!("'{}' names no path", shown(text))));
            }
            if let Some(tag) =
                rest.strip_prefix(STDIN).filter(|tag| tag.is_empty() || tag.starts_with(':'))
            {
                let tag = tag.trim_start_matches(':');
                return Ok((STDIN.into(), (!tag.is_empty()).then(|| tag.to_owned())));
            }
            let whole = Path::new(rest);
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) if !whole.exists() && !path.is_empty() => {
                    (Path::new(path), Some(tag.to_owned()))
                }
                _ => (whole, None),
            };
            let path = std::path::absolute(path)
                .with_context(|| format!("cannot make '{}' an absolute path", shown(rest)))?;
            Ok((path, tag.filter(|tag| !tag.is_empty())))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (path, tag) = local(rest)?;
            if path == Path::new(STDIN) {
                return Err(Error::usage("a layout from stdin is an archive")
                    .hint("write it as 'oci-archive:-'; a directory of that name is 'oci:./-'"));
            }
            return Ok(Self::Layout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            let (path, tag) = local(rest)?;
            return Ok(Self::LayoutArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (path, tag) = local(rest)?;
            return Ok(Self::Archive { path, tag });
        }
        // As skopeo spells it.
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let file = || Error::usage(format!("'{}' is a file, not an image reference", shown(text)));
        let reference = if ends_as_archive(text) && Path::new(text).is_file() {
            Err(file())
        } else {
            name.parse().map(Self::Registry)
        };
        reference.map_err(|error| match path_hint(text) {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

fn ends_as_archive(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    [".tar", ".tgz", ".txz", ".gz", ".zst", ".xz", ".bz2"].iter().any(|end| lower.ends_with(end))
}

/// Says how a path is written as a source, where text is one and not the name of an image.
fn path_hint(text: &str) -> Option<String> {
    let begins = ["/", "./", "../", "~", "file:"].iter().any(|start| text.starts_with(start));
    let path = Path::new(text);
    // The home is meant, as typed.
    let word = match text.strip_prefix("~/") {
        Some(rest) => format!("~/{}", shell_word(rest)),
        None => shell_word(text),
    };
    if path.is_dir() && path.join("index.json").exists() {
        return Some(format!("a directory with an image layout is written as 'oci:{word}'"));
    }
    (begins || ends_as_archive(text) || path.exists()).then(|| {
        format!(
            "'docker-archive:{word}' is what 'docker save' wrote, 'oci-archive:{word}' an image \
             layout in a file, 'oci:DIRECTORY' one; 'banger image import {word}' takes a root file \
             system"
        )
    })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, tag) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout { path, tag } => ("oci", path, tag),
            Self::LayoutArchive { path, tag } => ("oci-archive", path, tag),
            Self::Archive { path, tag } => ("docker-archive", path, tag),
        };
        write!(f, "{kind}:{}", path.display())?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

/// Turns sources into images.
#[derive(Debug)]
pub struct Puller {
    client: Arc<Client>,
    cache: Arc<Cache>,
    platform: Platform,
    limits: Limits,
    unpacked: Progress,
}

/// An image whose manifest and configuration are known and checked.
#[derive(Debug)]
pub struct Found {
    /// Digest of its manifest; of its configuration if it comes from an archive, which has none.
    pub digest: Digest,
    /// What it was made for.
    pub platform: Platform,
    /// How to run it.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Puller {
    /// Makes a puller for one platform. The limits are those of archives; layers are read by others.
    pub fn new(client: Client, cache: Cache, platform: Platform, limits: Limits) -> Self {
        let (client, cache) = (Arc::new(client), Arc::new(cache));
        Self { client, cache, platform, limits, unpacked: Progress::default() }
    }

    /// Returns how far the unpacking of an archive has come.
    pub fn unpacked(&self) -> &Progress {
        &self.unpacked
    }

    /// Takes what there is to say of mirrors that were of no use so far.
    pub fn passed_over(&self) -> Vec<String> {
        self.client.passed_over()
    }

    /// Finds out what a source is, without fetching its layers.
    pub fn find(&self, source: &Source) -> Result<Found> {
        self.look(source).with_context(|| format!("cannot pull '{source}'"))
    }

    fn look(&self, source: &Source) -> Result<Found> {
        match source {
            Source::Registry(reference) => self.in_registry(reference),
            Source::Layout { path, tag } => {
                self.in_layout(source, &Layout::open(path)?, tag.as_deref())
            }
            Source::LayoutArchive { path, tag } => self.in_layout(
                source,
                &Layout::within(self.archive(path, Wanted::Layout)?)?,
                tag.as_deref(),
            ),
            Source::Archive { path, tag } => {
                self.in_archive(&self.archive(path, Wanted::Saved)?, tag.as_deref())
            }
        }
    }

    fn in_registry(&self, reference: &Reference) -> Result<Found> {
        let place = Place::Registry(self, reference);
        let full = reference.to_string();
        let (blob, bytes, told) = if let Some((blob, bytes)) = self.unchanged(reference, &full)? {
            (blob, bytes, None)
        } else {
            let Fetched { blob, bytes, media_type } =
                self.client.manifest(reference, &reference.identifier())?;
            (blob, bytes, media_type)
        };
        let parsed = manifest::parse(&bytes, told.as_deref())?;
        let kind = media_type(&parsed, &bytes);
        self.cache.keep_new(&blob, &bytes)?;
        let found = self
            .follow(&place, blob, parsed, &self.platform, MAX_DEPTH)
            .map_err(Miss::into_error)?;
        self.cache.remember(&full, &blob, kind)?;
        Ok(found)
    }

    /// Returns what the reference led to last time if it still does and is still there.
    fn unchanged(&self, reference: &Reference, full: &str) -> Result<Option<(Blob, Vec<u8>)>> {
        let Some(blob) = self.cache.recall(full) else { return Ok(None) };
        let Some(bytes) = self.cache.small(&blob) else { return Ok(None) };
        let now = match reference.digest() {
            Some(digest) => Some(digest),
            None => self.client.head(reference)?,
        };
        Ok((now == Some(blob.digest)).then_some((blob, bytes)))
    }

    fn archive(&self, path: &Path, kind: Wanted) -> Result<Archive> {
        let room =
            Room { dir: self.cache.scratch(), limits: &self.limits, progress: &self.unpacked };
        Archive::open(path, kind, &room)
    }

    fn in_layout(&self, source: &Source, layout: &Layout, tag: Option<&str>) -> Result<Found> {
        let all = source.untagged();
        let Manifest::Index(entries) = manifest::parse(&layout.index()?, None)
            .with_context(|| format!("cannot read 'index.json' of '{all}'"))?
        else {
            return Err(Error::failed(format!("'index.json' of '{all}' is no index")));
        };
        let named: Vec<&Entry> = match tag {
            Some(tag) => {
                entries.iter().filter(|entry| entry.name.as_deref() == Some(tag)).collect()
            }
            None => entries.iter().collect(),
        };
        let usable: Vec<&Entry> =
            named.iter().copied().filter(|entry| entry.blob().is_ok()).collect();
        let chosen = match (named.as_slice(), usable.as_slice()) {
            (named, []) => named.first().copied().into_iter().collect(),
            // One image, maybe of several names.
            (_, [one, rest @ ..]) if rest.iter().all(|entry| entry.is_same(one)) => vec![*one],
            // Several of one name, or without any, may be one image for several platforms.
            (_, [one, rest @ ..]) if rest.iter().all(|entry| entry.name == one.name) => {
                manifest::pick(&usable, &self.platform)?
            }
            _ => Vec::new(),
        };
        if chosen.is_empty() {
            let mut names: Vec<String> =
                entries.iter().filter_map(|e| e.name.as_deref()).map(shown).collect();
            names.sort();
            names.dedup();
            names.truncate(20);
            let sentence = match tag {
                Some(tag) => format!("the layout '{all}' has no image '{}'", shown(tag)),
                None => format!("the layout '{all}' holds {} images", entries.len()),
            };
            return Err(Error::not_found(sentence).hint(match names.as_slice() {
                [] if entries.is_empty() => "copy an image into it, or name another".into(),
                [] => "its images have no names; copy the one you want into a layout of its own"
                    .into(),
                names => format!("name one: {all}:{}", names.join(" or ")),
            }));
        }
        self.first_of(&Place::Layout(layout), chosen, MAX_DEPTH).map_err(Miss::into_error)
    }

    /// Goes from a manifest, through indexes, to an image.
    fn follow(
        &self,
        place: &Place<'_>,
        blob: Blob,
        parsed: Manifest,
        told: &Platform,
        depth: u32,
    ) -> Result<Found, Miss> {
        match parsed {
            Manifest::Image { config, layers } => self.image(place, blob, config, layers, told),
            Manifest::Index(_) if depth == 0 => Err(Miss::Other(
                Error::failed(format!("its indexes are nested more than {MAX_DEPTH} deep"))
                    .hint(OTHERS),
            )),
            Manifest::Index(entries) => {
                let all: Vec<&Entry> = entries.iter().collect();
                let chosen = manifest::pick(&all, &self.platform).map_err(Miss::Other)?;
                self.first_of(place, chosen, depth - 1)
            }
        }
    }

    /// Returns the first of several entries of an index that is an image for the platform. If none
    /// is, the error says why not of each.
    fn first_of(&self, place: &Place<'_>, entries: Vec<&Entry>, depth: u32) -> Result<Found, Miss> {
        let mut missed = Vec::new();
        for entry in entries {
            let blob = entry.blob();
            let name = blob.as_ref().map_or("one without an address".into(), |blob| {
                format!("'{}'", blob.digest.short())
            });
            let found = blob.map_err(Miss::Other).and_then(|blob| {
                let bytes = place.manifest(&blob)?;
                let parsed =
                    manifest::parse(&bytes, Some(&entry.media_type)).map_err(Miss::Other)?;
                let told = entry.platform.as_ref().unwrap_or(&self.platform);
                self.follow(place, blob, parsed, told, depth)
            });
            match found {
                Err(Miss::Other(error)) => missed.push((name, error)),
                found => return found,
            }
        }
        Err(Miss::Other(none_of(missed)))
    }

    fn image(
        &self,
        place: &Place<'_>,
        manifest: Blob,
        config: Blob,
        layers: Vec<Blob>,
        told: &Platform,
    ) -> Result<Found, Miss> {
        if config.size > MAX_CONFIG {
            return Err(Miss::Other(Error::failed(format!(
                "its configuration has {} bytes; at most {MAX_CONFIG} are read",
                config.size
            ))));
        }
        let bytes = place.small(&config)?;
        let Config { platform, diff_ids, run: config } =
            manifest::parse_config(&bytes, layers.len(), told).map_err(Miss::Other)?;
        self.check(&platform).map_err(Miss::Other)?;
        let mut layers: Vec<Layer> = layers
            .iter()
            .enumerate()
            .map(|(number, blob)| {
                let origin = place.origin(blob)?;
                let diff_id = diff_ids.get(number).copied();
                Ok(Layer::new(blob.digest.to_string(), blob.size, diff_id, origin))
            })
            .collect::<Result<_>>()
            .map_err(Miss::Other)?;
        Layer::join(&mut layers);
        Ok(Found { digest: manifest.digest, platform, config, layers })
    }

    fn in_archive(&self, archive: &Archive, tag: Option<&str>) -> Result<Found> {
        let image = archive.image(tag)?;
        let bytes = archive.read(&image.config, MAX_CONFIG)?;
        let Config { platform, diff_ids, run: config } =
            manifest::parse_config(&bytes, image.layers.len(), &self.platform)?;
        self.check(&platform)?;
        // Nothing else says in an archive what its layers should be.
        if diff_ids.is_empty() && !image.layers.is_empty() {
            return Err(Error::failed("its configuration names no layers").hint(OTHERS));
        }
        let layers = image
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(name, diff_id)| {
                let (origin, size) = archive.part(name, None)?;
                Ok(Layer::new(shown(name), size, Some(diff_id), origin))
            })
            .collect::<Result<_>>()?;
        Ok(Found { digest: Digest::of(&bytes), platform, config, layers })
    }

    fn check(&self, platform: &Platform) -> Result<()> {
        if self.platform.distance(platform).is_some() {
            return Ok(());
        }
        let error =
            Error::failed(format!("the image is made for {platform}, not for {}", self.platform));
        let name = platform.to_string();
        Err(if name.len() > PLATFORM {
            error.hint(OTHERS)
        } else {
            error.hint(format!("pull it with '--platform {}' if that is meant", shell_word(name)))
        })
    }
}

/// Why something in an index is not the image.
enum Miss {
    /// It is something else, too large, or not there; another entry may be the image.
    Other(Error),
    /// It cannot be fetched now, or is damaged.
    Broken(Error),
}

impl Miss {
    fn into_error(self) -> Error {
        match self {
            Self::Other(error) | Self::Broken(error) => error,
        }
    }
}

/// Makes one error of why each of several is not the image.
fn none_of(mut missed: Vec<(String, Error)>) -> Error {
    if missed.len() < 2 {
        return missed
            .pop()
            .map_or_else(|| Error::failed("the index is empty").hint(OTHERS), |(_, error)| error);
    }
    // Each is to be seen, and the end of its reason.
    let room = (380 / missed.len()).saturating_sub(20);
    let words: Vec<String> = missed
        .iter()
        .map(|(name, error)| format!("{name}: {}", visible(&error.chain(), room)))
        .collect();
    let all_missing = missed.iter().all(|(_, error)| error.kind() == Kind::NotFound);
    let kind = if all_missing { Kind::NotFound } else { Kind::Failed };
    Error::new(kind, "the index leads to no image of use")
        .because(Error::new(kind, words.join("; ")))
        .hint(OTHERS)
}

/// Where blobs lie.
enum Place<'a> {
    Registry(&'a Puller, &'a Reference),
    Layout(&'a Layout),
}

impl Place<'_> {
    /// Returns a manifest, checked.
    fn manifest(&self, blob: &Blob) -> Result<Vec<u8>, Miss> {
        if blob.size > MAX_MANIFEST {
            return Err(Miss::Other(Error::failed(format!(
                "the manifest '{}' has {} bytes; at most {MAX_MANIFEST} are read",
                blob.digest, blob.size
            ))));
        }
        let fetch = |puller: &Puller, reference: &Reference| {
            let fetched = puller.client.manifest(reference, &blob.digest.to_string())?;
            if fetched.blob != *blob {
                return Err(Error::failed(format!(
                    "the manifest '{}' has {} bytes, not {}",
                    blob.digest, fetched.blob.size, blob.size
                )));
            }
            Ok(fetched.bytes)
        };
        self.read(blob, MAX_MANIFEST, fetch)
    }

    /// Returns a small blob, checked.
    fn small(&self, blob: &Blob) -> Result<Vec<u8>, Miss> {
        self.read(blob, MAX_CONFIG, |puller, reference| puller.client.small_blob(reference, blob))
    }

    fn read(
        &self,
        blob: &Blob,
        most: u64,
        fetch: impl FnOnce(&Puller, &Reference) -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>, Miss> {
        match self {
            Self::Layout(layout) => layout.small(blob, most).map_err(|error| {
                if layout.has(blob) { Miss::Broken(error) } else { Miss::Other(error) }
            }),
            Self::Registry(puller, reference) => {
                if let Some(bytes) = puller.cache.small(blob) {
                    return Ok(bytes);
                }
                let bytes = fetch(puller, reference).map_err(|error| match error.kind() {
                    Kind::NotFound => Miss::Other(error),
                    _ => Miss::Broken(error),
                })?;
                puller.cache.keep(blob, &bytes).map_err(Miss::Broken)?;
                Ok(bytes)
            }
        }
    }

    fn origin(&self, blob: &Blob) -> Result<Origin> {
        match self {
            Self::Layout(layout) => layout.origin(blob),
            Self::Registry(puller, reference) => Ok(Origin::Registry {
                client: Arc::clone(&puller.client),
                cache: Arc::clone(&puller.cache),
                reference: (*reference).clone(),
                blob: *blob,
            }),
        }
    }
}

/// Returns the media type to write down for a manifest: its own, else the specification's.
fn media_type(parsed: &Manifest, bytes: &[u8]) -> MediaType {
    let own = Fields::read(&fields::text(bytes), &["mediaType"])
        .and_then(|manifest| manifest.text("mediaType"))
        .unwrap_or_default();
    match parsed {
        _ if !own.is_empty() => own.as_str().into(),
        Manifest::Image { .. } => MediaType::ImageManifest,
        Manifest::Index(_) => MediaType::ImageIndex,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let read = |text: &str| text.parse::<Source>().unwrap();
        assert_eq!(read("docker://debian").to_string(), "docker.io/library/debian:latest");
        assert_eq!(read("oci:/no/such:a:b").to_string(), "oci:/no/such:a:b");
        assert_eq!(read("oci:/no/such:1.2").default_name().unwrap().as_str(), "such-1-2");
        assert_eq!(read("docker-archive:/no/x.tar:a:1").default_name().unwrap().as_str(), "a-1");
        assert_eq!(read("docker-archive:/no/app.tar").default_name().unwrap().as_str(), "app");
        assert_eq!(read("docker-archive:/no/a-1.tar.gz").default_name().unwrap().as_str(), "a-1");
        assert_eq!(read("oci-archive:/no/x.tar:2").default_name().unwrap().as_str(), "x-2");
        assert_eq!(read("oci-archive:/no/x.tar:2").to_string(), "oci-archive:/no/x.tar:2");
        assert!(read("oci:x").to_string().starts_with("oci:/"));
        assert!("oci:".parse::<Source>().is_err());
        assert_eq!(read("docker-archive:-").to_string(), "docker-archive:-");
        assert_eq!(read("docker-archive:-:a:1").default_name().unwrap().as_str(), "a-1");
        assert_eq!(read("oci-archive:-").default_name(), None);
        assert!("oci:-".parse::<Source>().is_err());
        assert_eq!(read("docker-archive:/no/a.tar.xz").default_name().unwrap().as_str(), "a");
    }

    #[test]
    fn each_of_several_that_are_no_image_is_named() {
        let of = |count: usize, kind: Kind| {
            let missed = (0..count)
                .map(|n| {
                    let error = Error::new(kind, "a manifest, ".repeat(20) + &format!("end {n}"));
                    (format!("'{n:012}'"), error)
                })
                .collect();
            none_of(missed)
        };
        for count in 2..=8 {
            let words = of(count, Kind::NotFound).chain();
            for n in 0..count {
                assert!(words.contains(&format!("'{n:012}': ")), "{words}");
                assert!(words.contains(&format!("end {n}")), "{words}");
            }
        }
        assert_eq!(of(3, Kind::NotFound).kind(), Kind::NotFound);
        assert_eq!(of(3, Kind::Failed).kind(), Kind::Failed);
        assert!(of(1, Kind::NotFound).chain().starts_with("a manifest, "));
        assert!(of(0, Kind::Failed).chain().starts_with("the index is empty"));
    }

    #[test]
    fn a_path_without_its_kind_is_answered_with_how_it_is_written() {
        for path in ["./x.tar", "/srv/x.tar", "../x.tar.gz", "X.tar", "~/x.tar", "/no/such/Place"] {
            let error = path.parse::<Source>().unwrap_err();
            let hint = error.hint_text().unwrap();
            assert!(hint.starts_with(&format!("'docker-archive:{path}' is ")), "{hint}");
        }
        let error = "Debian".parse::<Source>().unwrap_err();
        assert!(error.hint_text().unwrap().starts_with("write it as 'debian:"), "{error}");
    }
}
