//! Two layers as one tree (Documentation/filesystems/overlayfs.rst of Linux): what the upper one hides, moved
//! and made anew.

use banger_ext4read::{Disk, Inode, Sort};
use std::{
    collections::HashMap,
    io::{Error, ErrorKind, Result},
};

/// The most files of several names that were changed; more are those of a hostile disk.
const MOST_INDEXED: usize = 1_000_000;
/// The most names in a redirection.
const MOST_NAMES: usize = 256;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const WHITEOUT: &[u8] = b"trusted.overlay.whiteout";

/// What an entry of the index is called: a file handle in hexadecimal (`struct ovl_fb` of Linux).
const HANDLE: usize = 29;
const HANDLE_MAGIC: u8 = 0xfb;
/// That of a file system whose files are told by number and generation (`FILEID_INO32_GEN`).
const BY_NUMBER: u8 = 1;

/// What a name of a merged directory stands for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    pub(crate) upper: Option<u32>,
    pub(crate) lower: Option<u32>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) inode: Inode,
    /// Whether it is of the upper layer.
    pub(crate) is_upper: bool,
    /// The directory of the lower layer that it is merged with, or is.
    pub(crate) lower: Option<u32>,
}

/// Files of the lower layer with several names that have been copied up, by number and generation.
pub(crate) type Indexed = HashMap<(u32, u32), u32>;

/// The two layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'a> {
    pub(crate) upper: &'a Disk,
    pub(crate) lower: &'a Disk,
    pub(crate) indexed: &'a Indexed,
}

impl Layers<'_> {
    /// Looks at what a name in a merged directory stands for; `above` is the part of that one in the lower
    /// layer.
    pub(crate) fn find(self, pair: Pair, above: Option<u32>) -> Result<Option<Merged>> {
        match pair {
            Pair { upper: Some(upper), lower } => self.in_upper(upper, lower, above),
            Pair { upper: None, lower: Some(lower) } => self.in_lower(lower, above),
            _ => Ok(None),
        }
    }

    fn in_upper(
        self,
        upper: u32,
        lower: Option<u32>,
        above: Option<u32>,
    ) -> Result<Option<Merged>> {
        let inode = self.upper.inode(upper)?;
        if is_whiteout(&inode) {
            return Ok(None);
        }
        let mut merged = Merged { inode, is_upper: true, lower: None };
        match merged.inode.sort {
            Sort::Dir => merged.lower = self.lower_of(&merged.inode, lower, above)?,
            Sort::File if self.upper.attribute(&merged.inode, METACOPY)?.is_some() => {
                // Its content lies elsewhere, which the guest's own kernel refuses to follow.
                return Err(refused("only what is known of a file was copied"));
            }
            _ => {}
        }
        Ok(Some(merged))
    }

    /// Returns the directory of the lower layer that one of the upper layer is merged with.
    fn lower_of(self, dir: &Inode, same: Option<u32>, above: Option<u32>) -> Result<Option<u32>> {
        if self.upper.attribute(dir, OPAQUE)?.is_some_and(|value| value == b"y") {
            return Ok(None);
        }
        let lower = match self.upper.attribute(dir, REDIRECT)? {
            None => same,
            Some(way) => match way.strip_prefix(b"/") {
                Some(way) => self.follow(way)?,
                None if way.is_empty() || way.contains(&b'/') => {
                    return Err(refused("a directory was moved to nowhere"));
                }
                None => match above {
                    Some(above) => self.below(above, &way)?,
                    None => None,
                },
            },
        };
        let Some(lower) = lower else { return Ok(None) };
        let is_dir = self.lower.inode(lower)?.sort == Sort::Dir;
        Ok(is_dir.then_some(lower))
    }

    /// Returns what lies at a path of the lower layer.
    fn follow(self, way: &[u8]) -> Result<Option<u32>> {
        let names: Vec<&[u8]> = way.split(|byte| *byte == b'/').take(MOST_NAMES + 1).collect();
        if names.len() > MOST_NAMES || names.iter().any(|name| name.is_empty()) {
            return Err(refused("a directory was moved to nowhere"));
        }
        let mut at = self.lower.root()?.number;
        for name in names {
            match self.below(at, name)? {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn below(self, dir: u32, name: &[u8]) -> Result<Option<u32>> {
        let dir = self.lower.inode(dir)?;
        if dir.sort != Sort::Dir {
            return Ok(None);
        }
        Ok(self
            .lower
            .find(&dir, name)?
            .filter(|found| !is_whiteout(found))
            .map(|found| found.number))
    }

    fn in_lower(self, lower: u32, above: Option<u32>) -> Result<Option<Merged>> {
        let inode = self.lower.inode(lower)?;
        if is_whiteout(&inode) {
            return Ok(None);
        }
        // A layer that itself was one of an overlay may have files that stand for whiteouts.
        if inode.sort == Sort::File
            && inode.size == 0
            && self.lower.attribute(&inode, WHITEOUT)?.is_some()
            && self.has_whiteouts(above)?
        {
            return Ok(None);
        }
        if inode.sort != Sort::Dir
            && inode.links > 1
            && let Some(copied) = self.indexed.get(&(inode.number, inode.generation))
        {
            let inode = self.upper.inode(*copied)?;
            if is_whiteout(&inode) {
                return Err(refused("a file of several names is gone"));
            }
            return Ok(Some(Merged { inode, is_upper: true, lower: None }));
        }
        let lower = (inode.sort == Sort::Dir).then_some(inode.number);
        Ok(Some(Merged { inode, is_upper: false, lower }))
    }

    fn has_whiteouts(self, dir: Option<u32>) -> Result<bool> {
        let Some(dir) = dir else { return Ok(false) };
        let opaque = self.lower.attribute(&self.lower.inode(dir)?, OPAQUE)?;
        Ok(opaque.is_some_and(|value| value == b"x"))
    }
}

/// Reads the index of the upper layer's disk, which lies in the work directory of the overlay. Without one no
/// file of several names was changed.
pub(crate) fn indexed(disk: &Disk) -> Result<Indexed> {
    let mut indexed = Indexed::new();
    let work = disk.find(&disk.root()?, b"work")?.filter(|dir| dir.sort == Sort::Dir);
    let Some(work) = work else { return Ok(indexed) };
    let index = disk.find(&work, b"index")?.filter(|dir| dir.sort == Sort::Dir);
    let Some(index) = index else { return Ok(indexed) };
    disk.list(&index, |name, inode| {
        if let Some(of) = handle(name) {
            if indexed.len() >= MOST_INDEXED {
                return Err(refused("too many files of several names"));
            }
            indexed.insert(of, inode);
        }
        Ok(())
    })?;
    Ok(indexed)
}

/// Returns number and generation of the file that an entry of the index stands for.
fn handle(name: &[u8]) -> Option<(u32, u32)> {
    let mut bytes = [0; HANDLE];
    if name.len() != 2 * HANDLE {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(name.chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    let is_one =
        bytes[1] == HANDLE_MAGIC && usize::from(bytes[2]) == HANDLE && bytes[4] == BY_NUMBER;
    let number = |at: usize| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?));
    if is_one { Some((number(21)?, number(25)?)) } else { None }
}

/// Says whether an inode hides a name.
fn is_whiteout(inode: &Inode) -> bool {
    inode.sort == Sort::Character && inode.device == (0, 0)
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the overlay is damaged: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_names_a_file_by_number_and_generation() {
        let uuid = "00112233445566778899aabbccddeeff";
        let name = format!("00fb1d0001{uuid}0c000000efbeadde");
        assert_eq!(handle(name.as_bytes()), Some((12, 0xdead_beef)));
        let other_type = name.replacen("0001", "0081", 1);
        for bad in [&name[2..], &other_type, &name.replace("fb", "fa"), &name.replace("ef", "+f")] {
            assert_eq!(handle(bad.as_bytes()), None, "{bad}");
        }
    }
}
