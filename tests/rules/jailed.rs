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

#[test]
fn git_on_what_a_guest_wrote_runs_in_the_jail_alone() {
    let mut complaints = Vec::new();
    let of_guest = |path: &String| {
        let name = path.strip_prefix("shared/workspace/src/");
        name.is_some_and(|name| {
            matches!(name, "export.rs" | "guest.rs" | "status.rs") || name.starts_with("guest/")
        })
    };
    for path in sources().into_iter().filter(of_guest) {
        let code = code(&path);
        for (number, line) in (1..).zip(code.lines()) {
            // The host's own files are what this one is about.
            let is_hosts = line.contains("plan::of_directory(");
            let is_other = ["Git::", ".git()", "git_writing_to(", ".reading("]
                .iter()
                .any(|call| line.contains(call));
            if is_other && !is_hosts {
                complaints.push(format!("{path}:{number} calls git without Store::git_for_guest"));
            }
        }
    }
    none(complaints);
}
