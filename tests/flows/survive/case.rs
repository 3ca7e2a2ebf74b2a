//! A command that is disturbed at every point, and what must hold afterwards.

use super::{
    copy, must_be_valid, say, soak, swept,
    trace::{Point, Stage, one_of_each, tree},
};
use banger_tests::{Answer, Sandbox};
use std::{
    collections::BTreeSet,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// The most points of one program that are tried unless all are wanted.
const MOST: usize = 60;

/// Calls that a full or broken disk refuses.
const REFUSABLE: &[&str] = &[
    "openat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "sendfile",
    "copy_file_range",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "syncfs",
];

/// What is done to a program at a point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Disturbance {
    /// It is killed.
    Kill,
    /// The call is refused as a full disk would.
    NoSpace,
    /// The call is refused as a broken disk would.
    Broken,
}

impl Disturbance {
    /// What strace calls it.
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "signal=KILL",
            Self::NoSpace => "error=ENOSPC",
            Self::Broken => "error=EIO",
        }
    }

    /// What an error says of it.
    fn cause(self) -> &'static str {
        match self {
            Self::Kill => "",
            Self::NoSpace => "no space left on device",
            Self::Broken => "input/output error",
        }
    }
}

/// One command and the programs of it that are disturbed.
pub(crate) struct Case<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) stage: Stage,
    /// Programs to disturb, one at a time.
    pub(crate) programs: &'a [&'a str],
    /// What is done to them, in turn; each at every point when everything is wanted.
    pub(crate) disturbances: &'a [Disturbance],
    /// Runs the command to its end, however that is.
    pub(crate) run: &'a dyn Fn(&Stage) -> Answer,
    /// What the command may say when it is repeated: done, or that it is done already.
    pub(crate) again: &'a [i32],
    /// Things that two undisturbed runs leave different too.
    pub(crate) ignore: &'a dyn Fn(&str) -> bool,
}

impl Case<'_> {
    /// Tries all its points; says how many.
    pub(crate) fn survives(&self) {
        let sandbox = self.sandbox;
        let template = sandbox.dir().join("template");
        copy(sandbox.state(), &template);
        let restore = || copy(&template, sandbox.state());

        let mut points = Vec::new();
        let mut clean = None;
        for name in self.programs {
            restore();
            self.stage.trace(name, "");
            (self.run)(&self.stage).ok();
            wait_for_tracer(sandbox);
            self.stage.plain(name);
            let mut found = self.stage.points(name);
            if !self.disturbances.contains(&Disturbance::Kill) {
                found.retain(|point| REFUSABLE.contains(&point.call.as_str()));
            }
            assert!(!found.is_empty(), "nothing was seen of {name}");
            let chosen = if soak() { found.clone() } else { one_of_each(&found, MOST) };
            say(&format!("{name}: {} points of {}", chosen.len(), found.len()));
            points.extend(chosen);
            self.tidy("an undisturbed run");
            clean = Some(self.tree());
        }
        let clean = clean.expect("a program to kill");
        let (mut tried, mut hit) = (0, 0);
        let began = Instant::now();
        for (number, point) in points.iter().enumerate() {
            let all = self.disturbances;
            let chosen = if soak() { all } else { &all[number % all.len()..][..1] };
            for disturbance in chosen {
                restore();
                tried += 1;
                hit += usize::from(self.try_point(point, *disturbance));
                let left = self.tree();
                let more: Vec<_> = left.difference(&clean).collect();
                let less: Vec<_> = clean.difference(&left).collect();
                assert!(
                    more.is_empty() && less.is_empty(),
                    "{disturbance:?} {point:?}: more {more:?}, less {less:?}"
                );
            }
        }
        say(&format!("{tried} points tried, {hit} met, in {:.1} s", began.elapsed().as_secs_f32()));
        // Threads take turns as they like, so a few points may not come; most have to.
        assert!(hit * 10 >= tried * 7, "only {hit} of {tried} were met");
    }

    /// Disturbs the program at a point, then checks all that must hold; says whether it came there.
    fn try_point(&self, point: &Point, disturbance: Disturbance) -> bool {
        let what = format!("{disturbance:?} {point:?}");
        let words = disturbance.words();
        let words = format!("-e inject={}:{words}:when={}", point.call, point.when);
        self.stage.trace(&point.program, &words);
        let disturbed = (self.run)(&self.stage);
        wait_for_tracer(self.sandbox);
        self.stage.plain(&point.program);
        let hit = self.stage.was_hit();
        if disturbance != Disturbance::Kill && disturbed.status != 0 {
            clear_error(&disturbed, disturbance, &what);
        }
        must_be_valid(self.sandbox, &what);
        let again = (self.run)(&self.stage);
        assert!(
            self.again.contains(&again.status),
            "{what}: the same again fails\nfirst: {}\nagain: {}",
            disturbed.all(),
            again.all()
        );
        self.tidy(&what);
        hit
    }

    fn tidy(&self, after: &str) {
        swept(self.sandbox);
        let more = swept(self.sandbox);
        assert!(more.is_empty(), "gc leaves something after {after}: {more:?}");
        must_be_valid(self.sandbox, after);
    }

    fn tree(&self) -> BTreeSet<String> {
        tree(self.sandbox.state()).into_iter().filter(|path| !(self.ignore)(path)).collect()
    }
}

/// The tracer is no child of the test; the log is whole when it is gone.
fn wait_for_tracer(sandbox: &Sandbox) {
    let log = sandbox.dir().join("strace.log");
    let log = log.display().to_string();
    let end = Instant::now() + Duration::from_secs(30);
    let at_work = || {
        fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            words.starts_with(b"strace\0") && String::from_utf8_lossy(&words).contains(&log)
        })
    };
    while at_work() {
        assert!(Instant::now() < end, "strace does not end");
        sleep(Duration::from_millis(2));
    }
}

/// A refused call is one sentence with its cause, and one document; no panic. What strace refuses once
/// for each thread may be one of these two itself.
fn clear_error(answer: &Answer, disturbance: Disturbance, what: &str) {
    let words = answer.all();
    assert!((1..=5).contains(&answer.status), "{what}: {words}");
    let errors: Vec<_> =
        answer.documents.iter().filter(|one| one["schema"] == "banger.error/1").collect();
    // The cause is in the words of banger, or of a program of the host's that it ran.
    let has_cause = |text: &str| text.to_lowercase().contains(disturbance.cause());
    let said = errors.iter().any(|error| error["message"].as_str().is_some_and(has_cause));
    assert!(said || has_cause(&answer.stderr), "{what}: no cause: {words}");
    assert!(errors.len() <= 1, "{what}: {words}");
    assert!(!answer.stderr.contains("panicked"), "{what}: {words}");
}
