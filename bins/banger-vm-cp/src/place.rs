//! What the words of the command line name, and where a copy lands.

use banger_doc::{Error, Name, Result, shell_word};
use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// A word of the command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// A path of this host.
    Host(PathBuf),
    /// A path in a VM.
    Guest {
        /// The VM.
        vm: Name,
        /// The path, as it was typed.
        path: String,
    },
    /// stdin or stdout.
    Stream,
}

impl Side {
    /// Returns the VM that the side is in.
    pub(crate) fn vm(&self) -> Option<&Name> {
        match self {
            Self::Guest { vm, .. } => Some(vm),
            _ => None,
        }
    }

    /// Tells the sides apart: what has a `:` before any `/` is in a VM.
    pub(crate) fn parse(word: &OsStr) -> Result<Self> {
        let bytes = word.as_bytes();
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        let end = bytes.iter().position(|byte| matches!(byte, b':' | b'/'));
        match end.filter(|at| bytes[*at] == b':') {
            None if bytes.is_empty() => Err(Error::usage("an empty path names nothing")
                .hint("'.' is the directory you are in, 'VM:' is the home of a VM's user")),
            None => Ok(Self::Host(PathBuf::from(word))),
            Some(at) => {
                let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
                let vm = text(&bytes[..at]).parse::<Name>().map_err(|error| {
                    let file = word.to_string_lossy();
                    let typed = shell_word(word);
                    error.hint(format!("'./{typed}' is the file '{file}' of this host"))
                })?;
                let path = std::str::from_utf8(&bytes[at + 1..]).map_err(|_| {
                    Error::usage(format!("the path '{}' is not UTF-8", bytes.escape_ascii()))
                        .hint("name the directory it is in")
                })?;
                Ok(Self::Guest { vm, path: path.to_owned() })
            }
        }
    }
}

/// Says why this cannot be copied there.
pub(crate) fn wrong(from: &Side, to: &Side) -> Error {
    match (from, to) {
        (Side::Guest { vm: from, path }, Side::Guest { vm: to, path: into }) => {
            Error::usage("both are in VMs").hint(format!(
                "'banger vm cp {from}:{} - | banger vm cp - {to}:{}' copies from one to another",
                shell_word(path),
                shell_word(into)
            ))
        }
        (Side::Stream, _) | (_, Side::Stream) => Error::usage(
            "'-' stands alone on its side, and the other side is one VM:PATH",
        )
        .hint(
            "'tar -c . | banger vm cp - VM:/tmp' and 'banger vm cp VM:/etc - | tar -t' are the two \
                 ways",
        ),
        _ => Error::usage("no path is in a VM")
            .hint("'VM:PATH' names one, as in 'banger vm cp notes.txt web:'"),
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Missing,
    Dir,
    File,
    /// A device, a pipe, a socket.
    Other,
}

/// What is copied, as far as it decides where it lands.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its last name; none for `/`.
    pub(crate) name: Option<OsString>,
    pub(crate) is_dir: bool,
    /// Whether only what a directory holds is meant.
    pub(crate) contents: bool,
    /// Whether others are copied to the same place.
    pub(crate) many: bool,
}

/// What can be done about a thing that is not copied.
pub(crate) const NO_FILE: &str = "name a file, a directory, or a link to one";

/// How a copy lands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum How {
    /// As a directory that is not there yet.
    Fresh,
    /// In a directory that is there.
    Merge,
    /// As a file.
    File,
}

/// Says whether a path means what a directory holds: `.`, `..`, `x/.`, `x/..`.
pub(crate) fn is_contents(path: &[u8]) -> bool {
    matches!(path.rsplit(|byte| *byte == b'/').next(), Some(b"." | b".."))
}

/// Decides as cp(1) does. `look` says what is at a path, and where that really is.
pub(crate) fn decide(
    source: &Source,
    to: &Path,
    look: impl Fn(&Path) -> Result<(PathBuf, Kind)>,
) -> Result<(PathBuf, How)> {
    let (mut path, mut kind) = look(to)?;
    let needs_dir = source.many || (to.as_os_str().as_bytes().ends_with(b"/") && !source.is_dir);
    if kind == Kind::Dir {
        if let (false, Some(name)) = (source.contents && source.is_dir, &source.name) {
            (path, kind) = look(&path.join(name))?;
        }
    } else if needs_dir {
        return Err(match kind {
            Kind::Missing => Error::not_found(format!("no directory '{}'", to.display())),
            _ => Error::conflict(format!("'{}' is no directory", to.display())).hint(
                if source.many {
                    "several things can only be copied into a directory: name one"
                } else {
                    "name a directory, or leave the '/' at the end out"
                },
            ),
        });
    }
    match (source.is_dir, kind) {
        (true, Kind::Missing) => Ok((path, How::Fresh)),
        (true, Kind::Dir) => Ok((path, How::Merge)),
        (true, _) => Err(Error::conflict(format!(
            "'{}' is no directory, so none can be put in its place",
            path.display()
        ))
        .hint("name another place, or move what is there away")),
        (false, Kind::Missing | Kind::File) => Ok((path, How::File)),
        (false, Kind::Dir) => Err(Error::conflict(format!("'{}' is a directory", path.display()))
            .hint("name another place, or a file in that directory")),
        (false, Kind::Other) => Err(Error::conflict(format!(
            "'{}' is neither file nor directory; it is left as it is",
            path.display()
        ))
        .hint("name another place")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::Kind::{Conflict, NotFound};

    #[test]
    fn a_colon_before_any_slash_names_a_vm() {
        let guest = |path: &str| Side::Guest { vm: "web".parse().unwrap(), path: path.into() };
        for (word, side) in [
            ("-", Side::Stream),
            ("web:/srv", guest("/srv")),
            ("web:", guest("")),
            ("web:a:b", guest("a:b")),
            ("./web:/srv", Side::Host("./web:/srv".into())),
            ("/a:b", Side::Host("/a:b".into())),
            ("plain", Side::Host("plain".into())),
        ] {
            assert_eq!(Side::parse(OsStr::new(word)).unwrap(), side, "{word}");
        }
        let error = Side::parse(OsStr::new("Notes:1")).unwrap_err();
        assert_eq!(error.hint_text(), Some("'./Notes:1' is the file 'Notes:1' of this host"));
        assert!(Side::parse(OsStr::new("")).is_err());
        assert!(Side::parse(OsStr::from_bytes(b"web:\xff")).is_err());
    }

    #[test]
    fn a_copy_lands_as_with_cp() {
        let look = |path: &Path| {
            let kind = match path.to_str().unwrap().trim_end_matches('/') {
                "/dir" | "/dir/tree" => Kind::Dir,
                "/file" | "/dir/old" => Kind::File,
                "/dev" => Kind::Other,
                _ => Kind::Missing,
            };
            Ok((path.to_owned(), kind))
        };
        let land = |name: &str, is_dir, contents, many, to: &str| {
            let source = Source { name: Some(name.into()), is_dir, contents, many };
            decide(&source, Path::new(to), look)
                .map(|(path, how)| (path.display().to_string(), how))
                .map_err(|error| error.kind())
        };
        let at = |path: &str, how| Ok((path.to_owned(), how));
        assert_eq!(land("f", false, false, false, "/dir"), at("/dir/f", How::File));
        assert_eq!(land("f", false, false, false, "/new"), at("/new", How::File));
        assert_eq!(land("f", false, false, false, "/file"), at("/file", How::File));
        assert_eq!(land("f", false, false, false, "/dev"), Err(Conflict));
        assert_eq!(land("f", false, false, false, "/new/"), Err(NotFound));
        assert_eq!(land("tree", false, false, false, "/dir"), Err(Conflict));
        assert_eq!(land("f", false, false, true, "/new"), Err(NotFound));
        assert_eq!(land("f", false, false, true, "/file"), Err(Conflict));
        assert_eq!(land("d", true, false, false, "/new/"), at("/new/", How::Fresh));
        assert_eq!(land("d", true, false, false, "/dir"), at("/dir/d", How::Fresh));
        assert_eq!(land("tree", true, false, false, "/dir"), at("/dir/tree", How::Merge));
        assert_eq!(land("old", true, false, false, "/dir"), Err(Conflict));
        assert_eq!(land("d", true, false, false, "/file"), Err(Conflict));
        assert_eq!(land("d", true, true, false, "/dir"), at("/dir", How::Merge));
        assert!(
            is_contents(b".") && is_contents(b"a/.") && is_contents(b"..") && is_contents(b"a/..")
        );
        assert!(!is_contents(b"a") && !is_contents(b"a/") && !is_contents(b"a/.b"));
    }
}
