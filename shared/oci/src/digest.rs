//! SHA-256 digests, the only kind a blob is named by here.

use banger_doc::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::{fmt, fmt::Write, str::FromStr};

/// A SHA-256 digest: `sha256:` and 64 lower-case hexadecimal digits (OCI image-spec,
/// `descriptor.md`). Only this type becomes the name of a blob's file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// Returns the digest and how a person tells it from others: its first twelve digits.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::failed(format!(
                "'{}' is not a digest: 'sha256:' and 64 of 0-9 and a-f were expected",
                shown(text)
            ))
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0]).ok_or_else(wrong)? << 4 | digit(pair[1]).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

/// A digest being computed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Makes text from outside fit to be shown in an error: short, nothing a terminal acts on.
pub(crate) fn shown(text: &str) -> String {
    banger_doc::visible(text, 160)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_sha256_is_a_digest() {
        let digest = Digest::of(b"abc");
        let text = digest.to_string();
        assert_eq!(text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
        for bad in [
            "",
            "sha256:",
            "sha256:../../x",
            "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &text.to_uppercase(),
            &text.replace("ba", "BA"),
            &text[..70],
            &format!("{text}0"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hostile_text_is_shown_short_and_without_control_characters() {
        let text = shown(&"\u{1b}[2J\n".repeat(1000));
        assert!(text.len() < 200 && !text.contains('\u{1b}') && !text.contains('\n'));
    }
}
