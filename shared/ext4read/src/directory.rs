//! The names in a directory. An index over them is passed by: every name lies in a plain block.

use crate::{
    bytes::{u8_at, u16_at, u32_at},
    damaged,
    disk::Disk,
    extent::Walk,
    inode::{Inode, Sort},
    unknown,
};
use std::io::Result;

/// The largest directory that is read, in blocks' bytes: some three million names.
const MAX_BYTES: u64 = 256 << 20;
/// Where the names begin in a directory that lies in its inode: after the number of the one above.
const INLINE_AT: usize = 4;
/// Where the second part of them begins, in an attribute.
const INLINE_REST: usize = 60;

impl Disk {
    /// Hands every name in a directory to `each`, with the number of its inode, in no order. Each has 1 to 255 bytes,
    /// is neither `.` nor `..`, and has no slash and no zero: names that no file has are damage.
    pub fn list(&self, dir: &Inode, mut each: impl FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
        if dir.sort != Sort::Dir {
            return Err(damaged("a directory that is none"));
        }
        if dir.is_encrypted() {
            return Err(unknown("it is encrypted".into()));
        }
        if dir.is_inline() {
            let bytes = self.inline(dir)?;
            let (first, rest) = bytes.split_at(INLINE_REST.min(bytes.len()));
            names(first.get(INLINE_AT..).unwrap_or_default(), &mut each)?;
            return names(rest, &mut each);
        }
        let size = dir.size;
        if size > MAX_BYTES {
            return Err(unknown(format!("a directory is larger than {} MiB", MAX_BYTES >> 20)));
        }
        let blocks = size / u64::from(self.block);
        let mut walk = Walk::default();
        let mut at = 0;
        while at < blocks {
            let run = self.run(dir, at, &mut walk)?;
            let next = at.saturating_add(run.blocks).min(blocks);
            if let Some(physical) = run.physical {
                for offset in 0..next - at {
                    names(&self.block(physical + offset)?, &mut each)?;
                }
            }
            at = next;
        }
        Ok(())
    }

    /// Returns the inode that a name in a directory stands for.
    pub fn find(&self, dir: &Inode, wanted: &[u8]) -> Result<Option<Inode>> {
        let mut found = None;
        self.list(dir, |name, inode| {
            if name == wanted {
                found = Some(inode);
            }
            Ok(())
        })?;
        found.map(|number| self.inode(number)).transpose()
    }
}

/// Reads the entries of a block. A checksum at its end looks like an entry without an inode.
fn names(block: &[u8], each: &mut impl FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
    let mut at = 0;
    while at + 8 <= block.len() {
        let strange = || damaged("a directory");
        let inode = u32_at(block, at).ok_or_else(strange)?;
        let length = match u16_at(block, at + 4).ok_or_else(strange)? {
            // A block of 64 KiB has no number for its own length.
            0 | u16::MAX if block.len() == 1 << 16 => 1 << 16,
            length => usize::from(length),
        };
        let name_length = usize::from(u8_at(block, at + 6).ok_or_else(strange)?);
        if length < 8
            || !length.is_multiple_of(4)
            || at + length > block.len()
            || name_length + 8 > length
        {
            return Err(strange());
        }
        let name = &block[at + 8..at + 8 + name_length];
        at += length;
        if inode == 0 || name == b"." || name == b".." {
            continue;
        }
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return Err(strange());
        }
        each(name, inode)?;
    }
    Ok(())
}
