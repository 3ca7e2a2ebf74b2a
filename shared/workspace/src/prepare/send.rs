//! Sending what a guest lacks, and writing down what it then has.

use crate::{
    git::{DIR, LINK},
    guest::{How, Look},
    host::tools::{first_refused, is_of_tools},
    prepare::load::{Content, Load, Piece, REMOTE_REFS, is_remote},
    prepare::plan,
    prepare::wish::Wish,
    record::Folder,
    record::given::{Given, Seen, Tree},
};
use banger_channel::files::{Files, PRESENT, Put, append_link};
use banger_doc::{Context, Error, Kind, Position, Result, Workspace};
use banger_state::clock_ms;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::File,
    io::{Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Sends what the guest lacks, removes what it is not to have any more, and writes the record.
pub(crate) fn send(
    folder: &Folder,
    files: &Files<'_>,
    wish: &Wish,
    before: Option<&Workspace>,
    (old, look): (Tree, Look),
    mut load: Load,
    record: &mut Workspace,
) -> Result<()> {
    let root = &wish.guest_path;
    let is_within = look.is_there && !look.is_empty;
    let mut plan = Sending::default();
    if is_within {
        plan.only_changes(&old, &look, &load, before, wish.force);
    } else {
        plan.everything(&load);
    }
    if let Some(before) = before.filter(|before| before.next.is_none())
        && plan.is_empty()
        && plan.gone.is_empty()
    {
        judge_tools(record, &load, wish, &Sent::new());
        return keep(folder, before, old, &look, load, record);
    }
    let next_name = folder.write_tree(&load.tree)?;
    // The record says what is about to happen before it does, so that a repeat tells traces of
    // a killed prepare from a guest's work.
    let mut begun = before.cloned().unwrap_or_else(|| record.clone());
    if before.is_none() {
        begun.tree_file = folder.write_tree(&Tree::new())?;
        begun.given = Position::default();
    }
    begun.next_tree_file = Some(next_name.clone());
    begun.next = Some(record.given.clone());
    if before.is_some() {
        folder.write(&begun)?;
    } else {
        folder.claim(&begun)?;
    }
    let gone: Vec<&[u8]> = plan.gone.iter().map(Vec::as_slice).collect();
    if !gone.is_empty() {
        files.remove(root, &gone)?;
    }
    let mut sent_at = BTreeMap::new();
    if !plan.is_empty() {
        let how = match (is_within, wish.force) {
            (true, _) => Put::Within,
            (false, true) => Put::Aside,
            (false, false) => Put::Fresh,
        };
        let put = files.put(root, how, |writer| {
            sent_at = plan.write(writer, &load)?;
            Ok(())
        });
        if let Err(error) = put {
            if before.is_none() && !may_have_begun(files, root, &error) {
                folder.forget()?;
            }
            if before.is_none() && error.kind() == Kind::Conflict {
                return Err(Error::conflict(format!(
                    "'{root}' in the guest holds files that banger did not put there"
                ))
                .hint("'--force' moves them aside; '--guest-path' chooses another place"));
            }
            return Err(error);
        }
    }
    judge_tools(record, &load, wish, &sent_at);
    remember(files, root, &mut load.tree, &look, &sent_at)?;
    record.tree_file = folder.write_tree(&load.tree)?;
    folder.write(record)?;
    folder.tidy(&record.tree_file);
    Ok(())
}

/// Writes down whether the user said yes to the files that name tools, as they went.
fn judge_tools(record: &mut Workspace, load: &Load, wish: &Wish, sent_at: &Sent) {
    let mut any = false;
    let files = load.pieces.iter().filter_map(|(path, piece)| {
        let name = std::str::from_utf8(path).ok().filter(|name| is_of_tools(name))?;
        let sum = match &piece.content {
            Content::Dir => return None,
            // Another content than was looked at has another sum.
            Content::Disk(..) if sent_at.get(path) == Some(&None) => Some(""),
            Content::Disk(..) => load.tree.get(path).map(|given| given.sum.as_str()),
            Content::Bytes(_) | Content::Link(_) => None,
        };
        any = true;
        Some((name, sum))
    });
    record.tools_refused = first_refused(files, &wish.allowed);
    record.tools_allowed = any && record.tools_refused.is_none();
}

/// Says whether a first prepare that failed may have left anything in the guest. Where not, no record of
/// it stays either, which would keep others from being made.
fn may_have_begun(files: &Files<'_>, root: &str, error: &Error) -> bool {
    if matches!(error.kind(), Kind::Conflict | Kind::Usage | Kind::NotFound) {
        return false;
    }
    let mut holds_any = false;
    let scanned = files.scan(root, |_| {
        holds_any = true;
        Ok(())
    });
    match scanned {
        Ok(()) => holds_any,
        // Nothing is there, or no directory.
        Err(error) => !matches!(error.kind(), Kind::NotFound | Kind::Conflict),
    }
}

/// Writes the record of a prepare that had nothing to send.
fn keep(
    folder: &Folder,
    before: &Workspace,
    old: Tree,
    look: &Look,
    mut load: Load,
    record: &mut Workspace,
) -> Result<()> {
    settle(&mut load.tree, &look.same, look, &Sent::new());
    record.exported.clone_from(&before.exported);
    record.tree_file =
        if load.tree == old { before.tree_file.clone() } else { folder.write_tree(&load.tree)? };
    folder.write(record)?;
    folder.tidy(&record.tree_file);
    Ok(())
}

/// Looks at what was sent, and writes down how each file looks in the guest now.
fn remember(
    files: &Files<'_>,
    root: &str,
    tree: &mut Tree,
    look: &Look,
    sent_at: &Sent,
) -> Result<()> {
    let mut now: BTreeMap<Vec<u8>, Seen> = BTreeMap::new();
    {
        files.scan(root, |entry| {
            if tree.contains_key(&entry.path) {
                let seen = Seen {
                    size: entry.size,
                    mtime_ns: entry.mtime_ns,
                    ctime_ns: entry.ctime_ns,
                    ino: entry.ino,
                };
                now.insert(entry.path, seen);
            }
            Ok(())
        })?;
    }
    settle(tree, &now, look, sent_at);
    Ok(())
}

/// Writes down how each file looks in the guest, where it is sure what it holds.
fn settle(tree: &mut Tree, now: &BTreeMap<Vec<u8>, Seen>, look: &Look, sent_at: &Sent) {
    // A change within the clock's own grain would not be seen.
    let fresh = clock_ms() as i64 * 1_000_000 - 2_000_000_000;
    for (path, given) in tree.iter_mut() {
        let seen = now.get(path).copied();
        given.guest = match sent_at.get(path) {
            Some(Some((size, mtime_s))) => seen.filter(|seen| {
                seen.size == *size && seen.mtime_ns == mtime_s.saturating_mul(1_000_000_000)
            }),
            // It changed on the host while it was read: what the guest has is not known.
            Some(None) => {
                given.oid.clear();
                given.host = None;
                None
            }
            None => seen.filter(|seen| look.same.get(path) == Some(seen)),
        };
        if given.host.is_some_and(|host| host.ctime_ns > fresh) {
            given.host = None;
        }
    }
}

/// Says whether the guest's git sees by size and second that a file is not what it was: its index may
/// then stay.
fn looks_new(old: Option<&Given>, new: Option<&Given>) -> bool {
    let look = |seen: Seen| (seen.size, seen.mtime_ns.div_euclid(1_000_000_000));
    let before = old.and_then(|old| old.guest.or(old.host)).map(look);
    let now = new.and_then(|new| new.host).map(look);
    old.is_none() || now.is_none() || (before.is_some() && before != now)
}

/// Size and time of each file as it was sent, or nothing if it changed while it was read.
type Sent = BTreeMap<Vec<u8>, Option<(u64, i64)>>;

/// What is about to be sent.
#[derive(Default)]
struct Sending {
    packs: Vec<Vec<u8>>,
    pieces: Vec<Vec<u8>>,
    gone: Vec<Vec<u8>>,
    /// Whether the index goes.
    index: bool,
    /// Written last: references, HEAD.
    last: Vec<(String, Vec<u8>)>,
    dirs: Vec<String>,
}

impl Sending {
    fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.pieces.is_empty() && !self.index && self.last.is_empty()
    }

    fn everything(&mut self, load: &Load) {
        self.packs = load.packs.keys().cloned().collect();
        self.pieces = load.pieces.keys().cloned().collect();
        self.dirs.clone_from(&load.dirs);
        if load.position.head.is_empty() {
            return;
        }
        self.index = !load.index.is_empty();
        self.last.push((".git/packed-refs".into(), load.packed.clone()));
        self.last.push((".git/HEAD".into(), format!("{}\n", load.position.head).into_bytes()));
    }

    fn only_changes(
        &mut self,
        old: &Tree,
        look: &Look,
        load: &Load,
        before: Option<&Workspace>,
        force: bool,
    ) {
        // After half an update nothing is known of what was to be written.
        let is_torn = before.is_none_or(|before| before.next.is_some());
        for (path, given) in &load.tree {
            let is_known = old.get(path).is_some_and(|old| old.is_same(given));
            let is_scanned = !plan::has_git(path);
            let is_there = if is_scanned { look.same.contains_key(path) } else { !is_torn };
            if is_known && is_there || !given.is_there() {
                continue;
            }
            if load.packs.contains_key(path) {
                self.packs.push(path.clone());
            } else if load.pieces.contains_key(path) {
                self.pieces.push(path.clone());
            }
        }
        let is_gone = |path: &&Vec<u8>| !load.tree.get(*path).is_some_and(Given::is_there);
        self.gone = old
            .iter()
            .filter(|(path, given)| given.is_there() && given.mode != DIR && is_gone(path))
            .map(|(path, _)| path.clone())
            .collect();
        self.gone.extend(look.litter.iter().cloned());
        if force {
            let deleted = look.changes.iter().filter(|(_, how)| **how == How::Modified);
            let listed: BTreeSet<Vec<u8>> = self.gone.iter().cloned().collect();
            let more = deleted.map(|(path, _)| path).filter(|path| !listed.contains(*path));
            self.gone.extend(more.filter(is_gone).cloned());
        }
        if before.is_none() || load.position.head.is_empty() {
            return;
        }
        let here = &look.position;
        let is_listed = here.index_sha256 == load.position.index_sha256;
        let looks_new = |path: &Vec<u8>| looks_new(old.get(path), load.tree.get(path));
        let may_stay = is_listed && self.pieces.iter().all(looks_new);
        self.index = !load.index.is_empty() && !may_stay;
        let remote = |tree: &Tree| tree.get(REMOTE_REFS).map(|given| given.sum.clone());
        let has_remote = !is_torn && remote(old) == remote(&load.tree);
        for (name, oid) in &load.refs {
            let is_right = here.refs.get(name) == Some(oid) || (is_remote(name) && has_remote);
            if !is_right {
                self.last.push((format!(".git/{name}"), format!("{oid}\n").into_bytes()));
            }
        }
        if here.head != load.position.head {
            let head = format!("{}\n", load.position.head).into_bytes();
            self.last.push((".git/HEAD".into(), head));
        }
    }

    /// Writes it all as one tar stream and returns, for each file of the host, its size and time as
    /// sent, or nothing if it changed while it was read.
    fn write(&self, writer: &mut dyn Write, load: &Load) -> Result<Sent> {
        let mut sent = BTreeMap::new();
        let mut builder = tar::Builder::new(writer);
        for dir in &self.dirs {
            let mut header = header(0o755, tar::EntryType::Directory, 0, None);
            append(&mut builder, &mut header, dir.as_bytes(), std::io::empty())?;
        }
        for path in &self.packs {
            let file = &load.packs[path];
            let said = || format!("cannot read '{}'", file.display());
            let mut open = File::open(file).with_context(said)?;
            let meta = open.metadata().with_context(said)?;
            let mut header = header(0o444, tar::EntryType::Regular, meta.len(), None);
            append(&mut builder, &mut header, path, &mut open)?;
        }
        for path in &self.pieces {
            let piece = &load.pieces[path];
            let result = append_piece(&mut builder, piece)?;
            if matches!(piece.content, Content::Disk(..) | Content::Link(_)) {
                sent.insert(path.clone(), result);
            }
        }
        let mut index = None;
        if self.index {
            let is_sure = |path: &[u8]| sent.get(path) != Some(&None);
            let bytes = load.fitted_index(&load.index, load.oid_len, b"", is_sure)?;
            index = Some((".git/index".to_owned(), bytes));
        }
        for (path, bytes) in index.iter().chain(&self.last) {
            let mut header = header(0o644, tar::EntryType::Regular, bytes.len() as u64, None);
            append(&mut builder, &mut header, path.as_bytes(), bytes.as_slice())?;
        }
        builder.finish().context("cannot write to the guest's agent")?;
        Ok(sent)
    }
}

pub(crate) fn header(
    mode: u32,
    sort: tar::EntryType,
    size: u64,
    mtime_s: Option<i64>,
) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(sort);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime_s.map_or(PRESENT, |time| time as u64));
    header
}

pub(crate) fn append(
    builder: &mut tar::Builder<&mut dyn Write>,
    header: &mut tar::Header,
    path: &[u8],
    content: impl Read,
) -> Result<()> {
    builder
        .append_data(header, Path::new(OsStr::from_bytes(path)), content)
        .with_context(|| format!("cannot send '{}'", path.escape_ascii()))
}

pub(crate) fn append_piece(
    builder: &mut tar::Builder<&mut dyn Write>,
    piece: &Piece,
) -> Result<Option<(u64, i64)>> {
    let mode = piece.mode & 0o777;
    let mtime = piece.mtime_s;
    match &piece.content {
        Content::Dir => {
            let mut header = header(0o755, tar::EntryType::Directory, 0, mtime);
            append(builder, &mut header, &piece.path, std::io::empty())?;
            Ok(None)
        }
        Content::Link(target) => {
            let mut header = header(0o777, tar::EntryType::Symlink, 0, mtime);
            append_link(builder, &mut header, &piece.path, target)
                .with_context(|| format!("cannot send '{}'", piece.path.escape_ascii()))?;
            Ok(mtime.map(|mtime| (target.len() as u64, mtime)))
        }
        Content::Bytes(bytes) => {
            let mut header = header(mode, tar::EntryType::Regular, bytes.len() as u64, mtime);
            append(builder, &mut header, &piece.path, bytes.as_slice())?;
            Ok(None)
        }
        Content::Disk(root, path, seen) => {
            let said = || format!("cannot read '{}'", root.join(path).display());
            // A link or a pipe that took its place is not opened.
            let file = root.file(path).map_err(|error| {
                let disk = root.join(path);
                Error::conflict(format!("'{}' changed while it was read", disk.display()))
                    .because(error)
                    .hint("try again")
            })?;
            let now = file.metadata().with_context(said)?;
            let size = now.len();
            let mode = if piece.mode == LINK { 0o644 } else { mode };
            let mut header = header(mode, tar::EntryType::Regular, size, mtime);
            // The stream's frame has to hold even if the file shrinks now.
            let content = (&file).take(size).chain(std::io::repeat(0)).take(size);
            append(builder, &mut header, &piece.path, content)?;
            let after = file.metadata().with_context(said)?;
            let is_same = plan::seen(&now) == *seen && plan::seen(&after) == *seen;
            Ok(mtime.filter(|_| is_same).map(|mtime| (size, mtime)))
        }
    }
}
