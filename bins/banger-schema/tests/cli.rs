//! The contract of `banger-schema`.

use banger_tests::Sandbox;
use serde_json::Value;

const SCHEMA: &str = env!("CARGO_BIN_EXE_banger-schema");

#[test]
fn a_program_says_what_it_takes() {
    let sandbox = Sandbox::new();
    let program = sandbox.run(SCHEMA, &["schema"]).document().clone();
    assert_eq!(program["schema"], "banger.program/1");
    assert_eq!(program["name"], "banger-schema");
    assert_eq!(program["command"], "banger schema");
    assert_eq!(program["raw"], false);
    assert_eq!(program["prints"][0], "banger.program/1");
    let arguments = program["arguments"].as_array().expect("a list");
    let word = arguments.iter().find(|it| it["value"] == "NAME").expect("the name");
    assert_eq!((&word["required"], &word["repeats"]), (&false.into(), &true.into()), "{word}");
    let quiet = arguments.iter().find(|it| it["option"] == "--quiet").expect("--quiet");
    assert_eq!(quiet["short"], "-q");
    assert!(quiet.get("value").is_none(), "{quiet}");
    // The same in all spellings.
    for name in ["banger-schema", "schema"] {
        assert_eq!(*sandbox.run(SCHEMA, &[name]).document(), program);
    }
}

#[test]
fn a_document_is_a_json_schema() {
    let sandbox = Sandbox::new();
    let document = sandbox.run(SCHEMA, &["banger.error/1"]).document().clone();
    assert_eq!(document["schema"], "banger.document/1");
    let schema = &document["json_schema"];
    assert_eq!(schema["properties"]["schema"]["const"], "banger.error/1");
    assert_eq!(schema["properties"]["kind"]["$ref"], "#/$defs/Kind");
    assert_eq!(schema["$defs"]["Kind"]["enum"][2], "not-found");
}

#[test]
fn without_a_name_everything_is_described_and_strangers_are_left_out() {
    let sandbox = Sandbox::new();
    let program = sandbox.beside(
        SCHEMA,
        &[("banger-stranger", "echo hello"), ("banger-vm-create", "exit 7"), ("other", "exit 0")],
    );
    let answer = sandbox.run(&program, &[]);
    let count = |schema: &str| {
        answer.documents.iter().filter(|document| document["schema"] == schema).count()
    };
    assert_eq!(answer.status, 0, "{}", answer.all());
    assert_eq!(count("banger.program/1"), 1, "{}", answer.all());
    assert!(count("banger.document/1") > 15, "{}", answer.all());
    assert_eq!(count("banger.status/1"), 6, "{}", answer.all());
    let kinds: Vec<&Value> = answer.documents.iter().filter_map(|it| it.get("kind")).collect();
    assert_eq!(kinds, ["failed", "usage", "not-found", "conflict", "unavailable"]);
    for name in ["banger-stranger", "banger-vm-create"] {
        assert!(answer.stderr.contains(name), "{}", answer.all());
    }
}

#[test]
fn what_is_not_there_is_not_found() {
    let sandbox = Sandbox::new();
    for name in ["nothing", "../banger-schema", "banger.view/9", "", "guest-init"] {
        sandbox.run(SCHEMA, &[name]).fails(3, "no program and no document");
    }
}
