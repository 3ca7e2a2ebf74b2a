//! What the image's program says, on the console: whole lines, each marked, so that nobody takes one for a
//! line of the kernel's or of ours.

use banger_doc::{Context, Result};
use banger_guest::place;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::read,
};
use std::{
    fs::OpenOptions,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    thread,
};

/// A longer line is shown as several.
const MOST_BYTES: usize = 4096;
/// How long a line may lack its end before it is shown all the same, in milliseconds.
const PATIENCE: u16 = 200;

/// Copies what comes out of a pipe until nobody can write to it any more.
pub(crate) fn copy(pipe: OwnedFd) -> Result<()> {
    let run = move || {
        let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") else { return };
        let mut lines = Lines::default();
        let mut buffer = [0; MOST_BYTES];
        loop {
            let limit = if lines.is_empty() { PollTimeout::NONE } else { PATIENCE.into() };
            let text = match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], limit) {
                Err(Errno::EINTR) => continue,
                Err(_) => return,
                Ok(0) => lines.end(),
                Ok(_) => match read(&pipe, &mut buffer) {
                    Err(Errno::EINTR) => continue,
                    Ok(0) | Err(_) => {
                        let _ = console.write_all(&lines.end());
                        return;
                    }
                    Ok(count) => lines.take(&buffer[..count]),
                },
            };
            // A console that takes no more is no reason to stop the program.
            let _ = console.write_all(&text);
        }
    };
    let thread = thread::Builder::new().stack_size(64 << 10).spawn(run);
    thread.map(drop).context("cannot start a thread")
}

/// Lines that come in pieces.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// Takes what came; returns the lines that are whole now, marked.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.begun.len() >= MOST_BYTES {
                whole.extend(self.line());
            }
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
        }
        whole
    }

    /// Returns the line that is begun, if there is one, with an end.
    fn end(&mut self) -> Vec<u8> {
        if self.is_empty() { Vec::new() } else { self.line() }
    }

    fn line(&mut self) -> Vec<u8> {
        let mut line = place::MARK.as_bytes().to_vec();
        line.append(&mut self.begun);
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_marked_however_it_comes() {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        for piece in ["a\nb", "c\n\n[ 1.0] Kernel pa", "nic - not syncing: x\nrest"] {
            said.extend(lines.take(piece.as_bytes()));
        }
        assert!(!lines.is_empty());
        said.extend(lines.end());
        assert!(lines.is_empty() && lines.end().is_empty());
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, "| a\n| bc\n| \n| [ 1.0] Kernel panic - not syncing: x\n| rest\n");
    }

    #[test]
    fn a_line_without_an_end_is_cut_into_several() {
        let mut lines = Lines::default();
        let said = lines.take(&vec![b'x'; 3 * MOST_BYTES]);
        assert_eq!(said.split(|byte| *byte == b'\n').count(), 3);
        assert!(said.starts_with(b"| xx"));
        assert!(lines.begun.len() <= MOST_BYTES);
    }
}
