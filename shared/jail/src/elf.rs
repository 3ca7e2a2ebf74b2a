//! What kind of program a file is (elf(5)).

use std::{fs::File, os::unix::fs::FileExt, path::Path};

const MAGIC: &[u8; 4] = b"\x7fELF";

/// Says whether a file is a program or a kernel in this format; an error, it cannot be read.
pub fn is_elf(path: &Path) -> std::io::Result<bool> {
    let mut magic = [0; 4];
    File::open(path)?.read_exact_at(&mut magic, 0)?;
    Ok(magic == *MAGIC)
}

/// Says whether a program needs a loader and libraries: one of 64 bits with a `PT_INTERP`.
pub fn is_dynamic(program: &Path) -> bool {
    let look = || -> Option<bool> {
        let file = File::open(program).ok()?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).ok()?;
        let offset = u64::from_le_bytes(header[0x20..0x28].try_into().ok()?);
        let size = u16::from_le_bytes(header[0x36..0x38].try_into().ok()?);
        let count = u16::from_le_bytes(header[0x38..0x3a].try_into().ok()?);
        for number in 0..count {
            let mut kind = [0; 4];
            let at = offset.checked_add(u64::from(number) * u64::from(size))?;
            file.read_exact_at(&mut kind, at).ok()?;
            if u32::from_le_bytes(kind) == 3 {
                return Some(true);
            }
        }
        Some(false)
    };
    look().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_from_a_script() {
        let this = std::env::current_exe().unwrap();
        assert!(is_elf(&this).unwrap() && is_dynamic(&this));
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(!is_elf(&script).unwrap() && !is_dynamic(&script));
        assert!(is_elf(&dir.path().join("nothing")).is_err());
    }
}
