//! What an archive may ask for.

use banger_doc::{Error, visible};

/// The bounds of what is kept in memory of one entry.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one extended header, of one long name.
    pub header_bytes: u64,
    /// Extended attributes of one entry.
    pub xattrs: usize,
    /// Whether what has no content may tell a size. Some builders of layers have links tell that of
    /// the file, and whoever unpacks layers passes over it; others take what follows for content.
    pub idle_sizes: bool,
    /// What to type to raise them, where that can be.
    pub raise: Option<&'static str>,
}

impl Limits {
    /// Says that an archive asked for more.
    pub(crate) fn over(&self, sentence: String) -> Error {
        let error = Error::failed(sentence);
        match self.raise {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 1 << 20, xattrs: 256, idle_sizes: false, raise: None }
    }
}

/// The most letters of a name in an error: its beginning and its end.
const SHOWN: usize = 120;

/// Makes a name of an archive fit to be shown in an error.
pub fn shown(name: &[u8]) -> String {
    // A letter is made of four bytes at most.
    let (start, end) = match name.len().checked_sub(8 * SHOWN) {
        None => (name, &[][..]),
        Some(_) => (&name[..4 * SHOWN], &name[name.len() - 4 * SHOWN..]),
    };
    let mut text = String::new();
    for chunk in start.utf8_chunks().chain(end.utf8_chunks()) {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    visible(&text, SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_an_error_is_short_and_acts_on_nothing() {
        assert_eq!(shown("etc/motd ü".as_bytes()), "etc/motd ü");
        assert_eq!(shown(b"a\xffb\x1b[2J\n"), "a\\xffb\\u{1b}[2J\\n");
        let long = shown(&b"\xff".repeat(1_000_000));
        assert_eq!(long.chars().count(), SHOWN);
        let long = shown(format!("begin/{}/end", "d/".repeat(50_000)).as_bytes());
        assert!(long.starts_with("begin/d/") && long.ends_with("d//end"), "{long}");
    }
}
