//! How two ends meet on a serial port, which has no connections: a mark that never appears inside a
//! session, and a record after it (`docs/agent-protocol.md`, section 3).

use memchr::memmem::Finder;

/// The mark. Its first byte is larger than the high byte of any length, its last differs from its
/// first, and it holds no zero, so no frame header can be a part of it but the last header byte.
pub(crate) const MARK: [u8; 16] = *b"\xf3banger-meet-v1\xf7";

/// Bytes of a record.
pub(crate) const RECORD: usize = 17;

/// What the record after a mark says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A host end has begun.
    Wake = 1,
    /// A guest end has begun, or was woken.
    Ask = 2,
    /// The host's answer to an ask.
    Hello = 3,
    /// The guest's answer to a hello.
    Welcome = 4,
}

/// The record after a mark.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) guest: u64,
    pub(crate) host: u64,
}

impl Record {
    /// Returns the mark and the record.
    pub(crate) fn encode(self) -> [u8; MARK.len() + RECORD] {
        let mut bytes = [0; MARK.len() + RECORD];
        bytes[..16].copy_from_slice(&MARK);
        bytes[16] = self.kind as u8;
        bytes[17..25].copy_from_slice(&self.guest.to_be_bytes());
        bytes[25..].copy_from_slice(&self.host.to_be_bytes());
        bytes
    }

    /// Reads a record; nothing if its kind is unknown.
    pub(crate) fn decode(bytes: [u8; RECORD]) -> Option<Self> {
        let kind = match bytes[0] {
            1 => Kind::Wake,
            2 => Kind::Ask,
            3 => Kind::Hello,
            4 => Kind::Welcome,
            _ => return None,
        };
        let number = |from: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[from..from + 8]);
            u64::from_be_bytes(eight)
        };
        Some(Self { kind, guest: number(1), host: number(9) })
    }
}

/// Looks for the mark in a stream that comes in pieces.
#[derive(Debug)]
pub(crate) struct Scanner {
    finder: Finder<'static>,
    /// The last bytes of the pieces before, fewer than the mark has.
    tail: Vec<u8>,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        static WHOLE: [u8; 16] = MARK;
        Self { finder: Finder::new(&WHOLE), tail: Vec::with_capacity(MARK.len() * 2) }
    }

    /// Returns where in the piece the first mark ends, and forgets all before; or remembers the
    /// piece's end.
    pub(crate) fn find(&mut self, piece: &[u8]) -> Option<usize> {
        let keep = MARK.len() - 1;
        if !self.tail.is_empty() {
            let before = self.tail.len();
            self.tail.extend_from_slice(&piece[..piece.len().min(keep)]);
            if let Some(at) = self.finder.find(&self.tail) {
                self.tail.clear();
                return Some(at + MARK.len() - before);
            }
            self.tail.truncate(before);
        }
        if let Some(at) = self.finder.find(piece) {
            self.tail.clear();
            return Some(at + MARK.len());
        }
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(keep)..]);
        let excess = self.tail.len().saturating_sub(keep);
        self.tail.drain(..excess);
        None
    }
}

/// Returns how much of a payload one frame may carry without holding the mark's end.
pub(crate) fn carried(payload: &[u8]) -> usize {
    static END: [u8; 15] = {
        let mut end = [0; 15];
        let mut i = 0;
        while i < end.len() {
            end[i] = MARK[i + 1];
            i += 1;
        }
        end
    };
    // The mark's last byte is the rarest in text and code: where it is missing, so is the mark.
    match memchr::memchr(END[14], payload) {
        Some(_) => Finder::new(&END).find(payload).map_or(payload.len(), |at| at + END.len() / 2),
        None => payload.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_comes_back() {
        let record = Record { kind: Kind::Hello, guest: 7, host: u64::MAX - 3 };
        let bytes = record.encode();
        assert_eq!(Record::decode(bytes[16..].try_into().unwrap()), Some(record));
        assert_eq!(Record::decode([9; 17]), None);
    }

    proptest! {
        #[test]
        fn the_mark_is_found_however_it_is_cut(
            before in proptest::collection::vec(prop_oneof![Just(0xf3_u8), Just(b'b'), any::<u8>()], 0..64),
            pieces in proptest::collection::vec(1_usize..20, 1..100),
        ) {
            let mut all = before.clone();
            all.extend(MARK);
            let mut scanner = Scanner::new();
            let (mut at, mut pieces) = (0, pieces.into_iter().cycle());
            let found = loop {
                let end = (at + pieces.next().unwrap()).min(all.len());
                if let Some(found) = scanner.find(&all[at..end]) {
                    break at + found;
                }
                at = end;
                prop_assert!(at < all.len(), "the mark was missed");
            };
            prop_assert_eq!(found, all.len());
        }

        #[test]
        fn what_one_frame_carries_never_holds_the_marks_end(
            parts in proptest::collection::vec(prop_oneof![
                Just(MARK.to_vec()), Just(MARK[1..].to_vec()), any::<Vec<u8>>()], 0..6),
        ) {
            let payload = parts.concat();
            let mut rest = payload.as_slice();
            while !rest.is_empty() {
                let n = carried(rest);
                prop_assert!(n > 0);
                prop_assert!(!rest[..n].windows(15).any(|w| w == &MARK[1..]));
                rest = &rest[n..];
            }
        }
    }
}
