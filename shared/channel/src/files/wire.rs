//! What both ends say.

use banger_tree::MAX_DEPTH;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    io::{BufRead, Read},
};

/// The longest path, as in Linux (limits.h).
pub const MAX_PATH: usize = 4096;

/// What the guest's end writes has a name that begins with this until it is whole. A name like this
/// below a root is what an agent that was killed left behind.
pub const MARK: &str = ".banger-put-";

/// As the time of a file in a tar stream, in seconds: the guest's own time when it is written.
pub const PRESENT: u64 = i64::MAX as u64;

/// The longest string of an answer: a scan's record has numbers before its path.
const MAX_RECORD: u64 = 3 * MAX_PATH as u64;

/// What sort of thing an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe.
    Other,
    /// A place that could not be looked into: what it holds is not in a scan.
    Closed,
}

/// What is asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Op {
    Scan,
    Stat,
    Get,
    Hash,
    Remove,
    Tar,
    PutFresh,
    PutAside,
    PutWithin,
    PutInto,
}

/// The first line of a stream.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Request<'a> {
    /// What is asked.
    pub(crate) op: Op,
    /// Absolute path of a directory.
    #[serde(borrow)]
    pub(crate) root: Cow<'a, str>,
    /// How many bytes of paths follow, each ended by a zero byte.
    #[serde(default)]
    pub(crate) list_bytes: u64,
    /// Whether what is written belongs to the agent's user and has no setuid bit, whatever the
    /// stream says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) plain: bool,
    /// Who writes, as in an exec request; empty for the guest's own user. Absent: the agent.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Cow<'a, str>>,
    /// Whether root writes where that user may not, and nobody but root can change the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) or_root: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn new(op: Op, root: &'a str) -> Self {
        Self {
            op,
            root: Cow::Borrowed(root),
            list_bytes: 0,
            plain: false,
            user: None,
            or_root: false,
        }
    }
}

/// Says whether a path stays below the directory it is relative to: components of 1 to 255 bytes
/// joined by single slashes, none of them `.` or `..`, and no more than [`MAX_DEPTH`] of them.
pub fn is_inside(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    path.len() < MAX_PATH
        && !path.contains(&0)
        && parts
            .by_ref()
            .take(MAX_DEPTH)
            .all(|part| !matches!(part, b"" | b"." | b"..") && part.len() <= 255)
        && parts.next().is_none()
}

/// Reads a string that ends with a zero byte; `None` if the stream ends before it begins.
pub(crate) fn read_record(reader: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    reader.take(MAX_RECORD).read_until(0, &mut record)?;
    match record.pop() {
        Some(0) => Ok(Some(record)),
        Some(_) => Err(std::io::Error::other("a string does not end")),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_are_inside() {
        for good in ["a", "a/b", "..a/b..", ".git/config", "a\nb/ c", "\u{1}"] {
            assert!(is_inside(good.as_bytes()), "{good:?}");
        }
        assert!(is_inside(b"\xff\xfe"));
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", "a\0b"] {
            assert!(!is_inside(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_inside("a".repeat(256).as_bytes()));
        assert!(!is_inside("a/".repeat(3000).as_bytes()));
        let deep = |depth| vec!["a"; depth].join("/");
        assert!(is_inside(deep(MAX_DEPTH).as_bytes()));
        for depth in [MAX_DEPTH + 1, MAX_PATH / 2] {
            assert!(!is_inside(deep(depth).as_bytes()), "{depth}");
        }
    }

    #[test]
    fn a_string_without_an_end_is_bounded() {
        let endless = vec![b'x'; 1 << 20];
        assert!(read_record(&mut endless.as_slice()).is_err());
        assert!(read_record(&mut b"".as_slice()).unwrap().is_none());
        assert_eq!(read_record(&mut b"ab\0c".as_slice()).unwrap().unwrap(), b"ab");
    }
}
