//! Turns a stack of tar layers into one disk.
//!
//! Every layer is inflated and taken apart in threads of its own, and the content of its files is
//! put on the disk as it comes. When all is there the trees are merged, lowest first, and written.
//! No name in a layer ever becomes a path on the host.

mod archive;
mod inflate;
mod limits;
mod merge;
mod root;
mod stream;
mod take;

pub use archive::{Member, members, unpack};
pub use banger_ext4::Summary;
pub use inflate::{Other, is_packed, other_packing};
pub use limits::Limits;
pub use root::Top;

use banger_doc::{Context, Error, Result};
use banger_ext4::{Disk, Tree, uuid};
use merge::Merge;
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use stream::{Shared, Stream};
use take::Taken;

/// Layers that are taken in at the same time.
const AT_ONCE: usize = 4;

/// Opens a layer.
pub type Opener = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>> + Send>;

/// One layer of an image, from its source.
pub struct Layer {
    /// The digest or the file, for errors.
    pub name: String,
    /// The digest that the inflated bytes must have, `sha256:...`.
    pub diff_id: Option<String>,
    /// How many bytes will come, if that is known from the image itself. It only helps to leave
    /// no gaps on the disk; where it is known it must be the same each time, or the disk is not.
    pub size: Option<u64>,
    /// Opens the layer, in the thread that will read it.
    pub open: Opener,
}

/// How far a build has come; others may look at any time.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from the layers as they came.
    pub bytes_in: AtomicU64,
    /// Bytes of inflated layers that were worked through.
    pub bytes_out: AtomicU64,
    /// Entries seen.
    pub entries: AtomicU64,
}

/// Writes the layers, the lowest first, to `output` as one read-only ext4 file system. The same
/// layers give the same bytes. Nothing else on the host is touched.
pub fn build(
    layers: Vec<Layer>,
    output: &File,
    limits: &Limits,
    progress: &Progress,
) -> Result<Summary> {
    build_tree(layers, output, limits, progress, |_| Ok(()))
}

/// Like [`build`], for an archive that is to be a root file system. `judge` is told what it turns
/// out to be, and may refuse it; a root below other directories is taken out of them.
pub fn build_root(
    archive: Layer,
    output: &File,
    limits: &Limits,
    progress: &Progress,
    judge: impl FnOnce(&Top) -> Result<()>,
) -> Result<Summary> {
    build_tree(vec![archive], output, limits, progress, |tree| {
        let (top, id) = root::top(tree);
        judge(&top)?;
        tree.make_root(id);
        Ok(())
    })
}

fn build_tree(
    layers: Vec<Layer>,
    output: &File,
    limits: &Limits,
    progress: &Progress,
    last: impl FnOnce(&mut Tree) -> Result<()>,
) -> Result<Summary> {
    if layers.len() > limits.layers {
        return Err(limits::over(format!(
            "the image has {} layers, more than the limit of {}",
            layers.len(),
            limits.layers
        )));
    }
    let sizes: Vec<_> = layers.iter().map(|layer| layer.size).collect();
    let disk = Disk::new(output, &sizes)?;
    let shared = Shared::new(limits, progress);
    let mut merge = Merge::new(limits);
    let mut digest = Sha256::new();
    let desk = Desk::new(layers);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(desk.count) {
            scope.spawn(|| {
                while let Some((number, layer)) = desk.next() {
                    let _alarm = Alarm(&desk);
                    let taken = work(number, layer, &disk, &shared);
                    let failed = taken.is_err();
                    desk.done(number, taken);
                    // Not before it is said why: the others fail of this, and may be faster.
                    if failed {
                        shared.stop.store(true, Relaxed);
                        desk.clear();
                    }
                }
            });
        }
        let merged = (0..desk.count).try_for_each(|number| {
            let (name, taken) = desk.wait(number)?;
            digest.update(taken.digest);
            merge.layer(taken).with_context(|| format!("the layer '{name}' cannot be used"))
        });
        if merged.is_err() {
            shared.stop.store(true, Relaxed);
            desk.clear();
        }
        merged
    })?;
    let mut tree = merge.into_tree();
    last(&mut tree)?;
    disk.finish(tree, uuid(&digest.finalize()), "")
}

/// Takes in one layer and checks its digest.
fn work(number: usize, layer: Layer, disk: &Disk<'_>, shared: &Shared<'_>) -> Result<Taken> {
    let Layer { name, diff_id, open, .. } = layer;
    let came = AtomicU64::new(0);
    thread::scope(|scope| {
        let stream = Stream::start(scope, open, shared, &came);
        take::take(stream, disk.source(number), shared, &came)
    })
    .and_then(|taken| {
        if let Some(expected) = diff_id {
            let mut found = "sha256:".to_owned();
            for byte in taken.digest {
                let _ = write!(found, "{byte:02x}");
            }
            if found != expected {
                return Err(Error::failed(format!(
                    "its content has the digest '{found}', but the image says '{expected}'"
                )));
            }
        }
        Ok(taken)
    })
    .with_context(|| format!("the layer '{name}' cannot be used"))
}

/// Where workers get layers from and put what came of them.
struct Desk {
    count: usize,
    next: AtomicUsize,
    names: Vec<String>,
    /// The layers' numbers, the largest first: in the end all wait for that one.
    order: Vec<usize>,
    waiting: Mutex<Vec<Option<Layer>>>,
    finished: Mutex<Finished>,
    changed: Condvar,
}

/// Wakes whoever waits for a worker that will never be done.
struct Alarm<'d>(&'d Desk);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut finished = self.0.finished.lock().unwrap_or_else(PoisonError::into_inner);
            finished.failed.get_or_insert_with(|| Error::failed("a worker stopped"));
            self.0.changed.notify_all();
        }
    }
}

struct Finished {
    taken: Vec<Option<Taken>>,
    /// The first failure; the others are often only its echo.
    failed: Option<Error>,
}

impl Desk {
    fn new(layers: Vec<Layer>) -> Self {
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_by_key(|number| Reverse(layers[*number].size));
        Self {
            order,
            count: layers.len(),
            next: AtomicUsize::new(0),
            names: layers.iter().map(|layer| layer.name.clone()).collect(),
            finished: Mutex::new(Finished {
                taken: layers.iter().map(|_| None).collect(),
                failed: None,
            }),
            waiting: Mutex::new(layers.into_iter().map(Some).collect()),
            changed: Condvar::new(),
        }
    }

    fn next(&self) -> Option<(usize, Layer)> {
        let number = *self.order.get(self.next.fetch_add(1, Relaxed))?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.get_mut(number)?.take().map(|layer| (number, layer))
    }

    /// Takes all layers back that nobody has begun with.
    fn clear(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn done(&self, number: usize, taken: Result<Taken>) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        match taken {
            Ok(taken) => finished.taken[number] = Some(taken),
            Err(error) => {
                finished.failed.get_or_insert(error);
            }
        }
        self.changed.notify_all();
    }

    /// Waits for a layer, or for any failure.
    fn wait(&self, number: usize) -> Result<(&str, Taken)> {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(error) = finished.failed.take() {
                return Err(error);
            }
            if let Some(taken) = finished.taken[number].take() {
                return Ok((&self.names[number], taken));
            }
            finished = self.changed.wait(finished).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
