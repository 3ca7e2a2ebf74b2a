//! The one error of the workspace: what failed, why, what to type next.

use crate::Document;
use serde::{Deserialize, Serialize};
use std::fmt;

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
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of the given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
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
        self.hint.as_deref()
    }

    /// Returns the sentence and its causes, joined by `: `.
    pub fn chain(&self) -> String {
        let mut words = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words.push_str(": ");
            words.push_str(&error.to_string());
            cause = error.source();
        }
        words
    }

    /// Returns the error as the document a program prints.
    pub fn report(&self) -> Report {
        Report { kind: self.kind, message: self.chain(), hint: self.hint.clone() }
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
            let (kind, hint) = any
                .downcast_ref::<Error>()
                .map_or((Kind::Failed, None), |error| (error.kind, error.hint.clone()));
            Error { kind, message: message().into(), hint, source: Some(Box::new(source)) }
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
        Self { kind: report.kind, message: report.message, hint: report.hint, source: None }
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
    fn other_errors_become_failed() {
        let below: Result<(), _> = Err(std::io::Error::other("disk on fire"));
        assert_eq!(below.context("cannot read '/x'").unwrap_err().kind(), Kind::Failed);
    }
}
