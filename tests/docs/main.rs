//! Runs the examples of the pages: what a `console` block shows is what programs print.
//! `docs/contributing.md` describes the format; `BLESS=1` writes what was printed into the page.

use banger_tests::{Page, pages};
use std::fmt::Write;

/// Every page in a sandbox of its own; blocks for a real VM are run by a flow.
#[test]
fn pages_show_what_programs_print() {
    let mut complaints = String::new();
    let mut examples = 0;
    for path in pages() {
        let mut page = Page::open(&path);
        let sandbox = banger_tests::Sandbox::new();
        sandbox.plant_state();
        examples += page.run(&sandbox, "console");
        for complaint in page.finish() {
            let _ = writeln!(complaints, "{complaint}");
        }
    }
    assert!(examples > 0, "no page has an example");
    assert!(complaints.is_empty(), "\n{complaints}");
}
