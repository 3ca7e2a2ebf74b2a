//! The page of documents as JSON Schemas (2020-12). The page is made of the code, and a test holds
//! it to that.

use crate::pages::{code, rows};
use banger_doc::Described;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const DOCUMENTS: &str = include_str!("../../../docs/documents.md");

/// A section of the page.
struct Section {
    meaning: String,
    is_enum: bool,
    rows: Vec<Vec<String>>,
}

/// Describes every document.
pub(crate) fn documents() -> Vec<Described> {
    let sections = sections();
    sections
        .iter()
        .filter(|(title, _)| title.starts_with("banger."))
        .map(|(title, section)| {
            let mut used = BTreeMap::new();
            let mut schema = object(section, &sections, &mut used);
            schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
            schema["properties"]["schema"] = json!({ "const": title });
            if let Some(required) = schema["required"].as_array_mut() {
                required.insert(0, "schema".into());
            }
            if !used.is_empty() {
                schema["$defs"] = Value::Object(used.into_iter().collect());
            }
            Described { name: title.clone(), meaning: section.meaning.clone(), json_schema: schema }
        })
        .collect()
}

fn sections() -> BTreeMap<String, Section> {
    DOCUMENTS
        .split("\n## ")
        .skip(1)
        .map(|text| {
            let (title, body) = text.split_once('\n').unwrap_or((text, ""));
            let meaning = body.trim_start().lines().next().unwrap_or_default().to_owned();
            let mut rows = rows(body);
            let head = rows.next().unwrap_or_default();
            let section = Section {
                meaning,
                is_enum: head.first().is_some_and(|cell| cell == "value"),
                // The line between a table's head and its body comes first.
                rows: rows.skip(1).collect(),
            };
            (title.trim_matches('`').to_owned(), section)
        })
        .collect()
}

/// Describes the fields of a section; types it names are added to `used`.
fn object(
    section: &Section,
    all: &BTreeMap<String, Section>,
    used: &mut BTreeMap<String, Value>,
) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for cells in section.rows.iter().filter(|cells| cells.len() == 3) {
        let Some(name) = code(&cells[0]).pop() else {
            // All fields of another document, beside those of this one.
            if let Some(other) = code(&cells[1]).pop().and_then(|title| all.get(&title)) {
                let inner = object(other, all, used);
                properties.extend(inner["properties"].as_object().cloned().unwrap_or_default());
                required.extend(inner["required"].as_array().cloned().unwrap_or_default());
            }
            continue;
        };
        let (kind, optional) = match cells[1].strip_suffix("; may be absent") {
            Some(kind) => (kind, true),
            None => (cells[1].as_str(), false),
        };
        let mut schema = kind_of(kind, all, used);
        schema["description"] = cells[2].clone().into();
        if !optional {
            required.push(name.clone().into());
        }
        properties.insert(name, schema);
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

fn kind_of(
    kind: &str,
    all: &BTreeMap<String, Section>,
    used: &mut BTreeMap<String, Value>,
) -> Value {
    if let Some(item) = kind.strip_prefix("list of ") {
        return json!({ "type": "array", "items": kind_of(item, all, used) });
    }
    if let Some(item) = kind.strip_prefix("object of ") {
        return json!({ "type": "object", "additionalProperties": kind_of(item, all, used) });
    }
    let link = kind.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((title, _)) = link {
        let title = title.trim_matches('`');
        if let Some(section) = all.get(title) {
            // A pointer's steps may hold no slash.
            let key = title.replace('/', "-");
            if !used.contains_key(&key) {
                used.insert(key.clone(), Value::Null);
                let schema =
                    if section.is_enum { values(section) } else { object(section, all, used) };
                used.insert(key.clone(), schema);
            }
            return json!({ "$ref": format!("#/$defs/{key}") });
        }
    }
    match kind {
        "number" => json!({ "type": "integer" }),
        "fraction" => json!({ "type": "number" }),
        "true or false" => json!({ "type": "boolean" }),
        "any" => json!({}),
        _ => json!({ "type": "string" }),
    }
}

fn values(section: &Section) -> Value {
    let names: Vec<String> =
        section.rows.iter().filter_map(|cells| code(cells.first()?).pop()).collect();
    json!({ "type": "string", "enum": names, "description": section.meaning })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_is_described_down_to_its_last_type() {
        let documents = documents();
        assert!(documents.len() >= 15, "the page was not understood");
        for document in &documents {
            let schema = &document.json_schema;
            assert!(!document.meaning.is_empty(), "{}", document.name);
            assert_eq!(schema["required"][0], "schema", "{}", document.name);
            let text = schema.to_string();
            for (at, start) in text.match_indices("#/$defs/") {
                let rest = &text[at + start.len()..];
                let key = rest.split('"').next().unwrap_or_default();
                assert!(schema["$defs"][key].is_object(), "{}: {key}", document.name);
            }
        }
    }

    #[test]
    fn a_view_has_the_fields_of_the_vm() {
        let documents = documents();
        let view = documents.iter().find(|it| it.name == "banger.view/1").expect("a view");
        let fields = &view.json_schema["properties"];
        for name in ["schema", "status", "name", "image", "mac", "spec", "folder", "running"] {
            assert!(fields.get(name).is_some(), "{name}: {fields}");
        }
        assert_eq!(fields["spec"]["$ref"], "#/$defs/banger.spec-1");
        let spec = &view.json_schema["$defs"]["banger.spec-1"];
        assert_eq!(spec["properties"]["vcpu"]["type"], "integer");
        let required = view.json_schema["required"].as_array().expect("a list");
        assert!(required.contains(&"mac".into()) && !required.contains(&"running".into()));
    }
}
