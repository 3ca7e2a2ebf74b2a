//! The one error of the workspace: what failed, why, what to type next.

use crate::{Document, visible};
use serde::{Deserialize, Serialize};
use std::{fmt, io::ErrorKind};

/// The most columns of a sentence, in which others may have written.
const SENTENCE: usize = 400;
/// The most columns of a sentence with its causes.
const CHAIN: usize = 1000;
/// The most letters of a hint. It holds two paths of the longest there are, each letter with a backslash
/// before it; only its end is cut off, so nothing that is left is without its quotes.
const HINT: usize = 20_000;
/// The most lines below a sentence, and what each begins with.
const LINES: usize = 40;
const BELOW: &str = "\n  ";

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. The number is the exit status.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Anything that is not one of the others.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The named thing is not there.
    NotFound = 3,
    /// The named thing exists already, is busy, or is in the wrong state.
    Conflict = 4,
    /// The host lacks a program, a device or a right.
    Unavailable = 5,
}

impl Kind {
    /// Returns the exit status of a program that ends with this kind.
    pub fn status(self) -> u8 {
        self as u8
    }
}

/// A failure: its kind, a sentence, what to type next, and its cause.
///
/// `Display` is the sentence alone; [`Error::chain`] adds the causes.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    /// The most columns of the message that are shown.
    measure: usize,
    lines: Vec<String>,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let (message, measure) = (message.into(), SENTENCE);
        Self { kind, message, measure, lines: Vec::new(), hint: None, source: None }
    }

    /// Makes an error of kind [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Makes an error of kind [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Makes an error of kind [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Makes an error of kind [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Makes an error of kind [`Kind::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Says what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to type next where nothing better is known.
    #[must_use]
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint_text().is_some() { self } else { self.hint(hint) }
    }

    /// Adds lines of somebody else's that tell more, such as the last ones of a console. They stand
    /// below the sentence, each behind two blanks, so that none looks like one of ours.
    #[must_use]
    pub fn lines(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.lines.extend(lines.into_iter().take(LINES));
        self
    }

    /// Names the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns what to type next, if anything is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| self.hint_of_the_system())
    }

    /// Returns what helps whatever was being done: a path leads nowhere, the disk is full, or it is
    /// not ours to write to.
    fn hint_of_the_system(&self) -> Option<&'static str> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    return Some(
                        "'banger df' shows what takes room; 'banger image prune' and 'banger vm prune' free some",
                    );
                }
                Some(ErrorKind::NotFound) => {
                    return Some("look at how the path is written, and at what is there");
                }
                Some(ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
                    return Some("'banger doctor' checks what may be read and written");
                }
                _ => cause = error.source(),
            }
        }
        None
    }

    /// Returns the sentence and its causes, joined by `: `, as one line for a terminal; then its
    /// further lines, if it has any.
    pub fn chain(&self) -> String {
        let mut words = visible(&self.message, self.measure);
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words.push_str(": ");
            let measure = error.downcast_ref::<Self>().map_or(SENTENCE, |error| error.measure);
            words.push_str(&visible(&plain(&error.to_string()), measure));
            cause = error.source();
        }
        let mut words = visible(&words, CHAIN);
        for line in &self.lines {
            words.push_str(BELOW);
            words.push_str(&visible(line, SENTENCE));
        }
        words
    }

    /// Returns the error as the document a program prints.
    pub fn report(&self) -> Report {
        let hint = self.hint_text().map(|hint| {
            let mut shown = visible(hint, usize::MAX / 4);
            if let Some((at, _)) = shown.char_indices().nth(HINT) {
                shown.truncate(at);
                shown.push('…');
            }
            shown
        });
        Report { kind: self.kind, message: self.chain(), hint }
    }
}

/// Says a cause as the sentence before it goes on: without the system's number of it, and without
/// its capital letter unless it begins an abbreviation.
fn plain(cause: &str) -> String {
    let cause = match cause.rsplit_once(" (os error ") {
        Some((words, number)) if number.trim_end_matches(')').parse::<i32>().is_ok() => words,
        _ => cause,
    };
    let mut letters = cause.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second))
            if first.is_ascii_uppercase() && second.is_ascii_lowercase() =>
        {
            format!("{}{}", first.to_ascii_lowercase(), letters.as_str())
        }
        _ => cause.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// Adds a sentence to a failure that crosses a border. The kind and the hint of an [`Error`] below
/// are kept; any other error becomes [`Kind::Failed`].
pub trait Context<T> {
    /// Adds a sentence.
    fn context(self, message: impl Into<String>) -> Result<T>;

    /// Adds a sentence that is made only on failure.
    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: std::error::Error + Send + Sync + 'static> Context<T> for Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.with_context(|| message)
    }

    fn with_context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| {
            let any: &dyn std::any::Any = &source;
            let (kind, lines, hint) =
                any.downcast_ref::<Error>().map_or((Kind::Failed, Vec::new(), None), |error| {
                    (error.kind, error.lines.clone(), error.hint.clone())
                });
            Error { lines, hint, ..Error::new(kind, message()) }.because(source)
        })
    }
}

/// `banger.error/1`: a failure, as a program prints it on stdout.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Report {
    /// What sort of failure it is; decides the exit status.
    pub kind: Kind,
    /// The sentence and its causes, joined by `: `.
    pub message: String,
    /// What to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Document for Report {
    const SCHEMA: &'static str = "banger.error/1";
}

impl From<Report> for Error {
    /// Passes on unchanged what another program reported.
    fn from(report: Report) -> Self {
        let mut parts = report.message.split(BELOW).map(str::to_owned);
        let message = parts.next().unwrap_or_default();
        let lines = parts.take(LINES).collect();
        // It is a chain already.
        Self { measure: CHAIN, lines, hint: report.hint, ..Self::new(report.kind, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_hint_and_the_chain_says_each_cause_once() {
        let below: Result<()> = Err(Error::not_found("no VM 'web'").hint("look"));
        let error = below.context("cannot start 'web'").unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.hint_text(), Some("look"));
        assert_eq!(error.chain(), "cannot start 'web': no VM 'web'");
        assert_eq!(error.to_string(), "cannot start 'web'");
    }

    #[test]
    fn a_cause_goes_on_with_the_sentence_and_a_full_disk_has_a_hint() {
        let full: Result<(), _> = Err(std::io::Error::from_raw_os_error(28));
        let error = full.context("cannot write 'a'").context("cannot make 'web'").unwrap_err();
        assert_eq!(error.chain(), "cannot make 'web': cannot write 'a': no space left on device");
        assert!(error.report().hint.unwrap().contains("banger df"));
        assert_eq!(plain("EOF while parsing"), "EOF while parsing");
        assert_eq!(plain("No such file or directory (os error 2)"), "no such file or directory");
        assert_eq!(plain(""), "");
    }

    #[test]
    fn words_of_others_are_visible_and_have_a_measure() {
        let loud = format!("'\u{1b}[2J\nbanger: fine' is {} bad", "x".repeat(5000));
        let error = Error::failed(loud).hint("type '\u{202e}'\n").because("why");
        let error = Err::<(), _>(error).context("cannot pull").unwrap_err();
        let Report { message, hint, .. } = error.report();
        assert!(
            message.starts_with("cannot pull: '\\u{1b}[2J\\nbanger: fine' is xxx"),
            "{message}"
        );
        assert!(message.ends_with("x bad: why") && message.chars().count() < 420, "{message}");
        assert_eq!(hint.unwrap(), "type '\\u{202e}'\\n");
        // Ten causes take as much room as two and a half.
        let deep = (0..10)
            .fold(error, |error, _| Err::<(), _>(error).context("y".repeat(300)).unwrap_err());
        assert_eq!(deep.chain().chars().count(), CHAIN);
        assert!(deep.chain().ends_with("x bad: why"));
    }

    #[test]
    fn further_lines_stand_below_and_survive_the_way_through_a_report() {
        let lines = ["one\n  two".to_owned(), "\u{1b}[1m".to_owned()];
        let error = Error::failed("it panicked; its console:").lines(lines);
        let error = Err::<(), _>(error).context("cannot start 'web'").unwrap_err();
        let said = "cannot start 'web': it panicked; its console:\n  one\\n  two\n  \\u{1b}[1m";
        assert_eq!(error.chain(), said);
        assert_eq!(Error::from(error.report()).chain(), said);
    }

    #[test]
    fn other_errors_become_failed() {
        let below: Result<(), _> = Err(std::io::Error::other("disk on fire"));
        assert_eq!(below.context("cannot read '/x'").unwrap_err().kind(), Kind::Failed);
    }
}
