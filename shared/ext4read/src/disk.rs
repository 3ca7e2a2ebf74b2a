//! The superblock and the descriptors of groups: where the inodes lie.

use crate::{
    bytes::{u8_at, u16_at, u32_at, wide},
    damaged,
    inode::Inode,
    unknown,
};
use std::{fs::File, io::Result, os::unix::fs::FileExt};

/// Where the superblock lies (Documentation/filesystems/ext4/super.rst of Linux).
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;

const NEEDS_RECOVERY: u32 = 0x4;
const META_BG: u32 = 0x10;
const BLOCKS_64BIT: u32 = 0x80;
/// File types in directories, a journal to play back, groups of descriptors, extents, 64 bits, protection
/// against two mounts, flexible groups, attributes in inodes, a seed of checksums, large directories, data in
/// inodes, encryption, names in any case.
const READ: u32 = 0x2
    | NEEDS_RECOVERY
    | META_BG
    | 0x40
    | BLOCKS_64BIT
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
const SPARSE_SUPER: u32 = 0x1;
const SPARSE_SUPER2: u32 = 0x200;

/// The root directory's inode.
const ROOT: u32 = 2;

/// An ext4 file system in a file.
#[derive(Debug)]
pub struct Disk {
    file: File,
    pub(crate) block: u32,
    blocks: u64,
    first_block: u32,
    blocks_a_group: u32,
    inodes: u32,
    inodes_a_group: u32,
    pub(crate) inode_size: u16,
    descriptor: u16,
    /// From this block of descriptors on they lie with their groups.
    first_meta: Option<u32>,
    is_sparse: bool,
    backups: Option<[u32; 2]>,
    recovers: bool,
}

impl Disk {
    /// Opens the file system that begins at the file's start.
    pub fn open(file: File) -> Result<Self> {
        let mut bytes = [0; 1024];
        let absent = || unknown("it holds no ext4 file system".into());
        file.read_exact_at(&mut bytes, SUPERBLOCK).map_err(|_| absent())?;
        Self::parse(file, &bytes)
            .ok_or_else(|| damaged("its superblock"))?
            .and_then(|disk| if disk.blocks == 0 { Err(absent()) } else { Ok(disk) })
    }

    fn parse(file: File, b: &[u8]) -> Option<Result<Self>> {
        if u16_at(b, 0x38)? != MAGIC {
            return Some(Err(unknown("it holds no ext4 file system".into())));
        }
        let has_features = u32_at(b, 0x4c)? > 0;
        let feature = |at: usize| if has_features { u32_at(b, at) } else { Some(0) };
        let (compat, incompat, ro) = (feature(0x5c)?, feature(0x60)?, feature(0x64)?);
        let strange = incompat & !READ;
        if strange != 0 {
            return Some(Err(unknown(format!(
                "it uses features of ext4 that are not read: {strange:#x}"
            ))));
        }
        let is_wide = incompat & BLOCKS_64BIT != 0;
        let scale = u32_at(b, 0x18)?;
        let block = 1024_u32.checked_shl(scale).filter(|_| scale <= 6)?;
        let inode_size = if has_features { u16_at(b, 0x58)? } else { 128 };
        let descriptor = if is_wide { u16_at(b, 0xfe)? } else { 32 };
        let disk = Self {
            file,
            block,
            blocks: if is_wide { wide(b, 0x4, 0x150)? } else { u64::from(u32_at(b, 0x4)?) },
            first_block: u32_at(b, 0x14)?,
            blocks_a_group: u32_at(b, 0x20)?,
            inodes: u32_at(b, 0x0)?,
            inodes_a_group: u32_at(b, 0x28)?,
            inode_size,
            descriptor,
            first_meta: (incompat & META_BG != 0).then_some(u32_at(b, 0x104)?),
            is_sparse: ro & SPARSE_SUPER != 0,
            backups: if compat & SPARSE_SUPER2 == 0 {
                None
            } else {
                Some([u32_at(b, 0x24c)?, u32_at(b, 0x250)?])
            },
            recovers: incompat & NEEDS_RECOVERY != 0,
        };
        let is_sane = disk.blocks_a_group > 0
            && disk.inodes_a_group > 0
            && inode_size >= 128
            && u32::from(inode_size) <= block
            && inode_size.is_power_of_two()
            && descriptor >= 32
            && u32::from(descriptor) <= block
            && descriptor.is_power_of_two()
            && u8_at(b, 0x18).is_some()
            && disk.first_block <= u32::from(block == 1024);
        is_sane.then_some(Ok(disk))
    }

    /// Says whether its journal holds what is not in its place yet.
    pub fn needs_recovery(&self) -> bool {
        self.recovers
    }

    /// Returns the root directory.
    pub fn root(&self) -> Result<Inode> {
        self.inode(ROOT)
    }

    /// Returns an inode by its number.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let strange = || damaged("the number of an inode");
        if number == 0 || number > self.inodes {
            return Err(strange());
        }
        let (group, index) =
            ((number - 1) / self.inodes_a_group, (number - 1) % self.inodes_a_group);
        let table = self.inode_table(group)?;
        let offset = u64::from(index) * u64::from(self.inode_size);
        let at = table.checked_mul(u64::from(self.block)).and_then(|at| at.checked_add(offset));
        let mut bytes = vec![0; usize::from(self.inode_size)];
        self.file
            .read_exact_at(&mut bytes, at.ok_or_else(strange)?)
            .map_err(|_| damaged("the place of an inode"))?;
        Inode::parse(number, &bytes).ok_or_else(|| damaged("an inode"))
    }

    /// Returns where the inodes of a group lie.
    fn inode_table(&self, group: u32) -> Result<u64> {
        let strange = || damaged("the place of a group");
        let a_block = self.block / u32::from(self.descriptor);
        let (slot, within) = (group / a_block, group % a_block);
        // With clusters of small blocks the first group begins before the superblock's own block.
        let superblock = SUPERBLOCK / u64::from(self.block);
        let block = match self.first_meta {
            Some(first) if slot >= first => {
                let group = u64::from(slot) * u64::from(a_block);
                let start = group
                    .checked_mul(u64::from(self.blocks_a_group))
                    .and_then(|start| start.checked_add(u64::from(self.first_block)));
                let before = if group == 0 { superblock - u64::from(self.first_block) } else { 0 };
                let copy = u64::from(self.has_copy(group)) + before;
                start.and_then(|start| start.checked_add(copy)).ok_or_else(strange)?
            }
            _ => superblock + 1 + u64::from(slot),
        };
        let mut bytes = [0; 64];
        let wanted = usize::from(self.descriptor).min(64);
        let at = block
            .checked_mul(u64::from(self.block))
            .and_then(|at| at.checked_add(u64::from(within) * u64::from(self.descriptor)));
        self.file
            .read_exact_at(&mut bytes[..wanted], at.ok_or_else(strange)?)
            .map_err(|_| strange())?;
        let low = u32_at(&bytes, 0x8).ok_or_else(strange)?;
        let high =
            if self.descriptor >= 64 { u32_at(&bytes, 0x28).ok_or_else(strange)? } else { 0 };
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// Says whether a group begins with a copy of the superblock.
    fn has_copy(&self, group: u64) -> bool {
        if let Some(backups) = self.backups {
            return group == 0 || backups.iter().any(|backup| u64::from(*backup) == group);
        }
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        !self.is_sparse || group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Reads from a block on; the whole buffer, or it is an error.
    pub(crate) fn read(&self, block: u64, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = damaged("a block beyond its end");
        let at = block.checked_mul(u64::from(self.block)).and_then(|at| at.checked_add(offset));
        match at {
            Some(at) if block < self.blocks => self.file.read_exact_at(buffer, at).map_err(|_| end),
            _ => Err(end),
        }
    }

    /// Reads one block.
    pub(crate) fn block(&self, block: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.block as usize];
        self.read(block, 0, &mut bytes)?;
        Ok(bytes)
    }
}
