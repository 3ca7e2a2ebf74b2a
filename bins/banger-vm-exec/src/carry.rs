//! Carries bytes and signals between this process and the command, in one thread.

use crate::terminal;
use banger_channel::exec::{CREDIT, Decoder, Failure, Message};
use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{SFlag, fstat},
    },
    unistd::{read, write},
};
use std::{
    io::{self, ErrorKind, stderr, stdin, stdout},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// The guest is not read from while more than this waits for a reader of ours.
const CROWDED: usize = 128 << 10;
/// What a pipe or terminal takes without waiting once poll(2) says that it takes something.
const SURE: usize = 4096;
/// How long the guest may be silent after a signal before this ends by itself.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is asked then whether it is still there.
const PING: Duration = Duration::from_secs(2);
/// So many signals end this whatever the guest does ...
const ENOUGH: u32 = 3;
/// ... unless more time passes between two of them: then the command has lived with the earlier ones.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// What Ctrl-C types.
const INTERRUPT: u8 = 3;
/// A reader went away: what a shell says of a command that this ended.
const BROKEN_PIPE: u8 = 141;
/// The terminal went away.
const HUNG_UP: u8 = 129;

/// How it ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command ended; its status as shells count.
    Exit(u8),
    /// It did not start.
    NotStarted(Failure),
    /// The guest, its agent or the VMM went away.
    Broken,
    /// A signal of this number ended the waiting, not the command; why.
    GivenUp(u8, &'static str),
    /// What the command says cannot be written there.
    Unwritten(&'static str, io::Error),
}

/// One of our own outputs.
struct Sink<'a> {
    fd: BorrowedFd<'a>,
    waiting: Vec<u8>,
    /// A file takes all at once; anything else no more than is sure.
    most: usize,
}

impl<'a> Sink<'a> {
    fn new(fd: BorrowedFd<'a>) -> Self {
        let kind = fstat(fd).map_or(0, |stat| stat.st_mode) & SFlag::S_IFMT.bits();
        let most = if kind == SFlag::S_IFREG.bits() { usize::MAX } else { SURE };
        Self { fd, waiting: Vec::new(), most }
    }

    /// Writes what it takes now.
    fn write(&mut self) -> io::Result<()> {
        let count = self.waiting.len().min(self.most);
        if let Some(count) = now(write(self.fd, &self.waiting[..count]))? {
            self.waiting.drain(..count);
        }
        Ok(())
    }
}

/// Carries until the command has ended and its bytes are written.
pub(crate) fn carry(stream: &UnixStream, tty: bool) -> Result<Ended> {
    stream.set_nonblocking(true).context("cannot change a socket")?;
    let signals = watch_signals().context("cannot watch signals")?;
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let mut carrier = Carrier {
        stream,
        decoder: Decoder::default(),
        to_guest: Vec::new(),
        stdout: Sink::new(stdout.as_fd()),
        stderr: Sink::new(stderr.as_fd()),
        credit: CREDIT as usize,
        stdin_open: true,
        ended: None,
        asked: None,
    };
    let mut buffer = vec![0; 32 << 10];
    loop {
        if carrier.stdout.waiting.is_empty()
            && carrier.stderr.waiting.is_empty()
            && let Some(ended) = carrier.ended.take()
        {
            return Ok(ended);
        }
        let [guest, signal, input, output, errors] = carrier.wait(&signals, stdin.as_fd())?;
        // Dropping the connection ends the command.
        if !output.is_empty()
            && let Err(error) = carrier.stdout.write()
        {
            return Ok(match error.kind() {
                ErrorKind::BrokenPipe => Ended::Exit(BROKEN_PIPE),
                _ => Ended::Unwritten("stdout", error),
            });
        }
        if !errors.is_empty()
            && let Err(error) = carrier.stderr.write()
        {
            if error.kind() != ErrorKind::BrokenPipe {
                return Ok(Ended::Unwritten("stderr", error));
            }
            carrier.stderr.waiting.clear();
        }
        if !signal.is_empty()
            && let Some(ended) = carrier.pass_signal(&signals, tty)?
        {
            return Ok(ended);
        }
        if !input.is_empty() {
            carrier.read_stdin(stdin.as_fd(), &mut buffer, tty);
        }
        if let Some(ended) = carrier.ask_again() {
            return Ok(ended);
        }
        carrier.flush();
        if guest.intersects(!PollFlags::POLLOUT) {
            carrier.hear(&mut buffer)?;
        }
    }
}

/// Blocks the signals that a command is to hear, and returns where they can be read.
fn watch_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGWINCH,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

struct Carrier<'a> {
    stream: &'a UnixStream,
    decoder: Decoder,
    to_guest: Vec<u8>,
    stdout: Sink<'a>,
    stderr: Sink<'a>,
    /// How much of stdin the agent still takes.
    credit: usize,
    stdin_open: bool,
    ended: Option<Ended>,
    /// Since somebody asked the command to end.
    asked: Option<Asked>,
}

/// Somebody asked the command to end.
struct Asked {
    /// The last signal that did.
    signal: u8,
    /// How many did; one that was only typed does not count, since the guest's terminal makes it.
    times: u32,
    /// When it was last told to.
    told: Instant,
    /// When the guest last said anything, or was first asked.
    heard: Instant,
    /// When it was last asked whether it is there.
    pinged: Instant,
}

impl Carrier<'_> {
    /// Waits; returns what is ready of the guest, signals, stdin, stdout, stderr.
    fn wait(&self, signals: &SignalFd, stdin: BorrowedFd<'_>) -> Result<[PollFlags; 5]> {
        let over = self.ended.is_some();
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, !self.is_crowded());
        events.set(PollFlags::POLLOUT, !self.to_guest.is_empty());
        let reads = self.stdin_open && self.credit > 0 && self.to_guest.is_empty();
        let mut asked = Vec::with_capacity(5);
        let mut fds = Vec::with_capacity(5);
        for (at, (wanted, fd, events)) in [
            (!over && !events.is_empty(), self.stream.as_fd(), events),
            (true, signals.as_fd(), PollFlags::POLLIN),
            (!over && reads, stdin, PollFlags::POLLIN),
            (!self.stdout.waiting.is_empty(), self.stdout.fd, PollFlags::POLLOUT),
            (!self.stderr.waiting.is_empty(), self.stderr.fd, PollFlags::POLLOUT),
        ]
        .into_iter()
        .enumerate()
        {
            if wanted {
                asked.push(at);
                fds.push(PollFd::new(fd, events));
            }
        }
        let timeout = self.asked.as_ref().filter(|_| !over).map_or(PollTimeout::NONE, |asked| {
            let next = (asked.pinged + PING).min(asked.heard + SILENCE);
            let left = next.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the guest"),
        }
        let mut ready = [PollFlags::empty(); 5];
        for (fd, at) in fds.iter().zip(asked) {
            ready[at] = fd.revents().unwrap_or(PollFlags::empty());
        }
        Ok(ready)
    }

    /// Says whether a reader of ours is so far behind that the guest is not read from.
    fn is_crowded(&self) -> bool {
        self.stdout.waiting.len().max(self.stderr.waiting.len()) >= CROWDED
    }

    /// Passes signals on; says how it ends if our own terminal is gone, or these were enough.
    fn pass_signal(&mut self, signals: &SignalFd, tty: bool) -> Result<Option<Ended>> {
        while let Some(info) = signals.read_signal().context("cannot read a signal")? {
            match info.ssi_signo as libc::c_int {
                libc::SIGHUP => return Ok(Some(Ended::Exit(HUNG_UP))),
                libc::SIGWINCH => {
                    if tty {
                        Message::Window(terminal::window()).encode(&mut self.to_guest);
                    }
                }
                number => {
                    Message::Signal(number as u8).encode(&mut self.to_guest);
                    let ends = matches!(number, libc::SIGINT | libc::SIGQUIT | libc::SIGTERM);
                    if ends && self.ask(number as u8, 1) >= ENOUGH {
                        let why = "this was the third signal, and the command has not ended";
                        return Ok(Some(Ended::GivenUp(number as u8, why)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Notes that the command is to end; returns how often it was told.
    fn ask(&mut self, signal: u8, counts: u32) -> u32 {
        let now = Instant::now();
        self.asked = self.asked.take().filter(|asked| asked.told.elapsed() < FORGOTTEN);
        let first = Asked { signal, times: 0, told: now, heard: now, pinged: now };
        let is_first = self.asked.is_none();
        let asked = self.asked.get_or_insert(first);
        asked.signal = signal;
        asked.told = now;
        asked.times += counts;
        if is_first {
            Message::Ping.encode(&mut self.to_guest);
        }
        asked.times
    }

    /// Asks a guest that was told to end a command whether it is there, and gives up one that is not.
    fn ask_again(&mut self) -> Option<Ended> {
        let crowded = self.is_crowded();
        let asked = self.asked.as_mut().filter(|_| self.ended.is_none())?;
        if crowded {
            // It is not the guest that is silent: it is not listened to.
            (asked.heard, asked.pinged) = (Instant::now(), Instant::now());
            return None;
        }
        if asked.heard.elapsed() >= SILENCE {
            return Some(Ended::GivenUp(asked.signal, "the guest has said nothing for 10 s since"));
        }
        if asked.pinged.elapsed() >= PING {
            asked.pinged = Instant::now();
            // What is not even sent yet would only grow.
            if self.to_guest.is_empty() {
                Message::Ping.encode(&mut self.to_guest);
            }
        }
        None
    }

    fn read_stdin(&mut self, stdin: BorrowedFd<'_>, buffer: &mut [u8], tty: bool) {
        let room = self.credit.min(buffer.len());
        match now(read(stdin, &mut buffer[..room])) {
            Ok(None) => {}
            // A stdin that cannot be read, such as a closed one, has nothing to say.
            Ok(Some(0)) | Err(_) => {
                self.stdin_open = false;
                Message::StdinEnd.encode(&mut self.to_guest);
            }
            Ok(Some(count)) => {
                if tty && buffer[..count].contains(&INTERRUPT) {
                    self.ask(libc::SIGINT as u8, 0);
                }
                self.credit -= count;
                Message::Stdin(&buffer[..count]).encode(&mut self.to_guest);
            }
        }
    }

    /// Writes to the guest what it takes now. That it is gone is noticed when reading.
    fn flush(&mut self) {
        while !self.to_guest.is_empty() {
            match now(write(self.stream, &self.to_guest)) {
                Ok(Some(count)) => drop(self.to_guest.drain(..count)),
                Ok(None) => break,
                Err(_) => self.to_guest.clear(),
            }
        }
    }

    /// Takes what the guest says.
    fn hear(&mut self, buffer: &mut [u8]) -> Result<()> {
        match now(read(self.stream, buffer)) {
            Ok(None) => return Ok(()),
            Ok(Some(0)) | Err(_) => {
                self.ended.get_or_insert(Ended::Broken);
                return Ok(());
            }
            Ok(Some(count)) => self.decoder.feed(&buffer[..count]),
        }
        // Whoever only typed wanted to know that the guest is there; and a command that goes on for long
        // after a signal was not ended by it.
        self.asked =
            self.asked.take().filter(|asked| asked.times > 0 && asked.told.elapsed() < FORGOTTEN);
        if let Some(asked) = &mut self.asked {
            asked.heard = Instant::now();
        }
        while self.ended.is_none() {
            let message = self.decoder.next_message();
            match message.context("the guest's agent breaks the protocol")? {
                None => return Ok(()),
                Some(Message::Stdout(bytes)) => self.stdout.waiting.extend_from_slice(bytes),
                Some(Message::Stderr(bytes)) => self.stderr.waiting.extend_from_slice(bytes),
                Some(Message::Credit(count)) => {
                    self.credit = self.credit.saturating_add(count as usize);
                }
                Some(Message::Exit { status, signal }) => {
                    let status = if signal == 0 { status } else { signal.saturating_add(128) };
                    self.ended = Some(Ended::Exit(status));
                }
                Some(Message::Error(text)) => {
                    let failure = serde_json::from_slice(text)
                        .context("the guest's agent gave an error that cannot be read")?;
                    self.ended = Some(Ended::NotStarted(failure));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Turns "not now" into nothing.
fn now(result: nix::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
