//! What a copy of this process does first: it closes what is not its own, and enters a namespace.

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns},
};
use std::os::fd::{BorrowedFd, RawFd};

/// Enters the namespace; through its user namespace only where the caller has no power over it yet.
pub(crate) fn enter(user: RawFd, network: RawFd) -> nix::Result<()> {
    // SAFETY: the descriptors are open, see `Network::enter`, and are not closed here.
    let (user, network) =
        unsafe { (BorrowedFd::borrow_raw(user), BorrowedFd::borrow_raw(network)) };
    match setns(network, CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) => {
            setns(user, CloneFlags::CLONE_NEWUSER)?;
            setns(network, CloneFlags::CLONE_NEWNET)
        }
        done => done,
    }
}

/// Closes every descriptor but some, the lowest first: a copy of a process must not keep its
/// parent's files open. One that cannot close them is not to go on, or whoever waits for their end waits for ever.
pub(crate) fn close_but(kept: &[RawFd]) -> nix::Result<()> {
    let mut next = 0;
    for fd in kept.iter().map(|fd| *fd as u32) {
        if fd > next {
            close_between(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_between(next, u32::MAX)
}

/// Closes a range of descriptors (close_range(2)) in a copy of a process that uses none of them.
fn close_between(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: by contract.
    Errno::result(unsafe { libc::close_range(first, last, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_closed_is_an_error() {
        // Nothing is open there; a range that ends before it begins is refused.
        assert_eq!(close_between(u32::MAX - 1, u32::MAX), Ok(()));
        assert_eq!(close_between(9, 8), Err(Errno::EINVAL));
    }
}
