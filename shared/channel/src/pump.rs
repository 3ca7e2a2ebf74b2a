//! Moves bytes between the device and local sockets, in one thread that waits in poll(2).

use crate::mux::{Mux, Role};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};
use std::{
    io::{self, ErrorKind},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

/// Longest `CONNECT` line, line end included.
const LINE_BYTES: usize = 32;
/// How long a client may take to say it.
const LINE_LIMIT: Duration = Duration::from_secs(5);
/// Most local connections at once; more wait in the listener's queue.
const MOST_LOCALS: usize = crate::mux::MOST_STREAMS;
/// Most bytes read at once.
const PIECE: usize = 64 << 10;

/// The byte stream that both ends share.
pub(crate) enum Wire<'a> {
    /// A device, which is there as long as the other end's machine. At most so many bytes are
    /// written to it at once.
    Device(BorrowedFd<'a>, usize),
    /// The other end calls here whenever it begins; the last call counts.
    Calls(&'a UnixListener, Option<UnixStream>),
}

impl Wire<'_> {
    /// Returns the byte stream, if there is one now.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Device(device, _) => Some(*device),
            Self::Calls(_, call) => call.as_ref().map(AsFd::as_fd),
        }
    }

    /// Returns how many bytes may be written at once.
    fn most(&self) -> usize {
        match self {
            Self::Device(_, most) => *most,
            Self::Calls(..) => usize::MAX,
        }
    }

    /// Notes that the byte stream has ended; says whether another may come.
    fn hang_up(&mut self) -> bool {
        match self {
            Self::Device(..) => false,
            Self::Calls(_, call) => {
                *call = None;
                true
            }
        }
    }
}

/// Where streams begin or end on this side.
pub(crate) enum Side<'a> {
    /// Clients connect here and say what they want.
    Host(&'a UnixListener),
    /// Takes the other end of each stream that the host opens.
    Guest(&'a mut dyn FnMut(UnixStream)),
}

/// How far a local connection has come.
enum Phase {
    /// A client has not said its line yet.
    Line(Vec<u8>, Instant),
    /// Said; waits for a session.
    Waiting,
    /// Carried by a stream.
    Stream(u32),
    /// Over.
    Closed,
}

/// A local connection.
struct Local {
    socket: UnixStream,
    phase: Phase,
    /// What a client said first, as long as nothing else has passed either way: should the guest's
    /// end begin anew meanwhile, it is said again.
    said: Vec<u8>,
    /// Nothing more is to be read from it.
    read_all: bool,
    /// Nothing more is to be written to it.
    told_end: bool,
    /// Both its directions have ended; poll would say so for ever.
    hung_up: bool,
}

impl Local {
    fn new(socket: UnixStream, phase: Phase) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            phase,
            said: Vec::new(),
            read_all: false,
            told_end: false,
            hung_up: false,
        })
    }
}

/// Carries streams until the device closes.
pub(crate) fn run(wire: Wire<'_>, side: Side<'_>) -> io::Result<()> {
    match turn(wire, side) {
        // It closed with bytes of ours unread.
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn turn(mut wire: Wire<'_>, mut side: Side<'_>) -> io::Result<()> {
    let role = match side {
        Side::Host(_) => Role::Host,
        Side::Guest(_) => Role::Guest,
    };
    let mut pump = Pump { mux: Mux::new(role), locals: Vec::new(), first: 0 };
    let mut buffer = vec![0; PIECE];
    loop {
        let ready = pump.wait(&wire, &side)?;
        if ready.device.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            let came = wire.fd().map_or(Ok(None), |device| read_much(device, &mut buffer));
            match came {
                Ok(Some(count)) => pump.mux.input(&buffer[..count]),
                Ok(None) => {
                    if !pump.hang_up(&mut wire) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    if !pump.hang_up(&mut wire) {
                        return Err(error);
                    }
                }
            }
        }
        if let (Wire::Calls(listener, call), true) = (&mut wire, ready.call)
            && let Ok((caller, _)) = listener.accept()
        {
            caller.set_nonblocking(true)?;
            *call = Some(caller);
            pump.mux.anew();
        }
        if let (Side::Host(listener), true) = (&side, ready.listener) {
            pump.accept(listener)?;
        }
        // First those that are gone: after a meeting, new streams have their numbers.
        pump.let_go();
        for id in pump.mux.opened() {
            if let Side::Guest(take) = &mut side {
                let pair = UnixStream::pair()
                    .and_then(|(ours, theirs)| Ok((Local::new(ours, Phase::Stream(id))?, theirs)));
                match pair {
                    Ok((local, theirs)) => {
                        pump.locals.push(local);
                        take(theirs);
                    }
                    Err(_) => pump.mux.reset(id),
                }
            }
        }
        pump.serve(&ready.locals, &mut buffer);
        pump.mux.tick(Instant::now());
        if let Err(error) = pump.write_out(&wire)
            && !pump.hang_up(&mut wire)
        {
            return Err(error);
        }
    }
}

/// Reads what has come; nothing, if no more will. A virtio-serial port gives a page at a time; many
/// together cost fewer turns.
fn read_much(device: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match again(read(device, &mut buffer[filled..]))? {
            Some(0) if filled == 0 => return Ok(None),
            Some(0) | None => break,
            Some(count) => filled += count,
        }
    }
    Ok(Some(filled))
}

/// What poll said.
struct Ready {
    device: PollFlags,
    /// Whether the other end calls.
    call: bool,
    listener: bool,
    /// One for each local that was there.
    locals: Vec<PollFlags>,
}

struct Pump {
    mux: Mux,
    locals: Vec<Local>,
    /// The local that is served first, so that none starves when the device is slow.
    first: usize,
}

impl Pump {
    /// Ends what a byte stream that has ended carried; says whether another may come. Nobody is put onto the
    /// session of one that is gone.
    fn hang_up(&mut self, wire: &mut Wire<'_>) -> bool {
        let may_come = wire.hang_up();
        if may_come {
            self.mux.anew();
            self.let_go();
        }
        may_come
    }

    /// Closes what streams that are gone carried. A client of whose stream nothing has been read waits for the next
    /// session.
    fn let_go(&mut self) {
        for id in self.mux.dropped() {
            for local in &mut self.locals {
                if matches!(local.phase, Phase::Stream(of) if of == id) {
                    local.phase =
                        if local.said.is_empty() { Phase::Closed } else { Phase::Waiting };
                }
            }
        }
    }

    fn wait(&self, wire: &Wire<'_>, side: &Side<'_>) -> io::Result<Ready> {
        let mut fds = Vec::with_capacity(3 + self.locals.len());
        let mut ask = |fd, events| {
            fds.push(PollFd::new(fd, events));
            fds.len() - 1
        };
        let device = wire.fd().map(|device| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, self.mux.wants_input());
            events.set(PollFlags::POLLOUT, !self.mux.output().is_empty());
            ask(device, events)
        });
        let call = match wire {
            Wire::Calls(listener, _) => Some(ask(listener.as_fd(), PollFlags::POLLIN)),
            Wire::Device(..) => None,
        };
        let listener = match side {
            Side::Host(listener) => {
                let mut events = PollFlags::empty();
                events.set(PollFlags::POLLIN, self.locals.len() < MOST_LOCALS);
                Some(ask(listener.as_fd(), events))
            }
            Side::Guest(_) => None,
        };
        let fixed = fds.len();
        let mut asked = Vec::with_capacity(self.locals.len());
        for (at, local) in self.locals.iter().enumerate() {
            let events = self.interest(local);
            if !local.hung_up || !events.is_empty() {
                fds.push(PollFd::new(local.socket.as_fd(), events));
                asked.push(at);
            }
        }
        loop {
            match poll(&mut fds, self.timeout()) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let seen = |fd: &PollFd<'_>| fd.revents().unwrap_or(PollFlags::empty());
        let mut locals = vec![PollFlags::empty(); self.locals.len()];
        for (fd, at) in fds[fixed..].iter().zip(asked) {
            locals[at] = seen(fd);
        }
        let came = |at: Option<usize>| {
            at.map_or(PollFlags::empty(), |at| seen(&fds[at])).contains(PollFlags::POLLIN)
        };
        Ok(Ready {
            device: device.map_or(PollFlags::empty(), |at| seen(&fds[at])),
            call: came(call),
            listener: came(listener),
            locals,
        })
    }

    /// Returns what a local connection waits for.
    fn interest(&self, local: &Local) -> PollFlags {
        let mut events = PollFlags::empty();
        match local.phase {
            Phase::Line(..) => events.insert(PollFlags::POLLIN),
            Phase::Waiting | Phase::Closed => {}
            Phase::Stream(id) => {
                events.set(PollFlags::POLLIN, !local.read_all && self.mux.room(id) > 0);
                events.set(PollFlags::POLLOUT, !self.mux.held(id).is_empty());
            }
        }
        events
    }

    fn timeout(&self) -> PollTimeout {
        let lines = self.locals.iter().filter_map(|local| match local.phase {
            Phase::Line(_, until) => Some(until),
            _ => None,
        });
        let next = lines.chain(self.mux.next_tick()).min();
        next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        })
    }

    fn accept(&mut self, listener: &UnixListener) -> io::Result<()> {
        while self.locals.len() < MOST_LOCALS {
            match listener.accept() {
                Ok((socket, _)) => {
                    let phase = Phase::Line(Vec::new(), Instant::now() + LINE_LIMIT);
                    self.locals.push(Local::new(socket, phase)?);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Also when descriptors have run out: others end, and the client still waits.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn serve(&mut self, ready: &[PollFlags], buffer: &mut [u8]) {
        let count = self.locals.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let ready = ready.get(at).copied().unwrap_or(PollFlags::empty());
            let local = &mut self.locals[at];
            match &mut local.phase {
                Phase::Line(line, until) => {
                    let came = if ready.is_empty() {
                        Ok(())
                    } else {
                        read_line(local.socket.as_fd(), line)
                    };
                    if came.is_err() || *until <= Instant::now() {
                        local.phase = Phase::Closed;
                    } else if line.contains(&b'\n') {
                        local.phase = if is_connect(line) {
                            local.said = std::mem::take(line);
                            Phase::Waiting
                        } else {
                            Phase::Closed
                        };
                    }
                }
                Phase::Waiting => {
                    if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
                        local.phase = Phase::Closed;
                    }
                }
                Phase::Stream(_) | Phase::Closed => {}
            }
            if matches!(local.phase, Phase::Waiting)
                && let Some(id) = self.mux.open()
            {
                self.mux.send(id, &local.said);
                local.phase = Phase::Stream(id);
            }
            if let Phase::Stream(id) = local.phase {
                carry(&mut self.mux, local, id, ready, buffer);
            }
        }
        self.locals.retain(|local| !matches!(local.phase, Phase::Closed));
        self.first = (self.first + 1).checked_rem(self.locals.len()).unwrap_or(0);
    }

    fn write_out(&mut self, wire: &Wire<'_>) -> io::Result<()> {
        let Some(device) = wire.fd() else { return Ok(()) };
        while !self.mux.output().is_empty() {
            let count = self.mux.output().len().min(wire.most());
            match again(write(device, &self.mux.output()[..count]))? {
                Some(count) => self.mux.sent(count),
                None => break,
            }
        }
        Ok(())
    }
}

/// Moves what can be moved between a local connection and its stream.
fn carry(mux: &mut Mux, local: &mut Local, id: u32, ready: PollFlags, buffer: &mut [u8]) {
    // Not only when poll says so: bytes that came just now need no further turn to be written.
    while !mux.held(id).is_empty() {
        local.said = Vec::new();
        match again(write(&local.socket, mux.held(id))) {
            Ok(Some(count)) => mux.take(id, count),
            Ok(None) => break,
            // It reads no more; what it has written before is still to be passed on.
            Err(_) => mux.take(id, mux.held(id).len()),
        }
    }
    if mux.is_ended(id) && !local.told_end {
        local.told_end = true;
        // The other end may have closed already.
        let _ = local.socket.shutdown(Shutdown::Write);
        mux.forget_if_over(id);
    }
    if mux.is_gone(id) {
        mux.reset(id);
        local.phase = Phase::Closed;
        return;
    }
    let over = PollFlags::POLLHUP | PollFlags::POLLERR;
    local.hung_up |= ready.intersects(over);
    let mut left = if ready.intersects(over | PollFlags::POLLIN) { PIECE } else { 0 };
    while !local.read_all && left > 0 {
        let room = mux.room(id).min(left);
        if room == 0 {
            break;
        }
        match again(read(&local.socket, &mut buffer[..room])) {
            // Also "connection reset": it closed with bytes unread, and all it wrote has been read.
            Ok(Some(0)) | Err(_) => {
                local.said = Vec::new();
                local.read_all = true;
                mux.finish(id);
            }
            Ok(Some(count)) => {
                local.said = Vec::new();
                mux.send(id, &buffer[..count]);
                left = if count < room { 0 } else { left - count };
            }
            Ok(None) => break,
        }
    }
    if local.read_all && local.hung_up {
        // Nobody is left to read what the peer would say.
        mux.reset(id);
        local.phase = Phase::Closed;
    }
}

/// Reads more of a client's line.
fn read_line(socket: BorrowedFd<'_>, line: &mut Vec<u8>) -> io::Result<()> {
    let mut bytes = [0; LINE_BYTES];
    let room = LINE_BYTES - line.len();
    match again(read(socket, &mut bytes[..room]))? {
        Some(0) => Err(ErrorKind::UnexpectedEof.into()),
        Some(count) => {
            line.extend_from_slice(&bytes[..count]);
            let complete = line.contains(&b'\n');
            if line.len() >= LINE_BYTES && !complete {
                return Err(ErrorKind::InvalidData.into());
            }
            Ok(())
        }
        None => Ok(()),
    }
}

/// Says whether bytes begin with `CONNECT <port>\n`.
fn is_connect(said: &[u8]) -> bool {
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    parse_connect(line).is_some()
}

/// Returns the port of the line `CONNECT <port>`.
pub(crate) fn parse_connect(line: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(line).ok()?.strip_prefix("CONNECT ")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Turns "not now" into nothing.
fn again(result: nix::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
