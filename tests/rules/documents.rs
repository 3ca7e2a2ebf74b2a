//! `docs/documents.md` from the comments in `shared/doc`: the page says what the code says because
//! it is made of it. `BLESS=1` writes it.

use crate::{names, read, root};
use std::{collections::BTreeMap, fmt::Write, fs};

/// The line of the page after which everything is made of the code.
const MARK: &str = "<!-- The rest is made of the comments in shared/doc: BLESS=1 cargo test -p banger-tests --test rules -->\n";

/// A `pub struct` or `pub enum` that is written as JSON.
#[derive(Debug, Default)]
struct Record {
    name: String,
    words: String,
    schema: Option<String>,
    is_enum: bool,
    /// Whether the words of its values are joined by `_`, not `-`.
    is_snake: bool,
    fields: Vec<Field>,
}

/// A field of a struct, or a value of an enum.
#[derive(Debug, Default)]
struct Field {
    name: String,
    words: String,
    kind: String,
    attributes: String,
}

/// Reads the types of one file by their shape, which rustfmt keeps.
fn records(text: &str) -> Vec<Record> {
    let text = text.split("#[cfg(test)]").next().unwrap_or("");
    let mut records: Vec<Record> = Vec::new();
    let mut current: Option<Record> = None;
    let (mut words, mut attributes) = (String::new(), String::new());
    for line in text.lines() {
        let inside = line.trim();
        if let Some(comment) = inside.strip_prefix("///") {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(comment.trim());
            continue;
        }
        if inside.starts_with("#[") {
            attributes.push_str(inside);
            continue;
        }
        if line == "}" {
            records.extend(current.take());
        } else if let Some(record) = &mut current {
            let name = inside.trim_start_matches("pub ");
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, rest) = name.split_at(end.unwrap_or(name.len()));
            if !name.is_empty() && !inside.starts_with("//") {
                record.fields.push(Field {
                    name: match (record.is_enum, record.is_snake) {
                        (true, true) => kebab(name).replace('-', "_"),
                        (true, false) => kebab(name),
                        (false, _) => name.to_owned(),
                    },
                    words: words.clone(),
                    kind: rest.trim_start_matches([':', ' ']).trim_end_matches(',').to_owned(),
                    attributes: attributes.clone(),
                });
            }
        } else if attributes.contains("Serialize") && line.ends_with('{') {
            let head = line.trim_start_matches("pub ");
            let is_enum = head.starts_with("enum ");
            let name = head.split([' ', '<']).nth(1).unwrap_or("").to_owned();
            let is_snake = attributes.contains("\"snake_case\"");
            let words = words.clone();
            current = Some(Record { name, words, is_enum, is_snake, ..Record::default() });
        }
        words.clear();
        attributes.clear();
    }
    for (at, intro) in text.match_indices("impl Document for ") {
        let rest = &text[at + intro.len()..];
        let name = rest.split([' ', '{']).next().unwrap_or("");
        let schema = rest.split("const SCHEMA: &'static str = \"").nth(1);
        let schema = schema.and_then(|rest| rest.split('"').next()).map(str::to_owned);
        for record in records.iter_mut().filter(|record| record.name == name) {
            record.schema.clone_from(&schema);
        }
    }
    records
}

fn kebab(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// Says a Rust type in words, with links to the types that have a section.
fn kind(text: &str, known: &BTreeMap<String, Record>) -> String {
    let inner = |prefix: &str| text.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(inside) = inner("Option<") {
        return kind(inside, known);
    }
    if let Some(inside) = inner("Vec<") {
        return format!("list of {}", kind(inside, known));
    }
    if let Some(inside) = inner("BTreeMap<String, ") {
        return format!("object of {}", kind(inside, known));
    }
    match text {
        "String" => "text".to_owned(),
        "PathBuf" => "path".to_owned(),
        "Name" => "name".to_owned(),
        "IpAddr" => "address".to_owned(),
        "bool" => "true or false".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "i32" | "i64" | "usize" => "number".to_owned(),
        "f64" => "fraction".to_owned(),
        "Value" | "Map<String, Value>" => "any".to_owned(),
        _ => match known.get(text) {
            Some(record) if record.is_enum => {
                let values: Vec<String> =
                    record.fields.iter().map(|field| format!("`{}`", field.name)).collect();
                format!("[{text}](#{}): {}", text.to_lowercase(), values.join(", "))
            }
            Some(record) => match &record.schema {
                Some(schema) => {
                    format!("[`{schema}`](#{})", schema.replace(['.', '/'], ""))
                }
                None => format!("[{text}](#{})", text.to_lowercase()),
            },
            None => panic!("tests/rules/documents.rs knows no type '{text}'"),
        },
    }
}

/// Returns the sections, documents first.
fn sections() -> String {
    let mut known = BTreeMap::new();
    for file in names("shared/doc/src") {
        for record in records(&read(format!("shared/doc/src/{file}"))) {
            known.insert(record.name.clone(), record);
        }
    }
    let mut order: Vec<&Record> = known.values().collect();
    order.sort_by_key(|record| (record.schema.is_none(), &record.schema, &record.name));
    let mut page = String::new();
    for record in order {
        let title = record.schema.as_ref().unwrap_or(&record.name);
        // The schema is the title; the comment need not say it again.
        let words = record.words.replace(&format!("`{title}`: "), "");
        let words = words.replace(&format!("`{title}`, "), "");
        let mut letters = words.chars();
        let words = letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().collect::<String>() + letters.as_str()
        });
        let heading = if record.schema.is_some() { format!("`{title}`") } else { title.clone() };
        let _ = write!(page, "\n## {heading}\n\n{words}\n\n");
        page.push_str(if record.is_enum {
            "| value | meaning |\n|---|---|\n"
        } else {
            "| field | type | meaning |\n|---|---|---|\n"
        });
        for field in &record.fields {
            let words = field.words.replace('|', "\\|");
            if record.is_enum {
                let _ = writeln!(page, "| `{}` | {words} |", field.name);
                continue;
            }
            if field.attributes.contains("serde(flatten)") {
                let extra = field.kind.starts_with("Map");
                let what = if extra { "any other" } else { "the fields of" };
                let _ = writeln!(page, "| {what} | {} | {words} |", kind(&field.kind, &known));
                continue;
            }
            let absent = field.attributes.contains("skip_serializing_if")
                || field.attributes.contains("serde(default");
            let kind = kind(&field.kind, &known);
            let kind = if absent { format!("{kind}; may be absent") } else { kind };
            let _ = writeln!(page, "| `{}` | {kind} | {words} |", field.name);
        }
    }
    page
}

#[test]
fn the_page_of_documents_is_what_the_code_says() {
    let page = read("docs/documents.md");
    let (head, shown) = page.split_once(MARK).expect("the mark in docs/documents.md");
    let made = sections();
    assert!(made.matches("\n## `banger.").count() >= 9, "the sources were not understood:\n{made}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(root().join("docs/documents.md"), format!("{head}{MARK}{made}")).expect("a page");
    } else {
        let differs = made.lines().zip(shown.lines()).find(|(made, shown)| made != shown);
        assert!(
            made == shown,
            "docs/documents.md differs from shared/doc; BLESS=1 cargo test -p banger-tests --test \
             rules writes it\nfirst difference: {differs:?}"
        );
    }
}
