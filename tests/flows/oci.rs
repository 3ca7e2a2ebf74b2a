//! OCI image layouts (OCI image-spec, `image-layout.md`) made of tar archives.

use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pack {
    None,
    Gzip,
    Zstd,
}

/// Writes an image of some layers, given as tar files, into an empty folder under the tag `latest`.
pub(crate) fn layout(dir: &Path, layers: &[(PathBuf, Pack)], config: &Value) {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    layout_for(dir, layers, config, (architecture, "linux"));
}

/// The same, for a processor and a system that its configuration names.
pub(crate) fn layout_for(
    dir: &Path,
    layers: &[(PathBuf, Pack)],
    config: &Value,
    (architecture, system): (&str, &str),
) {
    fs::create_dir_all(dir.join("blobs/sha256")).expect("a layout");
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (tar, pack) in layers {
        diff_ids.push(format!("sha256:{}", sha256(tar)));
        let packed = dir.join("packed");
        let (program, args, ending): (_, &[&str], _) = match pack {
            Pack::None => ("cat", &[], ""),
            Pack::Gzip => ("gzip", &["-n", "-1", "-c"], "+gzip"),
            Pack::Zstd => ("zstd", &["-q", "-3", "-c"], "+zstd"),
        };
        let status = Command::new(program)
            .args(args)
            .stdin(fs::File::open(tar).expect("a layer"))
            .stdout(fs::File::create(&packed).expect("a blob"))
            .status();
        assert!(status.expect("a packer").success(), "{program}");
        let kind = format!("application/vnd.oci.image.layer.v1.tar{ending}");
        descriptors.push(adopt(dir, &packed, &kind));
    }
    let config = json!({
        "architecture": architecture,
        "os": system,
        "created": "2023-11-14T22:13:20Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(dir, &config, "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": descriptors,
    });
    let mut manifest = blob(dir, &manifest, "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(dir.join("index.json"), index.to_string()).expect("an index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a layout");
}

fn blob(dir: &Path, value: &Value, kind: &str) -> Value {
    let path = dir.join("blob");
    fs::write(&path, value.to_string()).expect("a blob");
    adopt(dir, &path, kind)
}

/// Moves a file among the blobs; returns its descriptor.
fn adopt(dir: &Path, path: &Path, kind: &str) -> Value {
    let digest = sha256(path);
    let size = fs::metadata(path).expect("a blob").len();
    fs::rename(path, dir.join("blobs/sha256").join(&digest)).expect("a blob in its place");
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

/// Returns the SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).stdin(Stdio::null()).output();
    let output = output.expect("sha256sum");
    assert!(output.status.success(), "sha256sum {}", path.display());
    String::from_utf8_lossy(&output.stdout[..64]).into_owned()
}
