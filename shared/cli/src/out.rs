//! What a program prints.

use banger_doc::{Context, Document, Error, Result};
use std::io::{ErrorKind, IsTerminal, Write};

/// The program's stdout: documents for programs, words and tables for people.
#[derive(Debug)]
pub struct Out {
    json: bool,
    quiet: bool,
    broken: bool,
}

impl Out {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, broken: false }
    }

    pub(crate) fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
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
        rows.extend(documents.iter().map(row));
        let widths: Vec<usize> = (0..head.len())
            .map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0))
            .collect();
        let room = terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| width.0.into());
        let shown = columns_that_fit(&widths, room);
        for row in rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .take(shown)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            self.line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Prints a line as it is.
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are. A reader that went away is no error: nobody is left to tell.
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
        let mut failures = failures.into_iter();
        let first = failures.next();
        for other in failures {
            note(&format!("error: {}", other.chain()));
            if self.json {
                self.line(&other.report().to_line())?;
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Returns how many columns of a table a terminal has room for. What it has no room for is left out
/// from the right: a line that wraps is harder to read than a shorter one.
fn columns_that_fit(widths: &[usize], room: usize) -> usize {
    let mut end = 0;
    let fits = |width: &&usize| {
        end += **width + 2;
        end - 2 <= room
    };
    widths.iter().take_while(fits).count().max(1)
}

/// Says something to the person on stderr.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_shows_the_first_columns() {
        assert_eq!(columns_that_fit(&[10, 8, 20], 200), 3);
        assert_eq!(columns_that_fit(&[10, 8, 20], 42), 3);
        assert_eq!(columns_that_fit(&[10, 8, 20], 41), 2);
        assert_eq!(columns_that_fit(&[10, 8, 20], 5), 1);
        assert_eq!(columns_that_fit(&[10], usize::MAX), 1);
    }
}
