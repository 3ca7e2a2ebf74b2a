//! Answers `<vm>.vm` with the VM's loopback address.
//!
//! Reads the lock and `running.json` of the VM that is asked for; writes nothing but the file of its own
//! lock, `dns.lock`, which keeps it single. The first supervisor of a VM with such an address starts
//! it; it leaves when the last share in `dns.users` ends, which each of them holds.

mod message;
mod stream;

use banger_cli::Out;
use banger_doc::{Context, Error, Name, Result};
use banger_state::{Lock, State, place};
use message::{Answer, Question};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::OpenOptions,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

/// Largest question that is read; there is no reason for a larger one.
const QUESTION_BYTES: usize = 1232;
/// How long to wait until an address that another program has may be free.
const AGAIN: Duration = Duration::from_secs(2);

/// Answer the names of running VMs: NAME.vm
///
/// Started with the first VM that has an address on this host ('--ports auto'); ends with the last of them.
#[derive(clap::Parser)]
#[command(name = "banger-dns", version)]
struct Args {
    /// Where to answer, over UDP and TCP
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:42069")]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    banger_cli::main(run)
}

fn run(args: Args, out: &mut Out) -> Result<()> {
    let state = State::open_read_only()?;
    let Some(_single) = Lock::try_exclusive(&state.path(place::DNS_LOCK))? else {
        out.note("another banger-dns serves already");
        return Ok(());
    };
    let users = state.path(place::DNS_USERS);
    let users = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&users)
        .with_context(|| format!("cannot open '{}'", users.display()))?;
    let state = Arc::new(state);
    let (by_packets, by_streams) = (Arc::clone(&state), state);
    let packets = move || serve(&by_packets, args.listen);
    let streams = move || stream::serve(&by_streams, &bound(|| TcpListener::bind(args.listen)));
    thread::Builder::new().spawn(packets).context("cannot start a thread")?;
    thread::Builder::new().spawn(streams).context("cannot start a thread")?;
    // Waits until nobody has a share, however they ended; then this program ends, threads and all.
    match Flock::lock(users, FlockArg::LockExclusive) {
        Ok(_nobody) => Ok(()),
        Err((_, errno)) => Err(Error::failed("cannot wait for the last VM").because(errno)),
    }
}

/// Waits for an address that another state's `banger-dns` may have, or another program: its turn ends
/// one day.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> T {
    loop {
        match bind() {
            Ok(socket) => return socket,
            Err(_) => thread::sleep(AGAIN),
        }
    }
}

fn serve(state: &State, listen: SocketAddr) {
    let socket = bound(|| UdpSocket::bind(listen));
    let mut bytes = [0; QUESTION_BYTES];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((size, asker)) => {
                if let Some(question) = Question::read(&bytes[..size]) {
                    let _ = socket.send_to(&question.answer(&look_up(state, &question)), asker);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody went away before the answer came.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => thread::sleep(AGAIN),
        }
    }
}

/// Finds what is asked for. `www.web.vm` is `web` too.
fn look_up(state: &State, question: &Question) -> Answer {
    let [.., name, "vm"] = question.labels()[..] else {
        return if question.labels() == ["vm"] { Answer::Nothing } else { Answer::NotOurs };
    };
    let Ok(name) = name.parse::<Name>() else { return Answer::NoSuchName };
    match address(state, &name) {
        Ok(Some(address)) => Answer::Address(address),
        Ok(None) => Answer::Nothing,
        Err(_) => Answer::NoSuchName,
    }
}

/// Returns the address of a VM that runs; an error if there is none of that name or it does not run.
fn address(state: &State, name: &Name) -> Result<Option<IpAddr>> {
    let folder = state.vm(name)?;
    let running = folder.running()?.filter(|_| folder.is_live().unwrap_or(false));
    let running = running.ok_or_else(|| Error::not_found("it does not run"))?;
    Ok(running.ports.loopback)
}
