//! Indexes, manifests and configurations, read only after their digest and size were checked.
//!
//! All of it is hostile input: sizes and counts are bounded, and a document that could be read in
//! two ways is refused (CVE-2021-41190).

use crate::{
    digest::{Digest, shown},
    fields::{self, Fields},
    platform::Platform,
};
use banger_doc::{Context, Error, ImageConfig, Result};
use oci_spec::image::ANNOTATION_REF_NAME;

/// The largest manifest or index that is read (the size the distribution specification asks
/// registries to take).
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The largest image configuration that is read.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// The most layers an image has. Builders stop at 127.
pub(crate) const MAX_LAYERS: usize = 512;
/// The largest layer, compressed.
const MAX_BLOB: u64 = 64 << 30;
/// The most entries of an index, and of an archive's list of images.
pub(crate) const MAX_ENTRIES: usize = 4096;
/// The most entries of an index that are looked into, and that an error names.
const MAX_TRIES: usize = 8;
const MAX_OFFERED: usize = 12;
/// The most bytes of environment, command lines and labels a guest is told.
const MAX_WORDS: usize = 1 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The media types asked for.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// The media types of a configuration. The last four are what registries and builders of 2016 put
/// there, also for images (moby's `distribution/registry.go`); absent counts as empty.
const CONFIGS: [&str; 6] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
];

/// Media types of layers that say nothing of what is in them.
const PLAIN: [&str; 5] =
    ["", "application/octet-stream", "application/gzip", "application/x-gzip", "application/zstd"];

/// Content by digest and size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size, in bytes.
    pub size: u64,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Reads what is needed of a descriptor.
    fn read(descriptor: &Fields<'_>) -> Result<Self> {
        let blob =
            Self { digest: descriptor.text("digest")?.parse()?, size: descriptor.number("size")? };
        if blob.size > MAX_BLOB {
            return Err(Error::failed(format!(
                "'{}' is said to have {} bytes; at most {MAX_BLOB} are read",
                blob.digest, blob.size
            )));
        }
        Ok(blob)
    }
}

/// What a reference leads to: one image, or a list of images for several platforms.
#[derive(Debug)]
pub(crate) enum Manifest {
    Image { config: Blob, layers: Vec<Blob> },
    Index(Vec<Entry>),
}

/// One entry of an index.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it leads, or why it leads nowhere.
    place: Result<Blob, String>,
    pub media_type: String,
    /// What it was made for; `None` if that is not said.
    pub platform: Option<Platform>,
    pub name: Option<String>,
    /// It only tells about an image: who made it, of what, who signed it.
    is_aside: bool,
}

impl Entry {
    /// Returns where it leads.
    pub(crate) fn blob(&self) -> Result<Blob> {
        self.place.as_ref().copied().map_err(|why| {
            Error::failed(format!("the index leads to nothing of use: {why}")).hint(OTHERS)
        })
    }

    /// Says whether both lead to the same.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        matches!((&self.place, &other.place), (Ok(one), Ok(two)) if one == two)
    }
}

/// The fields of manifests and indexes that are used.
const MANIFEST: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "artifactType",
    "manifests",
    "layers",
    "config",
    "blobs",
    "fsLayers",
];
const DESCRIPTOR: &[&str] =
    &["mediaType", "digest", "size", "platform", "annotations", "artifactType"];
const PLATFORM: &[&str] = &["os", "architecture", "variant"];
const CONFIG: &[&str] = &["os", "architecture", "variant", "config", "rootfs"];
const ROOTFS: &[&str] = &["diff_ids"];
const RUN: &[&str] = &["Env", "WorkingDir", "User", "Entrypoint", "Cmd", "StopSignal", "Labels"];

/// The annotation with which buildkit marks what only tells about an image.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// Reads a manifest or an index. `told` is the media type its sender gave it.
pub(crate) fn parse(bytes: &[u8], told: Option<&str>) -> Result<Manifest> {
    let text = fields::text(bytes);
    let manifest = Fields::read(&text, MANIFEST).context("cannot read the manifest")?;
    let told = told
        .map(|text| text.split(';').next().unwrap_or_default().trim())
        .filter(|text| ACCEPT.contains(text) || text.contains("vnd."));
    let said = manifest.text("mediaType").context("cannot read the manifest")?;
    let said = Some(said.as_str()).filter(|said| !said.is_empty());
    if let (Some(told), Some(said)) = (told, said)
        && !told.eq_ignore_ascii_case(said)
    {
        return Err(Error::failed(format!(
            "the manifest calls itself '{}' but was sent as '{}'",
            shown(said),
            shown(told)
        )));
    }
    // Nothing but the numbers of other schemas means anything.
    let version = manifest.number("schemaVersion").unwrap_or(2);
    if version == 1 || manifest.raw("fsLayers").is_some() {
        return Err(Error::failed("the image has a manifest of schema 1, which nobody can verify")
            .hint("push it again with a builder of this decade, such as 'skopeo copy'"));
    }
    if version > 2 {
        return Err(Error::failed(format!(
            "the manifest is of schema {version}; only schema 2 is known"
        )));
    }
    let kind = said.or(told);
    let has = |name: &str| manifest.raw(name).is_some();
    let is_index = match (has("manifests"), has("layers") || has("config")) {
        (true, true) => {
            return Err(Error::failed(
                "the manifest can be read as an image and as an index, so it is refused",
            ));
        }
        (false, false) if has("blobs") => return Err(artifact(&manifest)),
        // An index of nothing names itself.
        (false, false) if kind.is_none_or(|kind| ![OCI_INDEX, DOCKER_INDEX].contains(&kind)) => {
            return Err(Error::failed("the manifest names no image"));
        }
        (is_index, is_image) => is_index || !is_image,
    };
    if let Some(kind) = kind {
        let fits =
            if is_index { [OCI_INDEX, DOCKER_INDEX] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
        if !fits.contains(&kind) {
            return Err(Error::failed(format!(
                "the manifest's media type '{}' does not fit its contents",
                shown(kind)
            )));
        }
    }
    if is_index {
        let entries = manifest
            .list("manifests", MAX_ENTRIES)
            .context("cannot read the index")
            .map_err(|error| error.hint(OTHERS))?;
        return Ok(Manifest::Index(entries.into_iter().map(entry).collect()));
    }
    parse_image(&manifest)
}

/// Reads an entry of an index. Whatever is wrong with one matters only if it is the one that is
/// wanted.
fn entry(raw: &str) -> Entry {
    read_entry(raw).unwrap_or_else(|error| Entry {
        place: Err(error.chain()),
        media_type: String::new(),
        platform: None,
        name: None,
        is_aside: true,
    })
}

fn read_entry(raw: &str) -> Result<Entry> {
    let descriptor = Fields::read(raw, DESCRIPTOR)?;
    let platform = descriptor.object("platform", PLATFORM)?;
    let [os, architecture, variant] =
        [platform.text("os")?, platform.text("architecture")?, platform.text("variant")?];
    let notes = descriptor.labels("annotations");
    let note = |name: &str| {
        notes.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
    };
    let of = descriptor.text("artifactType").unwrap_or_default();
    Ok(Entry {
        place: Blob::read(&descriptor).map_err(|error| error.chain()),
        // Attestations are stored as images for a platform that does not exist.
        is_aside: os == "unknown"
            || note(REFERENCE_TYPE).is_some()
            || !of.is_empty() && !CONFIGS[..2].contains(&of.as_str()),
        media_type: descriptor.text("mediaType")?,
        platform: (!architecture.is_empty()).then(|| {
            Platform::new(if os.is_empty() { "linux" } else { &os }, &architecture, &variant)
        }),
        name: note(ANNOTATION_REF_NAME).cloned(),
    })
}

/// What helps where an image is not one that can be used, and pulling it again would not.
pub(crate) const OTHERS: &str = "choose another tag, or tell who made the image";

/// Says what an artifact is.
fn artifact(manifest: &Fields<'_>) -> Error {
    let kind = manifest.text("artifactType").unwrap_or_default();
    let kind = if kind.is_empty() { String::new() } else { format!(" of type '{}'", shown(&kind)) };
    Error::failed(format!("it is an artifact{kind}, no container image")).hint(OTHERS)
}

fn parse_image(manifest: &Fields<'_>) -> Result<Manifest> {
    let context = "cannot read the manifest";
    let config = manifest.object("config", DESCRIPTOR).context(context)?;
    let kind = config.text("mediaType").context(context)?;
    if !CONFIGS.contains(&kind.as_str()) {
        let artifact_type = manifest.text("artifactType").unwrap_or_default();
        return Err(if artifact_type.is_empty() {
            Error::failed(format!(
                "it is no container image: its configuration has the media type '{}'",
                shown(&kind)
            ))
            .hint(OTHERS)
        } else {
            artifact(manifest)
        });
    }
    let layers = manifest.list("layers", MAX_LAYERS).context(context)?;
    let layers = layers
        .into_iter()
        .enumerate()
        .map(|(number, raw)| {
            layer(raw).with_context(|| format!("layer {} of the image cannot be used", number + 1))
        })
        .collect::<Result<_>>()?;
    let config = Blob::read(&config).context("the image's configuration cannot be used")?;
    Ok(Manifest::Image { config, layers })
}

/// Reads the descriptor of a layer. How it is packed shows in its first bytes; its media type only
/// says whether it is a tar at all.
fn layer(raw: &str) -> Result<Blob> {
    // A descriptor's `urls` are never followed: credentials went that way (CVE-2020-15157).
    let layer = Fields::read(raw, DESCRIPTOR)?;
    let kind = layer.text("mediaType")?.to_ascii_lowercase();
    let is_tar = kind.split(['.', '+', '-', '/', ':', ';']).any(|part| part == "tar");
    let why = if kind.contains("encrypted") {
        "it is encrypted"
    } else if is_tar || PLAIN.contains(&kind.as_str()) {
        return Blob::read(&layer);
    } else {
        "it is no tar"
    };
    Err(Error::failed(format!("{why}: its media type is '{}'", shown(&kind))).hint(OTHERS))
}

/// Returns the images of an index that may run on a platform, the best first. Those after the first
/// are of interest only if it turns out to be none.
pub(crate) fn pick<'a>(entries: &[&'a Entry], wanted: &Platform) -> Result<Vec<&'a Entry>> {
    let images = || {
        entries.iter().copied().filter(|entry| {
            !entry.is_aside
                && (entry.media_type.is_empty() || ACCEPT.contains(&entry.media_type.as_str()))
        })
    };
    let best = images()
        .filter_map(|entry| Some((wanted.distance(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(distance, entry)| (entry.place.is_err(), *distance));
    if let Some((_, entry)) = best {
        return Ok(vec![entry]);
    }
    // One without a platform says in its configuration, or its own index, what it is for.
    let mut found: Vec<&'a Entry> = Vec::new();
    for entry in images().filter(|entry| entry.platform.is_none()) {
        if !found.iter().any(|one| one.is_same(entry)) && found.len() < MAX_TRIES {
            found.push(entry);
        }
    }
    if !found.is_empty() {
        found.sort_by_key(|entry| entry.place.is_err());
        return Ok(found);
    }
    let mut offered: Vec<String> =
        images().filter_map(|entry| Some(shown(&entry.platform.as_ref()?.to_string()))).collect();
    offered.sort();
    offered.dedup();
    let more = offered.len().saturating_sub(MAX_OFFERED);
    offered.truncate(MAX_OFFERED);
    let mut words = if offered.is_empty() { "none".into() } else { offered.join(", ") };
    if more > 0 {
        words = format!("{words} and {more} more");
    }
    Err(Error::failed(format!("the image is not made for {wanted}, only for: {words}"))
        .hint("choose another tag, or pull one of these with --platform"))
}

/// What is needed of an image's configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub platform: Platform,
    /// The digests of the layers' tars; empty if it names none.
    pub diff_ids: Vec<Digest>,
    pub run: ImageConfig,
}

/// Reads an image's configuration. What it does not say of its platform is taken from `told`: what
/// the index said, or what is wanted.
pub(crate) fn parse_config(bytes: &[u8], layers: usize, told: &Platform) -> Result<Config> {
    const CONTEXT: &str = "cannot read the image's configuration";
    let text = fields::text(bytes);
    let read = Fields::read(&text, CONFIG).context(CONTEXT)?;
    let named = |name: &str| read.text(name).context(CONTEXT);
    let platform =
        Platform::named(&named("os")?, &named("architecture")?, &named("variant")?, told);
    if platform.os != "linux" {
        return Err(Error::failed(format!(
            "the image is made for '{}', not for linux",
            shown(&platform.os)
        ))
        .hint(OTHERS));
    }
    let diff_ids =
        read.object("rootfs", ROOTFS).and_then(|rootfs| rootfs.texts("diff_ids", MAX_LAYERS));
    let diff_ids: Vec<Digest> = diff_ids
        .and_then(|texts| texts.iter().map(|text| text.parse()).collect())
        .context(CONTEXT)?;
    if !diff_ids.is_empty() && diff_ids.len() != layers {
        return Err(Error::failed(format!(
            "the image has {layers} layers but its configuration names {}",
            diff_ids.len()
        )));
    }
    let run = read.object("config", RUN).and_then(|run| read_run(&run)).context(CONTEXT)?;
    check_words(&run)?;
    Ok(Config { platform, diff_ids, run })
}

fn read_run(run: &Fields<'_>) -> Result<ImageConfig> {
    let text = |name: &str| run.text(name).map(|text| Some(text).filter(|text| !text.is_empty()));
    // One word alone counts as a list of it (moby's `strslice`).
    let words = |name: &str| match run.raw(name) {
        Some(raw) if raw.starts_with('"') => run.text(name).map(|word| vec![word]),
        _ => run.texts(name, fields::MANY),
    };
    Ok(ImageConfig {
        // Docker drops entries that name nothing, too.
        env: run
            .texts("Env", fields::MANY)?
            .into_iter()
            .filter(|entry| !entry.is_empty() && !entry.starts_with('='))
            .collect(),
        working_dir: text("WorkingDir")?,
        user: text("User")?,
        entrypoint: words("Entrypoint")?,
        cmd: words("Cmd")?,
        stop_signal: text("StopSignal")?,
        labels: run.labels("Labels").into_iter().collect(),
    })
}

/// Bounds what a guest is told, and refuses NUL, which no process can be given.
fn check_words(config: &ImageConfig) -> Result<()> {
    let words = config
        .env
        .iter()
        .chain(&config.entrypoint)
        .chain(&config.cmd)
        .chain(&config.working_dir)
        .chain(&config.user)
        .chain(&config.stop_signal);
    // No process is given a label.
    let labels = config.labels.iter().map(|(key, value)| key.len() + value.len() + 16);
    let mut bytes = labels.sum::<usize>();
    for word in words {
        bytes += word.len() + 8;
        if word.contains('\0') {
            return Err(Error::failed(format!(
                "the image's configuration has a zero byte in '{}'",
                shown(word)
            )));
        }
    }
    if bytes > MAX_WORDS {
        return Err(Error::failed(format!(
            "the image's configuration has {bytes} bytes of environment, command lines and \
             labels; at most {MAX_WORDS} are taken"
        ))
        .hint(OTHERS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::{MediaType, ToDockerV2S2};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn media_types_are_those_of_the_specification() {
        for (docker, oci, kind) in [
            (DOCKER_INDEX, OCI_INDEX, MediaType::ImageIndex),
            (DOCKER_MANIFEST, OCI_MANIFEST, MediaType::ImageManifest),
            (CONFIGS[1], CONFIGS[0], MediaType::ImageConfig),
        ] {
            assert_eq!((docker, oci), (kind.to_docker_v2s2().unwrap(), kind.as_ref()));
        }
    }

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": 3})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(CONFIGS[0]),
               "layers": [descriptor(TAR)]})
    }

    fn read(value: &Value, told: Option<&str>) -> Result<Manifest> {
        parse(value.to_string().as_bytes(), told)
    }

    #[test]
    fn a_manifest_is_read_with_and_without_its_media_type() {
        let mut value = image();
        for told in [None, Some(OCI_MANIFEST), Some("application/json; charset=utf-8")] {
            assert!(
                matches!(read(&value, told), Ok(Manifest::Image { layers, .. }) if layers.len() == 1)
            );
        }
        value.as_object_mut().unwrap().remove("mediaType");
        assert!(read(&value, Some(DOCKER_MANIFEST)).is_ok());
        assert!(read(&value, Some(OCI_INDEX)).is_err());
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let mut value = image();
        value["manifests"] = json!([descriptor(OCI_MANIFEST)]);
        assert!(
            read(&value, None).unwrap_err().to_string().contains("as an image and as an index")
        );
        assert!(
            read(&image(), Some(DOCKER_MANIFEST)).unwrap_err().to_string().contains("calls itself")
        );
        let twice = image().to_string().replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
        assert!(parse(twice.as_bytes(), None).is_err());
    }

    #[test]
    fn other_things_than_images_are_refused_with_their_reason() {
        let change = |act: fn(&mut Value)| {
            let mut value = image();
            act(&mut value);
            read(&value, None).unwrap_err().chain()
        };
        for (message, want) in [
            (change(|v| v["schemaVersion"] = json!(1)), "schema 1"),
            (
                change(|v| v["config"]["mediaType"] = json!("application/vnd.x")),
                "no container image",
            ),
            (change(|v| v["layers"][0]["mediaType"] = json!("text/x")), "is no tar"),
            (
                change(|v| {
                    v["layers"][0]["mediaType"] =
                        json!("application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
                }),
                "is encrypted",
            ),
            (change(|v| v["layers"][0]["digest"] = json!("sha256:../../x")), ""),
            (
                change(|v| v["layers"][0]["digest"] = json!(format!("sha512:{HEX}{HEX}"))),
                "not a digest",
            ),
            (change(|v| v["layers"][0]["size"] = json!(-1)), ""),
            (change(|v| v["layers"][0]["size"] = json!(u64::MAX)), "at most"),
            (change(|v| v["layers"] = json!(vec![descriptor(TAR); 513])), "it has 513 entries"),
            (change(|v| v["mediaType"] = json!(OCI_INDEX)), "does not fit"),
            (change(|v| *v = json!({"schemaVersion": 2})), "names no image"),
            (change(|v| *v = json!([])), "not an object"),
            (change(|v| v["schemaVersion"] = json!(3)), "schema 3"),
            (change(|v| v["layers"] = json!({"a": 1})), "the field 'layers' cannot be used"),
            (change(|v| v["layers"][0] = json!(null)), "layer 1 of the image cannot be used"),
            (change(|v| v["layers"][0]["digest"] = json!(null)), "'' is not a digest"),
            (change(|v| v["config"] = json!("x")), "the field 'config' cannot be used"),
            (change(|v| v["mediaType"] = json!(7)), "the field 'mediaType' cannot be used"),
            (
                change(|v| {
                    v["artifactType"] = json!("application/vnd.x.sbom");
                    v["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
                }),
                "it is an artifact of type 'application/vnd.x.sbom'",
            ),
            (
                change(|v| {
                    *v = json!({"mediaType": "application/vnd.oci.artifact.manifest.v1+json",
                                "artifactType": "a/b", "blobs": []});
                }),
                "it is an artifact of type 'a/b'",
            ),
            (
                change(|v| {
                    *v = json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []});
                }),
                "schema 1",
            ),
        ] {
            assert!(message.contains(want), "{message}");
            // None of the words of the libraries.
            for inner in ["expected", "struct", "missing field", "invalid type", "`"] {
                let own = "'sha256:' and 64 of 0-9 and a-f were expected";
                assert!(!message.replace(own, "").contains(inner), "{message}");
            }
        }
    }

    #[test]
    fn what_is_not_used_of_a_manifest_never_decides() {
        let deep = "[".repeat(4000) + &"]".repeat(4000);
        let image = image().to_string();
        // Each stands behind the opening brace of the manifest, its configuration and its layer.
        for odd in [
            r#""annotations": {"a": null}"#,
            r#""annotations": "none""#,
            r#""annotations": [1]"#,
            r#""urls": null"#,
            r#""urls": "file:///etc/passwd""#,
            r#""platform": {"os": 5}"#,
            r#""subject": null"#,
            r#""subject": {"digest": "sha512:0", "size": -1}"#,
            r#""artifactType": null"#,
            r#""data": "not base64 at all \ud800""#,
            r#""x": 1e999, "x": 2"#,
            &format!(r#""x": {deep}"#),
        ] {
            for at in ["{", r#""config":{"#, r#""layers":[{"#] {
                let text = image.replacen(at, &format!("{at}{odd},"), 1);
                match parse(text.as_bytes(), None) {
                    Ok(Manifest::Image { layers, .. }) => assert_eq!(layers.len(), 1),
                    other => panic!("{at} {odd}: {other:?}"),
                }
            }
        }
        // Bytes that are no text, in what is not read.
        let text = image.replacen('{', r#"{"annotations": {"a": "?"},"#, 1);
        let mut bytes = text.into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at] = 0xff;
        assert!(parse(&bytes, None).is_ok());
    }

    #[test]
    fn manifests_as_builders_write_them_are_images() {
        let change = |act: fn(&mut Value)| {
            let mut value = image();
            act(&mut value);
            match read(&value, None) {
                Ok(Manifest::Image { layers, .. }) => layers.len(),
                other => panic!("{value}: {other:?}"),
            }
        };
        for (act, layers) in [
            ((|v| v["layers"] = json!(null)) as fn(&mut Value), 0),
            (|v| v["layers"] = json!([]), 0),
            (|v| drop(v.as_object_mut().unwrap().remove("layers")), 0),
            (|v| drop(v.as_object_mut().unwrap().remove("schemaVersion")), 1),
            (|v| v["schemaVersion"] = json!(null), 1),
            (|v| v["schemaVersion"] = json!("2"), 1),
            (|v| v["schemaVersion"] = json!(2.0), 1),
            (|v| v["manifests"] = json!(null), 1),
            (|v| v["fsLayers"] = json!(null), 1),
            (|v| v["mediaType"] = json!(""), 1),
            (|v| v["mediaType"] = json!(null), 1),
            (|v| v["config"]["mediaType"] = json!("application/octet-stream"), 1),
            (|v| drop(v["config"].as_object_mut().unwrap().remove("mediaType")), 1),
        ] {
            assert_eq!(change(act), layers);
        }
        for kind in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.v1.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar.zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            "application/vnd.docker.image.rootfs.foreign.diff.tar",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/x-tar",
            "application/octet-stream",
            "application/gzip",
            "",
        ] {
            let mut value = image();
            value["layers"][0]["mediaType"] = json!(kind);
            assert!(read(&value, None).is_ok(), "{kind}");
        }
        for kind in [
            "application/vnd.oci.image.layer.nydus.blob.v1",
            "application/vnd.in-toto+json",
            "application/vnd.wasm.content.layer.v1+wasm",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.erofs.layer.v1",
        ] {
            let mut value = image();
            value["layers"][0]["mediaType"] = json!(kind);
            let error = read(&value, None).unwrap_err();
            assert!(error.chain().contains(kind) && error.hint_text() == Some(OTHERS), "{kind}");
        }
    }

    #[test]
    fn an_odd_neighbour_never_spoils_an_index() {
        let of = |text: &str| Digest::of(text.as_bytes());
        let good = json!({"mediaType": OCI_MANIFEST, "size": 3, "digest": of("good").to_string(),
                          "platform": {"os": "linux", "architecture": "amd64"}});
        let arm = {
            let mut arm = good.clone();
            arm["digest"] = json!(of("arm").to_string());
            arm["platform"]["architecture"] = json!("arm64");
            arm
        };
        let with = |act: fn(&mut Value)| {
            let mut value = arm.clone();
            act(&mut value);
            value
        };
        for odd in [
            with(|v| v["platform"] = json!({})),
            with(|v| v["platform"] = json!(null)),
            with(|v| v["platform"] = json!("linux/arm64")),
            with(|v| v["platform"] = json!({"os": 5})),
            with(|v| v["platform"] = json!({"os": "linux", "architecture": null})),
            with(|v| v["platform"]["os.version"] = json!(10)),
            with(|v| v["platform"]["os.features"] = json!("win32k")),
            with(|v| v["digest"] = json!(format!("sha512:{HEX}{HEX}"))),
            with(|v| v["digest"] = json!("blake3:00")),
            with(|v| v["digest"] = json!(null)),
            with(|v| v["digest"] = json!("sha256:\u{1b}[2J")),
            with(|v| v["digest"] = json!(["x"])),
            with(|v| v["size"] = json!(1_u64 << 50)),
            with(|v| v["size"] = json!(-1)),
            with(|v| v["size"] = json!(1.5)),
            with(|v| v["size"] = json!("3")),
            with(|v| v["mediaType"] = json!("application/vnd.future.v9+json")),
            with(|v| v["mediaType"] = json!(null)),
            with(|v| v["mediaType"] = json!(7)),
            with(|v| v["annotations"] = json!({"a": null, "b": 5})),
            with(|v| v["annotations"] = json!("x")),
            with(|v| v["urls"] = json!(null)),
            with(|v| v["artifactType"] = json!("application/spdx+json")),
            json!(null),
            json!("sha256"),
            json!([]),
            json!({}),
        ] {
            for entries in [json!([good, odd]), json!([odd, good]), json!([odd, odd, good, good])] {
                let value = json!({"schemaVersion": 2, "manifests": entries});
                let Ok(Manifest::Index(entries)) = read(&value, None) else {
                    panic!("{value} is no index");
                };
                let entries: Vec<&Entry> = entries.iter().collect();
                let found = pick(&entries, &amd64()).unwrap();
                assert_eq!(found[0].blob().unwrap().digest, of("good"), "{odd}");
            }
        }
        // Of two for one platform, the one that is of use.
        let bad = {
            let mut bad = good.clone();
            bad["digest"] = json!(format!("sha512:{HEX}{HEX}"));
            bad
        };
        let value = json!({"manifests": [bad, good]});
        let Ok(Manifest::Index(entries)) = read(&value, None) else { panic!("no index") };
        let entries: Vec<&Entry> = entries.iter().collect();
        assert_eq!(pick(&entries, &amd64()).unwrap()[0].blob().unwrap().digest, of("good"));
        let error = pick(&entries[..1], &amd64()).unwrap()[0].blob().unwrap_err().chain();
        assert!(error.starts_with("the index leads to nothing of use: 'sha512:"), "{error}");
        // An index of nothing.
        let empty = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": null});
        assert!(matches!(read(&empty, None), Ok(Manifest::Index(all)) if all.is_empty()));
        assert!(pick(&[], &amd64()).unwrap_err().to_string().ends_with("only for: none"));
    }

    #[test]
    fn an_index_of_too_many_entries_is_refused_whatever_they_are() {
        let read = |entries: usize| {
            let list = format!("{{}}{}", ",{}".repeat(entries - 1));
            parse(format!(r#"{{"manifests":[{list}]}}"#).as_bytes(), None)
        };
        assert!(matches!(read(MAX_ENTRIES), Ok(Manifest::Index(all)) if all.len() == MAX_ENTRIES));
        for entries in [MAX_ENTRIES + 1, MAX_MANIFEST as usize / 3 - 10] {
            let error = read(entries).unwrap_err();
            let words = format!("it has {entries} entries; at most 4096 are read");
            assert!(error.chain().ends_with(&words), "{}", error.chain());
            assert_eq!(error.hint_text(), Some(OTHERS));
        }
    }

    #[test]
    fn images_without_a_platform_are_looked_into() {
        let entry = |name: &str, more: Value| {
            let mut value = descriptor(OCI_MANIFEST);
            value["digest"] = json!(Digest::of(name.as_bytes()).to_string());
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            value
        };
        let value = json!({"manifests": [
            entry("windows", json!({"platform": {"os": "windows", "architecture": "amd64"}})),
            entry("signature", json!({"artifactType": "application/vnd.dev.cosign"})),
            entry("origin", json!({"annotations": {REFERENCE_TYPE: "attestation-manifest"}})),
            entry("one", json!({"platform": {}})),
            entry("one", json!({})),
            entry("two", json!({"platform": {"os": "linux"}})),
        ]});
        let Ok(Manifest::Index(entries)) = read(&value, None) else { panic!("no index") };
        let entries: Vec<&Entry> = entries.iter().collect();
        let found = pick(&entries, &amd64()).unwrap();
        let found: Vec<_> = found.iter().map(|entry| entry.blob().unwrap().digest).collect();
        assert_eq!(found, [Digest::of(b"one"), Digest::of(b"two")]);
    }

    fn index(platforms: &[(&str, &str, &str)]) -> Vec<Entry> {
        let entry = |(os, architecture, variant): &(&str, &str, &str)| {
            let mut value = descriptor(OCI_MANIFEST);
            value["digest"] =
                json!(Digest::of(format!("{os}{architecture}{variant}").as_bytes()).to_string());
            value["platform"] = json!({"os": os, "architecture": architecture, "variant": variant});
            value
        };
        let value = json!({"schemaVersion": 2, "manifests": platforms.iter().map(entry).collect::<Vec<_>>()});
        match read(&value, None).unwrap() {
            Manifest::Index(entries) => entries,
            Manifest::Image { .. } => panic!("an index was expected"),
        }
    }

    #[test]
    fn the_best_platform_is_picked() {
        let entries = index(&[
            ("unknown", "unknown", ""),
            ("linux", "arm", "v5"),
            ("linux", "arm", "v7"),
            ("linux", "arm64", "v8"),
            ("windows", "amd64", ""),
            ("linux", "amd64", ""),
        ]);
        let entries: Vec<&Entry> = entries.iter().collect();
        let pick = |text: &str| {
            pick(&entries, &text.parse().unwrap()).map(|found| found[0].blob().unwrap().digest)
        };
        let of = |text: &str| Digest::of(text.as_bytes());
        assert_eq!(pick("amd64").unwrap(), of("linuxamd64"));
        assert_eq!(pick("arm64").unwrap(), of("linuxarm64v8"));
        assert_eq!(pick("linux/arm/v6").unwrap(), of("linuxarmv5"));
        let error = pick("s390x").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image is not made for linux/s390x, only for: linux/amd64, linux/arm/v5, \
             linux/arm/v7, linux/arm64, windows/amd64"
        );
    }

    #[test]
    fn a_docker_configuration_is_read() {
        let value = json!({
            "architecture": "amd64", "os": "linux", "container": "x", "docker_version": "20.10",
            "config": {"Hostname": "", "User": "", "AttachStdin": false, "Env": ["PATH=/bin", "=x"],
                "Cmd": ["sh"], "Image": "sha256:x", "Volumes": null, "WorkingDir": "",
                "Entrypoint": null, "OnBuild": null, "Labels": null, "ExposedPorts": {"80/tcp": {}}},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{HEX}")]},
            "history": [{"created": "x", "created_by": "y"}]
        });
        let config = config(&value, 1).unwrap();
        assert_eq!(config.run.env, ["PATH=/bin"]);
        assert_eq!(config.run.cmd, ["sh"]);
        assert_eq!(config.run.working_dir, None);
        assert!(parse_config(value.to_string().as_bytes(), 2, &amd64()).is_err());
    }

    fn amd64() -> Platform {
        "linux/amd64".parse().unwrap()
    }

    fn config(value: &Value, layers: usize) -> Result<Config> {
        parse_config(value.to_string().as_bytes(), layers, &amd64())
    }

    #[test]
    fn the_platform_is_the_configurations_else_what_was_told() {
        let of = |value: &Value, told: &str| {
            parse_config(value.to_string().as_bytes(), 0, &told.parse().unwrap())
                .map(|config| config.platform.to_string())
        };
        for (value, want) in [
            (json!({"architecture": "", "os": ""}), "linux/arm/v6"),
            (json!({"architecture": null, "os": null, "variant": null}), "linux/arm/v6"),
            (json!({}), "linux/arm/v6"),
            (json!({"os": "linux"}), "linux/arm/v6"),
            (json!({"architecture": "arm"}), "linux/arm/v6"),
            (json!({"architecture": "arm", "variant": "v7"}), "linux/arm/v7"),
            (json!({"architecture": "amd64"}), "linux/amd64"),
            (json!({"architecture": "X86_64", "os": "Linux"}), "linux/amd64"),
            (json!({"os.version": 5, "os.features": "x"}), "linux/arm/v6"),
        ] {
            assert_eq!(of(&value, "linux/arm/v6").unwrap(), want, "{value}");
        }
        let error = of(&json!({"os": "windows"}), "linux/amd64").unwrap_err();
        assert_eq!(error.to_string(), "the image is made for 'windows', not for linux");
    }

    #[test]
    fn what_is_not_used_of_a_configuration_never_decides() {
        let base = json!({"architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{HEX}")]},
            "config": {"Env": ["A=1"], "Cmd": ["sh"]}});
        for (path, odd) in [
            ("", json!({"created": "yesterday", "author": 7, "history": null})),
            ("", json!({"history": [{"created": 5, "empty_layer": "yes"}, null, 3]})),
            ("", json!({"history": "none", "container_config": [], "docker_version": 20})),
            ("", json!({"moby.buildkit.buildinfo.v1": {"a": [null]}, "id": null})),
            ("rootfs", json!({"type": null})),
            ("rootfs", json!({"type": 7, "base_layer": {}})),
            ("config", json!({"Volumes": {"/data": null}, "ExposedPorts": {"80/tcp": null}})),
            ("config", json!({"Volumes": ["/data"], "ExposedPorts": [80]})),
            ("config", json!({"Volumes": "x", "ExposedPorts": "80/tcp", "OnBuild": "RUN x"})),
            ("config", json!({"Healthcheck": {"Test": "x", "Interval": "30s"}, "Shell": null})),
            ("config", json!({"Hostname": 1, "Tty": "yes", "Image": null, "ArgsEscaped": 1})),
            ("config", json!({"Labels": {"a": null, "b": "c", "d": 5}})),
            ("config", json!({"Labels": ["a=b"]})),
        ] {
            let mut value = base.clone();
            let target = if path.is_empty() { &mut value } else { &mut value[path] };
            target.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
            let config =
                config(&value, 1).unwrap_or_else(|error| panic!("{odd}: {}", error.chain()));
            assert_eq!(config.run.env, ["A=1"]);
            if odd["Labels"].is_object() {
                let labels: Vec<_> = config.run.labels.into_iter().collect();
                assert_eq!(labels, [("a".into(), String::new()), ("b".into(), "c".into())]);
            }
        }
    }

    #[test]
    fn null_and_absent_are_empty_in_a_configuration() {
        for rootfs in [json!(null), json!({}), json!({"diff_ids": null}), json!({"diff_ids": []})] {
            for run in [
                json!(null),
                json!({}),
                json!({"Env": null, "Cmd": null, "Entrypoint": null, "User": null, "Labels": null,
                       "WorkingDir": null, "StopSignal": null}),
                json!({"Env": [], "Cmd": [], "User": "", "WorkingDir": "", "Labels": {}}),
                json!({"Env": [null, "", "=C:=C:"]}),
            ] {
                let value = json!({"rootfs": rootfs, "config": run});
                let config = config(&value, 2).unwrap();
                assert!(config.diff_ids.is_empty());
                assert_eq!(config.run, ImageConfig::default(), "{value}");
            }
        }
        let of = |run: Value| config(&json!({"config": run}), 0).map(|config| config.run);
        assert_eq!(of(json!({"Cmd": "/bin/sh -l"})).unwrap().cmd, ["/bin/sh -l"]);
        assert_eq!(of(json!({"Env": ["A", "B=x=y", "C==", "D="]})).unwrap().env.len(), 4);
        for (run, field) in [
            (json!({"Env": "A=1"}), "Env"),
            (json!({"Env": [5]}), "Env"),
            (json!({"Cmd": {"a": 1}}), "Cmd"),
            (json!({"User": 7}), "User"),
            (json!({"WorkingDir": ["/"]}), "WorkingDir"),
            (json!([]), "config"),
            (json!("x"), "config"),
        ] {
            let error = of(run).unwrap_err().chain();
            assert!(error.contains(&format!("the field '{field}' cannot be used")), "{error}");
        }
    }

    #[test]
    fn a_configuration_that_would_flood_a_guest_is_refused() {
        let base = |config: Value| {
            json!({"architecture": "amd64", "os": "linux", "config": config,
                   "rootfs": {"type": "layers", "diff_ids": []}})
        };
        let read = |run: Value| config(&base(run), 0);
        assert!(
            read(json!({"Env": vec!["A=1"; 200_000]})).unwrap_err().chain().contains("at most")
        );
        assert!(read(json!({"Cmd": ["a\u{0}b"]})).unwrap_err().to_string().contains("zero byte"));
        assert!(
            read(json!({"Labels": {"a": "x".repeat(2 << 20)}})).unwrap_err().hint_text().is_some()
        );
        assert!(parse_config(b"\xff{}", 0, &amd64()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, None);
            let _ = parse_config(&bytes, 0, &amd64());
        }

        #[test]
        fn no_change_of_a_manifest_makes_the_reader_panic(at in 0usize..400, byte: u8) {
            let mut bytes = image().to_string().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = parse(&bytes, Some(OCI_MANIFEST));
        }
    }
}
