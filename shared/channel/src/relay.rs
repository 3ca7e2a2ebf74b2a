//! Carries many connections at once, in one thread that waits in epoll(7).
//!
//! On the host it listens, and leads whoever comes to what listens in the guest; in the guest it
//! joins streams that are connected already. The end of one direction is passed on alone, so a
//! client that has said all it has to say still hears the answer.

use crate::{Patience, dial, port};
use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        socket::{Shutdown, getsockopt, setsockopt, shutdown, sockopt},
    },
    unistd::{read, write},
};
use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// How long the way to a service in the guest may take: the guest may be booting, or held still.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait before knocking again at a channel whose queue is full.
const KNOCK_AGAIN: Duration = Duration::from_millis(5);
/// Longest line of a greeting.
const LINE_BYTES: usize = 512;
/// Most bytes read at once; what the other end does not take of them is held.
const PIECE: usize = 32 << 10;
/// Most connections taken from one listener in a turn.
const MOST_ACCEPTED: usize = 64;
/// How long closing a listener may take.
const FORGET_LIMIT: Duration = Duration::from_secs(5);
const STACK: usize = 256 << 10;

const WAKE: u64 = u64::MAX;
const LISTENER: u64 = 1 << 63;

/// A thread that carries connections until this is dropped.
#[derive(Debug)]
pub struct Relay {
    orders: Sender<Order>,
    wake: Arc<EventFd>,
    live: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Order {
    Listen(u64, TcpListener, String),
    /// Who waits for it hears when the sender is gone.
    Forget(u64, Sender<()>),
    Join(OwnedFd, OwnedFd),
}

impl Relay {
    /// Starts the thread. `channel` is the socket to the guest's agent, for what listens; it
    /// carries at most `most` connections, and those beyond wait or are refused.
    pub fn start(channel_socket: &Path, most: usize) -> Result<Self> {
        let wake = Arc::new(
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
                .context("cannot make an eventfd")?,
        );
        let (orders, inbox) = channel();
        let live = Arc::new(AtomicUsize::new(0));
        let mut turn = Turn {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?,
            wake: Arc::clone(&wake),
            inbox,
            channel: channel_socket.to_owned(),
            most,
            live: Arc::clone(&live),
            listeners: HashMap::new(),
            listening: true,
            pairs: Vec::new(),
            free: Vec::new(),
            count: 0,
            generation: 0,
            buffer: vec![0; PIECE].into_boxed_slice(),
        };
        turn.epoll
            .add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))
            .context("cannot wait for an eventfd")?;
        thread::Builder::new()
            .name("relay".into())
            .stack_size(STACK)
            .spawn(move || turn.run())
            .context("cannot start a thread")?;
        Ok(Self { orders, wake, live })
    }

    /// Leads whoever connects to `listener` to `target` in the guest (`tcp HOST:PORT`), until
    /// [`Relay::forget`] of the same key. Who is connected then stays connected.
    pub fn listen(&self, key: u64, listener: TcpListener, target: String) {
        self.order(Order::Listen(key, listener, target));
    }

    /// Closes a listener: afterwards another one can have its port.
    pub fn forget(&self, key: u64) {
        let (done, closed) = channel();
        self.order(Order::Forget(key, done));
        let _ = closed.recv_timeout(FORGET_LIMIT);
    }

    /// Joins two connected streams.
    pub fn join(&self, one: OwnedFd, other: OwnedFd) {
        self.order(Order::Join(one, other));
    }

    /// Returns how many connections are carried now.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = self.wake.write(1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The thread finds nobody left to send orders, and ends.
        let (nobody, _) = channel();
        self.orders = nobody;
        let _ = self.wake.write(1);
    }
}

struct Listening {
    listener: TcpListener,
    target: String,
}

/// One of the two streams of a connection.
struct End {
    fd: OwnedFd,
    /// Waits to be written here.
    held: Vec<u8>,
    at: usize,
    /// Nothing more is to be read from it.
    read_all: bool,
    /// Nothing more is to be written to it.
    was_told: bool,
    /// What epoll is asked for; empty: it does not know the descriptor.
    asked: EpollFlags,
}

impl End {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            held: Vec::new(),
            at: 0,
            read_all: false,
            was_told: false,
            asked: EpollFlags::empty(),
        }
    }
}

enum Stage {
    /// The channel has no room in its queue: knock again at that time.
    Knock {
        again: Instant,
        until: Instant,
        target: String,
    },
    /// What was read of the answer to the step that was said last.
    Greet {
        step: usize,
        line: Vec<u8>,
        until: Instant,
        target: String,
    },
    Open,
}

struct Pair {
    /// The client, or one of two; the guest's end, or the other. The second is absent while knocking.
    ends: [Option<End>; 2],
    stage: Stage,
    generation: u32,
}

/// Whether a connection goes on.
#[derive(Eq, PartialEq)]
enum Fate {
    Lives,
    Over,
    /// Ends at once, and its client sees that.
    Broken,
}

struct Turn {
    epoll: Epoll,
    wake: Arc<EventFd>,
    inbox: Receiver<Order>,
    channel: PathBuf,
    most: usize,
    live: Arc<AtomicUsize>,
    listeners: HashMap<u64, Listening>,
    /// Whether listeners are asked for.
    listening: bool,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    count: usize,
    generation: u32,
    buffer: Box<[u8]>,
}

impl Turn {
    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); 256];
        let mut next_look: Option<Instant> = None;
        loop {
            let timeout = next_look.map_or(EpollTimeout::NONE, |at| {
                let left = at.saturating_duration_since(Instant::now());
                EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
            });
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(_) => return,
            };
            for event in &events[..count] {
                match event.data() {
                    WAKE => {
                        let _ = self.wake.read();
                        if !self.obey() {
                            return;
                        }
                    }
                    data if data & LISTENER != 0 => self.accept(data & !LISTENER),
                    data => self.serve(data, event.events()),
                }
            }
            let now = Instant::now();
            if next_look.is_none_or(|at| at <= now) || count > 0 {
                next_look = self.look_at_clocks(now);
            }
            self.set_listening(self.count < self.most);
        }
    }

    /// Takes orders; says whether somebody is left to give any.
    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Listen(key, listener, target)) => {
                    let ready = listener.set_nonblocking(true).is_ok();
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER | key);
                    if ready && (!self.listening || self.epoll.add(&listener, event).is_ok()) {
                        self.listeners.insert(key, Listening { listener, target });
                    }
                }
                Ok(Order::Forget(key, _done)) => {
                    // Its last descriptor is closed, and epoll forgets it by itself.
                    self.listeners.remove(&key);
                }
                Ok(Order::Join(one, other)) => {
                    if self.count < self.most && set_nonblocking(&one) && set_nonblocking(&other) {
                        let ends = [Some(End::new(one)), Some(End::new(other))];
                        self.add(ends, Stage::Open);
                    }
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Takes clients only as long as there is room: others wait in their queue.
    fn set_listening(&mut self, on: bool) {
        if on == self.listening {
            return;
        }
        self.listening = on;
        for (key, one) in &self.listeners {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER | key);
            let _ = if on {
                self.epoll.add(&one.listener, event)
            } else {
                self.epoll.delete(&one.listener)
            };
        }
    }

    fn accept(&mut self, key: u64) {
        for _ in 0..MOST_ACCEPTED {
            let Some(one) = self.listeners.get(&key).filter(|_| self.count < self.most) else {
                return;
            };
            match one.listener.accept() {
                Ok((client, _)) => {
                    let target = one.target.clone();
                    if prepare(&client).is_ok() {
                        let until = Instant::now() + GREETING_LIMIT;
                        let stage = Stage::Knock { again: Instant::now(), until, target };
                        let at = self.add([Some(End::new(client.into())), None], stage);
                        self.knock(at);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Without descriptors the client waits in the queue, and epoll would tell of it
                    // again and again.
                    if matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) {
                        thread::sleep(KNOCK_AGAIN);
                    }
                    return;
                }
            }
        }
    }

    fn add(&mut self, ends: [Option<End>; 2], stage: Stage) -> usize {
        self.generation = self.generation.wrapping_add(1) & 0x3fff_ffff;
        let pair = Pair { ends, stage, generation: self.generation };
        let at = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        self.pairs[at] = Some(pair);
        self.count += 1;
        self.live.store(self.count, Ordering::Relaxed);
        self.settle(at, Fate::Lives);
        at
    }

    /// Tries to reach the channel.
    fn knock(&mut self, at: usize) {
        let Some(pair) = &mut self.pairs[at] else { return };
        let Stage::Knock { until, target, .. } = &pair.stage else { return };
        let (until, target) = (*until, target.clone());
        let fate = match knock_at(&self.channel) {
            Ok(Some(fd)) => {
                pair.ends[1] = Some(End::new(fd));
                pair.stage = Stage::Greet { step: 0, line: Vec::new(), until, target };
                say(pair)
            }
            Ok(None) => {
                pair.stage = Stage::Knock { again: Instant::now() + KNOCK_AGAIN, until, target };
                Fate::Lives
            }
            Err(_) => Fate::Broken,
        };
        self.settle(at, fate);
    }

    /// Knocks where it is time to, ends what took too long, and returns when to look again.
    fn look_at_clocks(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |before| before.min(at)));
        let mut due = Vec::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            match pair.as_ref().map(|pair| &pair.stage) {
                Some(Stage::Knock { until, .. } | Stage::Greet { until, .. }) if *until <= now => {
                    due.push((at, true));
                }
                Some(Stage::Knock { again, .. }) if *again <= now => due.push((at, false)),
                Some(Stage::Knock { again, .. }) => sooner(*again),
                Some(Stage::Greet { until, .. }) => sooner(*until),
                _ => {}
            }
        }
        if due.iter().any(|(_, late)| !late) {
            sooner(now + KNOCK_AGAIN);
        }
        for (at, late) in due {
            if late { self.settle(at, Fate::Broken) } else { self.knock(at) }
        }
        next
    }

    fn serve(&mut self, data: u64, events: EpollFlags) {
        let (side, at) = ((data & 1) as usize, (data as u32 >> 1) as usize);
        let generation = (data >> 32) as u32;
        let Some(Some(pair)) = self.pairs.get_mut(at) else { return };
        if pair.generation != generation {
            return;
        }
        let fate = turn_of(pair, side, events, &mut self.buffer);
        self.settle(at, fate);
    }

    /// Asks epoll for what a connection now waits for, or ends it.
    fn settle(&mut self, at: usize, fate: Fate) {
        let Some(pair) = &mut self.pairs[at] else { return };
        let fate = if fate == Fate::Lives && ask(&self.epoll, pair, at).is_err() {
            Fate::Broken
        } else {
            fate
        };
        if fate == Fate::Lives {
            return;
        }
        if fate == Fate::Broken
            && let Some(client) = &pair.ends[0]
        {
            // Closed like this, a TCP client sees that its connection was refused or lost.
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = setsockopt(&client.fd, sockopt::Linger, &linger);
        }
        self.pairs[at] = None;
        self.free.push(at);
        self.count -= 1;
        self.live.store(self.count, Ordering::Relaxed);
        if self.count == 0 {
            // A thousand that were here once need no room any more.
            self.pairs = Vec::new();
            self.free = Vec::new();
        }
    }
}

/// Registers both ends for just what they wait for. One that waits for nothing is not registered: that
/// it hung up would be told for ever.
fn ask(epoll: &Epoll, pair: &mut Pair, at: usize) -> nix::Result<()> {
    let open = matches!(pair.stage, Stage::Open);
    let greeting = matches!(pair.stage, Stage::Greet { .. });
    for side in 0..2 {
        let other_waits = pair.ends[1 - side].as_ref().is_some_and(|end| !end.held.is_empty());
        let Some(end) = &mut pair.ends[side] else { continue };
        let mut wanted = EpollFlags::empty();
        let reads = if side == 1 && greeting { true } else { open && !other_waits };
        wanted.set(EpollFlags::EPOLLIN, reads && !end.read_all);
        wanted.set(EpollFlags::EPOLLOUT, !end.held.is_empty());
        if wanted == end.asked {
            continue;
        }
        let data = u64::from(pair.generation) << 32 | (at as u64) << 1 | side as u64;
        let mut event = EpollEvent::new(wanted, data);
        match (end.asked.is_empty(), wanted.is_empty()) {
            (true, _) => epoll.add(&end.fd, event)?,
            (_, true) => epoll.delete(&end.fd)?,
            _ => epoll.modify(&end.fd, &mut event)?,
        }
        end.asked = wanted;
    }
    Ok(())
}

/// Does what an event allows.
fn turn_of(pair: &mut Pair, side: usize, events: EpollFlags, buffer: &mut [u8]) -> Fate {
    let over = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP;
    if events.contains(EpollFlags::EPOLLERR)
        && let Some(end) = &pair.ends[side]
        && getsockopt(&end.fd, sockopt::SocketError).is_ok_and(|error| error != 0)
    {
        return Fate::Broken;
    }
    if events.intersects(EpollFlags::EPOLLOUT | over) && flush(pair, side).is_err() {
        return Fate::Broken;
    }
    if events.intersects(EpollFlags::EPOLLIN | over) {
        let fate = if side == 1 && matches!(pair.stage, Stage::Greet { .. }) {
            hear(pair, buffer)
        } else {
            Fate::Lives
        };
        if fate != Fate::Lives {
            return fate;
        }
        if matches!(pair.stage, Stage::Open) && carry(pair, side, buffer).is_err() {
            return Fate::Broken;
        }
    }
    if events.contains(EpollFlags::EPOLLHUP)
        && pair.ends[side].as_ref().is_some_and(|end| end.read_all)
        && unheard(pair, side, Errno::EPIPE).and_then(|()| flush(pair, 1 - side)).is_err()
    {
        return Fate::Broken;
    }
    if is_over(pair) { Fate::Over } else { Fate::Lives }
}

fn is_over(pair: &Pair) -> bool {
    matches!(pair.stage, Stage::Open)
        && pair.ends.iter().flatten().all(|end| end.read_all && end.was_told)
}

/// Writes what is held for an end, then passes on that there will be no more.
fn flush(pair: &mut Pair, side: usize) -> nix::Result<()> {
    let peer_done = matches!(pair.stage, Stage::Open)
        && pair.ends[1 - side].as_ref().is_some_and(|e| e.read_all);
    let Some(end) = &mut pair.ends[side] else { return Ok(()) };
    while end.at < end.held.len() {
        match write(&end.fd, &end.held[end.at..]) {
            Ok(count) => end.at += count,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return unheard(pair, side, errno),
        }
    }
    end.held = Vec::new();
    end.at = 0;
    if peer_done && !end.was_told {
        end.was_told = true;
        // It may have closed already.
        let _ = shutdown(end.fd.as_raw_fd(), Shutdown::Write);
    }
    Ok(())
}

/// An end reads no more. What it has said before is still to be passed on, if it ended in order.
fn unheard(pair: &mut Pair, side: usize, errno: Errno) -> nix::Result<()> {
    if errno != Errno::EPIPE {
        return Err(errno);
    }
    if let Some(end) = &mut pair.ends[side] {
        end.held = Vec::new();
        end.at = 0;
        end.was_told = true;
    }
    if let Some(peer) = &mut pair.ends[1 - side] {
        peer.read_all = true;
        let _ = shutdown(peer.fd.as_raw_fd(), Shutdown::Read);
    }
    Ok(())
}

/// Moves one piece from an end to the other.
fn carry(pair: &mut Pair, side: usize, buffer: &mut [u8]) -> nix::Result<()> {
    if pair.ends[1 - side].as_ref().is_none_or(|end| !end.held.is_empty()) {
        return Ok(());
    }
    let Some(end) = pair.ends[side].as_mut().filter(|end| !end.read_all) else { return Ok(()) };
    match read(&end.fd, buffer) {
        Ok(0) => {
            end.read_all = true;
            flush(pair, 1 - side)
        }
        Ok(count) => pass(pair, 1 - side, &buffer[..count]),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives bytes to an end that holds none; what it does not take now is held.
fn pass(pair: &mut Pair, side: usize, mut bytes: &[u8]) -> nix::Result<()> {
    let Some(end) = &mut pair.ends[side] else { return Ok(()) };
    while !bytes.is_empty() {
        match write(&end.fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EAGAIN) => {
                end.held = bytes.to_vec();
                return Ok(());
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return unheard(pair, side, errno),
        }
    }
    Ok(())
}

/// Says the line of the current step to the agent.
fn say(pair: &mut Pair) -> Fate {
    let Stage::Greet { step, target, .. } = &pair.stage else { return Fate::Lives };
    let line = match step {
        0 => format!("CONNECT {}\n", port::FORWARD),
        _ => format!("{target}\n"),
    };
    if pass(pair, 1, line.as_bytes()).is_ok() { Fate::Lives } else { Fate::Broken }
}

/// Hears the agent's answer to a step; what comes after the last one is the service's.
fn hear(pair: &mut Pair, buffer: &mut [u8]) -> Fate {
    let Some(end) = &pair.ends[1] else { return Fate::Broken };
    let count = match read(&end.fd, &mut buffer[..LINE_BYTES]) {
        Ok(0) => return Fate::Broken,
        Ok(count) => count,
        Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Lives,
        Err(_) => return Fate::Broken,
    };
    let mut bytes = &buffer[..count];
    while let Stage::Greet { step, line, .. } = &mut pair.stage {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            line.extend_from_slice(bytes);
            return if line.len() < LINE_BYTES { Fate::Lives } else { Fate::Broken };
        };
        line.extend_from_slice(&bytes[..end]);
        bytes = &bytes[end + 1..];
        match (*step, line.starts_with(b"OK "), line.as_slice() == b"ok") {
            (0, true, _) => {
                *step = 1;
                line.clear();
                if say(pair) == Fate::Broken {
                    return Fate::Broken;
                }
            }
            (1, _, true) => pair.stage = Stage::Open,
            _ => return Fate::Broken,
        }
        if bytes.is_empty() {
            break;
        }
    }
    if pass(pair, 0, bytes).is_ok() { Fate::Lives } else { Fate::Broken }
}

/// Connects to the channel; `None` while its queue is full.
fn knock_at(path: &Path) -> io::Result<Option<OwnedFd>> {
    match dial(path, Patience::None) {
        Ok(stream) => Ok(Some(stream.into())),
        // Not there yet, or begun anew.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn prepare(client: &TcpStream) -> io::Result<()> {
    client.set_nonblocking(true)?;
    client.set_nodelay(true)?;
    // A peer that is gone without a word is found out one day.
    setsockopt(&client.as_fd(), sockopt::KeepAlive, &true)?;
    Ok(())
}

fn set_nonblocking(fd: &OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) else { return false };
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(fd, FcntlArg::F_SETFL(flags)).is_ok()
}
