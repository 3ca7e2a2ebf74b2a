//! Merging text that both sides changed, by git's own merge, on copies in a jail.

use crate::{
    export::sides::Sides,
    git::{Git, said, split_zero},
    temporary::Temporary,
};
use banger_doc::{Context, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::Path,
};

/// The largest file that is merged.
pub(super) const MOST: u64 = 64 << 20;
/// How many bytes git looks at to tell whether a file is text.
const LOOKED_AT: usize = 8000;
/// The most lines and bytes that are shown of the conflicts in a file.
const MAX_LINES: usize = 400;
const MAX_SHOWN: usize = 32 << 10;
/// What begins the sides of a conflict.
const OURS: &[u8] = b"<<<<<<< host";
const THEIRS: &[u8] = b">>>>>>> guest";

/// What came of a merge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Merged {
    Clean(Vec<u8>),
    /// The places where both changed the same lines, as git marks them.
    Conflict(String),
}

/// How a path is merged, by the attributes that the guest's tree gives it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Way {
    #[default]
    Text,
    /// The lines of both sides are kept.
    Union,
    /// Not at all.
    Binary,
}

/// Merges files of a checkout.
pub(super) struct Merger {
    /// In a jail that only reads.
    git: Git,
    dir: Temporary,
    ways: BTreeMap<Vec<u8>, Way>,
}

/// Says whether git takes bytes for text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.len() as u64 <= MOST && !bytes.iter().take(LOOKED_AT).any(|byte| *byte == 0)
}

impl Merger {
    /// Prepares to merge `paths` in `folder`; the scratch tree holds the guest's lists of attributes.
    pub(super) fn new(folder: &Path, sides: &Sides, paths: &BTreeSet<&[u8]>) -> Result<Self> {
        let dir = Temporary::beside(folder)?;
        let git = sides.store.git_for_guest(None);
        let git = git.jailed([sides.store.dir.clone(), dir.path().to_owned()], None);
        let mut merger = Self { git, dir, ways: BTreeMap::new() };
        if paths.is_empty() {
            return Ok(merger);
        }
        let mut input = Vec::new();
        for path in paths {
            input.extend_from_slice(path);
            input.push(0);
        }
        let attributes = sides.git_for_guest().work_tree(&sides.scratch.tree());
        let answer = attributes.run(["check-attr", "-z", "--stdin", "merge"], &input)?;
        let mut fields = split_zero(&answer);
        while let (Some(path), Some(_), Some(value)) = (fields.next(), fields.next(), fields.next())
        {
            let way = match value {
                b"unset" | b"binary" => Way::Binary,
                b"union" => Way::Union,
                // A driver that somebody wrote does not run.
                _ => Way::Text,
            };
            merger.ways.insert(path.to_vec(), way);
        }
        Ok(merger)
    }

    /// Returns how a path is merged.
    pub(super) fn way(&self, path: &[u8]) -> Way {
        self.ways.get(path).copied().unwrap_or_default()
    }

    /// Merges three texts.
    pub(super) fn merge(
        &self,
        ours: &[u8],
        base: &[u8],
        theirs: &[u8],
        way: Way,
    ) -> Result<Merged> {
        let files = ["ours", "base", "theirs"].map(|name| self.dir.path().join(name));
        for (file, bytes) in files.iter().zip([ours, base, theirs]) {
            fs::write(file, bytes).context("cannot write a copy to merge")?;
        }
        let mut words = vec!["merge-file", "-p", "-q"];
        words.extend((way == Way::Union).then_some("--union"));
        words.extend(["-L", "host", "-L", "what went in", "-L", "guest"]);
        let words: Vec<&OsStr> = words
            .into_iter()
            .map(OsStr::new)
            .chain(files.iter().map(|file| file.as_os_str()))
            .collect();
        let ended = self.git.attempt(words, b"")?;
        match ended.status.code() {
            Some(0) => Ok(Merged::Clean(ended.answer)),
            Some(1..=127) => Ok(Merged::Conflict(hunks(&ended.answer))),
            _ => Err(Error::failed(format!("'git merge-file' failed: {}", said(&ended)))),
        }
    }
}

/// Returns the places of a merged file that are in conflict, each with the number of its first line.
fn hunks(merged: &[u8]) -> String {
    let mut text = String::new();
    let (mut is_inside, mut lines) = (false, 0);
    for (number, line) in merged.split(|byte| *byte == b'\n').enumerate() {
        let plain = line.strip_suffix(b"\r").unwrap_or(line);
        if plain == OURS && !is_inside {
            is_inside = true;
            let _ = writeln!(text, "@@ line {} @@", number + 1);
        }
        if !is_inside {
            continue;
        }
        if lines >= MAX_LINES || text.len() + line.len() > MAX_SHOWN {
            text.push_str("...\n");
            return text;
        }
        lines += 1;
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
        is_inside = plain != THEIRS;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_conflict_are_shown_within_bounds() {
        let merged = b"a\n<<<<<<< host\nb\n=======\nc\n>>>>>>> guest\nd\n<<<<<<< host\r\n=======\r\n>>>>>>> guest\r\n";
        let shown = hunks(merged);
        assert_eq!(
            shown,
            "@@ line 2 @@\n<<<<<<< host\nb\n=======\nc\n>>>>>>> guest\n\
             @@ line 8 @@\n<<<<<<< host\r\n=======\r\n>>>>>>> guest\r\n"
        );
        let long = [b"<<<<<<< host\n".to_vec(), b"x\n".repeat(1000)].concat();
        let shown = hunks(&long);
        assert!(shown.ends_with("x\n...\n") && shown.lines().count() <= MAX_LINES + 2);
        let wide = [b"<<<<<<< host\n".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert!(hunks(&wide).len() < MAX_SHOWN);
    }

    #[test]
    fn bytes_are_no_text() {
        assert!(is_text(b"") && is_text(b"a\r\n\xff"));
        assert!(!is_text(b"a\0b"));
    }
}
