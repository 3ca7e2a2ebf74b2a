//! Images in files: OCI image layouts and the archives that `docker save` writes.

use crate::{
    digest::{Digest, shown},
    manifest::Blob,
};
use banger_doc::{Context, Error, Result};
use banger_state::read_limited;
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::BufReader,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The most entries an archive has. An image has a few for each of its layers.
const MAX_ENTRIES: usize = 100_000;
/// The largest `manifest.json` of an archive and `index.json` of a layout.
const MAX_INDEX: u64 = 4 << 20;

/// A directory with an OCI image layout (OCI image-spec, `image-layout.md`).
#[derive(Debug)]
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let bytes = read_limited(&path.join("oci-layout"), 64 << 10)
            .with_context(|| format!("'{}' is not an OCI image layout", path.display()))?;
        let mark: serde_json::Value = serde_json::from_slice(&bytes)
            .with_context(|| format!("'{}' is not an OCI image layout", path.display()))?;
        let version = mark["imageLayoutVersion"].as_str().unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(Error::failed(format!(
                "the layout '{}' has the version '{}', not 1",
                path.display(),
                shown(version)
            )));
        }
        Ok(Self(path.to_owned()))
    }

    pub(crate) fn index(&self) -> Result<Vec<u8>> {
        read_limited(&self.0.join("index.json"), MAX_INDEX)
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    /// Reads a small blob whole and checks it.
    pub(crate) fn small(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(&blob.digest);
        let bytes = read_limited(&path, limit.min(blob.size))?;
        if Blob::of(&bytes) != *blob {
            return Err(Error::failed(format!(
                "'{}' is not what its digest and size say",
                path.display()
            )));
        }
        Ok(bytes)
    }
}

/// An archive as `docker save` and `podman save` write it.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: File,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

/// One image of an archive's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub config: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    pub layers: Vec<String>,
}

impl Archive {
    /// Reads where in the archive its files lie. Nothing is unpacked.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let context = || format!("cannot read the archive '{}'", path.display());
        let file = File::open(path).with_context(context)?;
        let mut magic = [0; 4];
        if file.read_at(&mut magic, 0).is_ok_and(|n| n == 4)
            && (magic[..2] == [0x1f, 0x8b] || magic == [0x28, 0xb5, 0x2f, 0xfd])
        {
            return Err(Error::failed(format!("the archive '{}' is compressed", path.display()))
                .hint("unpack it with gunzip or unzstd first"));
        }
        let copy = file.try_clone().with_context(context)?;
        let mut tar = tar::Archive::new(BufReader::with_capacity(64 << 10, copy));
        let mut entries = HashMap::new();
        for (count, entry) in tar.entries_with_seek().with_context(context)?.enumerate() {
            if count >= MAX_ENTRIES {
                return Err(Error::failed(format!(
                    "the archive '{}' has more than {MAX_ENTRIES} entries",
                    path.display()
                )));
            }
            let entry = entry.with_context(context)?;
            let kind = entry.header().entry_type();
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.trim_start_matches("./").to_owned();
            if kind.is_file() {
                let (offset, size) = (entry.raw_file_position(), entry.size());
                entries.insert(name, Entry::File { offset, size });
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let base = if kind.is_symlink() { parent(&name) } else { "" };
                entries.extend(inside(base, &target).map(|target| (name, Entry::Link(target))));
            }
        }
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// Returns offset and size of a file, following links inside the archive.
    pub(crate) fn find(&self, name: &str) -> Result<(u64, u64)> {
        let mut at = name.trim_start_matches("./");
        for _ in 0..8 {
            match self.entries.get(at) {
                Some(Entry::File { offset, size }) => return Ok((*offset, *size)),
                Some(Entry::Link(target)) => at = target,
                None => break,
            }
        }
        Err(Error::failed(format!(
            "the archive '{}' has no file '{}'",
            self.path.display(),
            shown(name)
        )))
    }

    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let (offset, size) = self.find(name)?;
        if size > limit {
            return Err(Error::failed(format!(
                "'{}' in the archive '{}' is larger than {limit} bytes",
                shown(name),
                self.path.display()
            )));
        }
        let mut bytes = vec![0; size as usize];
        self.file.read_exact_at(&mut bytes, offset).with_context(|| {
            format!("cannot read '{}' in the archive '{}'", shown(name), self.path.display())
        })?;
        Ok(bytes)
    }

    /// Chooses an image of the archive.
    pub(crate) fn image(&self, tag: Option<&str>) -> Result<Listed> {
        let bytes = self.read("manifest.json", MAX_INDEX).map_err(|error| {
            error.hint("an archive is what 'docker save' writes; 'banger image import' takes a root file system")
        })?;
        let mut images: Vec<Listed> = serde_json::from_slice(&bytes).with_context(|| {
            format!("cannot read 'manifest.json' in the archive '{}'", self.path.display())
        })?;
        let tags = |image: &Listed| image.repo_tags.clone().unwrap_or_default();
        let found = match tag {
            None if images.len() == 1 => Some(0),
            None => None,
            Some(tag) => images.iter().position(|image| tags(image).iter().any(|one| one == tag)),
        };
        if let Some(index) = found {
            return Ok(images.swap_remove(index));
        }
        let all: Vec<String> =
            images.iter().flat_map(tags).map(|tag| shown(&tag)).take(20).collect();
        let sentence = match tag {
            Some(tag) => {
                format!("the archive '{}' has no image '{}'", self.path.display(), shown(tag))
            }
            None => format!("the archive '{}' holds {} images", self.path.display(), images.len()),
        };
        Err(Error::not_found(sentence).hint(format!("name one of: {}", all.join(", "))))
    }
}

impl Archive {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Resolves a link inside the archive; `None` if it leads out of it.
fn inside(base: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(dir: &Path, entries: &[(&str, Option<&str>, &[u8])]) -> PathBuf {
        let path = dir.join("x.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        for (name, link, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            if let Some(target) = link {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, name, target).unwrap();
            } else {
                header.set_size(data.len() as u64);
                tar.append_data(&mut header, name, *data).unwrap();
            }
        }
        tar.finish().unwrap();
        path
    }

    #[test]
    fn files_are_found_through_links_that_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(
            dir.path(),
            &[
                ("a/layer.tar", None, b"layer"),
                ("b/layer.tar", Some("../a/layer.tar"), b""),
                ("out", Some("../../etc/passwd"), b""),
                ("abs", Some("/etc/passwd"), b""),
                ("loop", Some("loop"), b""),
            ],
        );
        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.read("b/layer.tar", 10).unwrap(), b"layer");
        for bad in ["out", "abs", "loop", "../../etc/passwd", "/etc/passwd", "missing"] {
            assert!(archive.find(bad).is_err(), "{bad}");
        }
        assert!(archive.read("a/layer.tar", 3).is_err());
        let (offset, size) = archive.find("a/layer.tar").unwrap();
        let mut bytes = vec![0; size as usize];
        archive.file.read_exact_at(&mut bytes, offset).unwrap();
        assert_eq!(bytes, b"layer");
    }

    #[test]
    fn one_image_is_chosen_or_all_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = br#"[{"Config":"c","RepoTags":["a:1"],"Layers":[]},{"Config":"d","RepoTags":null,"Layers":["x"]}]"#;
        let path = archive(dir.path(), &[("manifest.json", None, manifest)]);
        let archive = Archive::open(&path).unwrap();
        assert_eq!(archive.image(Some("a:1")).unwrap().config, "c");
        let error = archive.image(None).unwrap_err();
        assert_eq!(error.hint_text(), Some("name one of: a:1"));
        assert!(archive.image(Some("b")).is_err());
    }
}
