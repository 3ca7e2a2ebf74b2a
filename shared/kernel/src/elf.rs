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
    let (table, size, count) = program_headers(bytes)?;
    for index in 0..count {
        if u32_at(bytes, table.checked_add(index.checked_mul(size)?)?)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

/// Leaves the zeros at the end of each segment to the loader, which has to make them anyway: a kernel's
/// image holds megabytes of them, since it once was laid out flat. Nothing moves; what is not as
/// elf(5) says stays as it is.
pub(crate) fn trim_segments(bytes: &mut [u8]) {
    const LOAD: u32 = 1;
    // A kernel has five or so; each may have to be read whole.
    const MOST: usize = 64;
    let Some((table, size, count)) = program_headers(bytes) else { return };
    if count > MOST {
        return;
    }
    for index in 0..count {
        let Some(at) = index.checked_mul(size).and_then(|at| at.checked_add(table)) else { return };
        let filled = || {
            let field = |offset| usize::try_from(u64_at(bytes, at.checked_add(offset)?)?).ok();
            let (start, length, memory) = (field(8)?, field(32)?, field(40)?);
            let content = bytes.get(start..start.checked_add(length)?)?;
            let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (u32_at(bytes, at)? == LOAD && length <= memory).then_some(used as u64)
        };
        if let Some(used) = filled() {
            bytes[at + 32..at + 40].copy_from_slice(&used.to_le_bytes());
        }
    }
}

/// Returns where the program headers begin, the size of one, and their number.
fn program_headers(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    let table = usize::try_from(u64_at(bytes, 32)?).ok()?;
    Some((table, usize::from(u16_at(bytes, 54)?), usize::from(u16_at(bytes, 56)?)))
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

    /// A program of one segment: where in the file it begins, its length there, and in memory.
    fn program(start: u64, length: u64, memory: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
        bytes[64] = 1;
        for (at, field) in [(8, start), (32, length), (40, memory)] {
            bytes[64 + at..64 + at + 8].copy_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(content);
        bytes
    }

    #[test]
    fn zeros_at_the_end_of_a_segment_are_left_to_the_loader() {
        let trimmed = |length: u64, memory: u64, content: &[u8]| {
            let mut bytes = program(120, length, memory, content);
            trim_segments(&mut bytes);
            assert_eq!(bytes[120..], *content);
            assert_eq!(u64_at(&bytes, 64 + 40), Some(memory), "what it takes in memory stays");
            u64_at(&bytes, 64 + 32).unwrap()
        };
        assert_eq!(trimmed(6, 6, b"ab\0c\0\0"), 4);
        assert_eq!(trimmed(3, 9, b"\0\0\0"), 0);
        assert_eq!(trimmed(2, 2, b"ab"), 2);
        assert_eq!(trimmed(9, 9, b"a\0"), 9, "beyond the file");
        assert_eq!(trimmed(2, 1, b"a\0"), 2, "more than there is memory for");
        let mut many = program(120, 2, 2, b"a\0");
        many[56..58].copy_from_slice(&65_u16.to_le_bytes());
        let before = many.clone();
        trim_segments(&mut many);
        assert_eq!(many, before, "more segments than any kernel has");
    }

    proptest! {
        #[test]
        fn any_header_ends(bytes in proptest::collection::vec(any::<u8>(), 6..300)) {
            let mut bytes = bytes;
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            let _ = section(&bytes, ".modinfo");
            let _ = is_static(&bytes);
            trim_segments(&mut bytes);
        }
    }
}
