//! Questions over TCP (RFC 7766): each is preceded by its length, and so is its answer.

use crate::{AGAIN, QUESTION_BYTES, look_up, message::Question};
use banger_state::State;
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Most connections at once; a further one is closed.
const MOST: usize = 32;
/// How long a question may take to come, its whole length.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last.
const STREAM_LIMIT: Duration = Duration::from_mins(1);
const STACK: usize = 64 << 10;

/// Answers whoever connects, for ever.
pub(crate) fn serve(state: &Arc<State>, listener: &TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((stream, _)) = listener.accept() else {
            // No room for another file, for now.
            thread::sleep(AGAIN);
            continue;
        };
        if open.fetch_add(1, Ordering::Relaxed) >= MOST {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (state, counted) = (Arc::clone(state), Arc::clone(&open));
        let begun = thread::Builder::new().stack_size(STACK).spawn(move || {
            // Whoever breaks a rule, or is too slow, is left.
            let _ = converse(&state, stream);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if begun.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answers one question after the other, in order.
fn converse(state: &State, mut stream: TcpStream) -> io::Result<()> {
    let end = Instant::now() + STREAM_LIMIT;
    stream.set_write_timeout(Some(QUESTION_LIMIT))?;
    loop {
        let limit = end.min(Instant::now() + QUESTION_LIMIT);
        let mut length = [0; 2];
        fill(&mut stream, &mut length, limit)?;
        let mut bytes = [0; QUESTION_BYTES];
        let size = usize::from(u16::from_be_bytes(length));
        let bytes = bytes.get_mut(..size).ok_or(io::ErrorKind::InvalidData)?;
        fill(&mut stream, bytes, limit)?;
        let question = Question::read(bytes).ok_or(io::ErrorKind::InvalidData)?;
        let answer = question.answer(&look_up(state, &question));
        // In one piece: a client may take what a read gives it for the whole.
        let mut message = (answer.len() as u16).to_be_bytes().to_vec();
        message.extend(answer);
        stream.write_all(&message)?;
    }
}

/// Reads as much as there is room for, until `end`.
fn fill(stream: &mut TcpStream, mut bytes: &mut [u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
