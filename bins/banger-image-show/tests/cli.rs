//! The contract of `banger-image-show`.

use banger_tests::Sandbox;

const PROGRAM: &str = env!("CARGO_BIN_EXE_banger-image-show");

#[test]
fn an_image_is_shown_as_it_is_recorded() {
    let sandbox = Sandbox::new();
    let planted = sandbox.plant_image("alpine");
    let answer = sandbox.run(PROGRAM, &["alpine"]);
    let document = answer.document();
    for key in ["schema", "name", "source", "digest", "config"] {
        assert_eq!(document[key], planted[key], "{key}");
    }
}

#[test]
fn several_are_shown_in_the_order_they_are_named() {
    let sandbox = Sandbox::new();
    sandbox.plant_image("a");
    sandbox.plant_image("b");
    let answer = sandbox.run(PROGRAM, &["b", "none", "a", "b"]);
    answer.fails(3, "no image 'none'");
    let names: Vec<_> = answer.documents.iter().filter_map(|d| d["name"].as_str()).collect();
    assert_eq!(names, ["b", "a"]);
}

#[test]
fn a_wrong_name_and_none_are_usage() {
    let sandbox = Sandbox::new();
    sandbox.run(PROGRAM, &["../x"]).fails(2, "is not a name");
    sandbox.run(PROGRAM, &[]).fails(2, "is missing");
}
