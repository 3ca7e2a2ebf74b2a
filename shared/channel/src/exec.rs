//! Messages about one command that runs in the guest (`docs/agent-protocol.md`, section 5).

use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Result};

/// Longest request, line end included.
pub const REQUEST_BYTES: usize = 1 << 20;
/// Most bytes a frame carries.
pub const FRAME_BYTES: usize = 64 << 10;
/// How much of stdin a client may send before the agent says that it takes more.
pub const CREDIT: u32 = 256 << 10;

/// What to run. What is absent is as the image says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Request {
    /// The command; the user's shell if empty.
    #[serde(default)]
    pub argv: Vec<String>,
    /// `NAME=value` each.
    #[serde(default)]
    pub env: Vec<String>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whom it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The terminal it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<Window>,
    /// What sort of terminal it is, as `TERM` says; where the guest does not know it, one that it knows stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Window {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// Why a command did not start.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// There is no such command.
    NotFound,
    /// It cannot be executed.
    NotExecutable,
    /// The user, the directory or the request itself is wrong.
    Refused,
    /// Anything else.
    #[serde(other)]
    Failed,
}

/// A command did not start.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Failure {
    /// Why.
    pub kind: Why,
    /// The same in words.
    pub message: String,
}

/// A message of either end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Bytes for the command.
    Stdin(&'a [u8]),
    /// No more bytes for the command.
    StdinEnd,
    /// The terminal changed its size.
    Window(Window),
    /// A signal for the command.
    Signal(u8),
    /// Is anybody there? Answered with [`Message::Pong`].
    Ping,
    /// Bytes from the command.
    Stdout(&'a [u8]),
    /// Bytes from the command.
    Stderr(&'a [u8]),
    /// So many more bytes of stdin may be sent.
    Credit(u32),
    /// The command has ended.
    Exit {
        /// Exit status.
        status: u8,
        /// The signal that ended it; zero if none did.
        signal: u8,
    },
    /// The command did not start: a [`Failure`].
    Error(&'a [u8]),
    /// The command runs, as this process.
    Started(u32),
    /// The answer to [`Message::Ping`].
    Pong,
}

impl<'a> Message<'a> {
    /// Appends the message as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (four, two);
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Stdin(bytes) => (0, bytes),
            Self::StdinEnd => (1, &[]),
            Self::Window(window) => {
                let ([r1, r0], [c1, c0]) = (window.rows.to_be_bytes(), window.cols.to_be_bytes());
                four = [r1, r0, c1, c0];
                (2, &four)
            }
            Self::Signal(number) => (3, std::slice::from_ref(number)),
            Self::Ping => (4, &[]),
            Self::Stdout(bytes) => (16, bytes),
            Self::Stderr(bytes) => (17, bytes),
            Self::Credit(count) => {
                four = count.to_be_bytes();
                (18, &four)
            }
            Self::Exit { status, signal } => {
                two = [*status, *signal];
                (19, &two)
            }
            Self::Error(bytes) => (20, bytes),
            Self::Started(pid) => {
                four = pid.to_be_bytes();
                (21, &four)
            }
            Self::Pong => (22, &[]),
        };
        assert!(payload.len() <= FRAME_BYTES, "because callers send pieces of at most that size");
        out.push(kind);
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self> {
        let four = || <[u8; 4]>::try_from(payload).map_err(|_| bad("a frame has a wrong size"));
        Ok(match (kind, payload) {
            (0, bytes) => Self::Stdin(bytes),
            (1, []) => Self::StdinEnd,
            (2, _) => {
                let [r1, r0, c1, c0] = four()?;
                let (rows, cols) = (u16::from_be_bytes([r1, r0]), u16::from_be_bytes([c1, c0]));
                Self::Window(Window { rows, cols })
            }
            (3, [number]) => Self::Signal(*number),
            (4, []) => Self::Ping,
            (16, bytes) => Self::Stdout(bytes),
            (17, bytes) => Self::Stderr(bytes),
            (18, _) => Self::Credit(u32::from_be_bytes(four()?)),
            (19, [status, signal]) => Self::Exit { status: *status, signal: *signal },
            (20, bytes) => Self::Error(bytes),
            (21, _) => Self::Started(u32::from_be_bytes(four()?)),
            (22, []) => Self::Pong,
            _ => return Err(bad("a frame of an unknown kind")),
        })
    }
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// Cuts a byte stream into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Adds bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole message. An error means that the peer breaks the rules.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>> {
        let rest = &self.bytes[self.taken..];
        let [kind, l3, l2, l1, l0, ..] = *rest else { return Ok(None) };
        let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        if length > FRAME_BYTES {
            return Err(bad("a frame is too long"));
        }
        let Some(payload) = rest.get(5..5 + length) else { return Ok(None) };
        self.taken += 5 + length;
        Message::decode(kind, payload).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_message_comes_back_byte_by_byte() {
        let window = Window { rows: 24, cols: 80 };
        let messages = [
            Message::Stdin(b"\0\xff"),
            Message::StdinEnd,
            Message::Window(window),
            Message::Signal(15),
            Message::Ping,
            Message::Pong,
            Message::Stdout(b""),
            Message::Stderr(b"x"),
            Message::Credit(65_536),
            Message::Exit { status: 42, signal: 0 },
            Message::Error(b"{}"),
            Message::Started(7),
        ];
        let mut bytes = Vec::new();
        for message in &messages {
            message.encode(&mut bytes);
        }
        let (mut decoder, mut came) = (Decoder::default(), 0);
        for byte in bytes {
            decoder.feed(&[byte]);
            while let Some(message) = decoder.next_message().unwrap() {
                assert_eq!(message, messages[came]);
                came += 1;
            }
        }
        assert_eq!(came, messages.len());
    }

    #[test]
    fn an_unknown_reason_is_a_failure() {
        let failure: Failure =
            serde_json::from_str(r#"{"kind":"on-strike","message":"no"}"#).unwrap();
        assert_eq!(failure.kind, Why::Failed);
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic_nor_pile_up(parts in proptest::collection::vec(any::<Vec<u8>>(), 0..50)) {
            let mut decoder = Decoder::default();
            for part in parts {
                decoder.feed(&part);
                loop {
                    match decoder.next_message() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(decoder.bytes.len() - decoder.taken <= FRAME_BYTES + 5 + part.len());
            }
        }
    }
}
