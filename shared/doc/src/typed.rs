//! Words that somebody is to type again.

use crate::shows;
use std::{ffi::OsStr, fmt::Write, os::unix::ffi::OsStrExt};

/// The most letters of a word; a longer one loses its middle.
const LETTERS: usize = 240;

/// Returns a path or a name as it is typed in a shell, for one that is part of a command in a hint or
/// a note. Whoever wrote the name, the shell takes it for one word and does nothing else with it, and
/// a terminal only shows it.
///
/// What shows stays as it is, a backslash before what means something to a shell: it is as safe
/// within the quotes that our sentences put around a command. With what does not show, or is not
/// UTF-8, the word is `$'...'`, bytes by their octal numbers.
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let Some(text) = word.to_str() else {
        return octal(&word.as_bytes()[..word.len().min(LETTERS)]);
    };
    if text.is_empty() {
        return "''".to_owned();
    }
    let cut = (text.chars().count() > LETTERS).then(|| {
        let head: String = text.chars().take(LETTERS / 2).collect();
        let tail: Vec<char> = text.chars().rev().take(LETTERS / 2).collect();
        head + "…" + &tail.into_iter().rev().collect::<String>()
    });
    let text = cut.as_deref().unwrap_or(text);
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
    fn a_long_word_is_cut_before_it_is_quoted() {
        let long = format!("{};touch own", "x;".repeat(5000));
        let typed = shell_word(&long);
        assert!(typed.chars().count() <= 2 * LETTERS + 2, "{typed}");
        assert_eq!(typed.matches(';').count(), typed.matches("\\;").count());
        assert!(shell_word("\n".repeat(9000)).len() <= 12 * LETTERS + 16);
    }
}
