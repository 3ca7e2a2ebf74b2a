//! JSON of others, read for the fields that are asked for.
//!
//! Builders write null where they mean nothing, leave fields out, and add some of their own. So a
//! field that is null or absent is empty, and what nobody asks for is passed over unread: it may be
//! of any type, of any depth, and of any bytes.

use crate::digest::shown;
use banger_doc::{Error, Result};
use serde::{
    Deserialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use std::{borrow::Cow, fmt};

/// The most entries of an object whose names are anybody's, and of a list without a bound of its
/// own.
pub(crate) const MANY: usize = 1 << 16;

/// A document, whose bytes that are no text were replaced, as builders' own readers do.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The fields of an object that were asked for and are there.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Fields<'a> {
    /// Reads an object. One that has a field twice is refused: readers differ in which one counts.
    pub(crate) fn read(text: &'a str, names: &'static [&'static str]) -> Result<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let mut seen = Seen { names, found: Vec::new(), twice: None };
        let read = serde::Deserializer::deserialize_map(&mut reader, &mut seen);
        read.and_then(|()| reader.end()).map_err(|error| wrong(&error, "an object"))?;
        match seen.twice {
            Some(name) => Err(Error::failed(format!("the field '{name}' stands in it twice"))),
            None => Ok(Self(seen.found)),
        }
    }

    /// Returns what a field says, as JSON; nothing if it is null.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(one, _)| *one == name).map(|(_, value)| *value)
    }

    /// Returns a text; an empty one if the field says nothing.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        self.raw(name).map_or(Ok(String::new()), string).map_err(|error| about(name, &error))
    }

    /// Returns a whole number, 0 if the field says nothing.
    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        let Some(raw) = self.raw(name) else { return Ok(0) };
        raw.parse().map_err(|_| {
            Error::failed(format!("the field '{name}' is '{}', no whole number", shown(raw)))
        })
    }

    /// Returns the object in a field; an empty one if the field says nothing.
    pub(crate) fn object(&self, name: &str, names: &'static [&'static str]) -> Result<Self> {
        self.raw(name)
            .map_or(Ok(Self(Vec::new())), |raw| Self::read(raw, names))
            .map_err(|error| about(name, &error))
    }

    /// Returns the items of a list, as JSON; a list of more than `most` is refused.
    pub(crate) fn list(&self, name: &str, most: usize) -> Result<Vec<&'a str>> {
        self.raw(name)
            .map_or(Ok(Vec::new()), |raw| list(raw, most))
            .map_err(|error| about(name, &error))
    }

    /// Returns a list of at most so many texts.
    pub(crate) fn texts(&self, name: &str, most: usize) -> Result<Vec<String>> {
        self.list(name, most)?
            .into_iter()
            .map(|raw| if raw == "null" { Ok(String::new()) } else { string(raw) })
            .collect::<Result<_>>()
            .map_err(|error| about(name, &error))
    }

    /// Returns what stands in an object whose names are anybody's, as JSON. What follows on the
    /// first 65536 entries is passed over unread.
    pub(crate) fn entries(&self, name: &str) -> Result<Vec<(String, &'a str)>> {
        let mut all = Vec::new();
        if let Some(raw) = self.raw(name) {
            let mut reader = serde_json::Deserializer::from_str(raw);
            serde::Deserializer::deserialize_map(&mut reader, &mut Entries(&mut all))
                .map_err(|error| about(name, &wrong(&error, "an object")))?;
        }
        Ok(all)
    }

    /// Returns the texts of an object whose names are anybody's; what is no text is left out, and
    /// so is everything if it is no object.
    pub(crate) fn labels(&self, name: &str) -> Vec<(String, String)> {
        let texts = self.entries(name).unwrap_or_default().into_iter();
        texts
            .filter_map(|(key, raw)| {
                let value = if raw == "null" { Ok(String::new()) } else { string(raw) };
                Some((key, value.ok()?))
            })
            .collect()
    }
}

/// Returns the items of a list, as JSON; a list of more than `most` is refused.
pub(crate) fn list(text: &str, most: usize) -> Result<Vec<&str>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut items = Items { most, kept: Vec::new(), count: 0 };
    let read = serde::Deserializer::deserialize_seq(&mut reader, &mut items);
    read.and_then(|()| reader.end()).map_err(|error| wrong(&error, "a list"))?;
    if items.count > most {
        return Err(Error::failed(format!(
            "it has {} entries; at most {most} are read",
            items.count
        )));
    }
    Ok(items.kept)
}

/// Reads one text.
pub(crate) fn string(raw: &str) -> Result<String> {
    let text: Text = serde_json::from_str(raw).map_err(|error| wrong(&error, "text"))?;
    Ok(text.0)
}

fn about(name: &str, error: &Error) -> Error {
    Error::failed(format!("the field '{name}' cannot be used: {error}"))
}

/// Says what is wrong in our words; the reader's name its own types.
fn wrong(error: &serde_json::Error, wanted: &str) -> Error {
    Error::failed(match error.classify() {
        Category::Data | Category::Io => format!("it is not {wanted}"),
        Category::Eof => "it is cut off: its JSON does not end".to_owned(),
        Category::Syntax => {
            format!("it is not valid JSON at line {}, column {}", error.line(), error.column())
        }
    })
}

/// Text in which halves of letters that JSON can name alone are replaced.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        reader.deserialize_bytes(Bytes)
    }
}

struct Seen<'a> {
    names: &'static [&'static str],
    found: Vec<(&'static str, &'a str)>,
    twice: Option<&'static str>,
}

impl<'a> Visitor<'a> for &mut Seen<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut all: Vec<&'static str> = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            let Some(name) = self.names.iter().find(|name| **name == key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if all.contains(name) {
                self.twice = Some(name);
            }
            all.push(name);
            let value = map.next_value::<&RawValue>()?.get();
            if value != "null" {
                self.found.push((name, value));
            }
        }
        Ok(())
    }
}

/// Keeps no more than it may, whatever comes.
struct Items<'a> {
    most: usize,
    kept: Vec<&'a str>,
    count: usize,
}

impl<'a> Visitor<'a> for &mut Items<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut all: A) -> Result<(), A::Error> {
        while self.kept.len() < self.most
            && let Some(item) = all.next_element::<&RawValue>()?
        {
            self.kept.push(item.get());
        }
        self.count = self.kept.len();
        while all.next_element::<IgnoredAny>()?.is_some() {
            self.count += 1;
        }
        Ok(())
    }
}

struct Entries<'e, 'a>(&'e mut Vec<(String, &'a str)>);

impl<'a> Visitor<'a> for &mut Entries<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while self.0.len() < MANY
            && let Some((Text(key), value)) = map.next_entry::<Text, &RawValue>()?
        {
            self.0.push((key, value.get()));
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["a", "b"];

    #[test]
    fn null_and_absent_are_empty_and_the_rest_is_passed_over_unread() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        for text in [
            "{}",
            r#"{"a": null, "b": null}"#,
            r#"{"x": 1e999, "y": "\ud800", "z": {"a": 1, "a": 2}, "\udfff": 7}"#,
            &format!(r#"{{"x": {deep}}}"#),
        ] {
            let fields = Fields::read(text, NAMES).unwrap();
            assert_eq!(fields.text("a").unwrap(), "");
            assert_eq!(fields.number("a").unwrap(), 0);
            assert!(fields.texts("b", MANY).unwrap().is_empty());
            assert!(fields.object("b", NAMES).unwrap().raw("a").is_none());
            assert!(fields.labels("a").is_empty());
        }
    }

    #[test]
    fn no_more_of_a_list_is_kept_than_may_be() {
        for (text, most) in [("[]", 0), ("[1, {}]", 2), (" [null,[],{}] ", 3)] {
            assert_eq!(list(text, most).unwrap().len(), most);
        }
        for (text, most, want) in [
            ("[1, {}, 3]", 2, "it has 3 entries; at most 2 are read"),
            ("[1, 2, }]", 1, "it is not valid JSON at line 1, column 8"),
            ("[1, 2", 1, "it is cut off: its JSON does not end"),
            ("[1, 2] 3", 1, "it is not valid JSON at line 1, column 8"),
            ("{}", 1, "it is not a list"),
        ] {
            assert_eq!(list(text, most).unwrap_err().to_string(), want, "{text}");
        }
        let many = format!(
            r#"{{"a": [0{}], "b": {{"k":null{}}}}}"#,
            ",0".repeat(MANY),
            r#","k":null"#.repeat(MANY)
        );
        let fields = Fields::read(&many, NAMES).unwrap();
        assert_eq!(
            fields.texts("a", MANY).unwrap_err().to_string(),
            "the field 'a' cannot be used: it has 65537 entries; at most 65536 are read"
        );
        assert_eq!(fields.labels("b").len(), MANY);
    }

    #[test]
    fn what_is_asked_for_is_read_or_refused_by_name() {
        let text = r#"{"a": ["x", null, "\ud800é"], "b": {"a": 3, "k": 5, "n": null, "s": "t"}}"#;
        let fields = Fields::read(text, NAMES).unwrap();
        assert_eq!(fields.texts("a", MANY).unwrap()[..2], ["x", ""]);
        assert!(fields.texts("a", MANY).unwrap()[2].ends_with('é'));
        assert_eq!(fields.object("b", NAMES).unwrap().number("a").unwrap(), 3);
        let labels = fields.labels("b");
        assert_eq!(labels, [("n".into(), String::new()), ("s".into(), "t".into())]);
        assert_eq!(
            fields.text("a").unwrap_err().to_string(),
            "the field 'a' cannot be used: it is not text"
        );
        for (text, want) in [
            (r#"{"a": 1, "a": 1}"#, "the field 'a' stands in it twice"),
            (r#"{"a": null, "a": 1}"#, "the field 'a' stands in it twice"),
            ("[1]", "it is not an object"),
            ("7", "it is not an object"),
            (r#"{"a": "#, "it is cut off: its JSON does not end"),
            ("{} {}", "it is not valid JSON at line 1, column 4"),
            ("{'a'}", "it is not valid JSON at line 1, column 2"),
            ("", "it is cut off: its JSON does not end"),
        ] {
            assert_eq!(Fields::read(text, NAMES).unwrap_err().to_string(), want, "{text}");
        }
        for number in ["-1", "1.0", "1e3", "\"1\"", "{}", "18446744073709551616"] {
            let text = format!(r#"{{"a": {number}}}"#);
            let error = Fields::read(&text, NAMES).unwrap().number("a").unwrap_err();
            assert!(error.to_string().ends_with(", no whole number"), "{error}");
        }
    }
}
