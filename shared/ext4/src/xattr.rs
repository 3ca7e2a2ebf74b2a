//! Extended attributes: in the inode as far as they fit, the rest in one block.

use crate::bytes::{put, put8, put16, put32};
use crate::checksum::crc;
use crate::inode::XATTRS_AT;
use crate::layout::{BLOCK, INODE};
use banger_doc::{Error, Result};

const MAGIC: u32 = 0xea02_0000;
/// What attributes in the inode may take, after the magic.
const INODE_ROOM: usize = INODE - XATTRS_AT - 4;
/// What attributes in a block may take, after the header.
const BLOCK_ROOM: usize = BLOCK - 32;

/// One attribute as ext4 keeps it: its namespace is a number.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Attribute {
    index: u8,
    // The length comes first because that is the order the kernel searches in.
    length: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    fn entry_room(&self) -> usize {
        16 + self.name.len().next_multiple_of(4)
    }

    fn room(&self) -> usize {
        self.entry_room() + self.value.len().next_multiple_of(4)
    }
}

/// Attributes ready to be written.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Encoded {
    /// What goes into the inode, magic included; empty when nothing does.
    pub(crate) inline: Vec<u8>,
    /// What goes into a block, header and all; empty when nothing does.
    pub(crate) block: Vec<u8>,
}

/// Says whether Linux has attributes of this name at all. Others cannot be set on any file.
pub fn is_known(name: &[u8]) -> bool {
    split(name).is_some()
}

/// Splits a name into the number of its namespace and the rest.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    let prefixes: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    prefixes
        .iter()
        .find_map(|(index, prefix)| name.strip_prefix(*prefix).map(|rest| (*index, rest)))
        .filter(|(_, rest)| !rest.is_empty())
}

/// Turns an ACL from the form of system calls into the form on the disk.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    if !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = u16::from_le_bytes([entry[2], entry[3]]);
        if bits > 7 {
            return None;
        }
        out.extend_from_slice(&entry[..4]);
        match tag {
            // A named user or group has a number.
            0x02 | 0x08 => out.extend_from_slice(&entry[4..]),
            0x01 | 0x04 | 0x10 | 0x20 => {}
            _ => return None,
        }
    }
    Some(out)
}

fn shown(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}

/// Encodes attributes, given as system calls know them; unknown namespaces are an error.
pub(crate) fn encode(attributes: &[(&[u8], &[u8])]) -> Result<Encoded> {
    let mut all = Vec::with_capacity(attributes.len());
    for (full, value) in attributes {
        let Some((index, name)) = split(full) else {
            return Err(Error::failed(format!(
                "the attribute '{}' is of no kind Linux knows",
                shown(full)
            )));
        };
        if full.len() > 255 {
            return Err(Error::failed(format!(
                "the attribute '{}' has a name of more than 255 bytes",
                shown(full)
            )));
        }
        let value = if index == 2 || index == 3 {
            acl(value).ok_or_else(|| {
                Error::failed(format!("the attribute '{}' is not an ACL", shown(full)))
            })?
        } else {
            value.to_vec()
        };
        all.push(Attribute { index, length: name.len(), name: name.to_vec(), value });
    }
    all.sort();
    if let Some(twice) =
        all.windows(2).find(|pair| pair[0].index == pair[1].index && pair[0].name == pair[1].name)
    {
        return Err(Error::failed(format!(
            "the attribute '{}' is there twice",
            shown(&twice[0].name)
        )));
    }

    // Four zero bytes end each list.
    let (mut inode_room, mut block_room) = (INODE_ROOM - 4, BLOCK_ROOM - 4);
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for attribute in all {
        let room = attribute.room();
        if room <= inode_room {
            inode_room -= room;
            inside.push(attribute);
        } else if room <= block_room {
            block_room -= room;
            outside.push(attribute);
        } else {
            return Err(Error::failed(format!(
                "the attributes take more than one block of {BLOCK} bytes"
            )));
        }
    }
    let mut encoded = Encoded::default();
    if !inside.is_empty() {
        let mut bytes = vec![0; INODE_ROOM + 4];
        put32(&mut bytes, 0, MAGIC);
        fill(&mut bytes[4..], 0, 0, &inside);
        encoded.inline = bytes;
    }
    if !outside.is_empty() {
        let mut bytes = vec![0; BLOCK];
        put32(&mut bytes, 0, MAGIC);
        put32(&mut bytes, 4, 1);
        put32(&mut bytes, 8, 1);
        let hash = fill(&mut bytes, 32, 32, &outside);
        put32(&mut bytes, 12, hash);
        encoded.block = bytes;
    }
    Ok(encoded)
}

/// Writes entries from `at` up and values from the end down; returns the hash of all. Entries in an
/// inode (`hashed` zero) carry no hash.
fn fill(bytes: &mut [u8], mut at: usize, hashed: usize, attributes: &[Attribute]) -> u32 {
    let mut end = bytes.len();
    let mut all = 0u32;
    for attribute in attributes {
        let Attribute { index, name, value, .. } = attribute;
        end -= value.len().next_multiple_of(4);
        put8(bytes, at, name.len() as u8);
        put8(bytes, at + 1, *index);
        put16(bytes, at + 2, if value.is_empty() { 0 } else { end as u16 });
        put32(bytes, at + 8, value.len() as u32);
        put(bytes, at + 16, name);
        put(bytes, end, value);
        if hashed > 0 {
            let hash = entry_hash(name, value);
            put32(bytes, at + 12, hash);
            all = all.rotate_left(16) ^ hash;
        }
        at += attribute.entry_room();
    }
    all
}

fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks(4).fold(hash, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash.rotate_left(16) ^ u32::from_le_bytes(word)
    })
}

/// Puts the checksum into a block of attributes that will lie at `number`.
pub(crate) fn seal(block: &mut [u8], seed: u32, number: u32) {
    let sum = crc(crc(seed, &u64::from(number).to_le_bytes()), block);
    put32(block, 16, sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acls_change_their_form() {
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, bits, id) in [
            (1u16, 7u16, u32::MAX),
            (2, 5, 1000),
            (4, 5, u32::MAX),
            (0x10, 5, u32::MAX),
            (0x20, 4, u32::MAX),
        ] {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&bits.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        let disk = acl(&value).unwrap();
        assert_eq!(disk.len(), 4 + 4 * 4 + 8);
        assert_eq!(disk[0], 1);
        assert_eq!(acl(&value[..value.len() - 1]), None);
        assert_eq!(acl(b""), None);
        value[4] = 0x40;
        assert_eq!(acl(&value), None);
    }

    #[test]
    fn one_block_is_the_end() {
        let full = vec![1; BLOCK_ROOM - 4 - 20];
        let encoded = encode(&[(b"user.big", &full)]).unwrap();
        assert!(encoded.inline.is_empty());
        assert_eq!(encoded.block.len(), BLOCK);
        assert!(encode(&[(b"user.big", &[full, vec![0; 4]].concat())]).is_err());
    }

    #[test]
    fn strange_names_are_refused() {
        for name in ["user.", "com.apple.x", "system.other", "x", ""] {
            assert!(!is_known(name.as_bytes()));
            assert!(encode(&[(name.as_bytes(), b"")]).is_err());
        }
        assert!(encode(&[(b"user.a", b"1"), (b"user.a", b"2")]).is_err());
        assert!(encode(&[(format!("user.{}", "x".repeat(251)).as_bytes(), b"1")]).is_err());
    }
}
