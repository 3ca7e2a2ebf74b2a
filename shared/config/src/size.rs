//! Sizes as people type them.

use banger_doc::{Error, Result};
use serde::{Deserialize, de};
use std::{fmt, str::FromStr};

/// A size in bytes: `512M`, `8G`, `1T`, or plain bytes. Units are powers of 1024; `MiB` and `MB`
/// mean the same as `M`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(u64);

impl Size {
    /// Makes a size of bytes.
    pub const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns the size in MiB, rounded up.
    pub const fn mib(self) -> u64 {
        self.0.div_ceil(1 << 20)
    }
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!(
                "'{}' is not a size: use a whole number with K, M, G or T, such as 8G",
                text.escape_debug().take(60).collect::<String>()
            ))
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(bad()),
        };
        if number == 0 {
            return Err(Error::usage(format!("'{text}' is not a size: it is zero")));
        }
        number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= 1 << 50)
            .map(Self)
            .ok_or_else(|| Error::usage(format!("'{text}' is not a size: it is larger than 1024T")))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: de::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => bytes.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("1", 1), ("512M", 512 << 20), ("8G", 8 << 30), ("8GiB", 8 << 30), ("2kb", 2048)]
        {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
        assert_eq!(Size::of(8 << 30).to_string(), "8G");
        assert_eq!(Size::of(1).mib(), 1);
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "0", "0G", "-1", "1.5G", "G", "8X", "8 G", "99999999999T", "1e9", "١G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
