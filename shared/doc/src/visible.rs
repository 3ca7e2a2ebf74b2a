//! Words of others in words of ours.

/// Letters that show nothing, though the standard library takes them for printable: fillers, a
/// blank of Braille, the selectors of variants.
const UNSEEN: [std::ops::RangeInclusive<char>; 9] = [
    '\u{34f}'..='\u{34f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Returns text as one line that a terminal only prints: what controls it, turns the direction of
/// writing or shows nothing is written as an escape. One that is longer than `columns` loses its
/// middle: what it is about stands at the beginning, and the reason at the end.
pub fn visible(text: &str, columns: usize) -> String {
    // Every letter becomes at least one, so no more of them can be needed.
    let line = if text.char_indices().nth(2 * columns).is_none() {
        escaped(text.chars())
    } else {
        let tail: Vec<char> = text.chars().rev().take(columns).collect();
        escaped(text.chars().take(columns)) + &escaped(tail.into_iter().rev())
    };
    if width(&line) <= columns {
        return line;
    }
    let tail = columns / 2;
    let head = columns.saturating_sub(tail + 1);
    let start = &line[..fitting(line.char_indices().map(|(at, c)| (at + c.len_utf8(), c)), head)];
    let end =
        line.len() - fitting(line.char_indices().rev().map(|(at, c)| (line.len() - at, c)), tail);
    format!("{start}…{}", &line[end..])
}

/// Returns a line of a guest's console, or of whatever else tells its own story in colours: these are
/// left out, a tab is four blanks, and all else is as in [`visible`].
pub fn console_line(line: &str, columns: usize) -> String {
    visible(&without_colours(line).replace('\t', "    "), columns)
}

/// Returns text of several lines as [`visible`] shows one: only line ends and tabs act as such.
pub fn visible_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' | '\t' => shown.push(letter),
            _ => push_visible(&mut shown, letter),
        }
    }
    shown
}

/// Returns text without the sequences that colour it (console_codes(4)).
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        rest = if let Some(after) = after_colour(&rest[at..]) {
            after
        } else {
            plain.push('\u{1b}');
            &rest[at + 1..]
        };
    }
    plain + rest
}

/// Says whether a terminal shows a letter and does nothing else with it: it is no control, turns no
/// direction, and is not invisible.
pub fn shows(letter: char) -> bool {
    let mut shown = String::new();
    push_visible(&mut shown, letter);
    shown.chars().eq([letter])
}

/// Returns what comes after a colour (console_codes(4)), if one comes first.
fn after_colour(text: &str) -> Option<&str> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    numbers[end..].strip_prefix('m')
}

/// Returns how many columns a line takes at most.
fn width(line: &str) -> usize {
    line.chars().map(columns_of).sum()
}

/// Scripts of East Asia and pictures may take two columns.
fn columns_of(letter: char) -> usize {
    match letter {
        '\u{1100}'..='\u{1fff}' | '\u{2300}'..='\u{d7ff}' | '\u{f900}'.. => 2,
        _ => 1,
    }
}

/// Returns how many bytes the letters take that fit into so many columns.
fn fitting(letters: impl Iterator<Item = (usize, char)>, columns: usize) -> usize {
    let (mut width, mut fits) = (0, 0);
    for (bytes, letter) in letters {
        width += columns_of(letter);
        if width > columns {
            break;
        }
        fits = bytes;
    }
    fits
}

fn escaped(letters: impl Iterator<Item = char>) -> String {
    let mut line = String::new();
    for letter in letters {
        push_visible(&mut line, letter);
    }
    line
}

fn push_visible(line: &mut String, letter: char) {
    if letter == ' ' || letter.is_ascii_graphic() {
        line.push(letter);
    } else if UNSEEN.iter().any(|range| range.contains(&letter)) {
        line.extend(letter.escape_unicode());
    } else {
        // Behind another letter, an accent that goes onto it is left alone.
        let pair: String = ['a', letter].into_iter().collect();
        line.extend(pair.escape_debug().skip(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_acts_on_the_terminal_or_hides_and_all_else_is_as_it_was() {
        for (text, want) in [
            ("plain 'words', \"more\" and a\\b", "plain 'words', \"more\" and a\\b"),
            ("Zürich 東京 e\u{301} हिन्दी", "Zürich 東京 e\u{301} हिन्दी"),
            ("\u{1b}]0;x\u{7}\u{1b}[2J", "\\u{1b}]0;x\\u{7}\\u{1b}[2J"),
            ("a\nbanger: all is well\r\t\0\u{7f}", "a\\nbanger: all is well\\r\\t\\0\\u{7f}"),
            // Controls of the second kind, directions, joiners, fillers, separators, blanks.
            ("\u{9b}2J\u{85}", "\\u{9b}2J\\u{85}"),
            ("\u{202e}\u{2066}\u{200f}\u{61c}", "\\u{202e}\\u{2066}\\u{200f}\\u{61c}"),
            (
                "\u{200b}\u{200d}\u{feff}\u{ad}\u{2060}",
                "\\u{200b}\\u{200d}\\u{feff}\\u{ad}\\u{2060}",
            ),
            ("\u{115f}\u{3164}\u{2800}\u{fe0f}", "\\u{115f}\\u{3164}\\u{2800}\\u{fe0f}"),
            ("\u{e0041}\u{34f}\u{2028}\u{a0}", "\\u{e0041}\\u{34f}\\u{2028}\\u{a0}"),
            ("\u{e000}\u{fff9}\u{fffd}", "\\u{e000}\\u{fff9}\u{fffd}"),
        ] {
            assert_eq!(visible(text, 200), want);
            assert_eq!(visible(want, 200), want, "once more");
        }
    }

    #[test]
    fn a_long_line_loses_its_middle() {
        assert_eq!(visible("0123456789", 10), "0123456789");
        assert_eq!(visible("0123456789a", 10), "0123…6789a");
        let long = format!("about {} the reason", "\u{1b}ü".repeat(1_000_000));
        let line = visible(&long, 40);
        assert_eq!(line.chars().count(), 40);
        assert!(line.starts_with("about \\u{1b}ü") && line.ends_with(" the reason"), "{line}");
        assert_eq!(visible(&line, 40), line);
        assert_eq!(visible("abc", 1), "…");
    }

    #[test]
    fn a_console_loses_its_colours_and_nothing_else() {
        for (line, wanted) in [
            ("plain ä 世", "plain ä 世"),
            ("[  \u{1b}[0;32mOK\u{1b}[0m  ] Started", "[  OK  ] Started"),
            ("\u{1b}[2J\u{1b}[1;31mred\u{7}\u{1b}c", "\\u{1b}[2Jred\\u{7}\\u{1b}c"),
            ("a\rb\u{8}c\u{7f}\0", "a\\rb\\u{8}c\\u{7f}\\0"),
            ("a\tb", "a    b"),
            ("\u{9b}2J \u{202e}txt\u{2066}", "\\u{9b}2J \\u{202e}txt\\u{2066}"),
            ("\u{e0041}\u{3164}", "\\u{e0041}\\u{3164}"),
            ("\u{1b}[", "\\u{1b}["),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("", ""),
        ] {
            assert_eq!(console_line(line, 200), wanted, "{line:?}");
        }
    }

    #[test]
    fn text_of_several_lines_keeps_them_and_nothing_that_acts() {
        assert_eq!(visible_text("a\r\n\tb\n"), "a\n\tb\n");
        assert_eq!(visible_text("a\rb\u{1b}]52;c;eA==\u{7}\n"), "a\\rb\\u{1b}]52;c;eA==\\u{7}\n");
        assert_eq!(visible_text("\u{202e}x\u{200b}日本 ñ"), "\\u{202e}x\\u{200b}日本 ñ");
        assert_eq!(without_colours("\u{1b}[31mred\u{1b}[0m\u{1b}[2J\u{1b}"), "red\u{1b}[2J\u{1b}");
    }

    #[test]
    fn a_letter_shows_or_it_does_not() {
        assert!(['a', ' ', 'é', '世', '\u{301}', 'ह', '€'].into_iter().all(shows));
        let unseen = ['\n', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}'];
        assert!(!unseen.into_iter().any(shows));
        assert!(shows('\'') && shows('"') && shows('\\'));
    }

    #[test]
    fn a_measure_is_in_columns() {
        assert_eq!(visible(&"x".repeat(200), 200), "x".repeat(200));
        assert_eq!(console_line(&format!("{}\u{1b}[0m", "x".repeat(10)), 10), "x".repeat(10));
        // What is wide counts as wide, and is not halved.
        assert_eq!(visible("世世世", 6), "世世世");
        assert_eq!(visible("世世世", 5), "世…世");
        assert_eq!(visible("世世世世", 6), "世…世");
        for hostile in ["\0".repeat(8 << 10), "世".repeat(8 << 10), "\u{2066}".repeat(9)] {
            assert!(width(&console_line(&hostile, 200)) <= 200);
            assert!(width(&console_line(&hostile, 1)) <= 1);
        }
    }
}
