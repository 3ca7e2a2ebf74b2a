//! Images in files: OCI image layouts, as directories and as archives, and the archives that
//! `docker save` writes.

use crate::{
    digest::{Digest, shown},
    fields::{self, Fields},
    layer::Origin,
    manifest::{Blob, MAX_ENTRIES, MAX_LAYERS, OTHERS},
};
use banger_doc::{Context, Error, Result, shell_word};
use banger_layer::{Limits, Member, Progress, is_packed, other_packing};
use banger_state::read_limited;
use std::{
    collections::HashMap,
    fs::File,
    io::{IsTerminal, Read},
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The largest `manifest.json` of an archive and `index.json` of a layout.
const MAX_INDEX: u64 = 4 << 20;

/// An OCI image layout (OCI image-spec, `image-layout.md`).
#[derive(Debug)]
pub(crate) enum Layout {
    /// A directory.
    Directory(PathBuf),
    /// The same in an archive.
    Archive(Archive),
}

impl Layout {
    /// Opens a directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Err(Error::usage(format!("'{}' is a file, not a directory", path.display()))
                .hint(format!(
                    "'oci-archive:{0}' takes an image layout in a file, 'docker-archive:{0}' what \
                     'docker save' wrote",
                    shell_word(path)
                )));
        }
        let layout = Self::Directory(path.to_owned());
        layout.check(path).map_err(|error| {
            if path.is_dir() {
                error.hint("it has to hold 'oci-layout', 'index.json' and 'blobs'")
            } else {
                error
            }
        })?;
        Ok(layout)
    }

    /// Reads the layout that is in an archive.
    pub(crate) fn within(archive: Archive) -> Result<Self> {
        let path = archive.path.clone();
        let hint = archive.other_kind(Wanted::Layout);
        let layout = Self::Archive(archive);
        layout.check(&path).map_err(|error| match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })?;
        Ok(layout)
    }

    /// Looks at the mark of a layout. Not all builders make one.
    fn check(&self, path: &Path) -> Result<()> {
        let context = || format!("'{}' is not an OCI image layout", path.display());
        let bytes = match self.read("oci-layout", 64 << 10) {
            Ok(bytes) => bytes,
            Err(_) if self.index().is_ok() => return Ok(()),
            Err(error) => return Err(error).with_context(context),
        };
        let text = fields::text(&bytes);
        let version = Fields::read(&text, &["imageLayoutVersion"])
            .and_then(|mark| mark.text("imageLayoutVersion"))
            .with_context(context)?;
        if !version.is_empty() && !version.starts_with("1.") {
            return Err(Error::failed(format!(
                "the layout '{}' has the version '{}', not 1",
                path.display(),
                shown(&version)
            )));
        }
        Ok(())
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        match self {
            Self::Directory(path) => read_limited(&path.join(name), limit),
            Self::Archive(archive) => archive.read(name, limit),
        }
    }

    pub(crate) fn index(&self) -> Result<Vec<u8>> {
        self.read("index.json", MAX_INDEX)
    }

    /// Says whether a blob is there.
    pub(crate) fn has(&self, blob: &Blob) -> bool {
        let name = blob_name(&blob.digest);
        match self {
            Self::Directory(path) => path.join(name).exists(),
            Self::Archive(archive) => archive.find(&name).is_ok(),
        }
    }

    /// Reads a small blob whole and checks it.
    pub(crate) fn small(&self, blob: &Blob, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(&blob.digest);
        let bytes = self.read(&name, limit.min(blob.size))?;
        if Blob::of(&bytes) != *blob {
            return Err(Error::failed(format!("'{name}' is not what its digest and size say")));
        }
        Ok(bytes)
    }

    /// Returns where a layer is.
    pub(crate) fn origin(&self, blob: &Blob) -> Result<Origin> {
        let name = blob_name(&blob.digest);
        let digest = Some(blob.digest);
        Ok(match self {
            Self::Directory(path) => Origin::File { path: path.join(name), digest },
            Self::Archive(archive) => archive.part(&name, digest)?.0,
        })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// An archive as `docker save`, `podman save` and `skopeo copy` write it.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    File { offset: u64, size: u64 },
    Link(String),
}

/// One image of an archive's `manifest.json`.
#[derive(Debug)]
pub(crate) struct Listed {
    pub config: String,
    pub layers: Vec<String>,
}

/// What helps where an archive holds too much.
const ALONE: &str = "save the image you want alone";

/// The fields of `manifest.json` that are used.
const LISTED: &[&str] = &["Config", "RepoTags", "Layers"];

/// What an archive was said to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// What `docker save` writes.
    Saved,
    /// An image layout.
    Layout,
}

impl Wanted {
    /// Returns the word that stands before its path.
    fn word(self) -> &'static str {
        match self {
            Self::Saved => "docker-archive",
            Self::Layout => "oci-archive",
        }
    }

    /// Says how one is given on stdin.
    fn piped(self) -> &'static str {
        match self {
            Self::Saved => {
                "write it as 'docker save IMAGE | banger image pull docker-archive:- --name NAME'"
            }
            Self::Layout => "write it as 'cat FILE | banger image pull oci-archive:- --name NAME'",
        }
    }
}

/// Where an archive that is packed, or comes through a pipe, is unpacked to, and what it may ask
/// for.
pub(crate) struct Room<'a> {
    pub dir: &'a Path,
    pub limits: &'a Limits,
    pub progress: &'a Progress,
}

impl Archive {
    /// Reads where in the archive its files lie. One that is packed is unpacked to a file without a
    /// name, which is gone with the process.
    pub(crate) fn open(path: &Path, kind: Wanted, room: &Room<'_>) -> Result<Self> {
        let context = || format!("cannot read the archive '{}'", path.display());
        let from_stdin = path == Path::new(STDIN);
        if from_stdin && std::io::stdin().is_terminal() {
            return Err(Error::usage("stdin is a terminal, not an archive").hint(kind.piped()));
        }
        let mut file = open(path).with_context(context)?;
        let meta = file.metadata().with_context(context)?;
        if meta.is_dir() {
            return Err(Error::usage(format!(
                "'{}' is a directory, not an archive",
                path.display()
            ))
            .hint(format!("a directory with an image layout is 'oci:{}'", shell_word(path))));
        }
        let mut head = Vec::new();
        file.by_ref().take(6).read_to_end(&mut head).with_context(context)?;
        if head.is_empty() {
            return Err(if from_stdin {
                Error::failed("stdin is empty: no archive came").hint(kind.piped())
            } else {
                Error::failed(format!("the archive '{}' is empty", path.display()))
            });
        }
        if let Some(other) = other_packing(&head) {
            return Err(Error::failed(format!("the archive '{}' {}", path.display(), other.what))
                .hint(match other.unpack {
                    Some(command) => format!(
                        "'{command} {} | banger image pull {}:- --name NAME' unpacks it",
                        if from_stdin { "FILE".into() } else { shell_word(path) },
                        kind.word()
                    ),
                    None => "it has to be a tar, as it is or compressed by gzip, zstd or xz".into(),
                }));
        }
        if is_packed(&head) || !meta.is_file() || from_stdin {
            let plain = tempfile::tempfile_in(room.dir)
                .with_context(|| format!("cannot make a file in '{}'", room.dir.display()))?;
            let input = std::io::Cursor::new(head).chain(file);
            banger_layer::unpack(Box::new(input), &plain, room.limits, room.progress)
                .with_context(context)?;
            file = plain;
        }
        let mut entries = HashMap::new();
        let mut note = |name: &[u8], member: Member<'_>| {
            let name = String::from_utf8_lossy(name);
            let name = name.trim_start_matches("./").to_owned();
            match member {
                Member::File { offset, size } => {
                    entries.insert(name, Entry::File { offset, size });
                }
                Member::Symlink(target) => {
                    let target = inside(parent(&name), &String::from_utf8_lossy(target));
                    entries.extend(target.map(|target| (name, Entry::Link(target))));
                }
                Member::Hardlink(target) => {
                    let target = inside("", &String::from_utf8_lossy(target));
                    entries.extend(target.map(|target| (name, Entry::Link(target))));
                }
            }
            Ok(())
        };
        banger_layer::members(&file, room.limits, &mut note).with_context(context)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), entries })
    }

    /// Returns a file as the origin of a layer, and its size.
    pub(crate) fn part(&self, name: &str, digest: Option<Digest>) -> Result<(Origin, u64)> {
        let (offset, size) = self.find(name)?;
        Ok((Origin::Part { file: Arc::clone(&self.file), offset, digest }, size))
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

    /// Says for which command the archive is, by what lies in it, unless that is the one that was
    /// given.
    fn other_kind(&self, given: Wanted) -> Option<String> {
        let has = |name: &str| self.entries.contains_key(name);
        let is_saved = has("manifest.json");
        let is_layout = has("index.json") && has("oci-layout");
        // What was read from stdin has to come again, and gives no name.
        let path = if self.path == Path::new(STDIN) {
            "- --name NAME".to_owned()
        } else {
            shell_word(&self.path)
        };
        match given {
            Wanted::Layout if is_saved => Some(format!(
                "'banger image pull docker-archive:{path}' takes what 'docker save' wrote"
            )),
            Wanted::Saved if is_layout => {
                Some(format!("'banger image pull oci-archive:{path}' takes an image layout"))
            }
            Wanted::Layout if is_layout => None,
            Wanted::Saved if is_saved => None,
            _ => Some(format!(
                "'docker-archive:' takes what 'docker save' wrote, 'oci-archive:' an image layout; \
                 'banger image import {path}' takes a root file system"
            )),
        }
    }

    /// Chooses an image of the archive.
    pub(crate) fn image(&self, tag: Option<&str>) -> Result<Listed> {
        let bytes = self.read("manifest.json", MAX_INDEX).map_err(|error| {
            match self.other_kind(Wanted::Saved) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        let context =
            || format!("cannot read 'manifest.json' in the archive '{}'", self.path.display());
        let text = fields::text(&bytes);
        let images = fields::list(&text, MAX_ENTRIES)
            .with_context(context)
            .map_err(|error| error.or_hint(ALONE))?;
        // Whatever is wrong with one matters only if it is the one that is wanted.
        let tags = |raw: &str| {
            Fields::read(raw, LISTED)
                .and_then(|image| image.texts("RepoTags", MAX_ENTRIES))
                .unwrap_or_default()
        };
        let found = match tag {
            None => images.first().filter(|_| images.len() == 1),
            Some(tag) => images.iter().find(|raw| tags(raw).iter().any(|one| one == tag)),
        };
        if let Some(raw) = found {
            let read = || -> Result<Listed> {
                let image = Fields::read(raw, LISTED)?;
                Ok(Listed {
                    config: image.text("Config")?,
                    layers: image.texts("Layers", MAX_LAYERS)?,
                })
            };
            return read().with_context(context).map_err(|error| error.or_hint(OTHERS));
        }
        let all: Vec<String> =
            images.iter().flat_map(|raw| tags(raw)).map(|tag| shown(&tag)).take(20).collect();
        let sentence = match tag {
            Some(tag) => {
                format!("the archive '{}' has no image '{}'", self.path.display(), shown(tag))
            }
            None => format!("the archive '{}' holds {} images", self.path.display(), images.len()),
        };
        Err(Error::not_found(sentence).hint(if all.is_empty() {
            "none of its images has a name; save the one you want alone".to_owned()
        } else {
            format!("name one of: {}", all.join(", "))
        }))
    }
}

/// Stands for stdin.
pub(crate) const STDIN: &str = "-";

/// Opens an archive, or stdin.
fn open(path: &Path) -> std::io::Result<File> {
    if path == Path::new(STDIN) {
        return std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
    }
    File::open(path)
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

    /// Opens an archive in a folder of its own.
    fn opened(path: &Path) -> Result<Archive> {
        opened_as(path, Wanted::Saved)
    }

    fn opened_as(path: &Path, kind: Wanted) -> Result<Archive> {
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let progress = Progress::default();
        let dir = path.parent().unwrap();
        Archive::open(path, kind, &Room { dir, limits: &limits, progress: &progress })
    }

    #[test]
    fn an_archive_that_is_packed_is_unpacked_to_a_file_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(dir.path(), &[("a", None, b"first"), ("b", None, b"second")]);
        for tool in ["gzip", "zstd", "xz"] {
            let packed = dir.path().join("packed");
            let to = File::create(&packed).unwrap();
            let from = File::open(&path).unwrap();
            let mut pack = std::process::Command::new(tool);
            assert!(pack.arg("-c").stdin(from).stdout(to).status().unwrap().success());
            let archive = opened(&packed).unwrap();
            assert_eq!(archive.read("b", 10).unwrap(), b"second");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn an_archive_comes_through_a_pipe_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = archive(dir.path(), &[("a", None, b"first")]);
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = std::thread::scope(|scope| {
            let reader = scope.spawn(|| opened(&pipe));
            std::fs::copy(&path, &pipe).unwrap();
            reader.join().unwrap()
        });
        assert_eq!(found.unwrap().read("a", 10).unwrap(), b"first");
    }

    #[test]
    fn what_is_no_archive_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar.bz2");
        std::fs::write(&path, b"BZh91AY").unwrap();
        let error = opened(&path).unwrap_err();
        assert!(error.to_string().ends_with("is compressed by bzip2"), "{error}");
        assert!(error.hint_text().unwrap().contains("'bzip2 -dc "));
        let error = opened(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("is a directory, not an archive"), "{error}");
        let too_large = archive(dir.path(), &[("a", None, &vec![7; 2 << 20])]);
        assert!(opened(&too_large).is_ok(), "what is not unpacked takes no room");
        let packed = dir.path().join("large.gz");
        let mut pack = std::process::Command::new("gzip");
        pack.arg("-c").stdin(File::open(&too_large).unwrap());
        assert!(pack.stdout(File::create(&packed).unwrap()).status().unwrap().success());
        let error = opened(&packed).unwrap_err();
        assert!(error.chain().contains("more than 1048576 bytes when unpacked"), "{error}");
        assert!(error.hint_text().unwrap().contains("image_limits"));
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
        let archive = opened(&path).unwrap();
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
        let archive = opened(&path).unwrap();
        assert_eq!(archive.image(Some("a:1")).unwrap().config, "c");
        let error = archive.image(None).unwrap_err();
        assert_eq!(error.hint_text(), Some("name one of: a:1"));
        assert!(archive.image(Some("b")).is_err());
    }

    #[test]
    fn an_archive_of_too_many_images_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = format!("[{{}}{}]", ",{}".repeat(MAX_INDEX as usize / 3 - 10));
        let path = archive(dir.path(), &[("manifest.json", None, manifest.as_bytes())]);
        let error = opened(&path).unwrap().image(None).unwrap_err();
        assert!(error.chain().ends_with("entries; at most 4096 are read"), "{}", error.chain());
        assert_eq!(error.hint_text(), Some(ALONE));
    }

    #[test]
    fn an_odd_neighbour_never_spoils_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        for odd in ["null", "7", "[]", r#"{"RepoTags":"b"}"#, r#"{"Layers":{},"Config":7}"#] {
            let manifest =
                format!(r#"[{odd},{{"Config":"c","RepoTags":[null,"a:1"],"LayerSources":[]}}]"#);
            let path = archive(dir.path(), &[("manifest.json", None, manifest.as_bytes())]);
            let image = opened(&path).unwrap().image(Some("a:1")).unwrap();
            assert_eq!((image.config.as_str(), image.layers.len()), ("c", 0), "{odd}");
        }
    }

    #[test]
    fn no_hint_is_the_command_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        // What is packed in another way is unpacked for the same word.
        let packed = dir.path().join("x.tar.bz2");
        std::fs::write(&packed, b"BZh91AY").unwrap();
        for kind in [Wanted::Saved, Wanted::Layout] {
            let error = opened_as(&packed, kind).unwrap_err();
            let want = format!("| banger image pull {}:- --name NAME'", kind.word());
            assert!(error.hint_text().unwrap().contains(&want), "{:?}", error.hint_text());
            assert!(kind.piped().contains(&want), "{}", kind.piped());
        }
        // Its list is a link that leads out, or not valid; its mark is of another version.
        let out = [("manifest.json", Some("/etc/passwd"), &b""[..])];
        let large = [("manifest.json", None, &vec![b' '; MAX_INDEX as usize + 1][..])];
        for entries in [&out[..], &large] {
            let found = opened(&archive(dir.path(), entries)).unwrap();
            let error = found.image(None).unwrap_err();
            let hint = error.hint_text().unwrap_or_default().to_owned();
            assert!(!hint.contains("image pull docker-archive:"), "{hint}");
        }
        let mark = br#"{"imageLayoutVersion": "2.0.0"}"#;
        let entries: [(&str, Option<&str>, &[u8]); 2] =
            [("oci-layout", None, mark), ("index.json", None, b"[]")];
        let found = opened_as(&archive(dir.path(), &entries), Wanted::Layout).unwrap();
        let error = Layout::within(found).unwrap_err();
        assert!(error.chain().ends_with("has the version '2.0.0', not 1"), "{}", error.chain());
        assert_eq!(error.hint_text(), None);
        let path = dir.path().join("empty.tar");
        std::fs::write(&path, b"").unwrap();
        assert!(opened(&path).unwrap_err().chain().ends_with("is empty"));
    }

    #[test]
    fn an_archive_for_another_command_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let hint = |name: &str, more: &str| {
            let path = archive(dir.path(), &[(name, None, b"{}"), (more, None, b"{}")]);
            let found = opened(&path).unwrap();
            let hint = if name == "manifest.json" {
                Layout::within(found).unwrap_err().hint_text().unwrap().to_owned()
            } else {
                found.image(None).unwrap_err().hint_text().unwrap().to_owned()
            };
            hint.replace(&path.display().to_string(), "PATH")
        };
        assert!(hint("manifest.json", "x").starts_with("'banger image pull docker-archive:PATH'"));
        assert!(
            hint("oci-layout", "index.json").starts_with("'banger image pull oci-archive:PATH'")
        );
        assert!(hint("bin/sh", "etc/passwd").contains("'banger image import PATH'"));
        let error = Layout::open(&archive(dir.path(), &[("a", None, b"")])).unwrap_err();
        assert!(error.hint_text().unwrap().starts_with("'oci-archive:/"), "{error}");
        assert!(opened(dir.path()).unwrap_err().hint_text().unwrap().contains("'oci:/"));
    }
}
