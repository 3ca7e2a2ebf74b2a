//! `banger schema` says what programs print: held against what they do print.

use banger_tests::{Sandbox, program};
use serde_json::Value;

#[test]
fn documents_are_as_the_schema_says() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_kernel("generic-6.12");
    sandbox.plant_vm("web", "alpine", "generic-6.12");
    sandbox.plant_exit("web", "vmm-ended");
    let said = sandbox.run(program("banger-schema"), &[]);
    assert_eq!(said.stderr, "", "every program describes itself");
    let said = &said.ok().documents;
    let prints = |name: &str| {
        let program = said.iter().find(|document| document["name"] == name).expect("a program");
        program["prints"].as_array().cloned().unwrap_or_default()
    };
    for (name, words) in [
        ("banger-vm-show", &["web"][..]),
        ("banger-vm-list", &[]),
        ("banger-vm-create", &["--no-start", "--image", "alpine", "--kernel", "generic-6.12"]),
        ("banger-image-show", &["alpine"]),
        ("banger-kernel-show", &["generic-6.12"]),
        ("banger-doctor", &[]),
        ("banger-df", &[]),
        ("banger-schema", &[]),
        ("banger-vm-delete", &["web"]),
    ] {
        let printed = sandbox.run(program(name), words);
        assert!(!printed.documents.is_empty(), "{}", printed.all());
        for document in &printed.documents {
            let schema = &document["schema"];
            assert!(prints(name).contains(schema), "{name} is not said to print {schema}");
            let described = said.iter().find(|it| it["name"] == *schema).expect("a document");
            let root = &described["json_schema"];
            fits(document, root, root).unwrap_or_else(|why| panic!("{name}: {why}\n{document}"));
        }
    }
}

/// Checks a value against the few words of JSON Schema that `banger schema` uses.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(key) = schema["$ref"].as_str() {
        return fits(value, &root["$defs"][key.trim_start_matches("#/$defs/")], root);
    }
    let right = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => return Err(format!("no type '{other}'")),
        None => true,
    };
    let one_of = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    let constant = schema.get("const").is_none_or(|wanted| wanted == value);
    if !(right && one_of && constant) {
        return Err(format!("{value} does not fit {schema}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        value.get(name).ok_or_else(|| format!("'{name}' is missing"))?;
    }
    if let Some(fields) = value.as_object().filter(|_| schema["properties"].is_object()) {
        for (name, inner) in fields {
            let known = schema["properties"].get(name);
            let known = known.ok_or_else(|| format!("'{name}' is not described"))?;
            fits(inner, known, root).map_err(|why| format!("{name}: {why}"))?;
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], root)?;
    }
    Ok(())
}
