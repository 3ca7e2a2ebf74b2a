//! The fence around banger's lines in a file that belongs to the user.

use banger_doc::{Error, Result};
use std::{os::unix::ffi::OsStrExt, path::Path};

const BEGIN: &[u8] = b"# >>> banger >>>";
const END: &[u8] = b"# <<< banger <<<";

/// Returns the fenced lines that include a file.
pub(crate) fn include(config: &Path) -> Result<Vec<u8>> {
    let path = config.as_os_str().as_bytes();
    if path.iter().any(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'*' | b'?' | b'[')) {
        return Err(Error::unavailable(format!(
            "ssh cannot include '{}': its path has a character with a meaning there",
            config.display()
        ))
        .hint("set BANGER_STATE to a directory with a plainer name"));
    }
    Ok([BEGIN, b"\nInclude \"", path, b"\"\n", END, b"\n"].concat())
}

/// Returns the text with exactly one fence, at the beginning: an `Include` further down may belong to a
/// `Host` only, and what stands before it counts more (ssh_config(5)).
pub(crate) fn with(text: &[u8], fenced: &[u8]) -> Result<Vec<u8>> {
    Ok([fenced, &without(text)?].concat())
}

/// Returns the text without any fence; all other bytes stay.
pub(crate) fn without(text: &[u8]) -> Result<Vec<u8>> {
    let mut new = Vec::with_capacity(text.len());
    let mut from = 0;
    for (begin, end) in fences(text)? {
        new.extend_from_slice(&text[from..begin]);
        from = end;
    }
    new.extend_from_slice(&text[from..]);
    Ok(new)
}

/// Finds the fences: from the first byte of each to the first behind it.
fn fences(text: &[u8]) -> Result<Vec<(usize, usize)>> {
    let broken = || {
        Error::failed("a line of banger's fence is missing in it").hint(format!(
            "remove what is left of the lines '{}' and '{}' by hand",
            String::from_utf8_lossy(BEGIN),
            String::from_utf8_lossy(END)
        ))
    };
    let mut found = Vec::new();
    let mut open = None;
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let words = line.strip_suffix(b"\n").unwrap_or(line);
        let words = words.strip_suffix(b"\r").unwrap_or(words);
        match open {
            None if words == BEGIN => open = Some(at),
            Some(begin) if words == END => {
                found.push((begin, at + line.len()));
                open = None;
            }
            None if words == END => return Err(broken()),
            Some(_) if words == BEGIN => return Err(broken()),
            _ => {}
        }
        at += line.len();
    }
    if open.is_some() { Err(broken()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: &[&[u8]] = &[
        b"",
        b"\n",
        b"Host *\n  User me",
        b"\xff\xfe Host x\r\n\r\n\tUser y\r\n",
        b"# >>> banger\nHost a\n# <<< banger",
        b"no end of line # >>> banger >>>",
        b"\0\0\n\n\n",
    ];

    #[test]
    fn bytes_outside_the_fence_never_change() {
        let fenced = include(Path::new("/home/me/my state/ssh/config")).unwrap();
        for text in ODD {
            let once = with(text, &fenced).unwrap();
            assert_eq!(once, [&fenced[..], text].concat());
            assert_eq!(with(&once, &fenced).unwrap(), once);
            assert_eq!(without(&once).unwrap(), *text);
            assert_eq!(without(text).unwrap(), *text);
        }
    }

    #[test]
    fn one_fence_is_left_and_comes_first() {
        let old = include(Path::new("/old")).unwrap();
        let new = include(Path::new("/new")).unwrap();
        let text = [b"Host a\n", &old[..], b"Host b\n", &old[..], b"Host c"].concat();
        let after = with(&text, &new).unwrap();
        assert_eq!(after, [&new[..], b"Host a\nHost b\nHost c"].concat());
        assert_eq!(without(&after).unwrap(), b"Host a\nHost b\nHost c");
    }

    #[test]
    fn half_a_fence_is_left_to_the_user() {
        for text in [
            &b"# >>> banger >>>\nHost a\n"[..],
            b"Host a\n# <<< banger <<<\n",
            b"# >>> banger >>>\n# >>> banger >>>\n# <<< banger <<<\n",
        ] {
            assert!(without(text).is_err());
            assert!(with(text, b"x").is_err());
        }
    }
}
