//! What parses a guest's bytes runs in the jail, by one way (`docs/security.md`).

use crate::{code_of, lines_of_code, none, sources};

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

#[test]
fn programs_that_parse_a_disk_run_in_the_jail_alone() {
    let mut complaints = Vec::new();
    for path in sources() {
        let code = code_of(&path);
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
    let of_guest = |path: &str| {
        let name = path.strip_prefix("shared/workspace/src/");
        name.is_some_and(|name| {
            let of_guest = [
                "apply.rs",
                "remote/bring.rs",
                "export.rs",
                "guest.rs",
                "export/mails.rs",
                "export/sides.rs",
                "remote/offer.rs",
                "status.rs",
                "remote/wip.rs",
            ];
            let dirs = ["apply/", "guest/"];
            // The checkout is the host's own.
            let is_below = dirs.iter().any(|dir| name.starts_with(dir));
            of_guest.contains(&name) || is_below && name != "apply/checkout.rs"
        })
    };
    for (path, number, line) in lines_of_code().into_iter().filter(|(path, ..)| of_guest(path)) {
        // The host's own files are what this one is about.
        let is_hosts = line.contains("plan::of_directory(");
        let is_other = ["Git::", ".git()", "git_writing_to(", ".reading("]
            .iter()
            .any(|call| line.contains(call));
        if is_other && !is_hosts {
            complaints.push(format!("{path}:{number} calls git without Store::git_for_guest"));
        }
    }
    none(complaints);
}

#[test]
fn a_guests_disks_are_read_by_one_program_in_the_jail() {
    let mut complaints = Vec::new();
    for (path, number, line) in lines_of_code() {
        let reads = ["banger_ext4read", "View::open(", "banger_offline::serve("];
        let may = ["shared/ext4read/", "shared/offline/", "bins/banger-vm-read/"];
        if reads.iter().any(|word| line.contains(word))
            && !may.iter().any(|dir| path.starts_with(dir))
        {
            complaints
                .push(format!("{path}:{number} reads a guest's disk outside of banger-vm-read"));
        }
    }
    let session = code_of("shared/offline/src/session.rs");
    if session.contains("Command::new(") || !session.contains("Tool::new(&find(READER)?") {
        complaints
            .push("shared/offline/src/session.rs starts the reader outside of the jail".into());
    }
    none(complaints);
}
