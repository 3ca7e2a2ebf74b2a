//! Little-endian numbers at places that may lie outside.

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(part.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(part.try_into().ok()?))
}

/// Returns a number whose halves lie apart.
pub(crate) fn wide(bytes: &[u8], low: usize, high: usize) -> Option<u64> {
    Some(u64::from(u32_at(bytes, high)?) << 32 | u64::from(u32_at(bytes, low)?))
}
