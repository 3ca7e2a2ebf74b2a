//! Sockets in a VM's `run/` are reached in one way: `banger_channel::dial`, which takes no link and no
//! other user's socket.

use crate::{ending, files, none, read};

/// Who else may connect to a socket by its path, and to which.
const OTHERS: &[(&str, &str)] = &[
    ("shared/channel/src/dial.rs", "it is the one way"),
    ("shared/agent/src/forward.rs", "in the guest, for whoever asks to be led there"),
    ("shared/agent/src/lib.rs", "in the guest"),
];

#[test]
fn a_socket_of_a_vmm_is_reached_in_one_way() {
    let mut complaints = Vec::new();
    for path in ending("rs", files()) {
        let is_source =
            ["bins/", "shared/"].iter().any(|top| path.starts_with(top)) && path.contains("/src/");
        if !is_source || OTHERS.iter().any(|(file, _)| *file == path) {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["UnixStream::connect", "UnixAddr::new(", "UnixDatagram"] {
            if code.contains(word) {
                complaints.push(format!("{path} names {word}; banger_channel::dial connects"));
            }
        }
    }
    none(complaints);
}
