//! One layer of an image: read while it is downloaded, checked, and kept in the cache.

use crate::{
    cache::{Cache, Claim, Partial},
    digest::{Digest, Hasher},
    manifest::Blob,
    pace::{CRAWL_BYTES, Pace},
    reference::Reference,
    registry::{AGAIN, Client, pause},
};
use banger_doc::{Context, Error, Result};
use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use ureq::BodyReader;

/// The most times one blob is asked for, also if it gets on each time.
const MAX_REQUESTS: u32 = 1000;

/// A layer, lowest first in an image, that can be read once or more.
#[derive(Clone, Debug)]
pub struct Layer {
    name: String,
    size: u64,
    diff_id: Option<Digest>,
    origin: Origin,
    progress: Arc<Progress>,
    /// Set when any layer of the image has failed: the others need not be waited for.
    given_up: Arc<AtomicBool>,
}

/// How far the reading of a layer has come.
#[derive(Debug, Default)]
pub struct Progress {
    received: AtomicU64,
    begun: AtomicBool,
    whole: AtomicBool,
    failure: Mutex<Option<Error>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A blob of a registry, or of the cache if it is there.
    Registry { client: Arc<Client>, cache: Arc<Cache>, reference: Reference, blob: Blob },
    /// A file, with its digest if one is known.
    File { path: PathBuf, digest: Option<Digest> },
    /// A part of an archive, from this byte on.
    Part { file: Arc<File>, offset: u64, digest: Option<Digest> },
}

impl Progress {
    /// Returns the compressed bytes read so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Says whether somebody began to read it.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Says whether all of it was read and is what it should be.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    fn fail(&self, error: Error) -> io::Error {
        let words = error.chain();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(words)
    }
}

impl Layer {
    pub(crate) fn new(name: String, size: u64, diff_id: Option<Digest>, origin: Origin) -> Self {
        Self { name, size, diff_id, origin, progress: Arc::default(), given_up: Arc::default() }
    }

    /// Makes a stack of layers give up together.
    pub(crate) fn join(layers: &mut [Self]) {
        let given_up = Arc::new(AtomicBool::new(false));
        for layer in layers {
            layer.given_up = Arc::clone(&given_up);
        }
    }

    /// Returns what to call it: its digest, or its name in an archive.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its size as it is stored, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the digest of its tar.
    pub fn diff_id(&self) -> Option<Digest> {
        self.diff_id
    }

    /// Returns how far reading has come; it may be asked from another thread.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Opens the layer as it is stored, compressed or not. The reader fails at its end if the bytes
    /// were not those of the image.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        let progress = self.progress();
        progress.received.store(0, Ordering::Relaxed);
        progress.begun.store(true, Ordering::Relaxed);
        let slice = |file, start, digest| Slice {
            file,
            start,
            position: 0,
            size: self.size,
            hasher: Hasher::default(),
            digest,
            name: self.name.clone(),
            progress: self.progress(),
        };
        match &self.origin {
            Origin::File { path, digest } => {
                let file = File::open(path)
                    .with_context(|| format!("cannot open '{}'", path.display()))?;
                Ok(Box::new(slice(Arc::new(file), 0, *digest)))
            }
            Origin::Part { file, offset, digest } => {
                Ok(Box::new(slice(Arc::clone(file), *offset, *digest)))
            }
            Origin::Registry { client, cache, reference, blob } => match cache.claim(blob)? {
                Claim::Whole(file) => Ok(Box::new(slice(Arc::new(file), 0, None))),
                Claim::Partial(partial) => {
                    let path = partial.path().display();
                    let begun = partial
                        .file()
                        .metadata()
                        .with_context(|| format!("cannot look at '{path}'"))?
                        .len();
                    Ok(Box::new(Download {
                        client: Arc::clone(client),
                        _cache: Arc::clone(cache),
                        reference: reference.clone(),
                        blob: *blob,
                        partial,
                        begun,
                        position: 0,
                        hasher: Some(Hasher::default()),
                        body: None,
                        from: reference.clone(),
                        requests: 0,
                        fruitless: 0,
                        gained: 0,
                        pace: Pace::new(client.settings().crawl),
                        progress,
                        given_up: Arc::clone(&self.given_up),
                    }))
                }
            },
        }
    }

    /// Makes sure that the layer was read whole and was right, reading what is left of it. A reader
    /// may stop before the end; then nothing has been checked yet.
    pub fn confirm(&self) -> Result<()> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if !self.progress.is_whole() {
            self.given_up.store(false, Ordering::Relaxed);
            let mut reader = self.open()?;
            if let Err(error) = io::copy(&mut reader, &mut io::sink()) {
                return Err(self.failure().unwrap_or_else(|| {
                    Error::failed(format!("cannot read layer '{}'", self.name)).because(error)
                }));
            }
        }
        Ok(())
    }

    /// Takes what made reading fail, with its kind and its hint.
    pub fn failure(&self) -> Option<Error> {
        self.progress.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A part of a local file.
struct Slice {
    file: Arc<File>,
    start: u64,
    position: u64,
    size: u64,
    hasher: Hasher,
    digest: Option<Digest>,
    name: String,
    progress: Arc<Progress>,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (self.size - self.position).min(buffer.len() as u64) as usize;
        if left == 0 {
            if self.position == self.size && !self.progress.is_whole() {
                let found = std::mem::take(&mut self.hasher).finish();
                if self.digest.is_some_and(|digest| digest != found) {
                    let error =
                        format!("layer '{}' is damaged: its digest is '{found}'", self.name);
                    return Err(self.progress.fail(Error::failed(error)));
                }
                self.progress.whole.store(true, Ordering::Release);
            }
            return Ok(0);
        }
        let n = self.file.read_at(&mut buffer[..left], self.start + self.position)?;
        if n == 0 {
            let error = format!(
                "layer '{}' is cut off after {} of {} bytes",
                self.name, self.position, self.size
            );
            return Err(self.progress.fail(Error::failed(error)));
        }
        if self.digest.is_some() {
            self.hasher.update(&buffer[..n]);
        }
        self.position += n as u64;
        self.progress.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A blob on its way from a registry, through a file of the cache, to its reader.
struct Download {
    client: Arc<Client>,
    /// Held so that nobody prunes the cache meanwhile.
    _cache: Arc<Cache>,
    reference: Reference,
    blob: Blob,
    partial: Partial,
    /// Bytes that an earlier download left.
    begun: u64,
    position: u64,
    hasher: Option<Hasher>,
    body: Option<BodyReader<'static>>,
    /// Where the last body came from: the registry or a mirror of it.
    from: Reference,
    requests: u32,
    /// Failures since a worthwhile part came.
    fruitless: u32,
    /// Bytes that came since the last failure.
    gained: u64,
    pace: Pace,
    progress: Arc<Progress>,
    given_up: Arc<AtomicBool>,
}

impl Drop for Download {
    /// Who leaves in the middle has failed, so that the image is not wanted any more.
    fn drop(&mut self) {
        if self.position < self.blob.size {
            self.given_up.store(true, Ordering::Relaxed);
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.hasher.is_none() {
            return Ok(0);
        }
        if self.position == self.blob.size {
            return self.finish().map(|()| 0);
        }
        let left = (self.blob.size - self.position).min(buffer.len() as u64) as usize;
        let buffer = &mut buffer[..left];
        let n = if self.position < self.begun {
            self.read_begun(buffer)?
        } else {
            self.receive(buffer)?
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.position += n as u64;
        self.progress.received.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl Download {
    fn name(&self) -> String {
        let name = format!("layer '{}' of '{}'", self.blob.digest, self.reference);
        if self.from == self.reference {
            name
        } else {
            format!("{name} from mirror '{}'", self.from.registry())
        }
    }

    /// Reads what an earlier download left.
    fn read_begun(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (self.begun - self.position).min(buffer.len() as u64) as usize;
        match self.partial.file().read_at(&mut buffer[..left], self.position)? {
            0 => {
                let path = self.partial.path().display();
                Err(self.progress.fail(Error::failed(format!("'{path}' became shorter"))))
            }
            n => Ok(n),
        }
    }

    /// Receives some bytes, asking again from where it broke off as long as that helps.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let error = match self.try_receive(buffer) {
                Ok(0) => {
                    Error::failed(format!("the connection ended after {} bytes", self.position))
                }
                Ok(n) => {
                    self.gained += n as u64;
                    if self.gained >= CRAWL_BYTES {
                        self.fruitless = 0;
                    }
                    self.partial.file().write_all_at(&buffer[..n], self.position).map_err(
                        |error| {
                            let path = self.partial.path().display();
                            self.progress.fail(
                                Error::failed(format!("cannot write '{path}'")).because(error),
                            )
                        },
                    )?;
                    return Ok(n);
                }
                Err(Trouble::Lasting(error)) => return Err(self.progress.fail(error)),
                Err(Trouble::Passing(error)) => error,
            };
            self.body = None;
            self.gained = 0;
            if self.from != self.reference {
                // The next place in line goes on where the mirror broke off.
                self.client.pass_over(&self.from, &error);
                continue;
            }
            self.fruitless += 1;
            if self.given_up.load(Ordering::Relaxed) {
                // No reason of its own: that is the other one's.
                return Err(io::Error::other("another layer failed"));
            }
            if self.fruitless >= self.client.settings().attempts || self.requests >= MAX_REQUESTS {
                let error = Error::failed(format!("cannot download {}", self.name()))
                    .because(error)
                    .hint("what has come is kept; the same command goes on from there");
                return Err(self.progress.fail(error));
            }
            pause(self.fruitless, Duration::ZERO);
        }
    }

    fn try_receive(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        if self.body.is_none() {
            self.body = Some(self.request()?);
            self.pace.restart();
        }
        let body = self.body.as_mut().expect("because it was just made");
        let start = Instant::now();
        let n = body.read(buffer).map_err(|error| Trouble::Passing(reason(error)))?;
        if !self.pace.step(start.elapsed(), n) {
            return Err(Trouble::Passing(Error::failed(self.pace.words())));
        }
        Ok(n)
    }

    /// Asks for the rest of the blob.
    fn request(&mut self) -> Result<BodyReader<'static>, Trouble> {
        self.requests += 1;
        let (response, from) = self
            .client
            .open_blob(&self.reference, &self.blob, self.position)
            .with_context(|| format!("cannot download {}", self.name()))
            .map_err(Trouble::Lasting)?;
        self.from = from;
        let lie = |what: &str| {
            let error = format!("cannot download {}: {what}", self.name());
            Trouble::Lasting(Error::failed(error).hint(AGAIN))
        };
        let header =
            |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if header("content-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(lie("the registry encoded the blob once more"));
        }
        let resumed = response.status() == 206;
        if resumed {
            let wanted = format!("bytes {}-", self.position);
            if !header("content-range").is_some_and(|range| range.starts_with(&wanted)) {
                return Err(lie("the registry sent another part than the one asked for"));
            }
        }
        let expected = self.blob.size - if resumed { self.position } else { 0 };
        let length = response.body().content_length();
        if length.is_some_and(|length| length != expected) {
            return Err(lie(&format!(
                "the registry sends {} bytes instead of {expected}",
                length.unwrap_or_default()
            )));
        }
        let mut body = response.into_body().into_reader();
        if !resumed && self.position > 0 {
            let skipped = io::copy(&mut body.by_ref().take(self.position), &mut io::sink())
                .map_err(|error| Trouble::Passing(reason(error)))?;
            if skipped < self.position {
                return Err(Trouble::Passing(Error::failed("the connection ended early")));
            }
        }
        Ok(body)
    }

    /// Checks the whole and gives it to the cache.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(body) = &mut self.body {
            // A sender that names no length may still send more than the blob has.
            if body.read(&mut [0]).is_ok_and(|n| n > 0) {
                self.partial.discard();
                let error = format!("{} is longer than {} bytes", self.name(), self.blob.size);
                return Err(self.progress.fail(Error::failed(error).hint(AGAIN)));
            }
        }
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let found = hasher.finish();
        if found != self.blob.digest {
            self.partial.discard();
            let error = Error::failed(format!("{} has the digest '{found}'", self.name()));
            return Err(self.progress.fail(if self.begun > 0 {
                error.hint("what an earlier download had left was damaged; try again")
            } else {
                error.hint("the registry, or something on the way to it, changed the layer")
            }));
        }
        self.partial.publish().map_err(|error| {
            self.progress.fail(
                Error::failed(format!("cannot keep {} in the cache", self.name())).because(error),
            )
        })?;
        self.progress.whole.store(true, Ordering::Release);
        Ok(())
    }
}

enum Trouble {
    Passing(Error),
    Lasting(Error),
}

/// Says in our words why a body broke off.
fn reason(error: io::Error) -> Error {
    let words = error.to_string();
    if words.contains("timeout") {
        Error::failed("the registry stopped sending")
    } else {
        Error::failed("the connection broke off").because(error)
    }
}
