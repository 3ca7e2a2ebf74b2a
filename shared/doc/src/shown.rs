//! What others wrote, a guest or its image, as a person may see it.

/// Returns a line that moves no cursor and hides nothing: colours are left out, other control
/// characters are seen as `^[` or `<202e>`, and what is longer than `columns` ends with an ellipsis.
pub fn shown(line: &str, columns: usize) -> String {
    let mut shown = String::new();
    let mut width = 0;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = after_colour(rest) {
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        let piece = piece(c);
        // Characters of East Asia and pictures may take two columns.
        width += if c < '\u{1100}' { piece.chars().count() } else { 2.max(piece.len() / 2) };
        if width > columns.saturating_sub(1) && (width > columns || !after_all(rest)) {
            shown.push('…');
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// Says whether nothing is left that would be seen.
fn after_all(rest: &str) -> bool {
    let mut rest = rest;
    while let Some(after) = after_colour(rest) {
        rest = after;
    }
    rest.is_empty()
}

/// Returns what comes after a colour (console_codes(4)), if one comes first.
fn after_colour(text: &str) -> Option<&str> {
    let numbers = text.strip_prefix("\u{1b}[")?;
    let end = numbers.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    numbers[end..].strip_prefix('m')
}

fn piece(c: char) -> String {
    match c {
        '\t' => "    ".to_owned(),
        // A letter that the key Ctrl makes the character of.
        '\0'..='\u{1f}' => format!("^{}", (c as u8 + b'@') as char),
        '\u{7f}' => "^?".to_owned(),
        // C1 controls, and marks that change the order or hide what is between them.
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => format!("<{:x}>", c as u32),
        c => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_seen_and_colours_are_not() {
        for (line, wanted) in [
            ("plain ä 世", "plain ä 世"),
            ("[  \u{1b}[0;32mOK\u{1b}[0m  ] Started", "[  OK  ] Started"),
            ("\u{1b}[2J\u{1b}[1;31mred\u{7}\u{1b}c", "^[[2Jred^G^[c"),
            ("a\rb\u{8}c\u{7f}\0", "a^Mb^Hc^?^@"),
            ("a\tb", "a    b"),
            ("\u{9b}2J \u{202e}txt\u{2066}", "<9b>2J <202e>txt<2066>"),
            ("\u{1b}[", "^[["),
            ("\u{1b}[31", "^[[31"),
            ("", ""),
        ] {
            assert_eq!(shown(line, 200), wanted, "{line:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(shown(&"x".repeat(200), 200), "x".repeat(200));
        assert_eq!(shown(&"x".repeat(201), 200), format!("{}…", "x".repeat(199)));
        assert_eq!(shown(&format!("{}\u{1b}[0m", "x".repeat(10)), 10), "x".repeat(10));
        // A sign that is seen as two is not halved, and what is wide counts as wide.
        assert_eq!(shown("aaa\u{1b}\u{1b}", 6), "aaa^[…");
        assert_eq!(shown("世世世", 5), "世世…");
        let hostile = "\0".repeat(8 << 10);
        assert!(shown(&hostile, 200).chars().count() <= 200);
        assert!(shown("\u{2066}\u{2066}", 1).chars().count() <= 1);
    }
}
