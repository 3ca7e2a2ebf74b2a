//! Bringing single paths into a guest, but not over what the guest made of them.

use super::{
    session::Session,
    survey::{Going, Survey},
};
use crate::{
    git::{DIR, LINK},
    guest::{How, is_alike, seen},
    host::tools::{first_refused, is_of_tools},
    host::unit::carrying,
    names::hex,
    path::parents,
    prepare::load::{Content, Piece, add_to_index},
    prepare::plan::{self, Looker, has_git, is_safe},
    prepare::send::append_piece,
    record::Folder,
    record::given::{Beside, Given, Seen, Sort},
    record::journal,
    record::store::Store,
};
use banger_channel::files::{Entry, Files, Put, What};
use banger_doc::{AllowedFile, Context, Result};
use banger_state::clock_ms;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::unix::ffi::OsStrExt,
    time::{Duration, Instant},
};

/// Files up to this size, and so many bytes of them together, are held in memory, so that what is sent is what was
/// looked at.
const MOST_OF_ONE: u64 = 8 << 20;
const MOST_OF_ALL: u64 = 64 << 20;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// What went.
    pub(super) changes: BTreeMap<Vec<u8>, How>,
    /// What the guest had changed itself, and keeps.
    pub(super) left: BTreeSet<Vec<u8>>,
    /// What is as on the host now.
    pub(super) agreed: BTreeSet<Vec<u8>>,
    /// What changed on the host meanwhile, to be looked at again.
    pub(super) again: BTreeSet<Vec<u8>>,
    /// What could not be read, and why.
    pub(super) unread: BTreeMap<Vec<u8>, String>,
    /// How long the guest took.
    pub(super) guest: Duration,
}

/// All that is needed beside the paths.
pub(super) struct Way<'a> {
    pub(super) folder: &'a Folder,
    pub(super) files: &'a Files<'a>,
    pub(super) survey: &'a Survey,
    pub(super) allowed: &'a [AllowedFile],
    pub(super) keeps_mode: bool,
}

/// Something that is to go.
struct News {
    given: Option<Given>,
    piece: Option<Piece>,
}

/// What differs from what was given.
#[derive(Default)]
struct Changed {
    news: BTreeMap<Vec<u8>, News>,
    /// What the guest has already, and the host tracks by now, or ignores, or neither any more.
    settled: BTreeMap<Vec<u8>, Option<Given>>,
}

/// What the guest has at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    /// What it was given: it may be replaced.
    Given,
    /// What it is to be given.
    Agreed,
    /// A directory in the place of a file, which may go with the last file in it.
    Directory,
    /// Something of its own.
    Own,
}

/// Brings what changed at these paths.
pub(super) fn bring(
    way: &Way<'_>,
    session: &mut Session,
    paths: &BTreeSet<Vec<u8>>,
) -> Result<Brought> {
    let mut brought = Brought::default();
    let Changed { mut news, mut settled } = changed(way, session, paths, &mut brought)?;
    if news.is_empty() {
        session.settle(way.folder, &settled)?;
        return Ok(brought);
    }
    name_objects(way, &mut news, &mut brought)?;
    let verdicts = ask(way, session, &news, &mut brought.guest)?;
    for (path, verdict) in &verdicts {
        match verdict {
            Verdict::Own => {
                news.remove(path);
                brought.left.insert(path.clone());
            }
            Verdict::Agreed => {
                let agreed = news.remove(path).and_then(|news| news.given);
                settled.insert(path.clone(), agreed);
                brought.agreed.insert(path.clone());
            }
            Verdict::Given | Verdict::Directory => {}
        }
    }
    if news.is_empty() {
        session.settle(way.folder, &settled)?;
        return Ok(brought);
    }
    let announced = news.iter().map(|(path, news)| (path.clone(), news.given.clone())).collect();
    session.announce(way.folder, &announced)?;
    let refusal = judge(way, session, &announced);
    if refusal.as_ref().is_some_and(|(allowed, _)| !allowed) {
        write_judgement(way, session, refusal.clone())?;
    }
    // What is in the way of a file goes first.
    let gone: Vec<&[u8]> =
        news.iter().filter(|(_, news)| news.given.is_none()).map(|(path, _)| &path[..]).collect();
    let root = session.record.guest_path.clone();
    let begun = Instant::now();
    if !gone.is_empty() {
        way.files.remove(&root, &gone)?;
    }
    let doubtful: Vec<Vec<u8>> = verdicts
        .iter()
        .filter(|(path, verdict)| **verdict == Verdict::Directory && news.contains_key(*path))
        .map(|(path, _)| path.clone())
        .collect();
    if !doubtful.is_empty() {
        let asked: Vec<&[u8]> = doubtful.iter().map(Vec::as_slice).collect();
        for (path, entry) in doubtful.iter().zip(way.files.stat(&root, &asked)?) {
            if entry.is_some() {
                news.remove(path);
                settled.insert(path.clone(), session.tree.get(path).cloned());
                brought.left.insert(path.clone());
            }
        }
    }
    let pieces: Vec<&Piece> = news.values().filter_map(|news| news.piece.as_ref()).collect();
    let mut sent: BTreeMap<Vec<u8>, Option<(u64, i64)>> = BTreeMap::new();
    if !pieces.is_empty() {
        way.files.put(&root, Put::Within, |writer| {
            let mut builder = tar::Builder::new(writer);
            for piece in &pieces {
                let result = append_piece(&mut builder, piece)?;
                let sure = match &piece.content {
                    Content::Bytes(bytes) => piece.mtime_s.map(|mtime| (bytes.len() as u64, mtime)),
                    _ => result,
                };
                sent.insert(piece.path.clone(), sure);
            }
            builder.finish().context("cannot write to the guest's agent")
        })?;
    }
    let put: Vec<&[u8]> = sent.keys().map(Vec::as_slice).collect();
    let now = if put.is_empty() { Vec::new() } else { way.files.stat(&root, &put)? };
    // Of what changed while it was read the guest alone knows what went.
    let torn: Vec<&[u8]> = pieces
        .iter()
        .filter(|piece| piece.mode != DIR && sent.get(&piece.path) == Some(&None))
        .map(|piece| piece.path.as_slice())
        .collect();
    let sums = if torn.is_empty() { Vec::new() } else { way.files.hash(&root, &torn)? };
    let mut sums: BTreeMap<Vec<u8>, String> = torn
        .iter()
        .zip(sums)
        .map(|(path, sum)| (path.to_vec(), sum.map(|sum| hex(&sum)).unwrap_or_default()))
        .collect();
    brought.guest += begun.elapsed();
    let now: BTreeMap<Vec<u8>, Seen> =
        now.into_iter().flatten().map(|entry| (entry.path.clone(), seen(&entry))).collect();
    for (path, news) in news {
        let was = session.tree.get(&path).is_some_and(Given::is_there);
        let how = match (was, news.given.is_some()) {
            (true, true) => How::Modified,
            (false, true) => How::Added,
            (_, false) => How::Deleted,
        };
        let given = news.given.map(|mut given| {
            let sure = sent.get(&path).copied().flatten();
            given.guest = now.get(&path).copied().filter(|seen| {
                sure.is_some_and(|(size, mtime_s)| {
                    seen.size == size && seen.mtime_ns == mtime_s.saturating_mul(1_000_000_000)
                })
            });
            if let Some(sum) = sums.remove(&path) {
                given.sum = sum;
                given.oid.clear();
                given.host = None;
                brought.again.insert(path.clone());
            }
            given
        });
        settled.insert(path.clone(), given);
        brought.changes.insert(path, how);
    }
    session.settle(way.folder, &settled)?;
    if refusal.is_some() {
        write_judgement(way, session, refusal)?;
    }
    session.compact(way.folder)?;
    Ok(brought)
}

/// Returns what differs from what was given.
fn changed(
    way: &Way<'_>,
    session: &mut Session,
    paths: &BTreeSet<Vec<u8>>,
    brought: &mut Brought,
) -> Result<Changed> {
    let mut left = MOST_OF_ALL;
    let Changed { mut news, mut settled } = Changed::default();
    for (path, going) in way.survey.look(paths)? {
        let was = session.tree.get(&path).cloned();
        let is_open = session.open.contains_key(&path);
        if has_git(&path) || was.as_ref().is_some_and(|was| was.sort == Sort::Module) {
            continue;
        }
        let Some((item, sort)) = going else {
            if was.as_ref().is_some_and(|was| was.sort == Sort::Dir) {
                // A directory with something in it is no thing of its own, and an empty one harms nobody.
                session.tree.remove(&path);
            } else if is_open || was.as_ref().is_some_and(Given::is_there) {
                news.insert(path, News { given: None, piece: None });
            } else {
                brought.agreed.insert(path);
            }
            continue;
        };
        let is_like = was.as_ref().is_some_and(|was| was.sort == sort && was.mode == item.mode);
        if !is_open && is_like && was.as_ref().and_then(|was| was.host) == Some(item.seen) {
            settle_beside(&mut settled, &path, was, item.beside);
            brought.agreed.insert(path);
            continue;
        }
        let (sum, content) = match read(way, &path, &(item.clone(), sort), &mut left) {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                brought.again.insert(path);
                continue;
            }
            Err(error) => {
                brought.unread.insert(path, error.to_string());
                continue;
            }
        };
        let host = Some(item.seen).filter(|seen| !is_fresh(seen));
        if let Some(was) = session.tree.get_mut(&path)
            && !is_open
            && is_like
            && was.sum == sum
        {
            was.host = host;
            settle_beside(&mut settled, &path, Some(was.clone()), item.beside);
            brought.agreed.insert(path);
            continue;
        }
        let mtime_s = Some(time_for(was.as_ref(), &item.seen));
        // What git would have as a link lies here as a file where links are not kept.
        let mode = if item.mode == LINK && !item.is_link { 0o100_644 } else { item.mode };
        let (oid, guest, host) = (String::new(), None, Some(item.seen));
        let (mode_of_git, beside) = (item.mode, item.beside);
        let given = Given { sort, mode: mode_of_git, sum, oid, beside, host, guest };
        let piece = Piece { path: path.clone(), content, mode, mtime_s };
        news.insert(path, News { given: Some(given), piece: Some(piece) });
    }
    Ok(Changed { news, settled })
}

/// Has it written down how something is taken along, if that is another way than before.
fn settle_beside(
    settled: &mut BTreeMap<Vec<u8>, Option<Given>>,
    path: &[u8],
    was: Option<Given>,
    beside: Option<Beside>,
) {
    if let Some(was) = was.filter(|was| was.beside != beside) {
        settled.insert(path.to_vec(), Some(Given { beside, ..was }));
    }
}

/// Says whether a change within the clock's own grain would not be seen of a file.
fn is_fresh(seen: &Seen) -> bool {
    seen.ctime_ns > clock_ms() as i64 * 1_000_000 - 2_000_000_000
}

/// Returns the second that a file has in the guest: its own, unless git there would not see by it that the file
/// is another one of the same size.
fn time_for(was: Option<&Given>, now: &Seen) -> i64 {
    let second = |seen: &Seen| seen.mtime_ns.div_euclid(1_000_000_000);
    let own = second(now).max(0);
    let before = was.and_then(|was| was.guest.or(was.host)).filter(|seen| seen.size == now.size);
    before.map_or(own, |before| own.max(second(&before) + 1))
}

fn read(
    way: &Way<'_>,
    path: &[u8],
    (item, _): &Going,
    left: &mut u64,
) -> std::io::Result<(String, Content)> {
    let root = &way.survey.root;
    if item.mode == DIR {
        return Ok((String::new(), Content::Dir));
    }
    if item.is_link {
        let target = fs::read_link(root.join(path))?.as_os_str().as_bytes().to_vec();
        return Ok((hex(&Sha256::digest(&target)), Content::Link(target)));
    }
    if item.seen.size > MOST_OF_ONE || item.seen.size > *left {
        return crate::prepare::load::read_item(item, root, path, None);
    }
    let mut bytes = Vec::new();
    root.file(path)?.take(item.seen.size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != item.seen.size {
        // It grows or shrinks at this moment.
        return Err(std::io::ErrorKind::NotFound.into());
    }
    *left -= item.seen.size;
    Ok((hex(&Sha256::digest(&bytes)), Content::Bytes(bytes)))
}

/// Has git name the objects of what goes, as a prepare does; takes out what changed meanwhile.
fn name_objects(
    way: &Way<'_>,
    news: &mut BTreeMap<Vec<u8>, News>,
    brought: &mut Brought,
) -> Result<()> {
    let is_named = |given: &Given| matches!(given.sort, Sort::File | Sort::Link);
    let named = news.iter().filter(|(_, news)| news.given.as_ref().is_some_and(is_named));
    let paths: Vec<Vec<u8>> = named.map(|(path, _)| path.clone()).collect();
    let repository = way.survey.repository();
    let mut objects = BTreeMap::new();
    if !paths.is_empty() {
        let format = repository.map_or("sha1", |repository| &repository.format);
        let store = Store::open(way.folder.path(), format)?;
        let scratch = store.scratch()?;
        let git = store.git_writing_to(&store.local);
        let git = match repository {
            Some(repository) => carrying(repository, git),
            None => git,
        };
        let root = &way.survey.root;
        let git = git.work_tree(root.path()).env("GIT_INDEX_FILE", scratch.index());
        // One that went away meanwhile makes git refuse them all.
        objects = match add_to_index(&git, root, &paths) {
            Ok(objects) => objects.into_iter().collect(),
            Err(error) if paths.iter().all(|path| root.sort(path).ok().flatten().is_some()) => {
                return Err(error);
            }
            Err(_) => BTreeMap::new(),
        };
        scratch.remove()?;
    }
    let mut looker = Looker::new(way.survey.root.path());
    let mut moved = Vec::new();
    for (path, news) in news.iter_mut() {
        let Some(given) = &mut news.given else { continue };
        let now = looker.look(path).map(|meta| plan::seen(&meta));
        let oid = objects.remove(path);
        let is_whole = oid.is_some() || !is_named(given);
        if !is_whole || (now != given.host && given.sort != Sort::Dir) {
            moved.push(path.clone());
        } else {
            given.oid = oid.unwrap_or_default();
            given.host = given.host.filter(|seen| !is_fresh(seen));
        }
    }
    for path in moved {
        news.remove(&path);
        brought.again.insert(path);
    }
    Ok(())
}

/// Asks the guest what it has at each path.
fn ask(
    way: &Way<'_>,
    session: &Session,
    news: &BTreeMap<Vec<u8>, News>,
    took: &mut Duration,
) -> Result<BTreeMap<Vec<u8>, Verdict>> {
    let root = &session.record.guest_path;
    // Where nothing lies, something of the guest's own may lie on the way.
    let above = |path: &Vec<u8>| -> Vec<Vec<u8>> {
        parents(path).filter(|dir| dir.len() < path.len()).map(<[u8]>::to_vec).collect()
    };
    let mut asked: BTreeSet<Vec<u8>> = news.keys().cloned().collect();
    for path in news.keys() {
        asked.extend(above(path));
    }
    let list: Vec<&[u8]> = asked.iter().map(Vec::as_slice).collect();
    let begun = Instant::now();
    let found: BTreeMap<&[u8], Entry> = list
        .iter()
        .zip(way.files.stat(root, &list)?)
        .filter_map(|(path, entry)| Some((*path, entry?)))
        .collect();
    *took += begun.elapsed();
    let mut verdicts = BTreeMap::new();
    let mut unsure: Vec<&Vec<u8>> = Vec::new();
    for (path, wanted) in news {
        let candidates = candidates(session, path);
        let may_be_absent = candidates.iter().any(|given| !given.is_some_and(Given::is_there));
        let is_blocked = above(path).iter().any(|dir| {
            let is_going = news.contains_key(dir)
                && candidates_have(session, dir, found.get(dir.as_slice()), way.keeps_mode);
            found.get(dir.as_slice()).is_some_and(|entry| entry.what != What::Dir) && !is_going
        });
        let verdict = match found.get(path.as_slice()) {
            _ if is_blocked && wanted.given.is_some() => Verdict::Own,
            None if wanted.given.is_none() => Verdict::Agreed,
            None if may_be_absent => Verdict::Given,
            None => Verdict::Own,
            Some(entry) if entry.what == What::Dir => {
                let is_dir = |given: &Given| given.mode == DIR;
                match &wanted.given {
                    // It may go with the last file in it.
                    Some(given) if is_dir(given) => Verdict::Given,
                    Some(_) => Verdict::Directory,
                    // What was to go is gone, and something else is there.
                    None => Verdict::Agreed,
                }
            }
            Some(entry) if candidates_have(session, path, Some(entry), way.keeps_mode) => {
                Verdict::Given
            }
            Some(entry) if entry.what == What::File => {
                unsure.push(path);
                continue;
            }
            Some(entry) => {
                let sum = hex(&Sha256::digest(&entry.target));
                let is_new = wanted.given.as_ref().is_some_and(|given| {
                    entry.what == What::Link && is_alike(given, entry, true) && given.sum == sum
                });
                if is_new { Verdict::Agreed } else { Verdict::Own }
            }
        };
        verdicts.insert(path.clone(), verdict);
    }
    if unsure.is_empty() {
        return Ok(verdicts);
    }
    let list: Vec<&[u8]> = unsure.iter().map(|path| path.as_slice()).collect();
    let begun = Instant::now();
    let sums = way.files.hash(root, &list)?;
    *took += begun.elapsed();
    for (path, sum) in unsure.into_iter().zip(sums) {
        let sum = sum.map(|sum| hex(&sum)).unwrap_or_default();
        let entry = &found[path.as_slice()];
        let has = |given: &Given| {
            given.sum == sum && is_alike(given, entry, way.keeps_mode) && !given.sum.is_empty()
        };
        let is_new = news[path].given.as_ref().is_some_and(has);
        let is_old = candidates(session, path).into_iter().flatten().any(has);
        let verdict = match (is_new, is_old) {
            (true, _) => Verdict::Agreed,
            (_, true) => Verdict::Given,
            _ => Verdict::Own,
        };
        verdicts.insert(path.clone(), verdict);
    }
    Ok(verdicts)
}

/// Returns what the guest may have been given at a path.
fn candidates<'a>(session: &'a Session, path: &[u8]) -> Vec<Option<&'a Given>> {
    let open = session.open.get(path).map(Option::as_ref);
    [Some(session.tree.get(path)), open].into_iter().flatten().collect()
}

/// Says whether an entry is known, without reading it, to be what was given.
fn candidates_have(
    session: &Session,
    path: &[u8],
    entry: Option<&Entry>,
    keeps_mode: bool,
) -> bool {
    let Some(entry) = entry else { return false };
    candidates(session, path).into_iter().flatten().any(|given| {
        is_alike(given, entry, keeps_mode)
            && match entry.what {
                What::Link => given.sum == hex(&Sha256::digest(&entry.target)),
                What::File => given.guest == Some(seen(entry)),
                _ => false,
            }
    })
}

/// Judges the files that name tools as they will lie in the guest, where one of them changes: whether all are
/// allowed, and which is not.
fn judge(
    way: &Way<'_>,
    session: &Session,
    news: &BTreeMap<Vec<u8>, Option<Given>>,
) -> Option<(bool, Option<banger_doc::ToolRefusal>)> {
    let name = |path: &Vec<u8>| String::from_utf8(path.clone()).ok().filter(|n| is_of_tools(n));
    if !news.keys().any(|path| name(path).is_some()) {
        return None;
    }
    let mut tree: BTreeMap<Vec<u8>, Given> = session
        .tree
        .iter()
        .filter(|(path, _)| is_safe(path) && name(path).is_some())
        .map(|(path, given)| (path.clone(), given.clone()))
        .collect();
    for (path, given) in news.iter().filter(|(path, _)| name(path).is_some()) {
        journal::apply(&mut tree, path, given.as_ref());
    }
    let tools: Vec<(String, Option<String>)> = tree
        .iter()
        .filter(|(_, given)| given.is_there() && given.mode != DIR)
        .filter_map(|(path, given)| {
            let sum = (given.mode != LINK).then(|| given.sum.clone());
            Some((name(path)?, sum))
        })
        .collect();
    let listed = tools.iter().map(|(name, sum)| (name.as_str(), sum.as_deref()));
    let refused = first_refused(listed, way.allowed);
    Some((!tools.is_empty() && refused.is_none(), refused))
}

fn write_judgement(
    way: &Way<'_>,
    session: &mut Session,
    judged: Option<(bool, Option<banger_doc::ToolRefusal>)>,
) -> Result<()> {
    let Some((allowed, refused)) = judged else { return Ok(()) };
    let record = &session.record;
    if record.tools_allowed == allowed && record.tools_refused == refused {
        return Ok(());
    }
    session.rewrite(way.folder, |record| {
        record.tools_allowed = allowed;
        record.tools_refused = refused;
    })
}

/// Returns what differs between the host as it was looked at and what the guest was given.
pub(super) fn differing(survey: &Survey, session: &Session) -> BTreeSet<Vec<u8>> {
    let mut paths: BTreeSet<Vec<u8>> = session.open.keys().cloned().collect();
    for (path, (item, sort)) in &survey.items {
        let is_same = session.tree.get(path).is_some_and(|given| {
            given.host == Some(item.seen)
                && given.mode == item.mode
                && given.sort == *sort
                && given.beside == item.beside
        });
        if !is_same {
            paths.insert(path.clone());
        }
    }
    for (path, given) in &session.tree {
        let is_gone = given.is_there() && !has_git(path) && !survey.items.contains_key(path);
        let is_back = given.sort == Sort::Sparse && survey.items.contains_key(path);
        if is_gone || is_back {
            paths.insert(path.clone());
        }
    }
    paths
}

/// Says whether a record keeps modes as they were given.
pub(super) fn keeps_mode(survey: &Survey) -> bool {
    survey
        .repository()
        .is_some_and(|repository| repository.setting("core.filemode") == Some("false"))
}
