//! One layer's bytes, inflated in a thread of their own and handed over in large pieces.

use crate::inflate::Inflate;
use crate::limits::{Limits, over};
use crate::{Opener, Progress};
use banger_doc::{Error, Result};
use banger_tar::Input;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

/// Bytes in one piece, and how many there are of them.
const PIECE: usize = 256 << 10;
const PIECES: usize = 6;

/// What all layers of a build count together.
pub(crate) struct Shared<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) progress: &'a Progress,
    /// Set when one layer failed: the others stop too.
    pub(crate) stop: AtomicBool,
    pub(crate) inflated: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) extents: AtomicU64,
}

impl<'a> Shared<'a> {
    pub(crate) fn new(limits: &'a Limits, progress: &'a Progress) -> Self {
        Self {
            limits,
            progress,
            stop: AtomicBool::new(false),
            inflated: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            extents: AtomicU64::new(0),
        }
    }
}

/// Adds to a count that has a limit.
pub(crate) fn count(counter: &AtomicU64, more: u64, limit: u64, what: &str) -> Result<()> {
    if counter.fetch_add(more, Relaxed) + more > limit {
        return Err(over(format!("the image has more than {limit} {what}")));
    }
    Ok(())
}

/// Counts what comes in.
pub(crate) struct Counted<'a> {
    pub(crate) input: Box<dyn Read + Send>,
    pub(crate) here: &'a AtomicU64,
}

/// The receiving end: plain bytes and the digest of those that were seen.
pub(crate) struct Stream<'a> {
    shared: &'a Shared<'a>,
    full: Receiver<Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    digest: Sha256,
    ended: bool,
}

impl<'a> Stream<'a> {
    /// Starts to inflate a layer. `came` counts its bytes before that.
    pub(crate) fn start<'s>(
        scope: &'s Scope<'s, '_>,
        open: Opener,
        shared: &'a Shared<'a>,
        came: &'a AtomicU64,
    ) -> Self
    where
        'a: 's,
    {
        let (send_full, full) = sync_channel(PIECES);
        let (empty, take_empty) = channel();
        for _ in 0..PIECES {
            let _ = empty.send(Vec::new());
        }
        scope.spawn(move || {
            if let Err(error) = inflate(open, shared, came, &send_full, &take_empty) {
                // Nobody listens any more when the other end failed first.
                let _ = send_full.send(Err(error));
            }
        });
        Self { shared, full, empty, piece: Vec::new(), at: 0, digest: Sha256::new(), ended: false }
    }

    /// Returns the digest of all bytes; call it when the end was reached.
    pub(crate) fn digest(self) -> [u8; 32] {
        self.digest.finalize().into()
    }
}

impl Input for Stream<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        while self.at == self.piece.len() && !self.ended {
            if self.shared.stop.load(Relaxed) {
                return Err(Error::failed("another layer failed"));
            }
            let _ = self.empty.send(std::mem::take(&mut self.piece));
            self.at = 0;
            match self.full.recv() {
                Ok(piece) => {
                    self.piece = piece?;
                    self.digest.update(&self.piece);
                    let shared = self.shared;
                    let length = self.piece.len() as u64;
                    shared.progress.bytes_out.fetch_add(length, Relaxed);
                    count(
                        &shared.inflated,
                        length,
                        shared.limits.bytes,
                        "bytes when it is inflated",
                    )?;
                }
                // The sender is gone after the last piece.
                Err(_) => self.ended = true,
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(out)?;
        self.here.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

fn inflate(
    open: Opener,
    shared: &Shared<'_>,
    came: &AtomicU64,
    full: &SyncSender<Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<()> {
    let mut inflate = Inflate::new(Counted { input: open()?, here: came }, shared.limits)?;
    let mut seen = 0;
    loop {
        let Ok(mut piece) = empty.recv() else { return Ok(()) };
        piece.resize(PIECE, 0);
        let count = inflate.fill(&mut piece)?;
        let now = came.load(Relaxed);
        shared.progress.bytes_in.fetch_add(now - seen, Relaxed);
        seen = now;
        if count > 0 {
            piece.truncate(count);
            if full.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
        if count < PIECE {
            return Ok(());
        }
    }
}
