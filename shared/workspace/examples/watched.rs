//! How long an edit takes into a guest that is watched, the guest's own time apart: `watched DIR FILES EDITS` makes a
//! repository in DIR, takes this machine for the guest, and prints the median and the 95th percentile in milliseconds.

use banger_channel::files::{Budget, Files, serve};
use banger_doc::{Context, Error, Result};
use banger_workspace::{Guest, Leave, News, Standing, Wish, prepare, watch};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take.
const LIMIT: Duration = Duration::from_mins(30);
/// Between two edits, as of somebody who types fast.
const PAUSE: Duration = Duration::from_millis(150);

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "an example is for a person")]
fn main() -> ExitCode {
    match run() {
        Ok((median, late)) => {
            println!("{median:.2} {late:.2}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.chain());
            ExitCode::FAILURE
        }
    }
}

struct Here;

impl Guest for Here {
    fn standing(&self) -> Result<Standing> {
        Ok(Standing::Runs)
    }

    fn files(&self, time: Duration) -> Result<Files<'_>> {
        Ok(files(time))
    }
}

fn files(time: Duration) -> Files<'static> {
    Files::new(Budget::new(time), || {
        let (here, there) = UnixStream::pair().context("no pair")?;
        thread::spawn(move || serve(there));
        Ok(here)
    })
}

fn run() -> Result<(f64, f64)> {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.collect();
    let usage = || Error::usage("watched DIR FILES EDITS");
    let [dir, count, edits] = words.as_slice() else { return Err(usage()) };
    let (count, edits): (usize, usize) =
        (count.parse().map_err(|_| usage())?, edits.parse().map_err(|_| usage())?);
    let dir = fs::canonicalize(dir).context("no such directory")?;
    let host = dir.join("host");
    if !host.exists() {
        make(&host, count)?;
    }
    fs::create_dir_all(dir.join("vm")).context("cannot make a directory")?;
    prepare(&dir.join("vm"), &files(LIMIT), &wish(&dir, &host))?;
    let (tell, news) = mpsc::channel();
    let (ended, ends) = mpsc::channel::<()>();
    let place = dir.join("vm");
    let watching = thread::spawn(move || {
        let leave = Leave {
            vm: "web".into(),
            configured_include: Vec::new(),
            configured: Vec::new(),
            allowed: &|_| Vec::new(),
        };
        watch(&place, &Here, &leave, &mut |news| {
            let _ = tell.send(news);
            Ok(ends.try_recv() == Err(mpsc::TryRecvError::Empty))
        })
    });
    until(&news, |news| matches!(news, News::Begun { .. }).then_some(()))?;
    let mut took = Vec::new();
    for edit in 0..edits {
        thread::sleep(PAUSE);
        let path = place_of(edit * 7919 % count);
        let file = OpenOptions::new().append(true).open(host.join(&path));
        let mut file = file.context("cannot open a file")?;
        let begun = Instant::now();
        writeln!(file, "edit {edit}").context("cannot edit a file")?;
        drop(file);
        let guest = until(&news, |news| match news {
            News::Batch(batch) if batch.changes.iter().any(|change| change.path == path) => {
                batch.guest
            }
            _ => None,
        })?;
        took.push(begun.elapsed().saturating_sub(guest).as_secs_f64() * 1000.0);
    }
    drop(ended);
    watching.join().map_err(|_| Error::failed("the watch panicked"))??;
    took.sort_by(f64::total_cmp);
    let at = |part: usize| took.get((took.len() * part).div_ceil(100).max(1) - 1).copied();
    at(50).zip(at(95)).ok_or_else(usage)
}

fn wish(dir: &Path, host: &Path) -> Wish {
    let guest = dir.join("guest/repo").display().to_string();
    Wish { is_named: true, force: true, ..Wish::of("web", host, &guest) }
}

fn until<T>(news: &mpsc::Receiver<News>, find: impl Fn(&News) -> Option<T>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let news = news.recv_timeout(left).context("the watch ended, or said nothing")?;
        if let Some(found) = find(&news) {
            return Ok(found);
        }
    }
}

fn place_of(number: usize) -> String {
    format!("dir-{}/part-{}/file-{number}", number % 40, number % 1000 / 40)
}

fn make(host: &PathBuf, count: usize) -> Result<()> {
    for number in 0..count {
        let path = host.join(place_of(number));
        fs::create_dir_all(path.parent().unwrap_or(host)).context("cannot make a directory")?;
        fs::write(&path, format!("{number}\n")).context("cannot write a file")?;
    }
    let script = "git init -q -b main; git add -A; git -c user.name=A -c user.email=a@b -c gc.auto=0 commit -qm one";
    let status = Command::new("sh").args(["-ec", script]).current_dir(host).status();
    let status = status.context("cannot run a shell")?;
    if status.success() { Ok(()) } else { Err(Error::failed(format!("git ended with {status}"))) }
}
