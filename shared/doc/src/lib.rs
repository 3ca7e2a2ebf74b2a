//! What is said: every JSON document, the error, names.
//!
//! A document is one JSON object whose first field is `schema`. The same value goes to stdout and
//! to the state directory, so `docs/documents.md` describes both. This crate does no I/O and reads
//! no environment.

mod allowed;
mod check;
mod copy;
mod error;
mod exit;
mod export;
mod guest;
mod image;
mod kernel;
mod name;
mod port;
mod running;
mod schema;
mod stats;
mod typed;
mod usage;
mod users;
mod visible;
mod vm;
mod vmm;
mod words;
mod workspace;

pub use allowed::{Allowed, AllowedFile, ToolRefusal};
pub use check::{Check, Outcome, Removed};
pub use copy::Copy;
pub use error::{Context, Error, Kind, Report, Result};
pub use exit::{Exit, Reason};
pub use export::{ExportCopy, ExportForm};
pub use guest::{Channel, Disks, Guest, GuestFile, Interface};
pub use image::{Image, ImageConfig};
pub use kernel::{Format, Kernel};
pub use name::Name;
pub use port::{Forward, HostPorts, Port, Publish, parse_ports};
pub use running::{Booted, Desire, IN_GUEST, Mark, Phase, Process, Refused, Running, Wanted};
pub use schema::{Argument, Described, ExitStatus, Program};
pub use stats::{DiskUse, GuestDisk, GuestUse, HostUse, NetworkUse, Stats};
pub use typed::{shell_word, shell_words};
pub use usage::Usage;
pub use users::VMM_USERS;
pub use visible::{console_line, shows, visible, visible_text, without_colours};
pub use vm::{Init, NetMode, Spec, Status, View, Vm, parse_user};
pub use vmm::Vmm;
pub use workspace::{
    Change, Conflict, ConflictKind, Exported, Kept, Position, Pulled, PulledRef, PushedRef, Work,
    WorkKind, Workspace, WorkspaceApply, WorkspaceExport, WorkspaceMode, WorkspacePlan,
    WorkspacePull, WorkspacePush, WorkspaceStatus, WorkspaceWatch,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A JSON object with a schema name, said on stdout and kept in the state directory.
pub trait Document: Serialize + DeserializeOwned {
    /// The value of the first field, `banger.<thing>/<major>`.
    const SCHEMA: &'static str;

    /// Returns the document as a JSON value, `schema` first.
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("schema".into(), Self::SCHEMA.into());
        let body = serde_json::to_value(self).expect("because a document holds only JSON types");
        if let Value::Object(fields) = body {
            map.extend(fields);
        }
        Value::Object(map)
    }

    /// Returns the document as one line of JSON, without a line end.
    fn to_line(&self) -> String {
        self.to_value().to_string()
    }

    /// Reads a document, ignoring fields it does not know and refusing another schema.
    fn from_slice(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).context("not a JSON document")?;
        Self::from_value(value)
    }

    /// Reads a document from a JSON value; see [`Document::from_slice`].
    fn from_value(mut value: Value) -> Result<Self> {
        let schema = value.as_object_mut().and_then(|map| map.remove("schema"));
        match schema.as_ref().and_then(Value::as_str) {
            Some(found) if found == Self::SCHEMA => {}
            Some(found) => {
                return Err(Error::failed(format!(
                    "the document has schema '{found}', not '{}'",
                    Self::SCHEMA
                ))
                .hint("a newer banger may have written it; use that one"));
            }
            None => {
                return Err(Error::failed(format!(
                    "the document has no schema; '{}' was expected",
                    Self::SCHEMA
                )));
            }
        }
        serde_json::from_value(value).with_context(|| format!("cannot read a '{}'", Self::SCHEMA))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_is_the_first_field_and_comes_back() {
        let wanted = Wanted::new(Desire::Running);
        let line = wanted.to_line();
        assert!(line.starts_with(r#"{"schema":"banger.wanted/1","#), "{line}");
        assert_eq!(Wanted::from_slice(line.as_bytes()).unwrap().desire, Desire::Running);
    }

    #[test]
    fn another_schema_is_refused_by_name() {
        let error = Wanted::from_slice(br#"{"schema":"banger.wanted/9"}"#).unwrap_err();
        assert!(error.to_string().contains("banger.wanted/9"));
        assert!(Wanted::from_slice(b"{}").is_err());
        assert!(Wanted::from_slice(b"[]").is_err());
        assert!(Wanted::from_slice(b"\xff").is_err());
    }
}
