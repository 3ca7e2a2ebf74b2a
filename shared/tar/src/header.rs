//! The 512 bytes before every entry of a tar.

use crate::Pieces;
use banger_doc::{Error, Result};

/// Bytes in a header, and in the blocks everything is padded to.
pub(crate) const BLOCK: usize = 512;

/// The size of a sparse file, where its content lies in it, and whether more of that follows.
pub(crate) type Map = (u64, Pieces, bool);

/// One header, whose checksum was right.
pub(crate) struct Header<'a> {
    bytes: &'a [u8; BLOCK],
    dialect: Dialect,
}

/// Whose extensions the header uses.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Dialect {
    /// Nothing beyond the first fields.
    Old,
    /// POSIX: a long name's beginning has a field.
    Posix,
    /// GNU: that field means other things.
    Gnu,
    /// The same with a shorter field.
    Star,
}

impl<'a> Header<'a> {
    /// Checks the checksum, and that it is of a kind that is known.
    pub(crate) fn new(bytes: &'a [u8; BLOCK]) -> Result<Self> {
        let said = octal(&bytes[148..156]);
        // Some old programs summed signed bytes.
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte as i8);
        }
        match said {
            Some(said) if said as i64 == unsigned || said as i64 == signed => {}
            _ => return Err(Error::failed("a header has a wrong checksum")),
        }
        let dialect = match &bytes[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &bytes[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Posix
                }
            }
            magic if magic.starts_with(&[0; 6]) => Dialect::Old,
            // Some read this as POSIX has it and some as it was before.
            _ => return Err(Error::failed("a header is of a kind that is not known")),
        };
        // What stands there is a prefix to some, and a map of holes to others.
        if matches!(dialect, Dialect::Old | Dialect::Gnu)
            && bytes[156] != b'S'
            && bytes[345..500].iter().any(|byte| *byte != 0)
        {
            return Err(Error::failed("a header has what is a prefix to some and none to others"));
        }
        Ok(Self { bytes, dialect })
    }

    pub(crate) fn kind(&self) -> u8 {
        self.bytes[156]
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns the name without its prefix.
    pub(crate) fn short_name(&self) -> &'a [u8] {
        text(&self.bytes[..100])
    }

    /// Writes the name, with the prefix where there is one.
    pub(crate) fn name(&self, into: &mut Vec<u8>) -> Result<()> {
        into.clear();
        let prefix = match self.dialect {
            Dialect::Posix => text(&self.bytes[345..500]),
            // Not all know that it is shorter here.
            Dialect::Star => Some(text(&self.bytes[345..476]))
                .filter(|prefix| prefix.len() < 131)
                .ok_or_else(|| Error::failed("a header has a prefix without an end"))?,
            Dialect::Old | Dialect::Gnu => &[],
        };
        if !prefix.is_empty() {
            into.extend_from_slice(prefix);
            into.push(b'/');
        }
        into.extend_from_slice(self.short_name());
        Ok(())
    }

    pub(crate) fn link(&self) -> &'a [u8] {
        text(&self.bytes[157..257])
    }

    pub(crate) fn mode(&self) -> Result<u64> {
        positive("mode", &self.bytes[100..108])
    }

    pub(crate) fn uid(&self) -> Result<i64> {
        number("uid", &self.bytes[108..116])
    }

    pub(crate) fn gid(&self) -> Result<i64> {
        number("gid", &self.bytes[116..124])
    }

    pub(crate) fn size(&self) -> Result<u64> {
        positive("size", &self.bytes[124..136])
    }

    pub(crate) fn time(&self) -> Result<i64> {
        number("time", &self.bytes[136..148])
    }

    /// Returns the numbers of a device.
    pub(crate) fn device(&self) -> Result<(u64, u64)> {
        Ok((positive("device", &self.bytes[329..337])?, positive("device", &self.bytes[337..345])?))
    }

    /// Returns the map of a sparse file of the old GNU kind.
    pub(crate) fn sparse(&self) -> Result<Map> {
        let pieces = pieces(&self.bytes[386..482])?;
        Ok((positive("size", &self.bytes[483..495])?, pieces, self.bytes[482] != 0))
    }
}

/// Puts the checksum into a header.
pub(crate) fn sum(bytes: &mut [u8; BLOCK]) {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Reads a block with more pieces of a sparse file, and whether yet more follow.
pub(crate) fn more_sparse(block: &[u8; BLOCK]) -> Result<(Pieces, bool)> {
    Ok((pieces(&block[..504])?, block[504] != 0))
}

fn pieces(bytes: &[u8]) -> Result<Pieces> {
    bytes
        .chunks_exact(24)
        .scan(false, |ended, piece| {
            // Some look for the end in the offset, some in the length.
            *ended |= piece[0] == 0 && piece[12] == 0;
            (!*ended || piece.iter().any(|byte| *byte != 0)).then_some((*ended, piece))
        })
        .map(|(ended, piece)| {
            if ended || piece[0] == 0 || piece[12] == 0 {
                return Err(Error::failed("a sparse file's map has a gap"));
            }
            Ok((positive("offset", &piece[..12])?, positive("length", &piece[12..])?))
        })
        .collect()
}

/// Returns a field up to its first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Reads octal digits with spaces before, spaces or NULs after them. Nothing but NULs is zero;
/// nothing but spaces is an error to some.
fn octal(field: &[u8]) -> Option<u64> {
    let trim = |byte: &u8| *byte == b' ' || *byte == 0;
    if field.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let rest = &field[field.iter().position(|byte| *byte != b' ')?..];
    if rest[0] == 0 {
        return None;
    }
    let digits = &rest[..rest.iter().position(trim).unwrap_or(rest.len())];
    if !rest[digits.len()..].iter().all(trim) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Reads a number: octal, or binary when the highest bit is set.
fn number(what: &str, field: &[u8]) -> Result<i64> {
    let read = if field[0] & 0x80 == 0 {
        octal(field).and_then(|value| i64::try_from(value).ok())
    } else if !matches!(field[0], 0x80 | 0xff) {
        // Numbers that begin otherwise fit in no field that is read, and not all read them.
        None
    } else {
        // The next bit is the sign; all bytes above the last eight must agree with it.
        let fill = if field[0] & 0x40 == 0 { 0u8 } else { 0xff };
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let plain = |at: usize, byte: u8| if at == 0 { byte & 0x7f | fill & 0x80 } else { byte };
        let agreed = high.iter().enumerate().all(|(at, byte)| plain(at, *byte) == fill);
        let mut bytes = [fill; 8];
        bytes[8 - low.len()..].copy_from_slice(low);
        if high.is_empty() {
            bytes[8 - low.len()] = plain(0, low[0]);
        }
        let value = i64::from_be_bytes(bytes);
        (agreed && (value < 0) == (fill != 0)).then_some(value)
    };
    read.ok_or_else(|| Error::failed(format!("a header has a {what} that is no number")))
}

fn positive(what: &str, field: &[u8]) -> Result<u64> {
    u64::try_from(number(what, field)?)
        .map_err(|_| Error::failed(format!("a header has a negative {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_numbers_may_have_spaces_around() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", None),
            (b"  \0     ", None),
            (b"\x00000644", None),
            (b"\0\0\0\0\0\0\0 ", None),
            (b"64 4    ", None),
            (b"648     ", None),
            (b"-1      ", None),
            (b"0x1     ", None),
            (b"64\x004    ", None),
        ] {
            assert_eq!(octal(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn binary_numbers_have_a_sign() {
        let n = |field: &[u8]| number("x", field).ok();
        assert_eq!(n(b"\x80\0\0\0\0\0\0\x01"), Some(1));
        assert_eq!(n(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Some(-1));
        assert_eq!(n(b"\x80\0\0\0\0\0\0\0\0\x01\0\0"), Some(0x10000));
        assert_eq!(n(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
        assert_eq!(n(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(i64::MAX));
        assert_eq!(n(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), None);
        assert_eq!(n(b"\x81\0\0\0\0\0\0\x01"), None);
        assert_eq!(n(b"\xc0\0\0\0\0\0\0\x01"), None);
        assert_eq!(n(b"\x80\0\0\x01\0\0\0\0\0\0\0\0"), None);
        assert_eq!(n(b"\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0"), None);
        assert!(positive("x", b"\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
