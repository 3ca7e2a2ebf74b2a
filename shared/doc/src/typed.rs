//! Words that somebody is to type again.

use crate::shows;
use std::{ffi::OsStr, fmt::Write, os::unix::ffi::OsStrExt};

/// The most bytes of a word: as long as a path can be (`PATH_MAX`), so nothing that can be typed is cut.
const BYTES: usize = 4096;
/// Stands for the end of a longer word. Whatever is typed with it ends as an error of the shell's: `(` begins
/// what nothing closes.
const CUT: &str = "...(too long to type";

/// Returns a path or a name as it is typed in a shell, for one that is part of a command in a hint or
/// a note. Whoever wrote the name, the shell takes it for one word and does nothing else with it, and
/// a terminal only shows it.
///
/// What shows stays as it is, a backslash before what means something to a shell: it is as safe
/// within the quotes that our sentences put around a command. With what does not show, or is not
/// UTF-8, the word is `$'...'`, bytes by their octal numbers.
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    if word.is_empty() {
        return "''".to_owned();
    }
    let bytes = word.as_bytes();
    if bytes.len() > BYTES {
        let whole = word.to_str().map_or(BYTES, |text| text.floor_char_boundary(BYTES));
        return shell_word(OsStr::from_bytes(&bytes[..whole])) + CUT;
    }
    let Some(text) = word.to_str() else {
        return octal(bytes);
    };
    if !text.chars().all(shows) {
        return octal(text.as_bytes());
    }
    let mut typed = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        // A shell may take what begins with '=' for a program.
        if !(is_plain(letter) || letter == '=' && at > 0) {
            typed.push('\\');
        }
        typed.push(letter);
    }
    typed
}

/// Returns several words of a command.
pub fn shell_words(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
    words.into_iter().map(shell_word).collect::<Vec<_>>().join(" ")
}

/// Says whether a letter means nothing but itself to any shell.
fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "/._-+,@%:".contains(letter) || !letter.is_ascii()
}

fn octal(bytes: &[u8]) -> String {
    let mut typed = "$'".to_owned();
    for byte in bytes {
        match char::from(*byte) {
            letter if letter.is_ascii() && is_plain(letter) => typed.push(letter),
            _ => {
                let _ = write!(typed, "\\{byte:03o}");
            }
        }
    }
    typed + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_typed_as_it_is_where_it_can_be() {
        for (word, typed) in [
            ("/srv/data.d/a-b_c", "/srv/data.d/a-b_c"),
            ("web:notes.txt", "web:notes.txt"),
            ("Zürich/東京", "Zürich/東京"),
            ("a=b", "a=b"),
            ("=ls", "\\=ls"),
            ("~root", "\\~root"),
            ("my file", "my\\ file"),
            ("it's", "it\\'s"),
            ("", "''"),
            ("a\nb;c", "$'a\\012b\\073c'"),
            ("x\u{202e}y", "$'x\\342\\200\\256y'"),
        ] {
            assert_eq!(shell_word(word), typed);
        }
        assert_eq!(shell_word(OsStr::from_bytes(b"a\xff ")), "$'a\\377\\040'");
        assert_eq!(shell_words(["ls", "a b"]), "ls a\\ b");
    }

    #[test]
    fn no_path_is_cut_and_what_is_longer_ends_with_the_mark() {
        let deep = "/srv/a b".repeat(511);
        assert_eq!(shell_word(&deep), "/srv/a\\ b".repeat(511));
        let odd = [b"/\xff\n".repeat(1364), b"abc".to_vec()].concat();
        let typed = shell_word(OsStr::from_bytes(&odd));
        assert_eq!(typed, format!("$'{}abc'", "/\\377\\012".repeat(1364)));
        for long in [b"x;touch own;".repeat(5000), "\u{e4}".repeat(9000).into(), odd.repeat(2)] {
            let typed = shell_word(OsStr::from_bytes(&long));
            assert!(typed.len() <= 4 * BYTES + 3 + CUT.len() && typed.ends_with(CUT), "{typed}");
        }
    }
}
