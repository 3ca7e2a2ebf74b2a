//! Commands: what goes in, what comes out, how they end.

use crate::{
    command::{self, Pipes, Started},
    group::Group,
};
use banger_channel::{
    exec::{CREDIT, Decoder, FRAME_BYTES, Failure, Message, REQUEST_BYTES, Request, Why},
    read_line,
};
use banger_doc::{Context, ImageConfig, Result};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Pid, read, tcgetpgrp, write},
};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    os::{
        fd::AsFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::ExitStatus,
    time::{Duration, Instant},
};

/// How long a client may take to say what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// The command is not read from while more than this waits for the client.
const CROWDED: usize = 128 << 10;
/// After the command has ended, its pipes count until they have been silent for so long ...
const SILENCE: Duration = Duration::from_millis(50);
/// ... or so much has come.
const AFTERMATH: usize = 1 << 20;
/// How long a command may take to heed that nobody listens any more.
const HANGUP: Duration = Duration::from_secs(2);
/// The end-of-file character of a terminal.
const END_OF_FILE: u8 = 4;

/// Serves one command.
///
/// Groups are made in a `real` guest: elsewhere they are somebody else's.
pub(crate) fn serve(mut stream: UnixStream, config: &ImageConfig, real: bool) -> Result<()> {
    let line = read_line(&mut stream, REQUEST_BYTES, Instant::now() + REQUEST_LIMIT);
    let Some(line) = line.context("cannot read a request")? else { return Ok(()) };
    let request = serde_json::from_slice::<Request>(&line).map_err(|error| Failure {
        kind: Why::Refused,
        message: format!("the request cannot be read: {error}"),
    });
    match request
        .and_then(|request| command::start(&request, config, real.then(Group::new).flatten()))
    {
        Ok(started) => run(&stream, started).context("cannot serve a command"),
        Err(failure) => {
            let mut out = Vec::new();
            let mut text = serde_json::to_vec(&failure).context("cannot write an answer")?;
            text.truncate(FRAME_BYTES);
            Message::Error(&text).encode(&mut out);
            stream.write_all(&out).context("cannot answer")
        }
    }
}

/// Carries one command to its end, or ends it when its client is gone.
fn run(stream: &UnixStream, started: Started) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    started.pipes.set_nonblocking()?;
    let mut out = Vec::new();
    Message::Started(started.child.id()).encode(&mut out);
    let mut session = Session {
        stream,
        pid: Pid::from_raw(started.child.id() as i32),
        started,
        decoder: Decoder::default(),
        out,
        stdin: VecDeque::new(),
        stdin_ended: false,
        credit: CREDIT as usize,
        taken: 0,
        status: None,
        aftermath: 0,
        said_all: false,
    };
    let carried = session.carry();
    if session.status.is_none() {
        session.hang_up()?;
    }
    carried
}

/// One command and its client.
struct Session<'a> {
    stream: &'a UnixStream,
    started: Started,
    pid: Pid,
    decoder: Decoder,
    /// For the client.
    out: Vec<u8>,
    /// For the command.
    stdin: VecDeque<u8>,
    /// No more comes for the command.
    stdin_ended: bool,
    /// What the client may still send.
    credit: usize,
    /// What the command took since the client was last told.
    taken: usize,
    status: Option<ExitStatus>,
    /// Bytes since the command has ended.
    aftermath: usize,
    said_all: bool,
}

/// What poll is asked about.
#[derive(Clone, Copy)]
enum Source {
    Client,
    Ended,
    Stdin,
    Stdout,
    Stderr,
}

impl Session<'_> {
    /// Carries bytes until all is said, or the client is gone.
    fn carry(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; FRAME_BYTES];
        let mut last_output = Instant::now();
        loop {
            self.flush()?;
            if self.said_all && self.out.is_empty() {
                return Ok(());
            }
            if self.out.len() >= CROWDED || self.status.is_none() {
                // Nobody can tell whether the pipes are silent.
                last_output = Instant::now();
            }
            // Only what poll finds silent is: this thread may itself be held up for as long.
            let mut silent = self.status.is_some() && last_output.elapsed() >= SILENCE;
            for (source, events) in self.wait(last_output)? {
                match source {
                    Source::Client => {
                        if events.intersects(!PollFlags::POLLOUT) && !self.hear(&mut buffer)? {
                            return Ok(());
                        }
                    }
                    Source::Ended => {
                        self.status = Some(self.started.child.wait()?);
                        self.stdin.clear();
                        self.started.pipes.stdin = None;
                        last_output = Instant::now();
                    }
                    Source::Stdin => self.feed_command(),
                    Source::Stdout | Source::Stderr => {
                        self.listen(source, &mut buffer);
                        last_output = Instant::now();
                        silent = false;
                    }
                }
            }
            let Some(status) = self.status else { continue };
            let pipes = &mut self.started.pipes;
            if silent || self.aftermath >= AFTERMATH {
                (pipes.stdout, pipes.stderr) = (None, None);
            }
            if !self.said_all && pipes.stdout.is_none() && pipes.stderr.is_none() {
                self.said_all = true;
                let signal = status.signal().unwrap_or(0) as u8;
                let status = status.code().unwrap_or(0) as u8;
                Message::Exit { status, signal }.encode(&mut self.out);
            }
        }
    }

    /// Waits until something can be done.
    fn wait(&self, last_output: Instant) -> io::Result<Vec<(Source, PollFlags)>> {
        let pipes = &self.started.pipes;
        let mut asked = vec![Source::Client];
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.out.is_empty());
        let mut fds = vec![PollFd::new(self.stream.as_fd(), events)];
        let mut ask = |source, fd, events| {
            asked.push(source);
            fds.push(PollFd::new(fd, events));
        };
        if self.status.is_none() {
            ask(Source::Ended, self.started.pidfd.as_fd(), PollFlags::POLLIN);
        }
        if let Some(stdin) = pipes.stdin.as_ref().filter(|_| !self.stdin.is_empty()) {
            ask(Source::Stdin, stdin.as_fd(), PollFlags::POLLOUT);
        }
        if self.out.len() < CROWDED {
            for (source, file) in [(Source::Stdout, &pipes.stdout), (Source::Stderr, &pipes.stderr)]
            {
                if let Some(file) = file {
                    ask(source, file.as_fd(), PollFlags::POLLIN);
                }
            }
        }
        let timeout = if self.status.is_some() && !self.said_all {
            let left = SILENCE.saturating_sub(last_output.elapsed());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let seen = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(asked.into_iter().zip(seen).filter(|(_, events)| !events.is_empty()).collect())
    }

    /// Takes what the client says; false if it is gone.
    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match now(read(self.stream, buffer))? {
            None => return Ok(true),
            Some(0) => return Ok(false),
            Some(count) => self.decoder.feed(&buffer[..count]),
        }
        while let Some(message) = self.decoder.next_message()? {
            match message {
                Message::Stdin(bytes) => {
                    if bytes.len() > self.credit || self.stdin_ended {
                        return Err(ErrorKind::InvalidData.into());
                    }
                    self.credit -= bytes.len();
                    self.stdin.extend(bytes);
                }
                Message::StdinEnd => {
                    self.stdin_ended = true;
                    if self.started.pipes.terminal.is_some() {
                        self.stdin.push_back(END_OF_FILE);
                    }
                }
                Message::Window(window) => {
                    if let Some(terminal) = &self.started.pipes.terminal {
                        let _ = command::resize(terminal, window);
                    }
                }
                Message::Signal(number) if self.status.is_none() && (1..=64).contains(&number) => {
                    let pipes = &self.started.pipes;
                    let foreground = pipes.terminal.as_ref().and_then(|tty| tcgetpgrp(tty).ok());
                    let group = foreground.filter(|group| group.as_raw() > 1).unwrap_or(self.pid);
                    // SAFETY: kill touches no memory; the group is the command's own.
                    unsafe { libc::kill(-group.as_raw(), i32::from(number)) };
                }
                // One answer is enough for a client that never reads.
                Message::Ping if self.out.len() < CROWDED => Message::Pong.encode(&mut self.out),
                Message::Signal(_) | Message::Ping => {}
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
        self.feed_command();
        Ok(true)
    }

    /// Gives the command what it takes now.
    fn feed_command(&mut self) {
        while let Some(stdin) = self.started.pipes.stdin.as_ref() {
            let (front, _) = self.stdin.as_slices();
            if front.is_empty() {
                break;
            }
            match now(write(stdin, front)) {
                Ok(Some(count)) => {
                    self.stdin.drain(..count);
                    self.taken += count;
                }
                Ok(None) => return self.tell_credit(),
                // It reads no more.
                Err(_) => self.started.pipes.stdin = None,
            }
        }
        if self.started.pipes.stdin.is_none() {
            self.taken += self.stdin.len();
            self.stdin.clear();
        }
        if self.stdin_ended && self.stdin.is_empty() && self.started.pipes.terminal.is_none() {
            self.started.pipes.stdin = None;
        }
        self.tell_credit();
    }

    fn tell_credit(&mut self) {
        if self.taken >= CREDIT as usize / 4 && !self.stdin_ended {
            Message::Credit(self.taken as u32).encode(&mut self.out);
            self.credit += std::mem::take(&mut self.taken);
        }
    }

    /// Reads what the command says.
    fn listen(&mut self, source: Source, buffer: &mut [u8]) {
        let pipes = &mut self.started.pipes;
        let file =
            if matches!(source, Source::Stdout) { &mut pipes.stdout } else { &mut pipes.stderr };
        let Some(open) = file else { return };
        match now(read(&*open, buffer)) {
            Ok(None) => {}
            // A terminal says "input/output error" when the last to use it has closed it.
            Ok(Some(0)) | Err(_) => *file = None,
            Ok(Some(count)) => {
                let bytes = &buffer[..count];
                let message = match source {
                    Source::Stdout => Message::Stdout(bytes),
                    _ => Message::Stderr(bytes),
                };
                message.encode(&mut self.out);
                if self.status.is_some() {
                    self.aftermath += count;
                }
            }
        }
    }

    /// Writes what the client takes now.
    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match now(write(self.stream, &self.out[sent..]))? {
                Some(count) => sent += count,
                None => break,
            }
        }
        self.out.drain(..sent);
        Ok(())
    }

    /// Ends a command that nobody listens to.
    fn hang_up(&mut self) -> io::Result<()> {
        let pipes = &mut self.started.pipes;
        *pipes = Pipes { stdin: None, stdout: None, stderr: None, terminal: None };
        let signal = |number| {
            // SAFETY: kill touches no memory; the command is not reaped, so the group is its own.
            unsafe { libc::kill(-self.pid.as_raw(), number) };
        };
        signal(libc::SIGHUP);
        signal(libc::SIGCONT);
        let timeout = PollTimeout::try_from(HANGUP).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(self.started.pidfd.as_fd(), PollFlags::POLLIN)], timeout);
        signal(libc::SIGKILL);
        self.started.child.wait().map(drop)
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
