//! Whether a file of the user's is a disk a VM can be based on. It is only read.

use banger_doc::{Context, Error, Result, shell_word};
use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt, path::Path};

/// Where the superblock lies (ext4's `super.rst`).
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;
const NEEDS_RECOVERY: u32 = 0x4;
const EXTENTS: u32 = 0x40;
const IS_JOURNAL: u32 = 0x8;
const BLOCKS_64BIT: u32 = 0x80;

/// What a disk says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checked {
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
}

/// Checks that a file holds one ext4 that was left clean.
pub fn check(path: &Path) -> Result<Checked> {
    let wrong = |why: String| Error::failed(format!("'{}' {why}", path.display()));
    let file = File::open(path).map_err(|error| {
        let sentence = format!("cannot open '{}'", path.display());
        match error.kind() {
            ErrorKind::NotFound => Error::not_found(sentence).because(error),
            _ => Error::failed(sentence).because(error),
        }
    })?;
    let meta = file.metadata().with_context(|| format!("cannot look at '{}'", path.display()))?;
    if !meta.is_file() {
        return Err(wrong("is not a file".into())
            .hint("give the path of a file that holds an ext4 file system"));
    }
    let mut block = [0; 1024];
    let read = file.read_exact_at(&mut block, SUPERBLOCK);
    let u16_at = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let u32_at =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if read.is_err() || u16_at(0x38) != MAGIC {
        return Err(wrong("holds no ext4 file system".into())
            .hint("'banger image import' takes a tar of a root file system"));
    }
    let incompatible = u32_at(0x60);
    if incompatible & IS_JOURNAL != 0 || incompatible & EXTENTS == 0 {
        return Err(wrong("holds another file system than ext4".into())
            .hint("'mke2fs -t ext4 -d FOLDER FILE SIZE' makes one of a folder"));
    }
    if incompatible & NEEDS_RECOVERY != 0 {
        return Err(wrong("was not unmounted: its journal holds changes".into())
            .hint(format!("'e2fsck -p {}' plays them back", shell_word(path))));
    }
    let state = u16_at(0x3a);
    if state & STATE_CLEAN == 0 || state & STATE_ERRORS != 0 {
        return Err(wrong("is not clean".into())
            .hint(format!("'e2fsck -f {}' repairs it", shell_word(path))));
    }
    let wide = |low: usize, high: usize| {
        let high = if incompatible & BLOCKS_64BIT == 0 { 0 } else { u64::from(u32_at(high)) };
        high << 32 | u64::from(u32_at(low))
    };
    let block_bytes = 1024_u64
        .checked_shl(u32_at(0x18))
        .filter(|bytes| *bytes <= 64 << 10)
        .ok_or_else(|| wrong("has a block size nobody uses".into()))?;
    let (blocks, free) = (wide(0x4, 0x150), wide(0xc, 0x158));
    let size_bytes = blocks.saturating_mul(block_bytes);
    if size_bytes > meta.len() {
        return Err(wrong(format!(
            "is cut off: its file system has {size_bytes} bytes, the file {}",
            meta.len()
        )));
    }
    Ok(Checked {
        size_bytes: meta.len(),
        used_bytes: blocks.saturating_sub(free).saturating_mul(block_bytes),
        inodes: u64::from(u32_at(0x0).saturating_sub(u32_at(0x10))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::PathBuf};

    /// An ext4 superblock with a few words changed.
    fn disk(dir: &Path, words: &[(usize, &[u8])]) -> PathBuf {
        let mut bytes = vec![0; 1 << 20];
        for (at, word) in [
            (0x0, &100_u32.to_le_bytes()[..]),
            (0x4, &256_u32.to_le_bytes()),
            (0xc, &56_u32.to_le_bytes()),
            (0x10, &89_u32.to_le_bytes()),
            (0x18, &2_u32.to_le_bytes()),
            (0x38, &MAGIC.to_le_bytes()),
            (0x3a, &STATE_CLEAN.to_le_bytes()),
            (0x60, &EXTENTS.to_le_bytes()),
        ]
        .into_iter()
        .chain(words.iter().copied())
        {
            bytes[1024 + at..1024 + at + word.len()].copy_from_slice(word);
        }
        let path = dir.join("disk");
        fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn only_clean_ext4_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let good = Checked { size_bytes: 1 << 20, used_bytes: 200 * 4096, inodes: 11 };
        assert_eq!(check(&disk(dir.path(), &[])).unwrap(), good);
        for (word, part) in [
            ((0x38, &[0, 0][..]), "no ext4"),
            ((0x3a, &[0, 0]), "not clean"),
            ((0x3a, &[3, 0]), "not clean"),
            ((0x60, &[0x44, 0, 0, 0]), "journal holds changes"),
            ((0x60, &[0, 0, 0, 0]), "another file system"),
            ((0x4, &[1, 1, 0, 0]), "cut off"),
            ((0x18, &[99, 0, 0, 0]), "block size"),
        ] {
            let error = check(&disk(dir.path(), &[word])).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(check(dir.path()).unwrap_err().to_string().contains("is not a file"));
        fs::write(dir.path().join("short"), "x").unwrap();
        assert!(check(&dir.path().join("short")).is_err());
        assert_eq!(check(Path::new("/no/such")).unwrap_err().kind(), banger_doc::Kind::NotFound);
    }
}
