//! Extended attributes: in the inode as far as they fit, the rest in a block, large values in inodes of their
//! own.

use crate::{
    bytes::{u8_at, u16_at, u32_at},
    damaged,
    disk::Disk,
    inode::Inode,
};
use std::io::{Read, Result};

const MAGIC: u32 = 0xea02_0000;
/// Where the entries begin in a block.
const HEADER: usize = 32;
/// The largest value, as in Linux (`XATTR_SIZE_MAX`).
const MAX_VALUE: u32 = 64 << 10;

/// The beginnings of names that are kept as numbers.
const PREFIXES: &[(u8, &str)] = &[
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
];

/// One entry of a list.
struct Entry<'a> {
    prefix: &'static str,
    name: &'a [u8],
    offset: usize,
    /// The inode that holds the value, if not the list itself does.
    inode: u32,
    size: u32,
}

impl Disk {
    /// Returns the value of one attribute by its whole name, as Linux shows it.
    pub fn attribute(&self, inode: &Inode, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut found = None;
        self.each(inode, |name, entry, values| {
            if found.is_none() && name == wanted {
                found = Some(self.value(entry, values)?);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Returns the names of all attributes; what holds the content of a small file is none.
    pub fn attributes(&self, inode: &Inode) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.each(inode, |name, _, _| {
            if name != b"system.data" {
                names.push(name.to_vec());
            }
            Ok(())
        })?;
        Ok(names)
    }

    fn each(
        &self,
        inode: &Inode,
        mut each: impl FnMut(&[u8], &Entry<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut all = |entries: &[u8], values: &[u8]| -> Result<()> {
            let mut at = 0;
            while let Some(entry) = entry(entries, &mut at)? {
                let name = [entry.prefix.as_bytes(), entry.name].concat();
                each(&name, &entry, values)?;
            }
            Ok(())
        };
        if u32_at(&inode.rest, 0) == Some(MAGIC) {
            all(&inode.rest[4..], &inode.rest[4..])?;
        }
        if inode.xattr_block != 0 {
            let block = self.block(inode.xattr_block)?;
            if u32_at(&block, 0) != Some(MAGIC) {
                return Err(damaged("attributes"));
            }
            all(&block[HEADER..], &block)?;
        }
        Ok(())
    }

    fn value(&self, entry: &Entry<'_>, values: &[u8]) -> Result<Vec<u8>> {
        if entry.size > MAX_VALUE {
            return Err(damaged("the value of an attribute"));
        }
        let size = entry.size as usize;
        if entry.inode == 0 {
            let value =
                entry.offset.checked_add(size).and_then(|end| values.get(entry.offset..end));
            return value.map(<[u8]>::to_vec).ok_or_else(|| damaged("the value of an attribute"));
        }
        let inode = self.inode(entry.inode)?;
        if inode.is_inline() {
            // It would have its content in an attribute, and that one's in another inode.
            return Err(damaged("the value of an attribute"));
        }
        let mut value = Vec::new();
        self.content(&inode)?.take(u64::from(entry.size)).read_to_end(&mut value)?;
        Ok(value)
    }
}

/// Returns the next entry of a list; nothing at its end.
fn entry<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<Entry<'a>>> {
    let strange = || damaged("attributes");
    // Four zero bytes end a list, and so does the end of its room.
    if u32_at(bytes, *at).unwrap_or(0) == 0 {
        return Ok(None);
    }
    let read = || {
        let (length, index) = (usize::from(u8_at(bytes, *at)?), u8_at(bytes, *at + 1)?);
        let name = bytes.get(*at + 16..*at + 16 + length)?;
        let prefix = PREFIXES.iter().find(|(number, _)| *number == index);
        Some(Entry {
            prefix: prefix.map_or("", |(_, prefix)| prefix),
            name,
            offset: usize::from(u16_at(bytes, *at + 2)?),
            inode: u32_at(bytes, *at + 4)?,
            size: u32_at(bytes, *at + 8)?,
        })
    };
    let entry = read().ok_or_else(strange)?;
    *at += 16 + entry.name.len().next_multiple_of(4);
    Ok(Some(entry))
}
