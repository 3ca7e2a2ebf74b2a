//! A little colour for people, where they can see it and did not ask to be spared
//! (<https://no-color.org>).

use std::io::IsTerminal;

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
    format!("\x1b[{code}m{words}\x1b[0m")
}

/// Returns how many columns words take; what colours them takes none.
pub(crate) fn width(words: &str) -> usize {
    let mut width = 0;
    let mut inside = false;
    for c in words.chars() {
        match c {
            '\x1b' => inside = true,
            'm' if inside => inside = false,
            _ if inside => {}
            _ => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_takes_no_room() {
        assert_eq!(width("\x1b[32mrunning\x1b[0m"), 7);
        assert_eq!(width("running"), 7);
        assert_eq!(width(""), 0);
    }
}
