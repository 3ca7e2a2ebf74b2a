//! Where archives are read from.

use banger_doc::{Error, Result};
use std::io::{ErrorKind, Read};

/// How much is read at a time.
const READ: usize = 128 << 10;

/// Where bytes come from, as many at a time as there happen to be.
pub trait Input {
    /// Returns the bytes that are at hand, none at the end.
    fn fill(&mut self) -> Result<&[u8]>;
    /// Passes over that many of them.
    fn consume(&mut self, count: usize);
    /// Passes over that many bytes, at hand or not; says whether there were so many.
    fn skip(&mut self, mut count: u64) -> Result<bool> {
        while count > 0 {
            let bytes = self.fill()?.len() as u64;
            if bytes == 0 {
                return Ok(false);
            }
            let step = bytes.min(count);
            self.consume(step as usize);
            count -= step;
        }
        Ok(true)
    }
}

impl Input for &[u8] {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }
}

/// Any stream as an input.
#[derive(Debug)]
pub struct Buffered<R> {
    from: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Buffered<R> {
    /// Reads from where the stream stands, in large pieces.
    pub fn new(from: R) -> Self {
        Self { from, buffer: vec![0; READ], start: 0, end: 0 }
    }

    /// Returns the stream.
    pub fn get_ref(&self) -> &R {
        &self.from
    }
}

impl<R: Read> Input for Buffered<R> {
    fn fill(&mut self) -> Result<&[u8]> {
        while self.start == self.end {
            match self.from.read(&mut self.buffer) {
                Ok(0) => return Ok(&[]),
                Ok(count) => (self.start, self.end) = (0, count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::failed("it cannot be read").because(error)),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}
