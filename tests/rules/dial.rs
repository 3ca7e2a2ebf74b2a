//! Sockets in a VM's `run/` are reached in one way: `banger_channel::dial`, which takes no link and no
//! other user's socket.

use crate::{lines_of_code, none};

/// Who else may connect to a socket by its path, and to which.
const OTHERS: &[(&str, &str)] = &[
    ("shared/channel/src/dial.rs", "it is the one way"),
    ("shared/agent/src/forward.rs", "in the guest, for whoever asks to be led there"),
    ("shared/agent/src/lib.rs", "in the guest"),
];

#[test]
fn a_socket_of_a_vmm_is_reached_in_one_way() {
    let mut complaints = Vec::new();
    let mut used = vec![false; OTHERS.len()];
    for (path, line, code) in lines_of_code() {
        for word in ["UnixStream::connect", "UnixAddr::new(", "UnixDatagram"] {
            if !code.contains(word) {
                continue;
            }
            match OTHERS.iter().position(|(file, _)| *file == path) {
                Some(row) => used[row] = true,
                None => {
                    complaints
                        .push(format!("{path}:{line}: {word}; banger_channel::dial connects"));
                }
            }
        }
    }
    for ((file, _), _) in OTHERS.iter().zip(used).filter(|(_, used)| !used) {
        complaints.push(format!("{file} connects to nothing: take it out of the table"));
    }
    none(complaints);
}
