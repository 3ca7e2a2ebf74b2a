//! The one way to connect to a socket in a VM's `run/`.

use banger_doc::VMM_USERS;
use nix::{
    fcntl::{OFlag, open},
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
        },
        stat::{Mode, SFlag, fstat},
        time::TimeVal,
    },
    unistd::geteuid,
};
use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

/// How long to wait for room in a listener's queue.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// At most so long.
    Until(Duration),
    /// Not at all: the stream does not block afterwards either, and a full queue is an error of kind
    /// [`io::ErrorKind::WouldBlock`].
    None,
}

/// Connects to a socket that a VMM made. A VMM that was broken out of can put something else in its
/// place: a link to somebody else's socket, a file, a socket of another user's. None of these is
/// taken: it has to be a socket itself, and belong to us or, for root, to a user of a VM's own.
pub fn dial(path: &Path, patience: Patience) -> io::Result<UnixStream> {
    let place = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstat(&place)?;
    if found.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFSOCK.bits() {
        return Err(io::Error::other("it is no socket"));
    }
    let ours = geteuid();
    let is_a_vmms = ours.is_root() && VMM_USERS.contains(&found.st_uid);
    if found.st_uid != ours.as_raw() && !is_a_vmms {
        return Err(io::Error::other("it belongs to another user"));
    }
    let flags = match patience {
        Patience::None => SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        Patience::Until(_) => SockFlag::SOCK_CLOEXEC,
    };
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    if let Patience::Until(limit) = patience {
        let micros = limit.as_micros().clamp(1, i64::MAX as u128) as i64;
        let limit = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    }
    // What was looked at, wherever its name leads by now.
    let link = format!("/proc/self/fd/{}", place.as_raw_fd());
    connect(fd.as_raw_fd(), &UnixAddr::new(link.as_str())?)?;
    Ok(UnixStream::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::{
            fs::{chown, symlink},
            net::UnixListener,
        },
        time::Instant,
    };

    const PATIENT: Patience = Patience::Until(Duration::from_millis(100));

    #[test]
    fn only_a_socket_itself_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let _theirs = UnixListener::bind(place("theirs.sock")).unwrap();
        symlink("theirs.sock", place("channel.sock")).unwrap();
        fs::write(place("file"), "").unwrap();
        for patience in [PATIENT, Patience::None] {
            assert!(dial(&place("theirs.sock"), patience).is_ok());
            for other in ["channel.sock", "file", "absent", "."] {
                assert!(dial(&place(other), patience).is_err(), "{other}");
            }
        }
    }

    #[test]
    fn a_socket_of_another_user_is_not_taken_unless_a_vmm_is_that_user() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("channel.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        // The users of a VM's network and of tools are none of its VMM's.
        for other in [12_345, VMM_USERS.start - 1, VMM_USERS.end, 0x7040_0000 + 4321, 0x7080_4321] {
            chown(&socket, Some(other), None).unwrap();
            let refused = dial(&socket, PATIENT).unwrap_err().to_string();
            assert!(refused.contains("another user"), "{refused}");
        }
        chown(&socket, Some(VMM_USERS.start + 4321), None).unwrap();
        assert!(dial(&socket, PATIENT).is_ok());
    }

    #[test]
    fn a_queue_that_stays_full_is_waited_for_so_long_and_no_longer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("channel.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let mut held = Vec::new();
        let full = loop {
            match dial(&socket, Patience::None) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let begun = Instant::now();
        assert!(dial(&socket, PATIENT).is_err());
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(5), "{took:?}");
    }
}
