//! A guest that is kept up to date while its host is edited.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_channel::files::Files;
use banger_doc::{Error, Result};
use banger_workspace::{Batch, End, Guest, Leave, News, Standing, Wish, watch};
use std::{
    fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use world::World;

const BASIC: &str = "git init -q; mkdir d; echo a >a; echo b >d/b; echo c >c; printf '*.o\\nbuild/\\n' >.gitignore; \
                     git add -A; git commit -qm one";
const LIMIT: Duration = Duration::from_mins(1);

/// A guest that is this machine, and that stands as the test likes.
#[derive(Clone, Default)]
struct Here(Arc<AtomicU8>);

impl Guest for Here {
    fn standing(&self) -> Result<Standing> {
        Ok(match self.0.load(Ordering::SeqCst) {
            0 => Standing::Runs,
            1 => Standing::Waits("VM 'web' is paused".into()),
            _ => Standing::Ended("VM 'web' is stopped".into()),
        })
    }

    fn files(&self, time: Duration) -> Result<Files<'_>> {
        if self.0.load(Ordering::SeqCst) == 0 {
            Ok(world::files_within(time))
        } else {
            Err(Error::failed("nobody is there"))
        }
    }
}

/// A watch that goes on in a thread.
struct Running {
    news: mpsc::Receiver<News>,
    stop: Arc<AtomicBool>,
    here: Here,
    thread: Option<thread::JoinHandle<Result<End>>>,
    /// All notes so far.
    notes: Vec<String>,
    left: Vec<String>,
}

impl Running {
    fn begin(world: &World) -> Self {
        let (tell, news) = mpsc::channel();
        let (stop, here) = (Arc::new(AtomicBool::new(false)), Here::default());
        let (dir, asked, guest) = (world.vm(), stop.clone(), here.clone());
        let thread = thread::spawn(move || {
            let leave = Leave {
                vm: "web".into(),
                configured_include: Vec::new(),
                configured: Vec::new(),
                allowed: &|_| Vec::new(),
            };
            watch(&dir, &guest, &leave, &mut |news| {
                let _ = tell.send(news);
                Ok(!asked.load(Ordering::SeqCst))
            })
        });
        let (notes, left) = (Vec::new(), Vec::new());
        let mut running = Self { news, stop, here, thread: Some(thread), notes, left };
        running.until("it begins", |news| matches!(news, News::Begun { .. }));
        running
    }

    /// Waits for news of a sort.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_it: impl FnMut(&News) -> bool) -> News {
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(news) => {
                    self.keep(&news);
                    if is_it(&news) {
                        return news;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("{what}: not in time; notes: {:?}, left: {:?}", self.notes, self.left)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let ended = self.thread.take().unwrap().join().unwrap();
                    panic!("{what}: it ended with {:?}", ended.map_err(|error| error.chain()));
                }
            }
        }
    }

    fn keep(&mut self, news: &News) {
        match news {
            News::Note(note) => self.notes.push(note.clone()),
            News::Batch(batch) => self.left.extend(batch.left.iter().cloned()),
            _ => {}
        }
    }

    /// Waits for a batch in which a path changed.
    #[track_caller]
    fn batch_with(&mut self, path: &str) -> Batch {
        let is_it = |news: &News| match news {
            News::Batch(batch) => batch.changes.iter().any(|change| change.path == path),
            _ => false,
        };
        match self.until(path, is_it) {
            News::Batch(batch) => batch,
            _ => unreachable!(),
        }
    }

    /// Waits until nothing happens any more.
    fn settle(&mut self) {
        // What was said before now says nothing of what comes.
        while let Ok(news) = self.news.try_recv() {
            self.keep(&news);
        }
        let mut quiet = 0;
        self.until("quiet", |news| {
            quiet = if matches!(news, News::Idle) { quiet + 1 } else { 0 };
            quiet >= 6
        });
    }

    /// Ends it and returns how.
    fn end(mut self) -> Result<End> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits for its own end.
    fn ended(mut self) -> Result<End> {
        let thread = self.thread.take().unwrap();
        let end = Instant::now() + LIMIT;
        while !thread.is_finished() {
            assert!(Instant::now() < end, "it goes on");
            thread::sleep(Duration::from_millis(20));
        }
        thread.join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Compares all of both sides but `.git` and what is ignored or untracked on the host.
#[track_caller]
fn same(world: &World) {
    let script = "cd $TOP; rm -rf want have; cp -a host want; (cd want; git clean -qfdx; rm -rf .git); \
                  cp -a guest/root/repo have; rm -rf have/.git; diff -r --no-dereference want have; \
                  for d in want have; do (cd $d; find . -type f -perm -u+x | sort >../x-$d); done; cmp x-want x-have";
    world.shell(world.path(), script);
}

/// Prepares, lets a while pass so that no file is fresh, and watches.
fn watched(setup: &str) -> (World, Running) {
    let world = World::new(setup);
    world.prepare(&world.wish()).unwrap();
    let running = Running::begin(&world);
    (world, running)
}

const STATE: &str =
    "git rev-parse HEAD; git symbolic-ref -q HEAD; git status --porcelain; git fsck --no-dangling";

#[test]
fn edits_arrive_and_are_no_work_of_the_guest() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.host(), "echo more >>a");
    let batch = running.batch_with("a");
    assert_eq!(batch.changes.len(), 1);
    assert_eq!(batch.changes[0].how, "modified");
    same(&world);
    assert_eq!(world.unexported(), [""; 0]);
    assert_eq!(world.shell(&world.guest(), "git status --porcelain"), " M a\n");
    // Another command looked meanwhile, and it goes on.
    world.shell(&world.host(), "chmod +x d/b; rm c");
    running.batch_with("c");
    running.settle();
    same(&world);
    assert_eq!(world.unexported(), [""; 0]);
    // As vim and others save.
    world.shell(
        &world.host(),
        "cp a .a.new; echo vim >>.a.new; mv a a~; mv .a.new a; rm a~; sed -i s/b/B/ d/b",
    );
    running.batch_with("a");
    running.settle();
    same(&world);
    assert_eq!(running.end().unwrap(), End::Asked);
    assert_eq!(world.unexported(), [""; 0]);
    assert!(world.export().is_empty(), "what went in is not the guest's");
    let patch = world.export_of(Some("prepared"));
    world.prepare(&world.wish()).unwrap();
    same(&world);
    assert!(!patch.is_empty(), "against the commit it has what went in");
}

#[test]
fn edits_of_the_same_size_in_the_same_second_are_seen_by_the_guests_git() {
    let (world, mut running) = watched(
        "git init -q; echo aaa >a; touch -d @1700000000 a; git add a; git commit -qm one; touch -d @1700000000 .git/index",
    );
    for text in ["bbb", "ccc", "ddd"] {
        world.shell(&world.host(), &format!("echo {text} >a; touch -d @1700000000 a"));
        running.batch_with("a");
        assert_eq!(world.shell(&world.guest(), "git status --porcelain"), " M a\n", "{text}");
    }
    world.shell(&world.host(), "echo aaa >a; touch -d @1700000000 a");
    running.batch_with("a");
    assert_eq!(world.shell(&world.guest(), "git status --porcelain"), "");
}

#[test]
fn commits_and_branches_follow_as_by_a_prepare() {
    let (world, mut running) = watched(BASIC);
    let agree = |world: &World| {
        same(world);
        assert_eq!(world.shell(&world.guest(), STATE), world.shell(&world.host(), STATE));
        assert_eq!(world.unexported(), [""; 0]);
    };
    world.shell(
        &world.host(),
        "mkdir -p n/m; echo n >n/m/f; echo x >>a; git add -A; git commit -qm two",
    );
    running.until("a commit", |news| matches!(news, News::Batch(batch) if batch.git));
    running.settle();
    agree(&world);
    // What is new since is listened to.
    world.shell(&world.host(), "echo more >>n/m/f");
    running.batch_with("n/m/f");
    world.shell(
        &world.host(),
        "git checkout -q n/m/f; git checkout -q -b side HEAD~1; for i in $(seq 300); do mkdir -p w$((i % 9)); echo $i >w$((i % 9))/$i; done; \
         git add -A; git commit -qm side; git checkout -q main; git checkout -q side",
    );
    running.until("a branch", |news| matches!(news, News::Batch(batch) if batch.git));
    running.settle();
    agree(&world);
    world.shell(&world.host(), "git mv d e; git rm -q c; git status >/dev/null");
    running.until("staged", |news| matches!(news, News::Batch(batch) if batch.git));
    running.settle();
    agree(&world);
    running.end().unwrap();
}

#[test]
fn what_the_guest_changed_itself_is_left_and_said_once() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.guest(), "echo mine >>a; rm c; echo w >d/new; mkdir own");
    world.shell(&world.host(), "echo yours >>a; echo yours >>c; echo yours >>d/b");
    running.batch_with("d/b");
    running.settle();
    world.shell(&world.host(), "echo again >>a; rm c; echo more >>d/b");
    running.batch_with("d/b");
    running.settle();
    assert_eq!(running.left, ["a", "c"]);
    assert_eq!(world.shell(&world.guest(), "cat a"), "a\nmine\n");
    assert!(!world.guest().join("c").exists());
    assert_eq!(world.shell(&world.guest(), "cat d/b"), "b\nyours\nmore\n");
    // Files go on where git's own state cannot.
    world.shell(
        &world.host(),
        "echo tracked >d/new; echo t >t; git add -A; git commit -qm two; echo u >>t",
    );
    running
        .until("refused", |news| matches!(news, News::Note(note) if note.contains("files follow")));
    running.settle();
    assert_eq!(world.shell(&world.guest(), "cat t"), "t\nu\n");
    assert_eq!(world.shell(&world.guest(), "cat d/new; git log --format=%s"), "w\none\n");
    assert_eq!(running.left, ["a", "c", "d/new"]);
    let work = world.unexported().join("; ");
    assert!(work.contains("3 changed files") || work.contains("2 changed files"), "{work}");
    // Once the guest has no work of its own any more, all follows.
    world.shell(&world.guest(), "git checkout -q a; rm d/new; rmdir own");
    world.shell(&world.host(), "git commit -q --allow-empty -m three");
    running.until("it follows", |news| matches!(news, News::Batch(batch) if batch.git));
    running.settle();
    same(&world);
    assert_eq!(world.shell(&world.guest(), STATE), world.shell(&world.host(), STATE));
    assert_eq!(running.notes.iter().filter(|note| note.contains("files follow")).count(), 1);
}

#[test]
fn nothing_is_written_through_what_the_guest_put_in_the_way() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.guest(), "mkdir $TOP/elsewhere; rm -r d; ln -s $TOP/elsewhere d");
    world.shell(&world.host(), "echo yours >>d/b; echo x >>a");
    running.batch_with("a");
    world.shell(&world.host(), "echo n >d/n; git add d/n; echo y >>a");
    running.batch_with("a");
    running.settle();
    assert_eq!(
        world.shell(world.path(), "ls elsewhere; readlink guest/root/repo/d | wc -l"),
        "1\n"
    );
    assert_eq!(running.left, ["d/b", "d/n"]);
}

#[test]
fn files_and_directories_take_each_others_places() {
    let (world, mut running) = watched(
        "git init -q; mkdir d; echo a >a; echo b >d/b; ln -s a l; git add -A; git commit -qm one",
    );
    world.shell(
        &world.host(),
        "rm a l; mkdir a; echo x >a/x; rm -r d; echo d >d; echo l >l; git add -A",
    );
    running.batch_with("a/x");
    running.settle();
    same(&world);
    world.shell(&world.host(), "rm -r a d l; ln -s d a; mkdir d; ln -s ../a d/b; git add -A");
    running.batch_with("d/b");
    running.settle();
    same(&world);
    world.shell(&world.host(), "ln -sfn elsewhere a; mv d e; mv e d; echo r >l; git add -A");
    running.batch_with("a");
    running.settle();
    same(&world);
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn new_files_go_only_where_untracked_ones_went() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.host(), "echo o >x.o; echo n >.a.swp; echo s >secret; echo x >>a");
    running.batch_with("a");
    running.settle();
    world.shell(&world.host(), "echo s >secret2; echo y >>a");
    running.batch_with("a");
    running.settle();
    assert_eq!(world.shell(&world.guest(), "ls -A"), ".git\n.gitignore\na\nc\nd\n");
    assert_eq!(running.notes.len(), 1, "{:?}", running.notes);
    assert!(running.notes[0].contains("'secret' is untracked"), "{:?}", running.notes);
    running.end().unwrap();

    let world = World::new(BASIC);
    world.prepare(&Wish { include_untracked: true, ..world.wish() }).unwrap();
    let mut running = Running::begin(&world);
    world.shell(
        &world.host(),
        "mkdir -p n/deep build sub/x; echo 1 >n/deep/1; echo o >n/x.o; echo b >build/b; git init -q sub/x; echo s >sub/x/s; echo 2 >2",
    );
    running.batch_with("n/deep/1");
    running.settle();
    let listed = "find . -path ./.git -prune -o -type f -print | sort";
    assert_eq!(
        world.shell(&world.guest(), listed),
        "./.gitignore\n./2\n./a\n./c\n./d/b\n./n/deep/1\n"
    );
    world.shell(&world.host(), "echo 3 >n/deep/3; mv n m");
    running.batch_with("m/deep/3");
    running.settle();
    // Rules that change decide anew.
    world.shell(
        &world.host(),
        "echo 2 >>.gitignore; sed -i '/build/d' .gitignore; echo more >build/c",
    );
    running.batch_with("build/c");
    running.settle();
    // What went once goes on, as by a prepare.
    let all = "./.gitignore\n./2\n./a\n./build/b\n./build/c\n./c\n./d/b\n./m/deep/1\n./m/deep/3\n";
    assert_eq!(world.shell(&world.guest(), listed), all);
    assert_eq!(world.unexported(), [""; 0]);
    assert!(running.notes.is_empty(), "{:?}", running.notes);
}

#[test]
fn what_was_asked_for_is_kept_up_to_date_though_it_is_ignored() {
    let world = World::new(&format!(
        "{BASIC}; echo .env.local >>.gitignore; git commit -qam two; echo 1 >.env.local; echo u >u"
    ));
    let include = vec![".env.local".to_owned(), "build/conf/*.json".to_owned()];
    world.prepare(&Wish { include, include_untracked: true, ..world.wish() }).unwrap();
    // Without the word new untracked files stay, and what went goes again.
    world.prepare(&world.wish()).unwrap();
    let mut running = Running::begin(&world);
    let listed = "find . -path ./.git -prune -o -type f -print | sort | tr '\\n' ' '";
    world.shell(&world.host(), "echo 2 >.env.local");
    running.batch_with(".env.local");
    assert_eq!(world.shell(&world.guest(), "cat .env.local; git status --porcelain"), "2\n?? u\n");
    world.shell(
        &world.host(),
        "echo 3 >d/.env.local; mkdir -p build/conf/deep build/obj; echo j >build/conf/x.json; echo t >build/conf/x; \
         echo o >build/obj/x.o; echo j >build/x.json; echo more >>u; echo w >w",
    );
    running.batch_with("build/conf/x.json");
    running.settle();
    assert_eq!(
        world.shell(&world.guest(), listed),
        "./.env.local ./.gitignore ./a ./build/conf/x.json ./c ./d/.env.local ./d/b ./u "
    );
    assert_eq!(world.shell(&world.guest(), "cat u"), "u\nmore\n");
    assert_eq!(world.unexported(), [""; 0]);
    assert_eq!(running.notes.len(), 1, "{:?}", running.notes);
    assert!(running.notes[0].contains("'w' is untracked"), "{:?}", running.notes);
    world.shell(&world.host(), "rm d/.env.local; echo k >>build/conf/x.json");
    running.batch_with("d/.env.local");
    running.settle();
    assert!(!world.guest().join("d/.env.local").exists());
    assert_eq!(world.shell(&world.guest(), "cat build/conf/x.json"), "j\nk\n");
    // A rule that comes or goes changes nothing of what went, and is no work of the guest.
    world.shell(&world.host(), "echo u >>.gitignore");
    running.batch_with(".gitignore");
    running.settle();
    world.shell(&world.host(), "echo again >>u");
    running.batch_with("u");
    assert_eq!(world.unexported(), [""; 0]);
    // The guest's own stay, what no rule lets anybody see included, and end nothing.
    world.shell(&world.guest(), "echo mine >.env.local; mkdir n; echo own >n/.env.local");
    world.shell(&world.host(), "echo 4 >.env.local; mkdir n; echo 5 >n/.env.local; echo x >>a");
    running.batch_with("a");
    running.settle();
    assert_eq!(running.left, [".env.local", "n/.env.local"]);
    world.shell(&world.guest(), "echo 4 >.env.local");
    world.shell(&world.host(), "git commit -qam three");
    let is_own = |news: &News| matches!(news, News::Note(note) if note.contains("of its own (n/.env.local)"));
    running.until("refused", is_own);
    world.shell(&world.host(), "echo y >>a");
    running.batch_with("a");
    assert_eq!(world.shell(&world.guest(), "cat .env.local n/.env.local"), "4\nown\n");
    assert_eq!(running.end().unwrap(), End::Asked);
    world.shell(&world.guest(), "rm n/.env.local");
    let record = world.prepare(&world.wish()).unwrap();
    assert_eq!(record.include, [".env.local", "build/conf/*.json"]);
    assert_eq!(world.shell(&world.guest(), "cat n/.env.local"), "5\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn what_was_asked_for_of_a_directory_without_git_is_kept_up_to_date() {
    let world = World::new("mkdir d; echo a >a; echo l >keep.log; echo '*.log' >.bangerignore");
    let include = vec!["keep.log".to_owned()];
    world.prepare(&Wish { include, ..world.wish() }).unwrap();
    let mut running = Running::begin(&world);
    world.shell(&world.host(), "echo m >>keep.log; mkdir n; echo k >n/keep.log; echo o >n/o.log");
    running.batch_with("n/keep.log");
    running.settle();
    world.shell(world.path(), "diff -r -x o.log host guest/root/repo");
    world.shell(&world.host(), "rm keep.log; mv n d/n; echo x >>a");
    running.batch_with("d/n/keep.log");
    running.settle();
    world.shell(world.path(), "diff -r -x o.log host guest/root/repo");
    assert!(!world.guest().join("d/n/o.log").exists());
    assert_eq!(world.unexported(), [""; 0]);
    assert!(running.notes.is_empty() && running.left.is_empty(), "{:?}", running.notes);
}

#[test]
fn another_repository_in_the_place_of_this_one_is_left_alone() {
    let (world, running) = watched(BASIC);
    let other = world.path().join("other");
    fs::create_dir(&other).unwrap();
    world.shell(&other, "git init -q; echo o >o; git add -A; git commit -qm other");
    world.prepare(&Wish { path: other, ..world.wish() }).unwrap();
    world.shell(&world.host(), "echo x >>a; git commit -qam two");
    let error = running.ended().unwrap_err();
    assert!(error.to_string().contains("was prepared in the place of"), "{error}");
    assert_eq!(world.shell(&world.guest(), "ls"), "o\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_prepare_meanwhile_says_what_goes_from_then_on() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.host(), "echo 1 >x.o; echo 1 >new");
    running.settle();
    assert!(!world.guest().join("new").exists());
    let include = vec!["x.o".to_owned()];
    world.prepare(&Wish { include, include_untracked: true, ..world.wish() }).unwrap();
    world.shell(&world.host(), "echo 2 >x.o; echo 2 >new; echo 2 >newer");
    running.batch_with("newer");
    running.settle();
    assert_eq!(world.shell(&world.guest(), "cat x.o new newer"), "2\n2\n2\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_directory_without_git_is_followed() {
    let (world, mut running) =
        watched("mkdir -p d/e; echo a >a; echo b >d/e/b; echo '*.log' >.bangerignore");
    world.shell(
        &world.host(),
        "echo x >>a; mkdir -p n/m empty; echo n >n/m/n; echo l >n/l.log; rm d/e/b",
    );
    running.batch_with("n/m/n");
    running.settle();
    let same = |world: &World| {
        world.shell(world.path(), "diff -r -x '*.log' host guest/root/repo");
        assert_eq!(world.unexported(), [""; 0]);
    };
    same(&world);
    assert!(world.guest().join("d/e").is_dir() && world.guest().join("empty").is_dir());
    world.shell(
        &world.host(),
        "echo '*.tmp' >>.bangerignore; echo t >n/t.tmp; mv n/m d/e; echo z >>a",
    );
    running.batch_with("a");
    running.settle();
    assert!(!world.guest().join("n/t.tmp").exists());
    world.shell(&world.host(), "rmdir n 2>/dev/null || rm -r n; echo zz >>a");
    running.batch_with("a");
    running.settle();
    world.shell(world.path(), "diff -r -x '*.log' host guest/root/repo");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn submodules_are_followed() {
    let world = World::new(
        "git init -q $TOP/s; (cd $TOP/s; echo 1 >l; git add l; git commit -qm 1); \
         git init -q; git submodule -q add $TOP/s lib; echo a >a; git add -A; git commit -qm one",
    );
    let wish = Wish { mode: banger_doc::WorkspaceMode::FullCopy, ..world.wish() };
    world.prepare(&wish).unwrap();
    let mut running = Running::begin(&world);
    world.shell(&world.host(), "echo more >>lib/l; echo more >>a");
    running.batch_with("lib/l");
    running.settle();
    assert_eq!(world.shell(&world.guest(), "cat lib/l a"), "1\nmore\na\nmore\n");
    world.shell(&world.host(), "cd lib; echo n >n; git add -A; git commit -qm 2");
    running.batch_with("lib/n");
    running.settle();
    assert_eq!(world.shell(&world.guest(), "git -C lib log -1 --format=%s"), "2\n");
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn more_than_can_be_heard_is_found_by_a_look() {
    let (world, mut running) = watched(
        "git init -q; for i in $(seq 12); do git config gc.auto 0; mkdir d$i; for j in $(seq 150); do echo $i $j >d$i/$j; done; done; git add -A; git commit -qm one",
    );
    // Nobody hears while another command has the workspace.
    let lock = banger_state::Lock::exclusive_dir(&world.vm(), LIMIT, "it").unwrap();
    world.shell(&world.host(), "echo first >>d1/1");
    thread::sleep(Duration::from_millis(300));
    world.shell(
        &world.host(),
        "for i in $(seq 12); do for j in $(seq 150); do for k in 1 2 3 4 5; do echo x >>d$i/$j; done; done; done; rm d7/7; mv d8/8 d8/9",
    );
    drop(lock);
    running.until("all", |news| matches!(news, News::Batch(batch) if batch.changes.len() > 1700));
    running.settle();
    same(&world);
    assert_eq!(world.unexported(), [""; 0]);
    // One that follows is as quick as before.
    world.shell(&world.host(), "echo y >>d3/3");
    let batch = running.batch_with("d3/3");
    let own = batch.took.saturating_sub(batch.guest.unwrap());
    assert!(own < Duration::from_millis(900), "{own:?}");
}

#[test]
fn what_changes_while_it_goes_is_not_taken_for_the_guests() {
    let (world, mut running) =
        watched("git init -q; truncate -s 64M a; truncate -s 9M z; git add -A; git commit -qm one");
    let (host, guest) = (world.host(), world.guest());
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    let add = |name: &str| {
        let mut file = fs::OpenOptions::new().append(true).open(host.join(name)).unwrap();
        file.write_all(b"more\n").unwrap();
    };
    let until = |is_it: &dyn Fn() -> bool| {
        let end = Instant::now() + LIMIT;
        while !is_it() {
            assert!(Instant::now() < end, "it does not go");
            thread::sleep(Duration::from_millis(1));
        }
    };
    for _ in 0..3 {
        add("a");
        add("z");
        // Files of this size are read as they go, one after the other.
        until(&|| {
            let mut list = fs::read_dir(&guest).unwrap().flatten();
            list.any(|entry| entry.file_name().as_encoded_bytes().starts_with(b".banger-put-"))
                || size(guest.join("a")) == size(host.join("a"))
        });
        add("z");
        let now = size(host.join("z"));
        until(&|| size(guest.join("z")) == now);
        add("z");
        let now = size(host.join("z"));
        until(&|| size(guest.join("z")) == now);
    }
    running.settle();
    same(&world);
    assert_eq!(running.left, [""; 0]);
    assert_eq!(world.unexported(), [""; 0]);
}

#[test]
fn a_lock_that_a_killed_git_left_is_waited_for_once_and_said() {
    let (world, mut running) = watched(BASIC);
    world.shell(&world.host(), "touch .git/index.lock; echo more >>a");
    let is_said =
        |news: &News| matches!(news, News::Note(note) if note.contains("/.git/index.lock'"));
    running.until("the lock is said", is_said);
    running.batch_with("a");
    let begun = Instant::now();
    world.shell(&world.host(), "echo more >>c");
    running.batch_with("c");
    assert!(begun.elapsed() < Duration::from_secs(15), "it is waited for again");
    same(&world);
    assert_eq!(running.notes.len(), 1, "{:?}", running.notes);
    // A git that is at work is waited for as ever.
    world.shell(
        &world.host(),
        "rm .git/index.lock; touch .git/index.lock; echo x >>a; (sleep 2; echo y >>a; rm .git/index.lock) >/dev/null 2>&1 &",
    );
    running.batch_with("a");
    same(&world);
    assert_eq!(running.notes.len(), 1, "{:?}", running.notes);
}

#[test]
fn a_guest_that_pauses_is_waited_for_and_its_end_is_the_end() {
    let (world, mut running) = watched(BASIC);
    running.here.0.store(1, Ordering::SeqCst);
    running.until("paused", |news| matches!(news, News::Note(note) if note.contains("paused")));
    world.shell(&world.host(), "echo more >>a");
    thread::sleep(Duration::from_millis(600));
    assert_eq!(world.shell(&world.guest(), "cat a"), "a\n");
    running.here.0.store(0, Ordering::SeqCst);
    running.batch_with("a");
    running.here.0.store(2, Ordering::SeqCst);
    running.until("ended", |news| matches!(news, News::Note(note) if note.contains("comes back")));
    world.shell(&world.host(), "echo more >>c");
    running.here.0.store(0, Ordering::SeqCst);
    running.batch_with("c");
    same(&world);
    running.here.0.store(2, Ordering::SeqCst);
    assert_eq!(running.ended().unwrap(), End::Guest("VM 'web' is stopped".into()));
}

#[test]
fn what_is_gone_is_said() {
    let leave = Leave {
        vm: "web".into(),
        configured_include: Vec::new(),
        configured: Vec::new(),
        allowed: &|_| Vec::new(),
    };
    let world = World::new(BASIC);
    let error = watch(&world.vm(), &Here::default(), &leave, &mut |_| Ok(true)).unwrap_err();
    assert!(error.to_string().contains("no workspace"), "{error}");
    world.prepare(&world.wish()).unwrap();
    let running = Running::begin(&world);
    let error = watch(&world.vm(), &Here::default(), &leave, &mut |_| Ok(true)).unwrap_err();
    assert!(error.to_string().contains("watched already"), "{error}");
    world.shell(&world.host(), "echo x >>a; mv ../host ../moved");
    let error = running.ended().unwrap_err();
    assert!(error.to_string().contains("is gone, or another"), "{error}");
    assert_eq!(world.shell(&world.guest(), "ls"), "a\nc\nd\n");
    world.shell(world.path(), "mv moved host");
    let mut running = Running::begin(&world);
    world.shell(world.path(), "rm -r guest/root/repo");
    world.shell(&world.host(), "echo y >>a");
    running.stop.store(false, Ordering::SeqCst);
    running.notes.clear();
    let error = running.ended().unwrap_err();
    assert!(error.to_string().contains("in the guest"), "{error}");
    assert!(error.hint_text().unwrap().contains("prepare"), "{error:?}");
}

#[test]
fn what_cannot_be_read_is_said_once_and_goes_later() {
    if nix::unistd::Uid::effective().is_root() {
        // Root reads everything: a file that changes all the time stands for it.
        let (world, mut running) = watched(BASIC);
        world.shell(
            &world.host(),
            "(for i in $(seq 300); do echo $i >>a; sleep 0.005; done) & echo x >>c; wait",
        );
        running.batch_with("c");
        running.settle();
        same(&world);
        return;
    }
    let (world, mut running) = watched(BASIC);
    world.shell(&world.host(), "echo x >>a; chmod 000 a");
    running.until(
        "it is said",
        |news| matches!(news, News::Note(note) if note.contains("'cannot be read")),
    );
    world.shell(&world.host(), "chmod 644 a");
    running.batch_with("a");
    same(&world);
}

#[test]
fn tools_that_change_are_judged_anew() {
    let (world, mut running) = watched(
        "git init -q; echo '[tools]' >mise.toml; echo a >a; git add -A; git commit -qm one",
    );
    world.shell(&world.guest(), "echo mine >>a");
    let record = || banger_workspace::read(&world.vm()).unwrap().unwrap();
    assert_eq!(record().tools_refused.unwrap().why, "new");
    world.shell(&world.host(), "echo 'go = 1' >>mise.toml");
    running.batch_with("mise.toml");
    assert!(!record().tools_allowed && record().tools_refused.is_some());
    world.shell(&world.host(), "rm mise.toml");
    running.batch_with("mise.toml");
    assert!(record().tools_refused.is_none() && !record().tools_allowed);
}

/// Numbers that are spread and the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Random work on the host: after it, the guest is as a fresh prepare would have it.
#[test]
fn after_random_work_the_guest_is_as_a_prepare_would_have_it() {
    let (world, mut running) = watched(
        "git init -q; for i in $(seq 12); do mkdir -p d$((i % 4))/e; echo $i >d$((i % 4))/f$i; echo $i >d$((i % 4))/e/g$i; done; \
         git add -A; git commit -qm one; git branch other; echo m >m; git add m; git commit -qm two",
    );
    let seed = std::env::var("BANGER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    for round in 0..6 {
        let mut script = String::new();
        for step in 0..12 {
            let (dir, n, to) = (random.below(4), random.below(12), random.below(4));
            let file = format!("d{dir}/f{n}");
            let line = match random.below(12) {
                0..=3 => format!("mkdir -p d{dir}; echo {round} {step} >>{file}"),
                4 => format!("rm -f {file}"),
                5 => format!("mkdir -p d{to}; mv {file} d{to}/f{n} 2>/dev/null || true"),
                6 => format!("chmod +x {file} 2>/dev/null || true"),
                7 => "git add -A".to_owned(),
                8 => format!("git add -A; git commit -qm {round}-{step} || true"),
                9 => "git add -A; git stash -q || true; git checkout -q other; git stash drop -q 2>/dev/null || true".to_owned(),
                10 => "git checkout -q -f main".to_owned(),
                _ => format!("if [ -d d{dir} ]; then mv d{dir} x{step}; mv x{step} d{dir}; fi; rm -rf d{to}/e; ln -sfn f{n} l{n}"),
            };
            let pause = if random.below(5) == 0 { "sleep 0.1" } else { "" };
            script.extend([&line, "\n", pause, "\n"]);
        }
        script += "git add -A\n";
        world.shell(&world.host(), &script);
        running.settle();
        let state = "git rev-parse HEAD; git symbolic-ref -q HEAD; git status --porcelain";
        assert_eq!(
            world.shell(&world.guest(), state),
            world.shell(&world.host(), state),
            "seed {seed}, round {round}\n{script}\n{:?} {:?}",
            running.notes,
            running.left
        );
        same(&world);
        assert_eq!(world.unexported(), [""; 0], "seed {seed}, round {round}\n{script}");
    }
    running.end().unwrap();
}

/// Killed wherever it is, and the guest with it: what it wrote is not taken for the guest's work, and doing it
/// again succeeds.
#[test]
fn a_watch_that_is_killed_leaves_nothing_that_looks_like_work() {
    const CHILD: &str = "BANGER_TEST_WATCHED";
    if let Some(dir) = std::env::var_os(CHILD) {
        let dir = PathBuf::from(dir);
        let begun = Instant::now();
        let leave = Leave {
            vm: "web".into(),
            configured_include: Vec::new(),
            configured: Vec::new(),
            allowed: &|_| Vec::new(),
        };
        watch(&dir, &Here::default(), &leave, &mut |news| {
            if matches!(news, News::Begun { .. }) {
                fs::write(dir.join("begun"), "").unwrap();
            }
            Ok(begun.elapsed() < LIMIT)
        })
        .unwrap();
        return;
    }
    for moment in 0..12u64 {
        let world = World::new(BASIC);
        world.prepare(&world.wish()).unwrap();
        let name = "a_watch_that_is_killed_leaves_nothing_that_looks_like_work";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, world.vm())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + LIMIT;
        while !world.vm().join("begun").exists() {
            assert!(Instant::now() < end, "it does not begin");
            thread::sleep(Duration::from_millis(10));
        }
        world.shell(
            &world.host(),
            "for i in 1 2 3; do echo $i >>a; rm -f c; mkdir -p n; echo $i >>d/b; chmod +x d/b; sleep 0.03; done",
        );
        thread::sleep(Duration::from_millis(moment * 12));
        child.kill().unwrap();
        child.wait().unwrap();
        let what = world.shell(&world.vm(), "cat changes.jsonl 2>/dev/null || true");
        assert_eq!(world.unexported(), [""; 0], "{moment}: {what}");
        let left = world.shell(&world.vm(), "ls -A; grep -o 'tree-[0-9]*.jsonl' workspace.json");
        assert!(!left.contains("changes.jsonl"), "{left}");
        world.shell(&world.guest(), "echo mine >>.gitignore");
        assert_eq!(world.unexported(), ["1 changed file (.gitignore)"], "{moment}: {what}");
        world.shell(&world.guest(), "git checkout -q .gitignore");
        world.prepare(&world.wish()).unwrap_or_else(|error| panic!("{moment}: {}", error.chain()));
        same(&world);
        assert_eq!(world.unexported(), [""; 0]);
    }
}
