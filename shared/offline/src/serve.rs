//! The end that reads: takes descriptors from a socket, answers requests on them.

use crate::view::{Disks, View};
use banger_channel::files::serve_still;
use banger_doc::{Context, Error, Result};
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use std::{
    fs::File,
    io::IoSliceMut,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// What the first message is: the disks, and the locks that are held as long as they are read.
pub(crate) const DISKS: &[u8] = b"disks";
/// How many descriptors it has.
pub(crate) const OF_DISKS: usize = 5;
/// What each later message is: a stream to answer.
pub(crate) const STREAM: &[u8] = b"stream";
/// The most streams at once.
const MOST_STREAMS: usize = 64;
/// Stack of a thread that answers; a tar stream goes as deep as directories do.
const STACK: usize = 2 << 20;

/// Answers what comes over `control` until nothing comes any more and every stream has ended.
pub fn serve(control: BorrowedFd<'_>) -> Result<()> {
    let Some((word, fds)) = receive(control)? else { return Ok(()) };
    let [base, overlay, work, _vm, _disks] = <[OwnedFd; OF_DISKS]>::try_from(fds)
        .ok()
        .filter(|_| word == DISKS)
        .ok_or_else(|| Error::usage("the disks have to come first"))?;
    let disks =
        Disks { base: File::from(base), overlay: File::from(overlay), work: File::from(work) };
    // Whoever asks is told what is wrong with them.
    let view = Arc::new(View::open(disks).map_err(|error| (error.kind(), error.chain())));
    let busy = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    while let Some((word, fds)) = receive(control)? {
        let [stream] = <[OwnedFd; 1]>::try_from(fds)
            .ok()
            .filter(|_| word == STREAM)
            .ok_or_else(|| Error::usage("a stream has to come"))?;
        if busy.fetch_add(1, Ordering::Relaxed) >= MOST_STREAMS {
            // It hears that this end hung up.
            busy.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (view, busy) = (Arc::clone(&view), Arc::clone(&busy));
        let answer = move || {
            let stream = UnixStream::from(stream);
            // One who went away is no failure.
            let _ = match &*view {
                Ok(view) => serve_still(stream, view),
                Err((kind, words)) => {
                    banger_channel::files::refuse(stream, &Error::new(*kind, words.clone()))
                }
            };
            busy.fetch_sub(1, Ordering::Relaxed);
        };
        let thread = thread::Builder::new().stack_size(STACK).spawn(answer);
        threads.push(thread.context("cannot make a thread")?);
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Receives one message and its descriptors; nothing at the end.
fn receive(control: BorrowedFd<'_>) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut word = [0; 16];
    let mut room = cmsg_space!([RawFd; OF_DISKS]);
    let mut parts = [IoSliceMut::new(&mut word)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut room), flags) {
            Err(Errno::EINTR) => {}
            message => break message.context("cannot read requests from stdin")?,
        }
    };
    let mut fds = Vec::new();
    for part in message.cmsgs().context("cannot read requests from stdin")? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just made these for this process alone.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let size = message.bytes;
    Ok((size > 0).then(|| (word[..size].to_vec(), fds)))
}
