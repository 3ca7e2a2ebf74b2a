//! Layers as they come, made into plain bytes: gzip, zstd, xz, or nothing to do. The first bytes tell,
//! not what the image says.

use crate::limits::{Limits, over};
use banger_doc::{Context, Error, Result};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use liblzma::stream as lzma;
use std::io::Read;
use std::sync::{Mutex, MutexGuard};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// How much is read at a time.
const READ: usize = 128 << 10;
/// Zstd frames that look back further than this are inflated one at a time, for all layers together.
const LARGE_WINDOW: u64 = 8 << 20;
/// The longest beginning of a zstd frame.
const MAX_FRAME_HEADER: usize = 18;
static LARGE: Mutex<()> = Mutex::new(());

/// The memory that unpacking xz may take; `xz -9` needs 65 MiB. One layer at a time.
const XZ_MEMORY: u64 = 128 << 20;

/// Something that is no tar, and not packed as layers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Other {
    /// What it is, as the end of a sentence that begins with its name.
    pub what: &'static str,
    /// The command that writes what is in it to stdout, without the name of the file.
    pub unpack: Option<&'static str>,
}

/// Names what begins with these bytes, where it cannot be read.
pub fn other_packing(head: &[u8]) -> Option<Other> {
    let others: [(&[u8], &str, Option<&str>); 12] = [
        (b"BZh", "is compressed by bzip2", Some("bzip2 -dc")),
        (b"\x04\x22\x4d\x18", "is compressed by lz4", Some("lz4 -dc")),
        (b"LZIP", "is compressed by lzip", Some("lzip -dc")),
        (b"\x1f\x9d", "is compressed by compress", Some("gzip -dc")),
        (b"\x5d\0\0", "is compressed by lzma", Some("xz --format=lzma -dc")),
        // It keeps no owners, so there is a tar in it, or nothing to boot.
        (b"PK\x03\x04", "is a zip archive", Some("unzip -p")),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", Some("7z x -so")),
        (b"070701", "is a cpio archive", None),
        (b"hsqs", "is a squashfs", None),
        (b"QFI\xfb", "is a qcow2 disk", None),
        (b"SQLite", "is a database", None),
        (b"\x7fELF", "is a program", None),
    ];
    others
        .iter()
        .find(|(magic, ..)| head.starts_with(magic))
        .map(|(_, what, unpack)| Other { what, unpack: *unpack })
}

/// Says whether bytes that begin so are unpacked here.
pub fn is_packed(head: &[u8]) -> bool {
    !matches!(Format::of(head), Format::None)
}

#[derive(Clone, Copy)]
enum Format {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one to skip.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// A layer's bytes on their way out of whatever packs them.
pub(crate) struct Inflate<R> {
    feed: Feed<R>,
    packing: Packing,
}

enum Packing {
    None,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
    Xz(Box<Xz>),
}

impl<R: Read> Inflate<R> {
    pub(crate) fn new(input: R, limits: &Limits) -> Result<Self> {
        let mut feed = Feed { input, buffer: vec![0; READ], start: 0, end: 0 };
        let packing = match Format::of(feed.at_hand(6)?) {
            Format::Gzip => Packing::Gzip(Box::new(Gzip::new())),
            Format::Zstd => Packing::Zstd(Box::new(Zstd::new(limits)?)),
            Format::Xz => Packing::Xz(Box::new(Xz::new()?)),
            Format::None => Packing::None,
        };
        Ok(Self { feed, packing })
    }

    /// Fills `out` as far as there are bytes; less than full means the end.
    pub(crate) fn fill(&mut self, out: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < out.len() {
            let rest = &mut out[done..];
            let count = match &mut self.packing {
                Packing::None => self.feed.copy(rest)?,
                Packing::Gzip(gzip) => gzip.fill(&mut self.feed, rest)?,
                Packing::Zstd(zstd) => zstd.fill(&mut self.feed, rest)?,
                Packing::Xz(xz) => xz.fill(&mut self.feed, rest)?,
            };
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }
}

/// Bytes as they came, with a look ahead.
struct Feed<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> Feed<R> {
    /// Returns the bytes at hand: at least so many, unless the end comes before.
    fn at_hand(&mut self, least: usize) -> Result<&[u8]> {
        while self.end - self.start < least {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.start + least > self.buffer.len() {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from_io(error)),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    fn copy(&mut self, out: &mut [u8]) -> Result<usize> {
        let bytes = self.at_hand(1)?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }

    fn exactly<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.at_hand(N)?;
        let bytes: [u8; N] =
            bytes.get(..N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(cut_off)?;
        self.consume(N);
        Ok(bytes)
    }
}

/// Passes on what a source said in our own words, or wraps what the system said.
fn from_io(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::failed("it cannot be read").because(error),
    }
}

fn cut_off() -> Error {
    Error::failed("it is cut off")
}

/// Gzip: one member or several, and nothing after them.
struct Gzip {
    inflate: Decompress,
    crc: Crc,
    within: bool,
    any: bool,
}

impl Gzip {
    fn new() -> Self {
        Self { inflate: Decompress::new(false), crc: Crc::new(), within: false, any: false }
    }

    fn fill<R: Read>(&mut self, feed: &mut Feed<R>, out: &mut [u8]) -> Result<usize> {
        loop {
            if !self.within {
                if feed.at_hand(1)?.is_empty() && self.any {
                    return Ok(0);
                }
                gzip_header(feed)?;
                self.inflate.reset(false);
                self.crc.reset();
                (self.within, self.any) = (true, true);
            }
            let bytes = feed.at_hand(1)?;
            let ended = bytes.is_empty();
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(bytes, out, FlushDecompress::None)
                .map_err(|error| Error::failed("it is not valid gzip").because(error))?;
            let taken = (self.inflate.total_in() - before_in) as usize;
            let made = (self.inflate.total_out() - before_out) as usize;
            feed.consume(taken);
            self.crc.update(&out[..made]);
            if status == Status::StreamEnd {
                self.within = false;
                let sum = u32::from_le_bytes(feed.exactly()?);
                let length = u32::from_le_bytes(feed.exactly()?);
                if sum != self.crc.sum() || length != self.inflate.total_out() as u32 {
                    return Err(Error::failed("its gzip checksum is wrong"));
                }
            } else if ended && made == 0 {
                return Err(cut_off());
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

fn gzip_header<R: Read>(feed: &mut Feed<R>) -> Result<()> {
    let fixed: [u8; 10] = feed.exactly()?;
    let flags = fixed[3];
    if fixed[..3] != [0x1f, 0x8b, 8] || flags & 0xe0 != 0 {
        return Err(Error::failed("what follows is not gzip"));
    }
    if flags & 4 != 0 {
        for _ in 0..u16::from_le_bytes(feed.exactly()?) {
            feed.exactly::<1>()?;
        }
    }
    // A name, then a comment: each ends with a NUL.
    for _ in 0..(flags >> 3 & 1) + (flags >> 4 & 1) {
        let mut count = 0;
        while feed.exactly()? != [0] {
            count += 1;
            if count > 64 << 10 {
                return Err(Error::failed("its gzip header has no end"));
            }
        }
    }
    if flags & 2 != 0 {
        feed.exactly::<2>()?;
    }
    Ok(())
}

/// Zstd: one frame or several, some of them to be skipped.
struct Zstd {
    inflate: Decoder<'static>,
    window_log: u32,
    within: bool,
    large: Option<MutexGuard<'static, ()>>,
}

impl Zstd {
    fn new(limits: &Limits) -> Result<Self> {
        let mut inflate = Decoder::new().context("cannot start zstd")?;
        inflate
            .set_parameter(DParameter::WindowLogMax(limits.window_log))
            .context("cannot limit the window of zstd")?;
        Ok(Self { inflate, window_log: limits.window_log, within: false, large: None })
    }

    fn fill<R: Read>(&mut self, feed: &mut Feed<R>, out: &mut [u8]) -> Result<usize> {
        loop {
            let bytes = feed.at_hand(if self.within { 1 } else { MAX_FRAME_HEADER })?;
            if bytes.is_empty() && !self.within {
                return Ok(0);
            }
            let ended = bytes.is_empty();
            if !self.within {
                if let Some(window) = window(bytes) {
                    if window > 1 << self.window_log {
                        return Err(over(format!(
                            "its zstd window of {window} bytes is over the limit of {}",
                            1u64 << self.window_log
                        )));
                    }
                    if window > LARGE_WINDOW && self.large.is_none() {
                        self.large =
                            Some(LARGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
                    }
                }
                self.within = true;
            }
            let mut source = InBuffer::around(bytes);
            let mut target = OutBuffer::around(&mut *out);
            let hint = self
                .inflate
                .run(&mut source, &mut target)
                .map_err(|error| Error::failed("it is not valid zstd").because(error))?;
            let (taken, made) = (source.pos(), target.pos());
            feed.consume(taken);
            if hint == 0 {
                self.within = false;
            } else if ended && made == 0 {
                return Err(cut_off());
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

/// Xz: one stream or several, with nothing between them but padding.
struct Xz {
    inflate: lzma::Stream,
    ended: bool,
    _large: MutexGuard<'static, ()>,
}

impl Xz {
    fn new() -> Result<Self> {
        let inflate = lzma::Stream::new_stream_decoder(XZ_MEMORY, lzma::CONCATENATED)
            .context("cannot start xz")?;
        let large = LARGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(Self { inflate, ended: false, _large: large })
    }

    fn fill<R: Read>(&mut self, feed: &mut Feed<R>, out: &mut [u8]) -> Result<usize> {
        while !self.ended {
            let bytes = feed.at_hand(1)?;
            let action = if bytes.is_empty() { lzma::Action::Finish } else { lzma::Action::Run };
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.process(bytes, out, action).map_err(|error| match error {
                lzma::Error::MemLimit => Error::failed(format!(
                    "unpacking it by xz takes more than {} MiB of memory",
                    XZ_MEMORY >> 20
                ))
                .hint("pack it again with 'xz -6'"),
                _ => Error::failed("it is not valid xz"),
            })?;
            feed.consume((self.inflate.total_in() - before_in) as usize);
            let made = (self.inflate.total_out() - before_out) as usize;
            match status {
                lzma::Status::StreamEnd => self.ended = true,
                lzma::Status::MemNeeded => return Err(cut_off()),
                _ if made == 0 && matches!(action, lzma::Action::Finish) => return Err(cut_off()),
                _ => {}
            }
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

/// Returns how far back a frame looks, when it says so at once.
fn window(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let byte = u64::from(*rest.first()?);
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * (byte & 7));
    }
    // The whole content is the window.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary..dictionary + length)?;
    let mut size = [0; 8];
    size[..length].copy_from_slice(field);
    Some(u64::from_le_bytes(size) + if length == 2 { 256 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs by the library, with a dictionary of so many bytes.
    fn packed(bytes: &[u8], dictionary: u32) -> Vec<u8> {
        let mut options = lzma::LzmaOptions::new_preset(0).unwrap();
        options.dict_size(dictionary);
        let mut filters = lzma::Filters::new();
        filters.lzma2(&options);
        let mut stream = lzma::Stream::new_stream_encoder(&filters, lzma::Check::Crc32).unwrap();
        let mut all = Vec::with_capacity(bytes.len() + (64 << 10));
        while stream
            .process_vec(&bytes[stream.total_in() as usize..], &mut all, lzma::Action::Finish)
            .unwrap()
            != lzma::Status::StreamEnd
        {}
        all
    }

    fn unpacked(packed: &[u8]) -> Result<Vec<u8>> {
        let mut inflate = Inflate::new(packed, &Limits::default())?;
        let (mut all, mut part) = (Vec::new(), vec![0; 10_000]);
        loop {
            let count = inflate.fill(&mut part)?;
            all.extend_from_slice(&part[..count]);
            if count < part.len() {
                return Ok(all);
            }
        }
    }

    #[test]
    fn xz_is_read_in_one_stream_or_several() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let one = packed(&bytes, 1 << 20);
        assert_eq!(unpacked(&one).unwrap(), bytes);
        // Padding between streams and at the end has whole words.
        let two = [&one[..], &[0; 8], &one, &[0; 4]].concat();
        assert_eq!(unpacked(&two).unwrap(), [&bytes[..], &bytes].concat());
        assert_eq!(unpacked(&packed(b"", 1 << 20)).unwrap(), b"");
    }

    #[test]
    fn xz_takes_no_more_memory_than_it_may() {
        // What 'xz -9' asks for, and what nobody needs.
        assert_eq!(unpacked(&packed(b"small", 64 << 20)).unwrap(), b"small");
        let mut greedy = packed(b"small", 64 << 20);
        claim(&mut greedy, 40);
        let error = unpacked(&greedy).unwrap_err();
        assert_eq!(error.to_string(), "unpacking it by xz takes more than 128 MiB of memory");
        assert_eq!(error.hint_text(), Some("pack it again with 'xz -6'"));
    }

    /// Makes the header of the first block ask for a dictionary of 4 GiB (xz's file format, 5.3.1),
    /// and mends its checksum.
    fn claim(stream: &mut [u8], dictionary: u8) {
        const BLOCK: usize = 12;
        let end = BLOCK + (usize::from(stream[BLOCK]) + 1) * 4 - 4;
        let at = stream[BLOCK..end].windows(2).position(|two| two == [0x21, 1]).unwrap();
        stream[BLOCK + at + 2] = dictionary;
        let mut sum = Crc::new();
        sum.update(&stream[BLOCK..end]);
        stream[end..end + 4].copy_from_slice(&sum.sum().to_le_bytes());
    }

    #[test]
    fn xz_that_is_cut_off_or_damaged_is_refused() {
        let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = packed(&bytes, 1 << 20);
        for length in [6, 12, 13, whole.len() / 2, whole.len() - 13, whole.len() - 1] {
            assert_eq!(unpacked(&whole[..length]).unwrap_err().to_string(), "it is cut off");
        }
        for at in [7, 8, 13, whole.len() / 2, whole.len() - 1] {
            let mut odd = whole.clone();
            odd[at] ^= 0xff;
            assert_eq!(unpacked(&odd).unwrap_err().to_string(), "it is not valid xz", "{at}");
        }
        for odd in [&[0; 3][..], b"more"] {
            let error = unpacked(&[&whole[..], odd].concat()).unwrap_err().to_string();
            assert!(["it is cut off", "it is not valid xz"].contains(&error.as_str()), "{error}");
        }
    }
}
