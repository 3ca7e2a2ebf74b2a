//! The little of ELF that is asked of modules and guest programs (elf(5)).

/// Returns the bytes of a named section of a 64-bit little-endian object file.
pub(crate) fn section<'a>(bytes: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(bytes, 40)?).ok()?;
    let size = usize::from(u16_at(bytes, 58)?);
    let count = usize::from(u16_at(bytes, 60)?);
    let header = |index: usize| bytes.get(table.checked_add(index.checked_mul(size)?)?..);
    let content = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 24)?).ok()?;
        let length = usize::try_from(u64_at(header, 32)?).ok()?;
        bytes.get(start..start.checked_add(length)?)
    };
    let names = content(header(usize::from(u16_at(bytes, 62)?))?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(u32_at(header, 0)? as usize..)?;
        let name = name.split(|byte| *byte == 0).next()?;
        (name == wanted.as_bytes()).then(|| content(header))?
    })
}

/// Says whether an ELF program needs no interpreter, so runs where there are no libraries.
pub(crate) fn is_static(bytes: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(u64_at(bytes, 32)?).ok()?;
    let size = usize::from(u16_at(bytes, 54)?);
    for index in 0..usize::from(u16_at(bytes, 56)?) {
        if u32_at(bytes, table.checked_add(index.checked_mul(size)?)?)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A module with nothing but a `.modinfo` section.
    pub(crate) fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = bytes.len() as u64;
        bytes.extend_from_slice(modinfo);
        let names_at = bytes.len() as u64;
        bytes.extend_from_slice(names);
        let table = bytes.len() as u64;
        for (name, at, length) in
            [(0_u32, 0, 0), (1, info_at, modinfo.len() as u64), (10, names_at, names.len() as u64)]
        {
            let mut header = vec![0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[24..32].copy_from_slice(&at.to_le_bytes());
            header[32..40].copy_from_slice(&length.to_le_bytes());
            bytes.extend(header);
        }
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58..60].copy_from_slice(&64_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&3_u16.to_le_bytes());
        bytes[62..64].copy_from_slice(&2_u16.to_le_bytes());
        bytes
    }

    #[test]
    fn a_section_is_found_by_name() {
        let bytes = module(b"name=x\0");
        assert_eq!(section(&bytes, ".modinfo"), Some(&b"name=x\0"[..]));
        assert_eq!(section(&bytes, ".other"), None);
        assert_eq!(is_static(&bytes), Some(true));
        assert_eq!(is_static(b"#!/bin/sh"), None);
    }

    proptest! {
        #[test]
        fn any_header_ends(bytes in proptest::collection::vec(any::<u8>(), 6..300)) {
            let mut bytes = bytes;
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let _ = section(&bytes, ".modinfo");
            let _ = is_static(&bytes);
        }
    }
}
