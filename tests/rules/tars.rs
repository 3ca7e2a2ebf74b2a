//! What somebody else made of a tar is read in one place (`shared/tar`).

use crate::{ending, files, none, read, without_tests};

/// Who reads with the crate `tar`, which takes what others read otherwise: the agent, what the host
/// itself wrote; and the tests of both ends.
const READERS: &[&str] =
    &["shared/channel/src/files/serve.rs", "shared/channel/src/files/tests.rs"];

#[test]
fn there_is_no_second_reader_of_hostile_archives() {
    let mut complaints = Vec::new();
    let mut used = Vec::new();
    for file in ending("rs", files()) {
        if file.starts_with("tests/") {
            continue;
        }
        let text = read(&file);
        if ["tar::Archive", "tar::Entry<", "use tar::{", "use tar::*"]
            .iter()
            .any(|w| text.contains(w))
        {
            if READERS.contains(&file.as_str()) {
                used.push(file);
            } else {
                complaints.push(format!("{file} reads archives with the crate tar"));
            }
            continue;
        }
        let code = without_tests(&text);
        let is_test = file.contains("/tests/") || file.ends_with("/tests.rs");
        for program in ["tar", "bsdtar", "cpio", "dpkg-deb", "ar"] {
            if !is_test && code.contains(&format!("Command::new(\"{program}\")")) {
                complaints.push(format!("{file} runs {program}"));
            }
        }
    }
    for reader in READERS {
        if !used.iter().any(|file| file == reader) {
            complaints.push(format!("{reader} reads no archive: take it out of the list"));
        }
    }
    none(complaints);
}
