//! A file that may change while it is sent.

use std::io::{Error, Read, Result};

/// A file that has to be as long as it was said to be; what it grows by is left.
#[derive(Debug)]
pub struct Whole<R> {
    from: R,
    left: u64,
}

impl<R: Read> Whole<R> {
    /// Begins to read what was said to hold `size` bytes.
    pub fn new(from: R, size: u64) -> Self {
        Self { from, left: size }
    }
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(Error::other("it shrank while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_cut_and_what_shrinks_is_an_error() {
        let read = |bytes: &[u8], size| {
            let mut all = Vec::new();
            Whole::new(bytes, size).read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(b"abc", 3).unwrap(), b"abc");
        assert_eq!(read(b"abcdef", 3).unwrap(), b"abc");
        assert_eq!(read(b"", 0).unwrap(), b"");
        assert!(read(b"ab", 3).unwrap_err().to_string().contains("it shrank"));
    }
}
