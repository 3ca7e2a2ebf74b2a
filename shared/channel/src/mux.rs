//! Many streams over one byte stream: yamux framing, as a state machine without I/O.

use crate::meet::{Kind, RECORD, Record, Scanner, carried};
use std::{
    collections::{BTreeMap, VecDeque},
    hash::BuildHasher,
    time::{Duration, Instant},
};

/// Bytes of a frame's header.
const HEADER: usize = 12;
/// How much of a stream may be under way, each direction (yamux's own number).
const WINDOW: u32 = 256 << 10;
/// Most bytes in one data frame that we send.
const FRAME: usize = 32 << 10;
/// Most streams at once.
pub(crate) const MOST_STREAMS: usize = 2048;
/// Most bytes held for local readers who do not read.
const MOST_HELD: usize = 64 << 20;
/// Data is queued for the device as long as less than this waits.
const ROOM: usize = 128 << 10;
/// Nothing is read from the device while more than this waits to be written to it: only a peer that
/// asks without listening gets there.
const CROWDED: usize = 1 << 20;
/// How often a guest end that nobody answers asks again.
const ASK_EVERY: Duration = Duration::from_secs(1);

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;
const FIN: u16 = 4;
const RST: u16 = 8;

/// Which end this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Host,
    Guest,
}

/// One stream, as this end sees it.
#[derive(Debug)]
struct Stream {
    /// What the peer may still send.
    receive: u32,
    /// What we may still send.
    send: u32,
    /// Came, and waits for the local reader.
    held: VecDeque<u8>,
    /// Read locally and not yet granted to the peer again.
    taken: u32,
    /// The peer sends no more.
    ended: bool,
    /// The peer neither sends nor reads.
    gone: bool,
    /// We send no more.
    finished: bool,
}

impl Stream {
    fn new() -> Self {
        Self {
            receive: WINDOW,
            send: WINDOW,
            held: VecDeque::new(),
            taken: 0,
            ended: false,
            gone: false,
            finished: false,
        }
    }
}

#[derive(Debug, Default)]
enum Parse {
    /// Until the session stands: frames, if any, are of an earlier one.
    #[default]
    Nothing,
    Header {
        bytes: [u8; HEADER],
        have: usize,
    },
    /// Payload of a stream, or of one that is gone.
    Payload {
        id: u32,
        left: u32,
        end: bool,
    },
}

const START: Parse = Parse::Header { bytes: [0; HEADER], have: 0 };

/// A broken rule; ends the session.
#[derive(Debug)]
struct Broken;

/// The multiplexer of one end.
#[derive(Debug)]
pub(crate) struct Mux {
    role: Role,
    /// The guest end's number of the session, zero if unknown.
    guest: u64,
    /// The host end's number of the session, zero if there is none.
    host: u64,
    standing: bool,
    asked: Option<Instant>,
    scanner: Scanner,
    record: Option<([u8; RECORD], usize)>,
    parse: Parse,
    streams: BTreeMap<u32, Stream>,
    next: u32,
    held: usize,
    out: Vec<u8>,
    sent: usize,
    opened: Vec<u32>,
    dropped: Vec<u32>,
}

impl Mux {
    /// Makes an end that has just begun.
    pub(crate) fn new(role: Role) -> Self {
        let mut mux = Self {
            role,
            guest: 0,
            host: 0,
            standing: false,
            asked: None,
            scanner: Scanner::new(),
            record: None,
            parse: Parse::Nothing,
            streams: BTreeMap::new(),
            next: 1,
            held: 0,
            out: Vec::new(),
            sent: 0,
            opened: Vec::new(),
            dropped: Vec::new(),
        };
        mux.begin();
        mux
    }

    /// Says whether more may be read from the device.
    pub(crate) fn wants_input(&self) -> bool {
        self.out.len() - self.sent < CROWDED
    }

    /// Returns when [`Mux::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Option<Instant> {
        self.asked.map(|at| at + ASK_EVERY)
    }

    /// Asks again if nobody answered.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.next_tick().is_some_and(|at| at <= now) {
            self.asked = Some(now);
            if self.output().is_empty() {
                self.say(Kind::Ask);
            }
        }
    }

    /// Returns streams that the peer opened since the last call.
    pub(crate) fn opened(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.opened)
    }

    /// Returns streams that are gone with all they held, since the last call.
    pub(crate) fn dropped(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.dropped)
    }

    /// Opens a stream; nothing if there are too many or no session.
    pub(crate) fn open(&mut self) -> Option<u32> {
        if !self.standing || self.streams.len() >= MOST_STREAMS {
            return None;
        }
        let id = self.next;
        let Some(next) = id.checked_add(2) else {
            // Numbers have run out: meet again, they start anew.
            self.void();
            self.begin();
            return None;
        };
        self.next = next;
        self.streams.insert(id, Stream::new());
        self.header(WINDOW_UPDATE, SYN, id, 0);
        Some(id)
    }

    /// Returns how many bytes [`Mux::send`] takes for a stream now.
    pub(crate) fn room(&self, id: u32) -> usize {
        let waiting = self.out.len() - self.sent;
        let open = self.streams.get(&id).filter(|stream| !stream.finished && !stream.gone);
        open.map_or(0, |stream| (stream.send as usize).min(ROOM.saturating_sub(waiting)).min(FRAME))
    }

    /// Sends bytes, at most [`Mux::room`] of them.
    pub(crate) fn send(&mut self, id: u32, mut bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        debug_assert!(bytes.len() <= stream.send as usize && !stream.finished);
        stream.send = stream.send.saturating_sub(bytes.len() as u32);
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(carried(bytes));
            self.header(DATA, 0, id, part.len() as u32);
            self.out.extend_from_slice(part);
            bytes = rest;
        }
    }

    /// Says that no more is sent on a stream.
    pub(crate) fn finish(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.finished && !stream.gone {
            stream.finished = true;
            self.header(WINDOW_UPDATE, FIN, id, 0);
        }
        self.forget_if_over(id);
    }

    /// Ends a stream: nothing more is sent, and what still comes is thrown away. What was sent
    /// before is still delivered to the peer's reader.
    pub(crate) fn reset(&mut self, id: u32) {
        if let Some(stream) = self.streams.remove(&id) {
            self.held -= stream.held.len();
            if !stream.gone {
                self.header(WINDOW_UPDATE, RST, id, 0);
            }
        }
    }

    /// Returns what waits for the local reader of a stream.
    pub(crate) fn held(&self, id: u32) -> &[u8] {
        self.streams.get(&id).map_or(&[], |stream| stream.held.as_slices().0)
    }

    /// Notes that the local reader took so many bytes, and lets the peer send as many.
    pub(crate) fn take(&mut self, id: u32, count: usize) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.held.drain(..count);
        self.held -= count;
        if stream.held.is_empty() && stream.held.capacity() > FRAME {
            stream.held = VecDeque::new();
        }
        stream.taken += count as u32;
        if stream.taken >= WINDOW / 4 && !stream.ended && !stream.gone {
            let grant = std::mem::take(&mut stream.taken);
            stream.receive += grant;
            self.header(WINDOW_UPDATE, 0, id, grant);
        }
    }

    /// Says whether all that will ever come on a stream has been taken.
    pub(crate) fn is_ended(&self, id: u32) -> bool {
        self.streams
            .get(&id)
            .is_none_or(|stream| (stream.ended || stream.gone) && stream.held.is_empty())
    }

    /// Says whether the peer reads and sends no more, and all it sent has been taken.
    pub(crate) fn is_gone(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|stream| stream.gone && stream.held.is_empty())
    }

    /// Forgets a stream that both ends have finished and whose bytes have all been taken.
    pub(crate) fn forget_if_over(&mut self, id: u32) {
        if self.streams.get(&id).is_some_and(|s| s.finished && s.ended && s.held.is_empty()) {
            self.streams.remove(&id);
        }
    }

    /// Returns what waits to be written to the device.
    pub(crate) fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Notes that so many bytes of the output were written.
    pub(crate) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.out.capacity() > ROOM * 2 {
                self.out = Vec::new();
            }
        } else if self.sent > ROOM {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Takes what came from the device.
    pub(crate) fn input(&mut self, mut bytes: &[u8]) {
        loop {
            let (before, rest) = match self.scanner.find(bytes) {
                // A mark cut in two has begun in a piece before; what was read of it then as part
                // of a frame does no harm, since that session ends here.
                Some(end) => (&bytes[..end.saturating_sub(16)], Some(&bytes[end..])),
                None => (bytes, None),
            };
            let before = self.recorded(before);
            if self.frames(before).is_err() {
                self.void();
                self.begin();
            }
            let Some(rest) = rest else { return };
            self.record = Some(([0; RECORD], 0));
            bytes = rest;
        }
    }

    /// Takes what belongs to a record, and returns the rest.
    fn recorded<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((record, have)) = &mut self.record else { return bytes };
        let (part, rest) = bytes.split_at(bytes.len().min(RECORD - *have));
        record[*have..*have + part.len()].copy_from_slice(part);
        *have += part.len();
        if *have == RECORD {
            let record = *record;
            self.record = None;
            self.met(record);
        }
        rest
    }

    /// Begins anew: the host end wakes, the guest end asks.
    fn begin(&mut self) {
        match self.role {
            Role::Host => {
                (self.guest, self.host) = (0, 0);
                self.say(Kind::Wake);
            }
            Role::Guest => {
                (self.guest, self.host) = (random(), 0);
                self.asked = Some(Instant::now());
                self.say(Kind::Ask);
            }
        }
    }

    /// Ends whatever was going on and begins, on another byte stream.
    pub(crate) fn anew(&mut self) {
        self.void();
        self.begin();
    }

    /// Ends whatever was going on.
    fn void(&mut self) {
        self.standing = false;
        self.parse = Parse::Nothing;
        self.next = 1;
        self.held = 0;
        self.out = Vec::new();
        self.sent = 0;
        self.opened.clear();
        self.dropped.extend(std::mem::take(&mut self.streams).into_keys());
    }

    fn say(&mut self, kind: Kind) {
        let record = Record { kind, guest: self.guest, host: self.host };
        self.out.extend_from_slice(&record.encode());
    }

    /// Acts on a record.
    fn met(&mut self, record: [u8; RECORD]) {
        // The mark ended whatever frame was under way; a session that stands goes on with the next
        // frame only if the record turns out to be a repetition.
        self.parse = if self.standing { START } else { Parse::Nothing };
        let Some(record) = Record::decode(record) else { return };
        match (self.role, record.kind) {
            (Role::Host, Kind::Ask) => {
                if self.standing && record.guest == self.guest {
                    return;
                }
                if self.guest != record.guest || self.host == 0 || self.standing {
                    self.void();
                    (self.guest, self.host) = (record.guest, random());
                }
                if self.output().len() < ROOM {
                    self.say(Kind::Hello);
                }
            }
            (Role::Host, Kind::Welcome)
                if !self.standing && (record.guest, record.host) == (self.guest, self.host) =>
            {
                self.standing = true;
                self.parse = START;
            }
            (Role::Guest, Kind::Wake) => {
                if self.standing {
                    self.void();
                    self.begin();
                } else if self.output().is_empty() {
                    self.say(Kind::Ask);
                }
            }
            (Role::Guest, Kind::Hello) => {
                if record.guest != self.guest || (self.standing && record.host == self.host) {
                    return;
                }
                self.void();
                self.host = record.host;
                self.standing = true;
                self.asked = None;
                self.parse = START;
                self.say(Kind::Welcome);
            }
            _ => {}
        }
    }

    /// Takes frames, cut anywhere.
    fn frames(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match &mut self.parse {
                Parse::Nothing => return Ok(()),
                Parse::Header { bytes: header, have } => {
                    let count = bytes.len().min(HEADER - *have);
                    header[*have..*have + count].copy_from_slice(&bytes[..count]);
                    *have += count;
                    bytes = &bytes[count..];
                    if *have == HEADER {
                        let header = *header;
                        self.parse = START;
                        self.frame(header)?;
                    }
                }
                Parse::Payload { id, left, end } => {
                    let count = bytes.len().min(*left as usize);
                    let (part, rest) = bytes.split_at(count);
                    let (id, end) = (*id, *end);
                    *left -= count as u32;
                    let over = *left == 0;
                    bytes = rest;
                    self.payload(id, part);
                    if over {
                        self.parse = START;
                        if end {
                            self.end(id);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn payload(&mut self, id: u32, part: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if self.held + part.len() > MOST_HELD {
            self.reset(id);
            self.dropped.push(id);
            return;
        }
        stream.held.extend(part);
        self.held += part.len();
    }

    /// The peer sends no more on a stream.
    fn end(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ended = true;
        }
    }

    fn frame(&mut self, header: [u8; HEADER]) -> Result<(), Broken> {
        let [version, kind, f1, f0, i3, i2, i1, i0, l3, l2, l1, l0] = header;
        let flags = u16::from_be_bytes([f1, f0]);
        let id = u32::from_be_bytes([i3, i2, i1, i0]);
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        if version != 0 || flags & !(SYN | ACK | FIN | RST) != 0 {
            return Err(Broken);
        }
        match kind {
            DATA | WINDOW_UPDATE => {}
            PING => {
                if flags & SYN != 0 {
                    self.header(PING, ACK, 0, length);
                }
                return Ok(());
            }
            // Also "go away": an end that has enough closes its streams.
            _ => return Err(Broken),
        }
        if flags & SYN != 0 {
            let ours = self.role == Role::Host;
            if ours || id % 2 == 0 || self.streams.contains_key(&id) {
                return Err(Broken);
            }
            if self.streams.len() >= MOST_STREAMS {
                self.header(WINDOW_UPDATE, RST, id, 0);
            } else {
                self.streams.insert(id, Stream::new());
                self.opened.push(id);
                self.header(WINDOW_UPDATE, ACK, id, 0);
            }
        }
        if kind == DATA {
            if let Some(stream) = self.streams.get_mut(&id) {
                // After its end or its reset a peer has nothing to say on a stream.
                if length > stream.receive || (length > 0 && (stream.ended || stream.gone)) {
                    return Err(Broken);
                }
                stream.receive -= length;
            } else if length > WINDOW {
                return Err(Broken);
            }
            if length > 0 {
                self.parse = Parse::Payload { id, left: length, end: flags & FIN != 0 };
                if flags & RST == 0 {
                    return Ok(());
                }
                return Err(Broken);
            }
        } else if let Some(stream) = self.streams.get_mut(&id) {
            stream.send = stream.send.checked_add(length).ok_or(Broken)?;
        }
        if flags & FIN != 0 {
            self.end(id);
        }
        if flags & RST != 0
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.gone = true;
        }
        Ok(())
    }

    fn header(&mut self, kind: u8, flags: u16, id: u32, length: u32) {
        let mut header = [0; HEADER];
        header[1] = kind;
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[4..8].copy_from_slice(&id.to_be_bytes());
        header[8..].copy_from_slice(&length.to_be_bytes());
        self.out.extend_from_slice(&header);
    }
}

/// Returns a number that no other session has, never zero.
fn random() -> u64 {
    // The standard library seeds its hashers at random, without waiting for a guest's entropy.
    let now = std::time::SystemTime::now();
    std::hash::RandomState::new().hash_one((now, std::process::id())) | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meet::MARK;
    use proptest::prelude::*;

    /// Moves everything from one end to the other, in pieces of a given size.
    fn carry(from: &mut Mux, to: &mut Mux, piece: usize) {
        let bytes = from.output().to_vec();
        from.sent(bytes.len());
        bytes.chunks(piece).for_each(|part| to.input(part));
    }

    fn met(piece: usize) -> (Mux, Mux) {
        let (mut host, mut guest) = (Mux::new(Role::Host), Mux::new(Role::Guest));
        for _ in 0..4 {
            carry(&mut host, &mut guest, piece);
            carry(&mut guest, &mut host, piece);
        }
        assert!(host.standing && guest.standing);
        (host, guest)
    }

    /// Reads all that waits for a reader.
    fn read(mux: &mut Mux, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        while !mux.held(id).is_empty() {
            let part = mux.held(id).to_vec();
            mux.take(id, part.len());
            all.extend(part);
        }
        all
    }

    #[test]
    fn a_peer_that_sends_more_than_the_window_ends_the_session() {
        let (mut host, mut guest) = met(usize::MAX);
        let id = host.open().unwrap();
        carry(&mut host, &mut guest, usize::MAX);
        for _ in 0..40 {
            // Past what it may send.
            guest.streams.get_mut(&id).unwrap().send = WINDOW;
            guest.send(id, &[0; 8192]);
        }
        carry(&mut guest, &mut host, usize::MAX);
        assert!(!host.standing);
        assert_eq!(host.dropped(), [id]);
        assert_eq!(host.held, 0);
    }

    #[test]
    fn a_window_that_overflows_and_a_stream_from_the_guest_end_the_session() {
        for (flags, length) in [(0, u32::MAX), (SYN, 0)] {
            let (mut host, mut guest) = met(5);
            let id = host.open().unwrap();
            carry(&mut host, &mut guest, 5);
            guest.header(WINDOW_UPDATE, flags, if flags == SYN { 2 } else { id }, length);
            carry(&mut guest, &mut host, 5);
            assert!(!host.standing, "{flags} {length}");
        }
    }

    #[test]
    fn a_ping_is_answered_and_pings_without_end_are_not_taken() {
        let (mut host, mut guest) = met(100);
        guest.header(PING, SYN, 0, 42);
        carry(&mut guest, &mut host, 100);
        assert_eq!(host.output(), [0, PING, 0, ACK as u8, 0, 0, 0, 0, 0, 0, 0, 42]);
        while host.wants_input() {
            guest.header(PING, SYN, 0, 42);
            carry(&mut guest, &mut host, 100);
        }
        assert!(host.output().len() <= CROWDED + HEADER);
    }

    #[test]
    fn streams_are_bounded_in_number() {
        let (mut host, mut guest) = met(1000);
        assert_eq!(std::iter::from_fn(|| host.open()).count(), MOST_STREAMS);
        carry(&mut host, &mut guest, 1000);
        assert_eq!(guest.opened().len(), MOST_STREAMS);
        host.header(WINDOW_UPDATE, SYN, 9999, 0);
        carry(&mut host, &mut guest, 1000);
        assert!(guest.opened().is_empty());
        assert!(guest.standing);
    }

    proptest! {
        #[test]
        fn what_is_sent_comes_whatever_it_holds_and_however_it_is_cut(
            piece in 1_usize..5000,
            parts in proptest::collection::vec(
                (0_usize..3, prop_oneof![
                    Just(MARK.to_vec()),
                    Just(MARK[..15].to_vec()),
                    Just(MARK[1..].to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..3000),
                    // Lengths whose low byte is the mark's first.
                    Just(vec![b'b'; 0xf3]),
                ]), 0..40),
        ) {
            let (mut host, mut guest) = met(piece);
            let ids: Vec<u32> = (0..3).map(|_| host.open().unwrap()).collect();
            carry(&mut host, &mut guest, piece);
            let (mut sent, mut came) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
            for (at, bytes) in parts {
                let bytes = &bytes[..bytes.len().min(host.room(ids[at]))];
                host.send(ids[at], bytes);
                sent[at].extend_from_slice(bytes);
                carry(&mut host, &mut guest, piece);
                for at in 0..3 {
                    came[at].extend(read(&mut guest, ids[at]));
                }
                carry(&mut guest, &mut host, piece);
            }
            prop_assert!(sent == came);
            for id in &ids {
                host.finish(*id);
                guest.finish(*id);
            }
            carry(&mut host, &mut guest, piece);
            carry(&mut guest, &mut host, piece);
            prop_assert!(ids.iter().all(|id| guest.is_ended(*id) && host.is_ended(*id)));
        }

        #[test]
        fn hostile_bytes_never_panic_and_an_honest_guest_meets_the_host_afterwards(
            parts in proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                Just(MARK.to_vec()),
                any::<[u8; 2]>().prop_map(|[kind, id]| {
                    Record { kind: Kind::Ask, guest: id.into(), host: kind.into() }.encode().to_vec()
                }),
                // Frames that are nearly right.
                (0_u8..4, 0_u8..16, 0_u8..9, any::<u32>()).prop_map(|(kind, flags, id, length)| {
                    let mut frame = vec![0, kind, 0, flags, 0, 0, 0, id];
                    frame.extend((length >> (length % 32)).to_be_bytes());
                    frame
                }),
            ], 0..60),
            standing in any::<bool>(),
        ) {
            let mut host = if standing { met(64).0 } else { Mux::new(Role::Host) };
            let _ = (host.open(), host.open());
            for part in parts {
                host.input(&part);
                let id = host.open();
                prop_assert!(host.output().len() < CROWDED);
                prop_assert!(host.held <= MOST_HELD);
                if let Some(id) = id {
                    let _ = host.held(id).len();
                    host.reset(id);
                }
                let _ = host.dropped();
                host.sent(host.output().len());
            }
            let mut guest = Mux::new(Role::Guest);
            for _ in 0..4 {
                carry(&mut guest, &mut host, 7);
                carry(&mut host, &mut guest, 7);
            }
            prop_assert!(host.standing && guest.standing);
            let id = host.open().unwrap();
            host.send(id, b"hi");
            carry(&mut host, &mut guest, 7);
            prop_assert_eq!(guest.opened(), [id]);
            prop_assert_eq!(read(&mut guest, id), b"hi");
        }
    }
}
