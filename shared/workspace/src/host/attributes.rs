//! Lists of attributes and of rules that git would wait for, since they are no files.

use crate::{
    host::{Dir, Sort},
    path::join,
};
use banger_doc::{Error, Result};
use std::{collections::BTreeSet, path::Path};

/// Fails if git would wait for a pipe in the place of a list of attributes when it reads these files.
pub(crate) fn attributes_are_files<'a>(
    root: &Dir,
    paths: impl Iterator<Item = &'a [u8]>,
) -> Result<()> {
    let mut dirs: BTreeSet<&[u8]> = BTreeSet::new();
    for path in paths {
        let mut end = path.len();
        while let Some(at) = path[..end].iter().rposition(|byte| *byte == b'/') {
            end = at;
            if !dirs.insert(&path[..end]) {
                break;
            }
        }
        dirs.insert(b"");
    }
    for dir in dirs {
        let path = join(dir, b".gitattributes");
        // What lies behind a link is not read by git either.
        if root.sort(&path).is_ok_and(|sort| sort == Some(Sort::Other)) {
            return Err(not_a_file(&root.join(&path)));
        }
    }
    Ok(())
}

/// Refuses what stands in the place of such a list.
pub(crate) fn not_a_file(path: &Path) -> Error {
    Error::failed(format!("'{}' is a pipe or another thing that is no file", path.display()))
        .hint("git would wait for it; remove it")
}
