//! The checksums of ext4's metadata.

/// Continues a CRC-32C the way ext4 keeps it: no inversion before or after.
pub(crate) fn crc(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

/// Returns what the checksums of everything that belongs to one inode start from. The generation
/// is always zero here.
pub(crate) fn inode_seed(seed: u32, number: u32) -> u32 {
    crc(crc(seed, &number.to_le_bytes()), &[0; 4])
}
