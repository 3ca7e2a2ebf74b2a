//! What parses a guest's bytes runs in the jail, by one way (`docs/security.md`).

use crate::{ending, files, none, read};

/// Programs that parse a file system.
const PARSERS: &[&str] = &[
    "e2fsck",
    "resize2fs",
    "debugfs",
    "dumpe2fs",
    "tune2fs",
    "e2image",
    "fsck",
    "mount",
    "qemu-img",
];

/// The code of a file without its unit tests.
fn code(path: &str) -> String {
    let text = read(path);
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

fn sources() -> Vec<String> {
    let is_source = |path: &String| {
        (path.starts_with("bins/") || path.starts_with("shared/")) && path.contains("/src/")
    };
    ending("rs", files()).into_iter().filter(is_source).collect()
}

#[test]
fn programs_that_parse_a_disk_run_in_the_jail_alone() {
    let mut complaints = Vec::new();
    for path in sources() {
        let code = code(&path);
        for name in PARSERS {
            let called = code.contains(&format!("Command::new(\"{name}\")"));
            let looked_for = code.contains(&format!("which(\"{name}\")"));
            let otherwise = code.contains("Command::new(") || !code.contains("Tool::new(");
            if called || (looked_for && otherwise) {
                complaints.push(format!("{path} runs {name} without banger_jail::Tool"));
            }
        }
    }
    none(complaints);
}
