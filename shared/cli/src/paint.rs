//! A little colour for people, where they can see it and did not ask to be spared
//! (<https://no-color.org>).

use banger_doc::visible_text;
use std::{
    hash::{BuildHasher, RandomState},
    io::IsTerminal,
    sync::LazyLock,
};

/// Begins a colour in words on their way to the terminal. Nobody else knows it, so nobody else can
/// colour anything.
static MARK: LazyLock<String> =
    LazyLock::new(|| format!("\u{fdd0}{:016x}\u{fdd1}", RandomState::new().hash_one(0)));

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// All is well.
    Green,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
    /// Less important than what is beside it.
    Faint,
}

/// Colours words for a terminal on stdout; returns them as they are for anything else.
pub fn paint(colour: Colour, words: &str) -> String {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    if set("NO_COLOR") || dumb || !std::io::stdout().is_terminal() {
        return words.to_owned();
    }
    let code = match colour {
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Red => "31",
        Colour::Faint => "2",
    };
    painted(code, words)
}

fn painted(code: &str, words: &str) -> String {
    let mark = &*MARK;
    format!("{mark}{code}m{words}{mark}0m")
}

/// Returns words as a terminal may get them: with the colours of [`paint`], and all else that would act
/// on it visible.
pub(crate) fn for_terminal(words: &str) -> String {
    let mut parts = words.split(MARK.as_str());
    let mut shown = visible_text(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_once('m') {
            Some((code, rest)) if code.bytes().all(|byte| byte.is_ascii_digit()) => {
                shown.push_str("\x1b[");
                shown.push_str(code);
                shown.push('m');
                shown.push_str(&visible_text(rest));
            }
            _ => shown.push_str(&visible_text(part)),
        }
    }
    shown
}

/// Returns a cell of a table, one line that a terminal only shows, colours aside.
pub(crate) fn cell(words: &str) -> String {
    if !words.contains(MARK.as_str()) {
        return banger_doc::visible(words, CELL);
    }
    words.to_owned()
}

/// The most columns of a cell.
const CELL: usize = 4000;

/// Returns how many columns words take; what colours them takes none.
pub(crate) fn width(words: &str) -> usize {
    let mut parts = words.split(MARK.as_str());
    let first = parts.next().unwrap_or_default().chars().count();
    first
        + parts
            .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest).chars().count())
            .sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_takes_no_room() {
        assert_eq!(width(&painted("32", "running")), 7);
        assert_eq!(width("running"), 7);
        assert_eq!(width(""), 0);
    }

    #[test]
    fn only_our_own_colours_reach_a_terminal() {
        let words = format!("{} \u{1b}[31mred\u{fdd0}\n", painted("32", "ok\u{1b}[2J"));
        assert_eq!(
            for_terminal(&words),
            "\u{1b}[32mok\\u{1b}[2J\u{1b}[0m \\u{1b}[31mred\\u{fdd0}\n"
        );
        assert_eq!(cell("a\nb\u{202e}"), "a\\nb\\u{202e}");
    }
}
