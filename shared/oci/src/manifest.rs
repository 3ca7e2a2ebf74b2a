//! Indexes, manifests and configurations, read only after their digest and size were checked.
//!
//! All of it is hostile input: sizes and counts are bounded, and a document that could be read in
//! two ways is refused (CVE-2021-41190).

use crate::{
    digest::{Digest, shown},
    platform::Platform,
};
use banger_doc::{Context, Error, ImageConfig, Result};
use oci_spec::image::{self, ImageConfiguration, ImageIndex, ImageManifest};
use serde::{Deserialize, de::IgnoredAny};

/// The largest manifest or index that is read (the size the distribution specification asks
/// registries to take).
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The largest image configuration that is read.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// The most layers an image has. Builders stop at 127.
const MAX_LAYERS: usize = 512;
/// The largest layer, compressed.
const MAX_BLOB: u64 = 64 << 30;
/// The most bytes of environment, command lines and labels a guest is told.
const MAX_WORDS: usize = 1 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The media types asked for.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

const LAYERS: [&str; 10] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

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

    fn from_descriptor(descriptor: &image::Descriptor) -> Result<Self> {
        let blob = Self { digest: descriptor.digest().as_ref().parse()?, size: descriptor.size() };
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

/// One image of an index.
#[derive(Debug)]
pub(crate) struct Entry {
    pub blob: Blob,
    pub media_type: String,
    pub platform: Option<Platform>,
    pub name: Option<String>,
}

/// The keys by which the kinds are told apart.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

/// Reads a manifest or an index. `told` is the media type its sender gave it.
pub(crate) fn parse(bytes: &[u8], told: Option<&str>) -> Result<Manifest> {
    let shape: Shape = serde_json::from_slice(bytes).context("the manifest is not valid JSON")?;
    let told = told
        .map(|text| text.split(';').next().unwrap_or_default().trim())
        .filter(|text| ACCEPT.contains(text) || text.contains("vnd."));
    let said = shape.media_type.as_deref();
    if let (Some(told), Some(said)) = (told, said)
        && !told.eq_ignore_ascii_case(said)
    {
        return Err(Error::failed(format!(
            "the manifest calls itself '{}' but was sent as '{}'",
            shown(said),
            shown(told)
        )));
    }
    if shape.schema_version == Some(1) || shape.fs_layers.is_some() {
        return Err(Error::failed("the image has a manifest of schema 1, which nobody can verify")
            .hint("push it again with a builder of this decade"));
    }
    if shape.schema_version != Some(2) {
        return Err(Error::failed("the manifest has no schemaVersion 2"));
    }
    let is_index = match (shape.manifests.is_some(), shape.layers.or(shape.config).is_some()) {
        (true, true) => {
            return Err(Error::failed(
                "the manifest can be read as an image and as an index, so it is refused",
            ));
        }
        (false, false) => return Err(Error::failed("the manifest names no image")),
        (is_index, _) => is_index,
    };
    if let Some(kind) = said.or(told) {
        let fits =
            if is_index { [OCI_INDEX, DOCKER_INDEX] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
        if !fits.contains(&kind) {
            return Err(Error::failed(format!(
                "the manifest's media type '{}' does not fit its contents",
                shown(kind)
            )));
        }
    }
    if is_index { parse_index(bytes) } else { parse_image(bytes) }
}

fn parse_index(bytes: &[u8]) -> Result<Manifest> {
    let index: ImageIndex = serde_json::from_slice(bytes).context("cannot read the index")?;
    let entries = index.manifests().iter().map(|descriptor| {
        let platform = descriptor.platform().as_ref().map(|platform| {
            Platform::new(
                &platform.os().to_string(),
                &platform.architecture().to_string(),
                platform.variant().as_deref().unwrap_or_default(),
            )
        });
        let name = descriptor
            .annotations()
            .as_ref()
            .and_then(|notes| notes.get("org.opencontainers.image.ref.name").cloned());
        Ok(Entry {
            blob: Blob::from_descriptor(descriptor)?,
            media_type: descriptor.media_type().to_string(),
            platform,
            name,
        })
    });
    Ok(Manifest::Index(entries.collect::<Result<_>>()?))
}

fn parse_image(bytes: &[u8]) -> Result<Manifest> {
    let manifest: ImageManifest =
        serde_json::from_slice(bytes).context("cannot read the manifest")?;
    let kind = manifest.config().media_type().to_string();
    if !CONFIGS.contains(&kind.as_str()) {
        return Err(Error::failed(format!(
            "it is no container image: its configuration has the media type '{}'",
            shown(&kind)
        )));
    }
    if manifest.layers().len() > MAX_LAYERS {
        return Err(Error::failed(format!(
            "the image has {} layers; at most {MAX_LAYERS} are read",
            manifest.layers().len()
        )));
    }
    let mut layers = Vec::new();
    for layer in manifest.layers() {
        let kind = layer.media_type().to_string();
        if !LAYERS.contains(&kind.as_str()) {
            let why = if kind.ends_with("+encrypted") { "is encrypted" } else { "is no tar" };
            return Err(Error::failed(format!(
                "layer '{}' {why}: its media type is '{}'",
                shown(layer.digest().as_ref()),
                shown(&kind)
            )));
        }
        // A descriptor's `urls` are never followed: credentials went that way (CVE-2020-15157).
        layers.push(Blob::from_descriptor(layer)?);
    }
    Ok(Manifest::Image { config: Blob::from_descriptor(manifest.config())?, layers })
}

/// Chooses the image of an index that runs best on a platform.
pub(crate) fn pick<'a>(entries: &'a [Entry], wanted: &Platform) -> Result<&'a Entry> {
    let images = || {
        entries.iter().filter(|entry| {
            // Attestations are stored as images for a platform that does not exist.
            ACCEPT.contains(&entry.media_type.as_str())
                && entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
        })
    };
    let best = images()
        .filter_map(|entry| Some((wanted.distance(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    // One image without a platform says in its configuration what it is for.
    let mut all = images();
    if let (Some(only), None) = (all.next(), all.next())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut offered: Vec<String> =
        images().filter_map(|entry| Some(shown(&entry.platform.as_ref()?.to_string()))).collect();
    offered.sort();
    offered.dedup();
    let offered = if offered.is_empty() { "none".into() } else { offered.join(", ") };
    Err(Error::failed(format!("the image is not made for {wanted}, only for: {offered}"))
        .hint("choose another tag, or pull one of these with --platform"))
}

/// What is needed of an image's configuration.
#[derive(Debug)]
pub(crate) struct Config {
    pub platform: Platform,
    pub diff_ids: Vec<Digest>,
    pub run: ImageConfig,
}

/// Reads an image's configuration.
pub(crate) fn parse_config(bytes: &[u8], layers: usize) -> Result<Config> {
    let read: ImageConfiguration =
        serde_json::from_slice(bytes).context("cannot read the image's configuration")?;
    let platform = Platform::new(
        &read.os().to_string(),
        &read.architecture().to_string(),
        read.variant().as_deref().unwrap_or_default(),
    );
    if platform.os != "linux" {
        return Err(Error::failed(format!(
            "the image is made for '{}', not for linux",
            shown(&platform.os)
        )));
    }
    let diff_ids: Vec<Digest> =
        read.rootfs().diff_ids().iter().map(|text| text.parse()).collect::<Result<_>>()?;
    if diff_ids.len() != layers {
        return Err(Error::failed(format!(
            "the image has {layers} layers but its configuration names {}",
            diff_ids.len()
        )));
    }
    let config = read.config().clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let config = ImageConfig {
        // Docker drops entries that name nothing, too.
        env: list(config.env().as_ref())
            .into_iter()
            .filter(|entry| !entry.starts_with('='))
            .collect(),
        working_dir: text(config.working_dir()),
        user: text(config.user()),
        entrypoint: list(config.entrypoint().as_ref()),
        cmd: list(config.cmd().as_ref()),
        stop_signal: text(config.stop_signal()),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
    };
    check_words(&config)?;
    Ok(Config { platform, diff_ids, run: config })
}

fn list(words: Option<&Vec<String>>) -> Vec<String> {
    words.cloned().unwrap_or_default()
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
        .chain(&config.stop_signal)
        .chain(config.labels.iter().flat_map(|(key, value)| [key, value]));
    let mut bytes = 0;
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
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": 3})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(CONFIGS[0]),
               "layers": [descriptor(LAYERS[1])]})
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
            (change(|v| v["layers"] = json!(vec![descriptor(LAYERS[1]); 513])), "513 layers"),
            (change(|v| v["mediaType"] = json!(OCI_INDEX)), "does not fit"),
            (change(|v| *v = json!({"schemaVersion": 2})), "names no image"),
            (change(|v| *v = json!([])), "JSON"),
        ] {
            assert!(message.contains(want), "{message}");
        }
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
        let pick = |text: &str| pick(&entries, &text.parse().unwrap());
        let of = |text: &str| Digest::of(text.as_bytes());
        assert_eq!(pick("amd64").unwrap().blob.digest, of("linuxamd64"));
        assert_eq!(pick("arm64").unwrap().blob.digest, of("linuxarm64v8"));
        assert_eq!(pick("linux/arm/v6").unwrap().blob.digest, of("linuxarmv5"));
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
        let config = parse_config(value.to_string().as_bytes(), 1).unwrap();
        assert_eq!(config.run.env, ["PATH=/bin"]);
        assert_eq!(config.run.cmd, ["sh"]);
        assert_eq!(config.run.working_dir, None);
        assert!(parse_config(value.to_string().as_bytes(), 2).is_err());
    }

    #[test]
    fn a_configuration_that_would_flood_a_guest_is_refused() {
        let base = |config: Value| {
            json!({"architecture": "amd64", "os": "linux", "config": config,
                   "rootfs": {"type": "layers", "diff_ids": []}})
            .to_string()
        };
        let read = |config: Value| parse_config(base(config).as_bytes(), 0);
        assert!(
            read(json!({"Env": vec!["A=1"; 200_000]})).unwrap_err().to_string().contains("at most")
        );
        assert!(read(json!({"Cmd": ["a\u{0}b"]})).unwrap_err().to_string().contains("zero byte"));
        assert!(read(json!({"Env": "A=1"})).is_err());
        assert!(read(json!({"User": 7})).is_err());
        assert!(read(Value::Null).is_ok());
        assert!(parse_config(b"\xff{}", 0).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, None);
            let _ = parse_config(&bytes, 0);
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
