//! QEMU's control protocol (docs/interop/qmp-spec.txt of QEMU): one JSON object a line.

use crate::Event;
use banger_doc::{Context, Error, Result};
use serde_json::Value;
use std::{
    io::{ErrorKind, Read, Write},
    os::{fd::BorrowedFd, unix::net::UnixStream},
};

/// No answer QEMU gives to what is asked here comes near this.
const MAX_LINE: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    partial: Vec<u8>,
}

impl Qmp {
    /// Begins the conversation. What is said before QEMU listens waits in the socket.
    pub(crate) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(true).context("cannot talk to QEMU")?;
        let mut qmp = Self { stream, partial: Vec::new() };
        qmp.execute("qmp_capabilities")?;
        // Answered by the loop that also runs the guest, hence not before the guest can run.
        qmp.execute("query-status")?;
        Ok(qmp)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.stream)
    }

    pub(crate) fn execute(&mut self, command: &str) -> Result<()> {
        let line = format!("{{\"execute\":\"{command}\"}}\r\n");
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot ask QEMU for '{command}'"))
    }

    /// Reads what is there; `None` after the end.
    pub(crate) fn events(&mut self) -> Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok((!events.is_empty()).then_some(events)),
                // QEMU ended with something of ours unread, which takes nothing from what it said.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok((!events.is_empty()).then_some(events));
                }
                Ok(n) => self.partial.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(events)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot hear QEMU"),
            }
            while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                events.extend(event(&line));
            }
            if self.partial.len() > MAX_LINE {
                return Err(Error::failed("QEMU says more than QMP allows"));
            }
        }
    }
}

/// Finds what matters in a line: the answer to `query-status`, and events.
fn event(line: &[u8]) -> Option<Event> {
    let value: Value = serde_json::from_slice(line).ok()?;
    if value["return"]["running"] == Value::Bool(true) {
        return Some(Event::Launched);
    }
    match value["event"].as_str()? {
        "STOP" => Some(Event::Paused),
        "RESUME" => Some(Event::Resumed),
        "GUEST_PANICKED" => Some(Event::GuestPanic),
        "SHUTDOWN" => match value["data"]["reason"].as_str()? {
            "guest-shutdown" => Some(Event::GuestShutdown),
            "guest-reset" => Some(Event::GuestReset),
            "guest-panic" => Some(Event::GuestPanic),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_events_however_they_are_cut() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        theirs.write_all(b"{\"QMP\": {\"version\": {}}}\r\n{\"return\": {}}\r\n{\"ret").unwrap();
        assert_eq!(qmp.events().unwrap(), Some(vec![]));
        theirs.write_all(b"urn\": {\"status\": \"running\", \"running\": true}}\r\n").unwrap();
        assert_eq!(qmp.events().unwrap(), Some(vec![Event::Launched]));
        theirs
            .write_all(
                b"{\"event\":\"STOP\"}\n{\"event\":\"RESUME\"}\nnonsense\n\
                  {\"event\":\"SHUTDOWN\",\"data\":{\"guest\":true,\"reason\":\"guest-reset\"}}\n",
            )
            .unwrap();
        drop(theirs);
        assert_eq!(
            qmp.events().unwrap(),
            Some(vec![Event::Paused, Event::Resumed, Event::GuestReset])
        );
        assert_eq!(qmp.events().unwrap(), None);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut qmp = Qmp::new(ours).unwrap();
        let writer = std::thread::spawn(move || {
            let _ = theirs.write_all(&vec![b'x'; MAX_LINE + 8192]);
        });
        let failed = loop {
            match qmp.events() {
                Err(_) => break true,
                Ok(None) => break false,
                Ok(Some(_)) => std::thread::yield_now(),
            }
        };
        drop(qmp);
        writer.join().unwrap();
        assert!(failed);
    }
}
