//! Bytes of others on their way to a terminal.

use banger_doc::{visible_text, without_colours};
use std::io::{self, IsTerminal, Write};

/// The longest unfinished sequence that is waited for: a colour has a few numbers.
const HELD: usize = 32;

/// Makes visible what would act on the terminal on stdout, piece by piece as it comes. Where stdout is
/// no terminal, bytes stay as they are.
#[derive(Debug)]
pub struct Screen {
    is_terminal: bool,
    keeps_colours: bool,
    /// What cannot be told yet: the begin of a letter, of a colour, of a line end.
    held: Vec<u8>,
}

impl Screen {
    /// Shows everything that is not plain text, as of a patch.
    pub fn of_text() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), keeps_colours: true, held: Vec::new() }
    }

    /// Shows a console: colours are left out.
    pub fn of_console() -> Self {
        Self { keeps_colours: false, ..Self::of_text() }
    }

    /// Leaves bytes as they are.
    pub fn raw() -> Self {
        Self { is_terminal: false, ..Self::of_text() }
    }

    /// Shows what comes also where stdout is no terminal: it goes to a person by another way.
    #[must_use]
    pub fn always(self) -> Self {
        Self { is_terminal: true, ..self }
    }

    /// Returns what can be shown by now.
    pub fn shown(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.is_terminal {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        let whole = self.held.len() - unfinished(&self.held);
        let rest = self.held.split_off(whole);
        let whole = std::mem::replace(&mut self.held, rest);
        self.plain(&whole)
    }

    /// Returns what was waited for in vain.
    pub fn rest(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.plain(&held)
    }

    fn plain(&self, bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        // What is kept here of a colour is made visible.
        let text = if self.keeps_colours { text.into_owned() } else { without_colours(&text) };
        visible_text(&text).into_bytes()
    }

    /// Copies all of `from`, as it is shown, to `to`.
    pub fn copy(&mut self, from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return to.write_all(&self.rest()),
                Ok(count) => to.write_all(&self.shown(&buffer[..count]))?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns how many bytes at the end may become something else with what follows.
fn unfinished(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let near = &bytes[bytes.len().saturating_sub(HELD)..];
    if let Some(at) = near.iter().rposition(|byte| *byte == 0x1b) {
        let begun = &near[at..];
        let numbers = |rest: &[u8]| rest.iter().all(|b| b.is_ascii_digit() || *b == b';');
        if begun.len() == 1 || (begun[1] == b'[' && numbers(&begun[2..])) {
            return begun.len();
        }
    }
    // A letter has at most four bytes.
    (1..=3.min(bytes.len()))
        .find(|count| {
            let tail = &bytes[bytes.len() - count..];
            std::str::from_utf8(tail)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(mut screen: Screen, bytes: &[u8], size: usize) -> String {
        let mut all: Vec<u8> = bytes.chunks(size).flat_map(|piece| screen.shown(piece)).collect();
        all.extend(screen.rest());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn pieces_of_any_size_show_the_same() {
        let bytes =
            "\u{1b}[0;32mOK\u{1b}[0m é世\r\nx\ry\u{1b}]52;c;eA==\u{7}\u{202e}\tz\u{1b}[2J\u{1b}[3"
                .as_bytes();
        for size in 1..=bytes.len() {
            assert_eq!(
                in_pieces(Screen::of_console().always(), bytes, size),
                "OK é世\nx\\ry\\u{1b}]52;c;eA==\\u{7}\\u{202e}\tz\\u{1b}[2J\\u{1b}[3",
                "{size}"
            );
            assert_eq!(
                in_pieces(Screen::of_text().always(), b"+\x1b[31mred\r\n", size),
                "+\\u{1b}[31mred\n"
            );
        }
    }

    #[test]
    fn what_is_never_finished_is_not_held_for_ever() {
        let mut screen = Screen::of_console().always();
        let mut shown = 0;
        for _ in 0..1000 {
            shown += screen.shown(b"\x1b[1;1").len();
            assert!(screen.held.len() <= HELD);
        }
        assert!(shown > 5000);
        // Bytes that are no text do nothing either.
        let odd: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for size in [1, 2, 3, 7, 5000] {
            let text = in_pieces(Screen::of_text().always(), &odd, size);
            assert!(text.chars().all(|c| matches!(c, '\n' | '\t') || banger_doc::shows(c)));
        }
    }

    #[test]
    fn bytes_stay_as_they_are_without_a_terminal() {
        assert_eq!(Screen::raw().shown(b"\x1b[2J\xff"), b"\x1b[2J\xff");
    }
}
