//! The contract of `banger-image-list`.

use banger_tests::Sandbox;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-list");

#[test]
fn no_state_is_an_empty_list_and_makes_none() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(PROGRAM, &[]).ok().documents.len(), 0);
    assert!(!sandbox.state().exists());
}

#[test]
fn images_are_listed_by_name_as_documents_and_as_a_table() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("debian");
    sandbox.plant_image("alpine");
    fs::create_dir(sandbox.state().join("images/.new-x-1")).unwrap();
    let answer = sandbox.run(PROGRAM, &[]);
    let names: Vec<_> = answer.ok().documents.iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["alpine", "debian"]);
    let table = sandbox.terminal(PROGRAM, 100, |_| {});
    let text = table.ok().text();
    assert!(text.starts_with("NAME"), "{text}");
    assert!(text.contains("127.0.0.1:5000/alpine:latest"), "{text}");
}

#[test]
fn one_that_cannot_be_read_is_named_and_hides_no_other() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("alpine");
    sandbox.plant_image("broken");
    fs::write(sandbox.state().join("images/broken/image.json"), "{").unwrap();
    let answer = sandbox.run(PROGRAM, &[]);
    answer.fails(1, "cannot read image 'broken'");
    assert_eq!(answer.documents[0]["name"], "alpine");
}
