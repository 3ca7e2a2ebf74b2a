//! What a program prints.

use crate::{is_called, paint};
use banger_doc::{Context, Document, Error, Result, shows, visible};
use std::{
    fmt::Write as _,
    io::{ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
};

/// The program's stdout: documents for programs, words and tables for people.
#[derive(Debug)]
pub struct Out {
    program: String,
    json: bool,
    quiet: bool,
    broken: bool,
    said: bool,
}

impl Out {
    pub(crate) fn new(program: &str, json: bool) -> Self {
        Self { program: program.to_owned(), json, quiet: false, broken: false, said: false }
    }

    /// Says whether the failure that is returned was told to the person already, among others.
    pub(crate) fn has_said(&self) -> bool {
        self.said
    }

    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    pub(crate) fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    /// Says whether documents are printed.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Says whether the caller asked for silence on stderr.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Says whether a person watches: live progress may be drawn on stderr.
    pub fn is_live(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Prints a document, or its words for people; empty words print nothing.
    pub fn put<D: Document>(
        &mut self,
        document: &D,
        words: impl FnOnce(&D) -> String,
    ) -> Result<()> {
        let text = if self.json { document.to_line() } else { words(document) };
        if text.is_empty() { Ok(()) } else { self.line(&text) }
    }

    /// Prints documents, one a line, or a table for people.
    pub fn table<D: Document>(
        &mut self,
        documents: &[D],
        head: &[&str],
        row: impl Fn(&D) -> Vec<String>,
    ) -> Result<()> {
        if self.json {
            let lines: Vec<String> = documents.iter().map(Document::to_line).collect();
            return if lines.is_empty() { Ok(()) } else { self.line(&lines.join("\n")) };
        }
        let mut rows = vec![head.iter().map(ToString::to_string).collect::<Vec<_>>()];
        rows.extend(
            documents
                .iter()
                .map(|document| row(document).iter().map(|words| paint::cell(words)).collect()),
        );
        let widths: Vec<usize> = (0..head.len())
            .map(|i| rows.iter().map(|row| paint::width(&row[i])).max().unwrap_or(0))
            .collect();
        let widths = widths_that_fit(widths, terminal_columns().unwrap_or(usize::MAX));
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| fitted(cell, *width)).collect();
            self.line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Prints words for people, broken between them where the terminal ends; lines after the first
    /// begin with `indent` blanks.
    pub fn paragraph(&mut self, text: &str, indent: usize) -> Result<()> {
        self.line(&broken(text, indent, terminal_columns().unwrap_or(usize::MAX)))
    }

    /// Prints lines. What would act on a terminal is visible there; elsewhere it is as it is.
    pub fn line(&mut self, text: &str) -> Result<()> {
        let shown = match (std::io::stdout().is_terminal(), self.json) {
            (false, _) => text.to_owned(),
            (true, false) => paint::for_terminal(text),
            (true, true) => visible_json(text),
        };
        self.bytes(format!("{shown}\n").as_bytes())
    }

    /// Prints bytes as they are: ours, or what [`crate::Screen`] made of others'. A reader that went away is no error: nobody is left to tell.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.broken {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.broken = true;
                Ok(())
            }
            Err(error) => Err(error).context("cannot write to stdout"),
        }
    }

    /// Says something to the person on stderr, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }

    /// Says what to type next to a person who has just seen what stdout said; no script is told.
    pub fn suggest(&self, text: &str) {
        if !self.json && std::io::stdout().is_terminal() {
            self.note(text);
        }
    }

    /// Says whether somebody still reads stdout: what goes on and on may end otherwise.
    pub fn is_heard(&self) -> bool {
        !self.broken
    }

    /// Returns false if the reader of stdout went away.
    pub(crate) fn flush(&self) -> bool {
        !self.broken
    }

    /// Runs `act` on each of several names at once, and prints the answers in the order the names
    /// were first given; repeats count once. A failure does not keep the others from running: each
    /// is said, and the first one is returned.
    pub fn each<N, D>(
        &mut self,
        names: &[N],
        act: impl Fn(&N) -> Result<D> + Sync,
        words: impl Fn(&D) -> String,
    ) -> Result<()>
    where
        N: PartialEq + Sync,
        D: Document + Send,
    {
        let mut unique: Vec<&N> = Vec::new();
        for name in names {
            if !unique.contains(&name) {
                unique.push(name);
            }
        }
        let answers: Vec<Result<D>> = std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> =
                unique.iter().map(|name| scope.spawn(move || act(name))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked"))))
                .collect()
        });
        let mut failures = Vec::new();
        for answer in answers {
            match answer {
                Ok(document) => self.put(&document, &words)?,
                Err(error) => failures.push(error),
            }
        }
        // In the order of the names; a caller that reads the documents tells of the first itself.
        let told_by_the_caller = usize::from(self.json && is_called());
        if failures.len() > 1 {
            self.said = told_by_the_caller == 0;
            failures.iter().skip(told_by_the_caller).for_each(|error| say(&self.program, error));
        }
        let mut failures = failures.into_iter();
        let first = failures.next();
        for other in
            failures.filter(|_| self.json).map(|error| error.report().to_line()).collect::<Vec<_>>()
        {
            self.line(&other)?;
        }
        first.map_or(Ok(()), Err)
    }
}

/// Returns JSON that means the same, and that a terminal only shows.
fn visible_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\n' || shows(letter) {
            shown.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    shown
}

/// The most columns of a note.
const NOTE: usize = 1200;

/// Returns how wide the terminal on stdout is, if there is one.
pub(crate) fn terminal_columns() -> Option<usize> {
    columns_of(std::io::stdout())
}

fn columns_of(stream: impl AsFd) -> Option<usize> {
    terminal_size::terminal_size_of(stream).map(|(width, _)| width.0.into())
}

/// Returns words as a line of the terminal on stderr has room for them, `beside` others; what is cut
/// off is shown by `…`.
pub fn one_line(words: &str, beside: usize) -> String {
    let room =
        columns_of(std::io::stderr()).map_or(usize::MAX, |columns| columns - beside.min(columns));
    let words = visible(words, NOTE);
    if words.chars().count() <= room { words } else { fitted(&words, room) }
}

/// The least a column of a table is cut to; the first one holds the names that people type.
const LEAST: usize = 16;
const LEAST_FIRST: usize = 32;

/// Returns how wide the columns of a table become where the terminal ends: a line that wraps is
/// hard to read. The widest are cut first, and what there is no room for then is left out from the
/// right.
fn widths_that_fit(mut widths: Vec<usize>, room: usize) -> Vec<usize> {
    let whole = widths.clone();
    loop {
        let needed = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        if needed <= room {
            return widths;
        }
        let least = |column: usize| if column == 0 { LEAST_FIRST } else { LEAST };
        let cut = (0..widths.len())
            .filter(|column| widths[*column] > least(*column))
            // Names are cut last.
            .max_by_key(|column| (*column > 0, widths[*column]));
        match cut {
            Some(column) => {
                let enough = widths[column].saturating_sub(needed - room);
                widths[column] = enough.max(least(column));
            }
            None if widths.len() > 1 => {
                // Without the last column the others may be whole again.
                widths = whole[..widths.len() - 1].to_vec();
            }
            None => return widths,
        }
    }
}

/// Makes a cell as wide as its column; what is cut off is shown by `…`.
fn fitted(cell: &str, width: usize) -> String {
    let needed = paint::width(cell);
    if needed <= width {
        return format!("{cell}{}", " ".repeat(width - needed));
    }
    let start: String = cell.chars().take(width.saturating_sub(1)).collect();
    format!("{start}…")
}

/// Breaks words into lines of at most `columns`; a word that is longer has a line of its own.
pub(crate) fn broken(text: &str, indent: usize, columns: usize) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let mut at = 0;
        for (number, word) in line.split(' ').enumerate() {
            let width = paint::width(word);
            if number > 0 && at + 1 + width > columns {
                lines.push('\n');
                lines.push_str(&" ".repeat(indent));
                at = indent;
            } else if number > 0 {
                lines.push(' ');
                at += 1;
            }
            lines.push_str(word);
            at += width;
        }
        lines.push('\n');
    }
    lines.truncate(lines.trim_end_matches('\n').len());
    lines
}

/// Says on stderr what failed, why, and what to type next.
pub(crate) fn say(program: &str, error: &Error) {
    let report = error.report();
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{program}: {}", report.message);
    if let Some(hint) = report.hint {
        let _ = writeln!(stderr, "hint: {hint}");
    }
}

/// Says something to the person on stderr, as one line that acts on no terminal: an image or a guest
/// may have written part of it.
pub fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{}", visible(text, NOTE));
}

/// Returns a size for people: `1.5 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Puts a time that has passed into words: `5 minutes ago`.
pub fn ago(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..5_184_000 => (seconds / 86_400, "day"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::shell_word;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, process::Command};

    #[test]
    fn a_narrow_terminal_cuts_wide_columns_then_leaves_out_the_last() {
        let fit = |widths: &[usize], room| widths_that_fit(widths.to_vec(), room);
        assert_eq!(fit(&[10, 8, 20], 200), [10, 8, 20]);
        assert_eq!(fit(&[10, 8, 20], 42), [10, 8, 20]);
        assert_eq!(fit(&[10, 8, 20], 41), [10, 8, 19]);
        assert_eq!(fit(&[10, 8, 20], 37), [10, 8]);
        assert_eq!(fit(&[10, 8, 20], 5), [10]);
        // A long name is cut last, and the others get what is left then.
        assert_eq!(fit(&[63, 7, 48, 4, 7, 7, 13], 80), [38, 7, 16, 4, 7]);
        assert_eq!(fit(&[63, 7, 48], 80), [53, 7, 16]);
    }

    #[test]
    fn json_on_a_terminal_means_the_same_and_only_shows() {
        let value = serde_json::json!({"a": "\u{1b}[2J\u{9b}\u{202e}é世\u{e0041}\u{7f}"});
        let shown = visible_json(&value.to_string());
        assert!(shown.chars().all(shows) && shown.contains("é世"), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn what_is_cut_off_is_shown() {
        assert_eq!(fitted("web", 5), "web  ");
        assert_eq!(fitted("registry", 5), "regi…");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(broken("one two three", 2, 9), "one two\n  three");
        assert_eq!(broken("one two", 2, usize::MAX), "one two");
        assert_eq!(broken("x incomprehensibilities y", 1, 10), "x\n incomprehensibilities\n y");
    }

    #[test]
    fn a_shell_takes_the_word_for_what_it_is_and_does_nothing() {
        let dir = std::env::temp_dir().join(format!("banger-typed-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let hostile: [&[u8]; 14] = [
            b"/srv;touch$IFS''own;",
            b"$(touch own)",
            b"`touch own`",
            b"'; touch own; '",
            b"\"; touch own; \"",
            b"a\ntouch own\n",
            b"\x1b]0;pwned\x07\x1b[31m",
            b"|touch own&",
            b">own",
            b"!!{a,b}*?[x]~#",
            b"\\'; touch own #",
            b"\xff\xfe;touch own",
            b"^a^b",
            b"\xe2\x80\xae;touch own",
        ];
        for word in hostile {
            let typed = shell_word(OsStr::from_bytes(word));
            assert!(typed.chars().all(shows), "{typed:?}");
            let said = |script: String| {
                let mut bash = Command::new("bash");
                bash.args(["--norc", "-c", &script]).current_dir(&dir).output().unwrap()
            };
            let plain = said(format!("printf %s {typed}"));
            assert_eq!(plain.stdout, word, "{typed}");
            // With the quotes of the sentence pasted too.
            said(format!("'printf %s {typed}' shows it"));
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{typed}");
        }
        std::fs::remove_dir(&dir).unwrap();
    }
}
