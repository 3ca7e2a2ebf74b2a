//! The files service, port 1027: look at a tree of the guest, read from it, write to it.
//!
//! `docs/agent-protocol.md` describes the bytes. This is the host's end, which believes nothing: a
//! name is checked before anybody sees it, a count or a size is bounded before memory is taken for
//! it, every wait ends. The guest's end is [`serve()`].

mod budget;
pub mod holes;
mod link;
mod owner;
mod relay;
mod serve;
mod still;
mod take;
mod tree;
mod turn;
mod whole;
mod wire;

pub use budget::Budget;
pub use link::append_link;
pub use owner::Owner;
pub use relay::{Whom, relay};
pub use serve::{refuse, serve, serve_for};
pub use still::{Stat, Still, serve_still};
pub use take::{Skipped, Take, Taken};
pub use whole::Whole;
pub use wire::{MARK, MAX_PATH, PRESENT, What, is_inside};

use banger_doc::{Context, Error, Kind, Result, shows};
use serde::Serialize;
use std::{
    fmt,
    io::{BufReader, BufWriter, Read, Write},
    os::unix::net::UnixStream,
    rc::Rc,
    str::FromStr,
    time::{Duration, Instant},
};
use wire::{Op, Request, read_record};

/// How long the guest may be silent.
const SILENCE: Duration = Duration::from_mins(1);
/// The longest target of a link, as in Linux.
const MAX_TARGET: usize = MAX_PATH;
/// How much is written in one wait.
const PIECE: usize = 64 << 10;

/// One entry of a tree, as lstat(2) sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Path below the root, checked by [`is_inside`].
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Size, in bytes.
    pub size: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything of it changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// Where a link leads.
    pub target: Vec<u8>,
}

/// What was found at a path that was asked for.
#[derive(Debug)]
pub enum Got<'a> {
    /// A file with its permission bits and exactly `size` bytes to read.
    File {
        /// Permission bits.
        mode: u32,
        /// Size, in bytes.
        size: u64,
        /// The content.
        content: &'a mut dyn Content,
    },
    /// A link and where it leads.
    Link(Vec<u8>),
    /// Nothing, or neither file nor link.
    Missing,
}

/// A file's content on its way.
pub trait Content: Read + fmt::Debug {}

impl<R: Read + fmt::Debug> Content for R {}

/// How a tree is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// The tree appears whole; whatever is there already, but for an empty directory, is refused.
    Fresh,
    /// The tree appears whole; what is there already is moved aside, to `ROOT.before-N`.
    Aside,
    /// Each file is replaced whole, the rest of the tree stays.
    Within,
    /// As [`Put::Within`], but a link or a file where a directory is to be is a conflict, and a
    /// directory that is there keeps its owner and mode.
    Into,
}

type Open<'a> = Rc<dyn Fn() -> Result<UnixStream> + 'a>;

/// The files of a guest, seen from the host.
#[derive(Clone)]
pub struct Files<'a> {
    open: Open<'a>,
    budget: Budget,
    user: Option<String>,
    or_root: bool,
    of_disks: bool,
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

impl<'a> Files<'a> {
    /// Makes one that opens a stream to port 1027 with `open` for every operation. All operations
    /// together take no more than `budget` has.
    pub fn new(budget: Budget, open: impl Fn() -> Result<UnixStream> + 'a) -> Self {
        Self { open: Rc::new(open), budget, user: None, or_root: false, of_disks: false }
    }

    /// Says that it is no agent of a guest that answers, but who reads the disks of one that does not run.
    #[must_use]
    pub fn of_disks(self) -> Self {
        Self { of_disks: true, ..self }
    }

    /// Returns what the guest may still take.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the same files with a part of the budget.
    #[must_use]
    pub fn within(&self, part: impl FnOnce(&Budget) -> Budget) -> Self {
        Self { budget: part(&self.budget), ..self.clone() }
    }

    /// Has a user of the guest do what is written and removed, with that user's rights: what is made
    /// belongs to it. `user` is as in an exec request, empty for the guest's own. With `or_root` root does it
    /// where that user may not and nobody but root can change the way there.
    #[must_use]
    pub fn by(mut self, user: impl Into<String>, or_root: bool) -> Self {
        self.user = Some(user.into());
        self.or_root = or_root;
        self
    }

    /// Returns who does what is written, as in [`Files::by`]; none if nobody was named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref().filter(|user| !user.is_empty())
    }

    /// Returns a request to write or remove.
    fn change<'r>(&'r self, op: Op, root: &'r str) -> Request<'r> {
        let user = self.user.as_deref();
        Request { user: user.map(Into::into), or_root: self.or_root, ..Request::new(op, root) }
    }

    /// Hands every entry below `root` to `each`, in no order. What a directory named `.git` holds
    /// is left out unless it is `root` itself; the directory is not.
    pub fn scan(&self, root: &str, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut answer = self.ask(&Request::new(Op::Scan, root), &[])?;
        while let Some(record) = answer.record()? {
            self.budget.take_entry().map_err(|most| {
                Error::failed(format!("'{root}' in the guest holds more than {most} entries"))
            })?;
            let mut entry = parse_entry(&record)
                .ok_or_else(|| nonsense(&format!("the entry '{}'", record.escape_ascii())))?;
            if entry.what == What::Link {
                entry.target = answer.target()?;
            }
            each(entry)?;
        }
        Ok(())
    }

    /// Returns what is at each of `paths` below `root`, links not followed.
    pub fn stat(&self, root: &str, paths: &[&[u8]]) -> Result<Vec<Option<Entry>>> {
        let mut answer = self.ask(&Request::new(Op::Stat, root), paths)?;
        let mut entries = Vec::with_capacity(paths.len());
        for path in paths {
            let record = answer.record()?.ok_or_else(|| nonsense("an early end"))?;
            if record == b"-" {
                entries.push(None);
                continue;
            }
            let mut entry = parse_entry(&record)
                .filter(|entry| entry.path == *path)
                .ok_or_else(|| nonsense(&format!("the entry '{}'", record.escape_ascii())))?;
            if entry.what == What::Link {
                entry.target = answer.target()?;
            }
            self.budget.take_name(entry.path.len() + entry.target.len())?;
            entries.push(Some(entry));
        }
        answer.end()?;
        Ok(entries)
    }

    /// Hands what is at each of `paths` below `root` to `each`, in their order.
    pub fn get(
        &self,
        root: &str,
        paths: &[&[u8]],
        mut each: impl FnMut(usize, Got<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut answer = self.ask(&Request::new(Op::Get, root), paths)?;
        for (index, path) in paths.iter().enumerate() {
            let record = answer.record()?.ok_or_else(|| nonsense("an early end"))?;
            let (what, mode, size) = parse_head(&record)
                .ok_or_else(|| nonsense(&format!("the head '{}'", record.escape_ascii())))?;
            if matches!(what, What::Other | What::Closed) {
                each(index, Got::Missing)?;
                continue;
            }
            self.budget.take_bytes(size).map_err(|most| {
                Error::failed(format!(
                    "the files asked of the guest hold more than {most} bytes; '{}' is too much",
                    path.escape_ascii()
                ))
            })?;
            if what == What::Link {
                if size > MAX_TARGET as u64 {
                    return Err(nonsense("a link's target that is too long"));
                }
                let mut target = vec![0; size as usize];
                answer.exact(&mut target)?;
                each(index, Got::Link(target))?;
            } else {
                let mut content = (&mut answer.reader).take(size);
                each(index, Got::File { mode, size, content: &mut content })?;
                let rest = content.limit();
                answer.skip(rest)?;
            }
            match answer.string()?.as_slice() {
                b"ok" => {}
                b"changed" => {
                    return Err(Error::conflict(format!(
                        "'{}' changed while it was read",
                        path.escape_ascii()
                    ))
                    .hint("try again"));
                }
                other => return Err(nonsense(&format!("'{}'", other.escape_ascii()))),
            }
        }
        answer.end()
    }

    /// Returns the SHA-256 of each of `paths` below `root` that is a regular file.
    pub fn hash(&self, root: &str, paths: &[&[u8]]) -> Result<Vec<Option<[u8; 32]>>> {
        self.budget.take_names(0, paths.len() as u64 * 33)?;
        let mut answer = self.ask(&Request::new(Op::Hash, root), paths)?;
        let mut sums = Vec::with_capacity(paths.len());
        for _ in paths {
            let record = answer.record()?.ok_or_else(|| nonsense("an early end"))?;
            sums.push(if record == b"-" { None } else { Some(parse_sum(&record)?) });
        }
        answer.end()?;
        Ok(sums)
    }

    /// Removes files and links below `root`, and the directories that become empty by it. What is
    /// gone already is no failure.
    pub fn remove(&self, root: &str, paths: &[&[u8]]) -> Result<()> {
        self.ask(&self.change(Op::Remove, root), paths)?.end()
    }

    /// Writes the tar stream that `fill` makes to `root`, with the owners it names. Returns when all
    /// of it is on the guest's disk.
    pub fn put(
        &self,
        root: &str,
        how: Put,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        self.put_as(root, how, false, fill)
    }

    /// Writes as [`Files::put`] does. If it is to be `plain`, what is written belongs to whoever
    /// writes it and has no setuid or setgid bit.
    pub fn put_as(
        &self,
        root: &str,
        how: Put,
        plain: bool,
        fill: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let op = match how {
            Put::Fresh => Op::PutFresh,
            Put::Aside => Op::PutAside,
            Put::Within => Op::PutWithin,
            Put::Into => Op::PutInto,
        };
        let mut answer = self.ask(&Request { plain, ..self.change(op, root) }, &[])?;
        let stream = answer.reader.get_ref().try_clone().context("cannot copy a stream")?;
        let mut writer = BufWriter::with_capacity(256 << 10, stream);
        let filled = fill(&mut writer)
            .and_then(|()| writer.flush().context("cannot write to the guest's agent"));
        if let Err(error) = filled {
            // The guest says better what it choked on than a broken pipe does.
            let _ = answer.reader.get_ref().stream.shutdown(std::net::Shutdown::Write);
            return Err(answer
                .end()
                .err()
                .filter(|said| said.kind() != Kind::Failed)
                .unwrap_or(error));
        }
        answer.end()
    }

    /// Returns a tar stream of `paths` below `root`, directories with all they hold; without paths
    /// the whole of the root, as `.`. Whoever reads it has to treat it as hostile.
    pub fn tar(&self, root: &str, paths: &[&[u8]]) -> Result<Tar> {
        let answer = self.ask(&Request::new(Op::Tar, root), paths)?;
        let budget = self.budget.clone();
        Ok(Tar { answer, piece: 0, budget, ended: false, failure: None })
    }

    fn ask(&self, request: &Request<'_>, paths: &[&[u8]]) -> Result<Answer> {
        self.budget.left()?;
        let stream = Timed { stream: (self.open)()?, end: self.budget.end(), silence: SILENCE };
        let list_bytes = paths.iter().map(|path| path.len() as u64 + 1).sum();
        let mut head = to_line(&Request { list_bytes, ..request.clone() });
        head.push(b'\n');
        let copy = stream.try_clone().context("cannot copy a stream")?;
        let mut writer = BufWriter::with_capacity(64 << 10, copy);
        let mut write = || -> std::io::Result<()> {
            writer.write_all(&head)?;
            for path in paths {
                writer.write_all(path)?;
                writer.write_all(b"\0")?;
            }
            writer.flush()
        };
        let written = write();
        drop(writer);
        let reader = BufReader::with_capacity(64 << 10, stream);
        let mut answer = Answer { reader, of_disks: self.of_disks };
        match written {
            Ok(()) => Ok(answer),
            Err(error) => Err(answer.end().err().unwrap_or_else(|| {
                Error::failed("cannot write to the guest's agent").because(error)
            })),
        }
    }
}

fn to_line<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("because a request holds only JSON types")
}

/// A stream that ends with an error when its time is over, however slowly the other side drips or takes.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    end: Instant,
    /// How long one wait may take.
    silence: Duration,
}

impl Timed {
    fn try_clone(&self) -> std::io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, ..*self })
    }

    /// Returns how long the next wait may take.
    fn wait(&self) -> std::io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(too_late()) } else { Ok(left.min(self.silence)) }
    }

    /// Tells apart why a wait came to nothing.
    fn why(&self, error: std::io::Error) -> std::io::Error {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        match error.kind() {
            WouldBlock if Instant::now() >= self.end => too_late(),
            WouldBlock => std::io::Error::new(TimedOut, "the guest fell silent"),
            _ => error,
        }
    }
}

fn too_late() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the guest took too long")
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(Some(self.wait()?))?;
        self.stream.read(buffer).map_err(|error| self.why(error))
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(Some(self.wait()?))?;
        // A larger piece would be one wait for as long as the other side takes a little of it each time.
        let piece = &buffer[..buffer.len().min(PIECE)];
        self.stream.write(piece).map_err(|error| self.why(error))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The guest's answer, read record by record.
struct Answer {
    reader: BufReader<Timed>,
    of_disks: bool,
}

impl Answer {
    /// Reads a string.
    fn string(&mut self) -> Result<Vec<u8>> {
        read_record(&mut self.reader).context(self.cannot_read())?.ok_or_else(|| {
            if self.of_disks {
                // Its bounds, which no disk that a guest's kernel wrote comes near, ended it.
                return Error::failed("who reads the disks ended in the middle of an answer")
                    .hint("the disks may be broken or hostile");
            }
            Error::failed("the guest's agent hung up in the middle of an answer")
        })
    }

    fn cannot_read(&self) -> &'static str {
        if self.of_disks {
            "cannot hear who reads the disks"
        } else {
            "cannot read from the guest's agent"
        }
    }

    /// Reads where a link leads.
    fn target(&mut self) -> Result<Vec<u8>> {
        let target = self.string()?;
        if target.len() > MAX_TARGET {
            return Err(nonsense("a link's target that is too long"));
        }
        Ok(target)
    }

    /// Reads a record; `None` at the end of the answer.
    fn record(&mut self) -> Result<Option<Vec<u8>>> {
        let record = self.string()?;
        if record == b"end" {
            return Ok(None);
        }
        let Some(text) = record.strip_prefix(b"error ") else { return Ok(Some(record)) };
        let (kind, words) = text.split_at(text.iter().position(|b| *b == b' ').unwrap_or(0));
        let kind = match kind {
            b"not-found" => Kind::NotFound,
            b"conflict" => Kind::Conflict,
            b"usage" => Kind::Usage,
            _ => Kind::Failed,
        };
        let words = shortened(String::from_utf8_lossy(words).trim());
        let words = if self.of_disks { words } else { format!("the guest refuses: {words}") };
        Err(Error::new(kind, words))
    }

    /// Reads the end of the answer.
    fn end(&mut self) -> Result<()> {
        match self.record()? {
            None => Ok(()),
            Some(_) => Err(nonsense("more than was asked for")),
        }
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.reader.read_exact(buffer).context(self.cannot_read())
    }

    fn skip(&mut self, size: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.reader).take(size), &mut std::io::sink())
            .context(self.cannot_read())?;
        if skipped == size { Ok(()) } else { Err(nonsense("an early end")) }
    }
}

/// A tar stream on its way from a guest.
pub struct Tar {
    answer: Answer,
    /// Bytes of the present piece that are still to come.
    piece: u64,
    /// What may still come.
    budget: Budget,
    ended: bool,
    failure: Option<Error>,
}

impl fmt::Debug for Tar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tar").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Tar {
    /// Returns what ended the stream early, in the words of whoever ended it.
    pub fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    fn next_piece(&mut self) -> Result<()> {
        while self.piece == 0 && !self.ended {
            let Some(record) = self.answer.record()? else {
                self.ended = true;
                break;
            };
            self.piece = parse(&record).ok_or_else(|| nonsense("a piece without a size"))?;
            self.budget
                .take_bytes(self.piece)
                .map_err(|_| Error::failed("the guest sent more bytes than there is room for"))?;
        }
        Ok(())
    }
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Err(error) = self.next_piece() {
            self.ended = true;
            self.piece = 0;
            self.failure = Some(error);
            return Err(std::io::Error::other("the guest's stream ended early"));
        }
        if self.ended {
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.piece).unwrap_or(usize::MAX));
        let count = self.answer.reader.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.piece -= count as u64;
        Ok(count)
    }
}

/// Bounds what a guest says: the middle goes, since the reason is at the end.
fn shortened(words: &str) -> String {
    let plain = |c: char| if shows(c) { c } else { '?' };
    let count = words.chars().count();
    if count <= 500 {
        return words.chars().map(plain).collect();
    }
    let start: String = words.chars().take(200).map(plain).collect();
    let end: String = words.chars().skip(count - 299).map(plain).collect();
    format!("{start}…{end}")
}

fn nonsense(what: &str) -> Error {
    let what = shortened(what);
    Error::failed(format!("the guest's agent answered {what}"))
        .hint("the guest may be broken or hostile")
}

fn parse<T: FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn what_of(word: &[u8]) -> Option<What> {
    Some(match word {
        b"f" => What::File,
        b"d" => What::Dir,
        b"l" => What::Link,
        b"o" => What::Other,
        b"u" => What::Closed,
        _ => return None,
    })
}

fn parse_head(record: &[u8]) -> Option<(What, u32, u64)> {
    let mut fields = record.split(|byte| *byte == b' ');
    let what = what_of(fields.next()?)?;
    let mode = u32::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 8).ok()?;
    let size = parse(fields.next()?)?;
    (fields.next().is_none() && what != What::Dir).then_some((what, mode & 0o7777, size))
}

fn parse_entry(record: &[u8]) -> Option<Entry> {
    let mut fields = record.splitn(7, |byte| *byte == b' ');
    let what = what_of(fields.next()?)?;
    let mode = u32::from_str_radix(std::str::from_utf8(fields.next()?).ok()?, 8).ok()? & 0o7777;
    let size = parse(fields.next()?)?;
    let mtime_ns = parse(fields.next()?)?;
    let ctime_ns = parse(fields.next()?)?;
    let ino = parse(fields.next()?)?;
    let path = fields.next().filter(|path| is_inside(path))?.to_vec();
    Some(Entry { path, what, mode, size, mtime_ns, ctime_ns, ino, target: Vec::new() })
}

fn parse_sum(record: &[u8]) -> Result<[u8; 32]> {
    let mut sum = [0; 32];
    if record.len() != 64 {
        return Err(nonsense("a hash of another length"));
    }
    for (byte, digits) in sum.iter_mut().zip(record.chunks(2)) {
        let digits = std::str::from_utf8(digits).ok();
        *byte = digits
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| nonsense("a hash that is none"))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
