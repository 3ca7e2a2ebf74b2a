//! Keeping a guest's workspace up to date while its host is edited: one way, and never over what the guest
//! changed itself.

mod bring;
mod follow;
mod listen;
mod mark;
mod session;
mod survey;

use crate::{path::shown, status::changes, temporary::Temporary};
use banger_channel::files::Files;
use banger_doc::{Change, Error, Kind, Result};
use banger_state::Lock;
use follow::{Done, Follower, LOCKED};
use listen::Heard;
use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub use follow::Leave;

/// Held by the one that watches.
const LOCK: &str = "watch.lock";
/// How often a guest is looked at although nothing was heard.
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing may be heard before it is taken for whole, how long at the most.
const QUIET: Duration = Duration::from_millis(20);
const QUIET_OF_GIT: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_millis(400);
/// How long an editor may take between the two steps of saving a file.
const SAVING: Duration = Duration::from_millis(60);
/// When a file that stays open goes as it is.
const WRITTEN: Duration = Duration::from_secs(1);
/// How long a batch may take.
const BATCH: Duration = Duration::from_hours(1);
/// How long a VM that ended has to come back, as by a restart.
const BACK: Duration = Duration::from_secs(10);
/// How often what fails is tried.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// How a guest stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It can be asked.
    Runs,
    /// It cannot, and will be able to; why.
    Waits(String),
    /// It is no more; why.
    Ended(String),
}

/// A guest that is kept up to date.
pub trait Guest {
    /// Says how it stands.
    fn standing(&self) -> Result<Standing>;
    /// Returns its files, for something that may last for so long.
    fn files(&self, time: Duration) -> Result<Files<'_>>;
}

/// What there is to tell.
#[derive(Clone, Debug)]
pub enum News {
    /// It begins.
    Begun {
        /// What is followed on the host.
        host_path: String,
        /// How many files there are.
        files: u64,
        /// How many directories are listened to.
        dirs: usize,
    },
    /// Something was brought, or was left.
    Batch(Batch),
    /// Something that a person is to know.
    Note(String),
    /// Nothing happened.
    Idle,
}

/// What was brought at once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// What changed in the guest.
    pub changes: Vec<Change>,
    /// What the guest had changed itself and keeps; each path once.
    pub left: Vec<String>,
    /// Whether the host's HEAD, references and index went along.
    pub git: bool,
    /// How long it took since the first of it was heard.
    pub took: Duration,
    /// How long of that the guest took; none if that is not known.
    pub guest: Option<Duration>,
}

/// Why it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// Who listens asked for it.
    Asked,
    /// The guest ended; why.
    Guest(String),
}

/// A folder for all temporary files of this program, gone with its value. Who is ended by a signal has it removed.
#[derive(Debug)]
pub struct Scratch(Temporary);

impl Scratch {
    /// Makes it.
    pub fn make() -> Result<Self> {
        let made = Temporary::new()?;
        made.holds_others()?;
        Ok(Self(made))
    }

    /// Returns where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Keeps a guest's workspace up to date until the guest ends, or `tell` returns false. `dir` is the place of the
/// record. It may be ended at any moment: what it wrote is known to be the host's by all that come after it.
pub fn watch(
    dir: &Path,
    guest: &dyn Guest,
    leave: &Leave<'_>,
    tell: &mut dyn FnMut(News) -> Result<bool>,
) -> Result<End> {
    follow::must_have_one(dir)?;
    let Some(_alone) = Lock::try_exclusive(&dir.join(LOCK))? else {
        return Err(Error::conflict("this workspace is watched already").hint(
            "one 'banger workspace watch' for each is enough; Ctrl-C ends it where it runs",
        ));
    };
    let mut teller = Teller { tell, goes_on: true };
    let begun = Instant::now();
    let (mut follower, done) = Follower::begin(dir, leave, &guest.files(BATCH)?)?;
    let mut heard = Heard::default();
    teller.tell(News::Begun {
        host_path: follower.record().host_path.clone(),
        files: follower.record().files,
        dirs: follower.listener.count(),
    })?;
    teller.tell_done(done, begun, &mut heard)?;
    let mut said = None;
    let mut failed = 0;
    while teller.goes_on {
        match guest.standing()? {
            Standing::Runs => said = None,
            Standing::Ended(why) => match until_back(guest, &mut teller)? {
                true => continue,
                false if !teller.goes_on => break,
                false => return Ok(End::Guest(why)),
            },
            Standing::Waits(why) => {
                if said.as_ref() != Some(&why) {
                    teller.tell(News::Note(format!("{why}; what changes meanwhile goes then")))?;
                    said = Some(why);
                }
                thread::sleep(LOOK);
                teller.tell(News::Idle)?;
                continue;
            }
        }
        if !heard.has_files() && !heard.git {
            let has_news = follower.listener.wait(LOOK)?;
            if !has_news && heard.written.is_empty() {
                follower.root_is_there()?;
                teller.tell(News::Idle)?;
                continue;
            }
        }
        let begun = Instant::now();
        if !until_quiet(&mut follower, &mut heard, &mut teller)? {
            teller.tell(News::Idle)?;
            continue;
        }
        let files = guest.files(BATCH)?;
        match follower.follow(&files, &mut heard) {
            Ok(done) => {
                failed = 0;
                teller.tell_done(done, begun, &mut heard)?;
            }
            // Its end is no failure, and what it lacks then goes when it is back.
            Err(_) if guest.standing()? != Standing::Runs => {}
            Err(error) if error.kind() == Kind::NotFound || failed + 1 >= TRIES => {
                return Err(error);
            }
            Err(error) => {
                failed += 1;
                teller.tell(News::Note(format!("{}; trying again", error.chain())))?;
                thread::sleep(PAUSE);
            }
        }
    }
    Ok(End::Asked)
}

/// Waits whether a guest that ended comes back.
fn until_back(guest: &dyn Guest, teller: &mut Teller<'_>) -> Result<bool> {
    let end = Instant::now() + BACK;
    let mut is_said = false;
    while Instant::now() < end && teller.goes_on {
        match guest.standing()? {
            Standing::Ended(why) if !is_said => {
                is_said = true;
                let s = BACK.as_secs();
                teller.tell(News::Note(format!("{why}; waiting {s} s whether it comes back")))?;
            }
            Standing::Ended(_) => {
                thread::sleep(LOOK);
                teller.tell(News::Idle)?;
            }
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// Waits until what is heard is whole; says whether any of it matters.
fn until_quiet(
    follower: &mut Follower<'_>,
    heard: &mut Heard,
    teller: &mut Teller<'_>,
) -> Result<bool> {
    let begun = Instant::now();
    let mut last = begun;
    loop {
        if follower.listener.hear(heard)? {
            last = Instant::now();
        }
        if heard.root_moved {
            follower.root_is_there()?;
            heard.root_moved = false;
        }
        let due: Vec<Vec<u8>> = heard
            .written
            .iter()
            .filter(|(_, at)| at.elapsed() >= WRITTEN)
            .map(|(path, _)| path.clone())
            .collect();
        for path in due {
            heard.written.remove(&path);
            heard.changed.insert(path);
        }
        if !heard.has_files() && !heard.git {
            if heard.written.is_empty() {
                return Ok(false);
            }
            if begun.elapsed() >= LOOK {
                return Ok(false);
            }
            follower.listener.wait(LOOK)?;
            continue;
        }
        let quiet = if heard.git {
            QUIET_OF_GIT
        } else if last.elapsed() < SAVING && follower.lacks_any(&heard.changed) {
            SAVING
        } else {
            QUIET
        };
        let is_quiet = last.elapsed() >= quiet;
        let is_late = begun.elapsed() >= if heard.git { 5 * MOST } else { MOST };
        let is_locked = follower.git_is_busy();
        if is_locked && begun.elapsed() >= LOCKED {
            if let Some(note) = follower.wait_for_git_no_more() {
                teller.tell(News::Note(note))?;
            }
            continue;
        }
        if (is_quiet || is_late) && !is_locked {
            return Ok(true);
        }
        let left = if is_locked { QUIET } else { quiet.saturating_sub(last.elapsed()) };
        follower.listener.wait(left.max(Duration::from_millis(1)))?;
    }
}

/// Who is told, and what was.
struct Teller<'a> {
    tell: &'a mut dyn FnMut(News) -> Result<bool>,
    goes_on: bool,
}

impl Teller<'_> {
    fn tell(&mut self, news: News) -> Result<()> {
        self.goes_on = (self.tell)(news)? && self.goes_on;
        Ok(())
    }

    fn tell_done(&mut self, done: Done, begun: Instant, heard: &mut Heard) -> Result<()> {
        for note in done.notes {
            self.tell(News::Note(note))?;
        }
        let brought = done.brought;
        // Soon, but not at once: somebody writes to it.
        let soon = Instant::now().checked_sub(WRITTEN.mul_f32(0.8));
        for path in brought.again {
            heard.written.insert(path, soon.unwrap_or_else(Instant::now));
        }
        if brought.changes.is_empty() && brought.left.is_empty() && !done.git {
            return Ok(());
        }
        self.tell(News::Batch(Batch {
            changes: changes(&brought.changes),
            left: brought.left.iter().map(|path| shown(path)).collect(),
            git: done.git,
            took: follow::since(begun),
            guest: (!done.git).then_some(brought.guest),
        }))
    }
}
