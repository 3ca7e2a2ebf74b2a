//! Files with holes.

use std::{
    fs::File,
    io::{ErrorKind, Read, Result, Seek, SeekFrom, Write},
};

/// Blocks of zeros of this size become holes.
const BLOCK: usize = 4096;

/// Copies into an empty file, leaving holes where there are only zeros; returns how much it was.
pub fn copy(from: &mut impl Read, to: &mut File) -> Result<u64> {
    let mut buffer = vec![0; BLOCK * 16];
    let mut size = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for block in buffer[..filled].chunks(BLOCK) {
            if block.iter().all(|byte| *byte == 0) {
                to.seek(SeekFrom::Current(block.len() as i64))?;
            } else {
                to.write_all(block)?;
            }
        }
        size += filled as u64;
        if filled < buffer.len() {
            to.set_len(size)?;
            return Ok(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut bytes = vec![0; 1 << 20];
        bytes[500_000] = 7;
        copy(&mut bytes.as_slice(), &mut File::create(&path).unwrap()).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        assert!(std::fs::metadata(&path).unwrap().blocks() < 64);
    }
}
