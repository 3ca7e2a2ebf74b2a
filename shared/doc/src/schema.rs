//! `banger.program/1`, `banger.document/1` and `banger.status/1`: what `banger schema` says of
//! banger itself.

use crate::Document;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `banger.program/1`: a program, what it takes and what it prints.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How it is typed.
    pub command: String,
    /// What it does, in one line.
    pub purpose: String,
    /// Whether its stdout is bytes, in a pipe too; a failure of its own then ends with status 125.
    pub raw: bool,
    /// Schemas of the documents it prints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prints: Vec<String>,
    /// What it takes, options first as its help shows them.
    pub arguments: Vec<Argument>,
}

impl Document for Program {
    const SCHEMA: &'static str = "banger.program/1";
}

/// An option of a program, or a word it takes without one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Argument {
    /// The option with its dashes; absent for a word without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
    /// Its one-letter spelling, with its dash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
    /// What stands for its value in the help; absent for an option that takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it means.
    pub meaning: String,
    /// What holds where none is given: a value, or words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Whether it has to be there.
    pub required: bool,
    /// Whether it may be there several times.
    pub repeats: bool,
    /// Whether it stands after `--`, and takes all that follows.
    pub after_dashes: bool,
}

/// `banger.document/1`: a document, as a JSON Schema.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Described {
    /// The document's own schema name, `banger.THING/MAJOR`.
    pub name: String,
    /// What it is.
    pub meaning: String,
    /// Its fields, in the words of JSON Schema 2020-12; types it is made of are below `$defs`.
    pub json_schema: Value,
}

impl Document for Described {
    const SCHEMA: &'static str = "banger.document/1";
}

/// `banger.status/1`: an exit status, and the kind of error it goes with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExitStatus {
    /// The number.
    pub status: u8,
    /// The `kind` of a `banger.error/1`; absent for success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What it means.
    pub meaning: String,
    /// What a caller may do about it.
    pub remedy: String,
}

impl Document for ExitStatus {
    const SCHEMA: &'static str = "banger.status/1";
}
