//! A guest whose agent lies. Nothing outside the output changes, nothing of the guest's runs, and
//! each lie ends in one clear error, soon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod world;

use banger_channel::files::Files;
use banger_doc::Context;
use banger_workspace::{Apply, Export, Onto, Want, status};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Instant,
};
use world::{World, differing, fingerprint};

/// A file of the fake guest: path, mode, content; a link's content is its target.
#[derive(Clone)]
struct Fake {
    path: Vec<u8>,
    kind: char,
    mode: u32,
    content: Vec<u8>,
}

fn file(path: &str, content: &str) -> Fake {
    Fake { path: path.into(), kind: 'f', mode: 0o644, content: content.into() }
}

fn link(path: &str, target: &str) -> Fake {
    Fake { path: path.into(), kind: 'l', mode: 0o777, content: target.into() }
}

/// What the fake agent does: its files below the root, and whether it plays foul with sizes.
#[derive(Clone, Default)]
struct Plot {
    files: Vec<Fake>,
    /// Added to each size in a scan.
    bigger: u64,
    /// Answers a get with a head of this and then bytes without an end.
    endless: bool,
    /// What a get finds instead, as after a swap between two looks.
    swapped: Vec<Fake>,
}

fn fakes(plot: Plot) -> Files<'static> {
    let plot = Arc::new(plot);
    world::files_by(move || {
        let (here, there) = UnixStream::pair().context("no pair")?;
        let plot = plot.clone();
        thread::spawn(move || {
            let _ = play(&plot, there);
        });
        Ok(here)
    })
}

fn play(plot: &Plot, stream: UnixStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    reader.read_line(&mut head)?;
    let request: Value = serde_json::from_str(&head)?;
    let root = request["root"].as_str().unwrap_or_default();
    let below =
        root.split_once("/root/repo").map_or("", |(_, below)| below).trim_start_matches('/');
    let mut list = vec![0; request["list_bytes"].as_u64().unwrap_or(0) as usize];
    reader.read_exact(&mut list)?;
    let full = |path: &[u8]| match below {
        "" => path.to_vec(),
        below => [below.as_bytes(), b"/", path].concat(),
    };
    let asked: Vec<Vec<u8>> =
        list.split(|byte| *byte == 0).filter(|path| !path.is_empty()).map(full).collect();
    match request["op"].as_str().unwrap_or_default() {
        "scan" => {
            for fake in &plot.files {
                let path = match below {
                    "" if fake.path.starts_with(b".git/") => continue,
                    "" => fake.path.clone(),
                    below => match fake.path.strip_prefix(format!("{below}/").as_bytes()) {
                        Some(path) => path.to_vec(),
                        None => continue,
                    },
                };
                let size = fake.content.len() as u64 + plot.bigger;
                write!(writer, "{} {:o} {size} 1 1 1 ", fake.kind, fake.mode)?;
                writer.write_all(&path)?;
                writer.write_all(b"\0")?;
                if fake.kind == 'l' {
                    writer.write_all(&fake.content)?;
                    writer.write_all(b"\0")?;
                }
            }
        }
        "get" => {
            for path in asked {
                let mut there = plot.swapped.iter().chain(&plot.files);
                match there.find(|fake| fake.path == path) {
                    Some(_) if plot.endless => {
                        write!(writer, "f 644 {}\0", u64::MAX)?;
                        loop {
                            writer.write_all(&[b'x'; 4096])?;
                        }
                    }
                    Some(fake) => {
                        write!(writer, "{} {:o} {}\0", fake.kind, fake.mode, fake.content.len())?;
                        writer.write_all(&fake.content)?;
                        writer.write_all(b"ok\0")?;
                    }
                    None => writer.write_all(b"o 0 0\0")?,
                }
            }
        }
        "hash" => asked.iter().try_for_each(|_| writer.write_all(b"-\0"))?,
        _ => {}
    }
    writer.write_all(b"end\0")
}

/// Prepares honestly, then exports from a guest that lies. Returns what went wrong and the patch.
fn export(plot: Plot) -> (World, Result<String, String>) {
    let world =
        World::new("git init -q; echo a >a; mkdir d; echo b >d/b; git add -A; git commit -qm one");
    world.prepare(&world.wish()).unwrap();
    let outside = |world: &World| {
        let mut seen = fingerprint(world.path());
        seen.retain(|path, _| !path.starts_with(world.vm()));
        seen
    };
    let before = outside(&world);
    let files = fakes(plot);
    let begin = Instant::now();
    let answer = Export::make(&world.vm(), &files, &Want::default()).map(|mut export| {
        let mut patch = Vec::new();
        export.patch.read_to_end(&mut patch).unwrap();
        String::from_utf8_lossy(&patch).into_owned()
    });
    let _ = status(&world.vm(), &files, true, &[]);
    assert!(begin.elapsed().as_secs() < 60, "a lie ends soon");
    let touched: Vec<PathBuf> = differing(&outside(&world), &before);
    assert!(touched.is_empty(), "{touched:?}");
    let scratch = fs::read_dir(world.vm()).unwrap().flatten();
    assert!(!scratch.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".tmp")));
    (world, answer.map_err(|error| error.chain()))
}

fn with(files: Vec<Fake>) -> Plot {
    Plot { files, ..Plot::default() }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for path in ["../evil", "/etc/evil", "d/../../evil", "d//x", "./x", "d/.", ""] {
        let (_, answer) = export(with(vec![file(path, "x")]));
        let error = answer.unwrap_err();
        assert!(error.contains("the guest's agent answered"), "{path:?}: {error}");
    }
    for path in [
        ".GIT/hooks/post-checkout",
        ".Git/config",
        "git~1/config",
        "d/GIT~1",
        ".git./x",
        ".git /x",
        ".g\u{200c}it/config",
        ".git::$INDEX_ALLOCATION/config",
    ] {
        let (_, answer) = export(with(vec![file(path, "x")]));
        let patch = answer.unwrap();
        assert!(!patch.contains("+x") && !patch.contains("new file"), "{path:?}: {patch}");
    }
}

#[test]
fn a_tree_deeper_than_any_may_be_is_refused_and_nothing_of_it_stays() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
    for (depth, is_taken) in [(255, true), (256, false), (2000, false)] {
        let path = format!("{}f", "d/".repeat(depth - 1));
        let (_, answer) = export(with(vec![file(&path, "x\n"), file(".gitignore", "y\n")]));
        match answer {
            Ok(patch) => assert!(is_taken && patch.contains("+x"), "{depth}: {patch}"),
            Err(error) => assert!(!is_taken && error.contains("answered"), "{depth}: {error}"),
        }
    }
}

#[test]
fn links_are_text() {
    let (world, answer) = export(with(vec![
        link("d", "/etc"),
        link("escape", "../../../../../../etc/passwd"),
        link("a", "/proc/self/mem"),
    ]));
    let patch = answer.unwrap();
    assert!(
        patch.contains("new file mode 120000") && patch.contains("+../../../../../../etc/passwd"),
        "{patch}"
    );
    fs::write(world.path().join("patch"), patch).unwrap();
    world.shell(&world.host(), "git apply --check $TOP/patch");
}

#[test]
fn a_link_and_files_below_it_at_once_are_refused() {
    let (_, answer) = export(with(vec![link("w", "/tmp"), file("w/evil", "x")]));
    assert!(answer.is_err(), "{answer:?}");
    let (_, answer) = export(with(vec![file("w", "x"), file("w/evil", "x")]));
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn sizes_are_bounded() {
    let files: Vec<Fake> = ["n", "o", "p"].map(|path| file(path, "x")).into();
    // What was said to be big and is not is taken as it is.
    let bigger = u64::MAX / 2;
    let (_, answer) = export(Plot { files: files.clone(), bigger, ..Plot::default() });
    assert_eq!(answer.unwrap().matches("+x").count(), 3);
    for bigger in [0, bigger] {
        let (_, answer) =
            export(Plot { files: files.clone(), bigger, endless: true, ..Plot::default() });
        let error = answer.unwrap_err();
        assert!(error.contains("is too much"), "{error}");
    }
}

/// A repository in which each thing that git can be told to run is a trap.
fn traps(ran: &str) -> Vec<Fake> {
    vec![
        file(".gitattributes", "* filter=evil diff=evil ident export-subst\n"),
        file(
            ".gitmodules",
            "[submodule \"x\"]\n\tpath = x\n\turl = --upload-pack=evil\n\tupdate = !evil\n",
        ),
        file(".gitconfig", &format!("[core]\n\tfsmonitor = {ran}\n")),
        file(
            ".git/config",
            &format!(
                "[core]\n\tfsmonitor = {ran}\n\thooksPath = hooks\n\tpager = {ran}\n[filter \"evil\"]\n\tclean = {ran}\n\trequired = true\n\
                 [diff \"evil\"]\n\tcommand = {ran}\n\ttextconv = {ran}\n"
            ),
        ),
        file(".git/hooks/post-index-change", &format!("#!/bin/sh\n{ran}\n")),
        file("hooks/post-index-change", &format!("#!/bin/sh\n{ran}\n")),
        file("a", "x\n"),
    ]
}

#[test]
fn rules_and_attributes_of_the_guest_run_nothing() {
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("ran");
    let ran = format!("touch {}", mark.display());
    // They are traps: who goes in as git does is caught.
    let world = World::new("git init -q; echo a >a; git add a; git commit -qm one");
    for trap in traps(&ran) {
        let path = world.host().join(String::from_utf8(trap.path).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_config = path.ends_with(".git/config");
        let old = if is_config { fs::read(&path).unwrap() } else { Vec::new() };
        fs::write(&path, [old, trap.content].concat()).unwrap();
    }
    world.shell(&world.host(), "git add -A || true");
    fs::remove_file(&mark).expect("because git runs what it is told to");

    let mut files = traps(&ran);
    files.extend([
        file(".git/HEAD", "ref: refs/heads/../../../../etc/passwd\n"),
        file(
            ".git/packed-refs",
            "zzzz refs/heads/x\n0000000000000000000000000000000000000000 ../../x\n",
        ),
        file(".git/refs/heads/ok", &"f".repeat(40)),
        file(".git/refs/heads/..", &"f".repeat(40)),
        file(".git/refs/heads/a.lock", "ref: ../../../x"),
    ]);
    let names_it_badly = |path: &[u8]| path.ends_with(b"/..");
    let (_, answer) = export(with(files.clone()));
    let error = answer.unwrap_err();
    assert!(error.contains("the guest's agent answered"), "{error}");
    files.retain(|fake| !names_it_badly(&fake.path));
    let (_, answer) = export(with(files.clone()));
    let patch = answer.unwrap();
    assert!(patch.contains("+x") && patch.contains("+* filter=evil"), "{patch}");
    assert!(patch.contains("b/hooks/post-index-change"), "{patch}");
    // An encoding that the content is not in is an error of git's own.
    files.push(file("web/.gitattributes", "* text working-tree-encoding=UTF-16\n"));
    files.push(file("web/b", "x\n"));
    let (_, answer) = export(with(files));
    if let Ok(patch) = answer {
        panic!("{patch}");
    }
    assert!(!mark.exists());
}

#[test]
fn an_index_that_is_crafted_is_left_aside() {
    let huge = [b"DIRC\0\0\0\x02\xff\xff\xff\xff".as_slice(), &[0; 64]].concat();
    let mut entry = b"DIRC\0\0\0\x02\0\0\0\x01".to_vec();
    entry.extend([0; 60]);
    entry.extend([0, 6]);
    entry.extend(b"../../");
    entry.extend([0; 10]);
    entry.extend([0; 20]);
    for bytes in [huge, entry, b"not an index".to_vec(), Vec::new()] {
        let index = Fake { path: b".git/index".to_vec(), kind: 'f', mode: 0o644, content: bytes };
        let (_, answer) = export(with(vec![index, file("a", "x\n")]));
        let patch = answer.unwrap();
        assert!(patch.contains("+x") && patch.contains("deleted file"), "{patch}");
    }
}

#[test]
fn permissions_that_do_not_travel_stay() {
    let mut set = file("s", "x\n");
    set.mode = 0o7777;
    let (_, answer) = export(with(vec![set]));
    assert!(answer.unwrap().contains("new file mode 100755"));
}

#[test]
fn what_is_swapped_between_two_looks_stays_text() {
    let swapped = vec![link("a", "/etc/passwd"), file("l", "content\n"), link("n", "../../../x")];
    let files = vec![file("a", "x\n"), link("l", "nowhere"), file("n", "y\n")];
    let (world, answer) = export(Plot { files, swapped, ..Plot::default() });
    let patch = answer.unwrap();
    assert!(!patch.contains("root:"), "{patch}");
    assert!(patch.contains("+/etc/passwd") && patch.contains("+content"), "{patch}");
    fs::write(world.path().join("patch"), patch).unwrap();
    world.shell(&world.host(), "git apply --check $TOP/patch");
}

/// A guest that puts links in the place of directories while it is written to.
#[test]
fn a_race_for_links_is_lost() {
    let world = World::new(
        "git init -q; for d in d e f; do mkdir $d; for i in $(seq 30); do echo $i >$d/$i; done; done; git add -A; git commit -qm one",
    );
    let outside = world.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["1", "15", "30"] {
        fs::write(outside.join(name), "mine").unwrap();
    }
    world.prepare(&world.wish()).unwrap();
    let before = fingerprint(&outside);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = thread::spawn({
        let (guest, over, outside) = (world.guest(), over.clone(), outside.clone());
        move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["d", "e", "f"] {
                    let (dir, away) = (guest.join(name), guest.join(format!("{name}-away")));
                    let _ = fs::rename(&dir, &away);
                    let _ = std::os::unix::fs::symlink(&outside, &dir);
                    thread::yield_now();
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&away, &dir);
                }
            }
        }
    });
    let mut wish = world.wish();
    wish.force = true;
    for round in 0..10 {
        let news = format!(
            "for d in d e f; do for i in $(seq 30); do echo {round} >>$d/$i; done; done; rm -f d/15"
        );
        world.shell(&world.host(), &news);
        // Either may fail, with whatever words; what is outside stays.
        let _ = world.prepare(&wish);
        let _ = Export::make(&world.vm(), &world.files(), &Want::default());
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    assert!(differing(&fingerprint(&outside), &before).is_empty());
}

/// Prepares honestly, then applies what a guest has that lies. Returns what went wrong, or what `git status`
/// says; nothing but the host's files may change.
fn apply(plot: Plot) -> (World, Result<String, String>) {
    let world =
        World::new("git init -q; echo a >a; mkdir d; echo b >d/b; git add -A; git commit -qm one");
    world.prepare(&world.wish()).unwrap();
    let outside = |world: &World| {
        let mut seen = fingerprint(world.path());
        let is_of_host = |path: &PathBuf| {
            path.starts_with(world.host()) && !path.starts_with(world.host().join(".git"))
        };
        seen.retain(|path, _| !path.starts_with(world.vm()) && !is_of_host(path));
        seen
    };
    let before = outside(&world);
    let files = fakes(plot);
    let begin = Instant::now();
    let answer =
        Apply::make(&world.vm(), &files, &Onto::default()).and_then(|apply| apply.run(&|| false));
    assert!(begin.elapsed().as_secs() < 60, "a lie ends soon");
    let touched: Vec<PathBuf> = differing(&outside(&world), &before);
    assert!(touched.is_empty(), "{touched:?}");
    let said = |done: banger_doc::WorkspaceApply| {
        assert!(done.is_applied, "{done:?}");
        let script = "git -c core.fsmonitor=false -c core.hooksPath=/dev/null status --short -uall";
        world.shell(&world.host(), script)
    };
    let answer = answer.map(said).map_err(|error| error.chain());
    (world, answer)
}

#[test]
fn nothing_is_applied_outside_of_a_checkout_or_into_its_git() {
    for path in ["../evil", "/etc/evil", "d/../../evil", "d//x", "./x", "d/.", ""] {
        let (_, answer) = apply(with(vec![file("a", "a\n"), file(path, "x")]));
        let error = answer.unwrap_err();
        assert!(error.contains("the guest's agent answered"), "{path:?}: {error}");
    }
    for path in [".GIT/hooks/post-checkout", "git~1/config", ".git./x", ".g\u{200c}it/config"] {
        let files = vec![file("a", "a\n"), file("d/b", "b\n"), file(path, "x")];
        let (_, answer) = apply(with(files));
        assert_eq!(answer.unwrap(), "", "{path:?}");
    }
    let marks = tempfile::tempdir().unwrap();
    let mark = marks.path().join("ran");
    let (world, answer) = apply(with(traps(&format!("touch {}", mark.display()))));
    let told = answer.unwrap();
    assert!(told.contains("?? hooks/post-index-change") && told.contains(" M a"), "{told}");
    assert!(!mark.exists() && !world.host().join(".git/hooks/post-index-change").exists());
}

#[test]
fn links_are_made_and_never_followed() {
    let files = vec![link("d", "/etc"), link("escape", "../../../../etc/passwd"), link("a", "d")];
    let (world, answer) = apply(with(files));
    assert_eq!(answer.unwrap(), " T a\n D d/b\n?? d\n?? escape\n");
    let to = |name: &str| fs::read_link(world.host().join(name)).unwrap();
    assert_eq!(to("d"), PathBuf::from("/etc"));
    assert_eq!(to("escape"), PathBuf::from("../../../../etc/passwd"));
    // What is swapped between two looks is what was read.
    let swapped = vec![link("a", "/etc/passwd"), file("l", "content\n")];
    let files = vec![file("a", "x\n"), file("d/b", "b\n"), link("l", "nowhere")];
    let (world, answer) = apply(Plot { files, swapped, ..Plot::default() });
    assert_eq!(answer.unwrap(), " T a\n?? l\n");
    assert_eq!(fs::read_to_string(world.host().join("l")).unwrap(), "content\n");
    let mut set = file("s", "x\n");
    set.mode = 0o7777;
    let (world, answer) = apply(with(vec![file("a", "a\n"), file("d/b", "b\n"), set]));
    assert_eq!(answer.unwrap(), "?? s\n");
    let meta = fs::metadata(world.host().join("s")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o7000, 0);
}

/// Somebody on the host, or a program there, puts links in the place of directories meanwhile.
#[test]
fn nothing_is_written_through_a_link_that_comes_late() {
    let world = World::new(
        "git init -q; for d in d e f; do mkdir $d; for i in $(seq 20); do echo $i >$d/$i; done; done; git add -A; git commit -qm one",
    );
    let outside = world.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for name in ["1", "15", "20"] {
        fs::copy(world.host().join("d").join(name), outside.join(name)).unwrap();
    }
    world.prepare(&world.wish()).unwrap();
    let before = fingerprint(&outside);
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = thread::spawn({
        let (host, over, outside) = (world.host(), over.clone(), outside.clone());
        move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for name in ["d", "e", "f"] {
                    let (dir, away) = (host.join(name), host.join(format!("{name}-away")));
                    let _ = fs::rename(&dir, &away);
                    let _ = std::os::unix::fs::symlink(&outside, &dir);
                    thread::yield_now();
                    let _ = fs::remove_file(&dir);
                    let _ = fs::rename(&away, &dir);
                    thread::sleep(std::time::Duration::from_micros(300));
                }
            }
        }
    });
    for round in 0..10 {
        let work = format!(
            "for d in d e f; do for i in $(seq 20); do echo {round} >>$d/$i; done; echo n >$d/n{round}; done; rm -f d/15"
        );
        world.shell(&world.guest(), &work);
        // It may fail, with whatever words; what is outside stays.
        let _ = Apply::make(&world.vm(), &world.files(), &Onto::default())
            .and_then(|apply| apply.run(&|| false));
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    assert!(differing(&fingerprint(&outside), &before).is_empty());
}

#[test]
fn no_escape_reaches_a_terminal() {
    let world = World::new("git init -q; echo a >a; git add -A; git commit -qm one");
    world.prepare(&world.wish()).unwrap();
    let files = fakes(with(vec![
        file("a", "x\n"),
        file("\u{1b}[31m", "x\n"),
        file(".git/HEAD", "ref: refs/heads/\u{1b}[2J\u{7}\n"),
        file(".git/refs/heads/\u{1b}x", &"f".repeat(40)),
    ]));
    let found = status(&world.vm(), &files, true, &[]).unwrap();
    let said = found.unexported.iter().map(|work| &work.words).chain(&found.notes);
    assert!(!found.unexported.is_empty());
    for words in said {
        assert!(!words.contains(char::is_control), "{words:?}");
    }
}

/// Pulls from a guest that lies, and checks that what is the host's stays.
fn pulled(plot: Plot) -> (World, Result<banger_doc::WorkspacePull, String>) {
    let world =
        World::new("git init -q; echo a >a; mkdir d; echo b >d/b; git add -A; git commit -qm one");
    world.prepare(&world.wish()).unwrap();
    let before = fingerprint(&world.host());
    let files = fakes(plot);
    let begin = Instant::now();
    let answer = world.pull_by(&files).map_err(|error| error.chain());
    assert!(begin.elapsed().as_secs() < 60, "a lie ends soon");
    let git = world.host().join(".git");
    let places = ["refs/remotes", "refs/banger", "logs/refs/remotes", "objects/pack", "config"];
    let strange: Vec<PathBuf> = differing(&fingerprint(&world.host()), &before)
        .into_iter()
        .filter(|path| {
            !path.is_dir() && !places.iter().any(|place| path.starts_with(git.join(place)))
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
    world.shell(&world.host(), "git fsck --strict");
    let scratch = fs::read_dir(world.vm()).unwrap().flatten();
    assert!(!scratch.into_iter().any(|e| e.file_name().to_string_lossy().starts_with(".tmp")));
    (world, answer)
}

/// A guest's repository that real git made, as files of the fake agent, changed by `change`.
fn made(setup: &str) -> Vec<Fake> {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new("true");
    world.shell(dir.path(), setup);
    let paths = fingerprint(dir.path());
    let files = paths.keys().filter(|path| path.is_file() && !path.is_symlink());
    files
        .map(|path| {
            let below = path.strip_prefix(dir.path()).unwrap().to_str().unwrap();
            Fake { path: below.into(), kind: 'f', mode: 0o644, content: fs::read(path).unwrap() }
        })
        .collect()
}

const OTHER: &str = "git init -q .; git config user.name A; git config user.email a@b; echo x >x; \
                     git add x; git commit -qm x; git branch good";

#[test]
fn honest_files_of_a_fake_guest_are_pulled() {
    let (world, answer) = pulled(with(made(OTHER)));
    let answer = answer.unwrap();
    assert!(answer.changed.iter().any(|changed| changed.name == "web/good"), "{answer:?}");
    world.shell(&world.host(), "test $(git show web/good:x) = x");
}

#[test]
fn objects_that_are_forged_stay_out() {
    let tree_with = |name: &str| {
        format!(
            "{OTHER}; b=$(git hash-object -w x); t=$(printf '100644 {name}\\0%b' \"$(echo $b | sed 's/../\\\\x&/g')\" | \
             git hash-object -t tree -w --stdin --literally); git update-ref refs/heads/bad \
             $(git commit-tree -m bad $t)"
        )
    };
    let mut setups: Vec<String> = [".git", "..", "a/b", ".GIT", "git~1"].map(tree_with).into();
    // A commit whose object is another one's, one that is cut off, one without its tree, a pack that is none.
    let spoil = |how: &str| {
        format!(
            "{OTHER}; git switch -qc bad; echo y >x; git commit -qam bad; git switch -q master 2>/dev/null || \
             git switch -q main; o=$(git rev-parse bad); f=.git/objects/${{o:0:2}}/${{o:2}}; chmod u+w $f; {how}"
        )
    };
    setups.push(spoil("g=$(git rev-parse good); cat .git/objects/${g:0:2}/${g:2} >$f"));
    setups.push(spoil("truncate -s 20 $f"));
    setups.push(spoil("t=$(git rev-parse bad^{tree}); rm -f .git/objects/${t:0:2}/${t:2}"));
    setups.push(
        format!(
            "{OTHER}; git branch bad; git repack -adq; git update-ref refs/heads/bad {}",
            "1".repeat(40)
        )
        .replace("git update-ref", "echo >/dev/null; printf '%s\\n'")
        .replace("refs/heads/bad 1", "1")
            + " >.git/refs/heads/bad",
    );
    for setup in setups {
        let (world, answer) = pulled(with(made(&setup)));
        let answer = answer.unwrap_or_else(|error| panic!("{setup}: {error}"));
        let names: Vec<&str> = answer.changed.iter().map(|c| c.name.as_str()).collect();
        assert!(names.contains(&"web/good") && !names.contains(&"web/bad"), "{setup}: {names:?}");
        assert!(
            answer.notes.iter().any(|note| note.contains("refs/heads/bad")),
            "{:?}",
            answer.notes
        );
        world.shell(&world.host(), "! git rev-parse -q --verify web/bad");
    }
}

#[test]
fn names_of_references_do_no_harm() {
    let mut files = made(OTHER);
    let oid = files.iter().find(|f| f.path == b".git/refs/heads/good").unwrap().content.clone();
    let names = [
        "HEAD",
        "-f",
        "a.lock",
        "a..b",
        "x/../../../HEAD",
        "@{1}",
        "\u{202e}txt",
        "wip/HEAD",
        ".hidden",
        "a b",
        "~1",
    ];
    for name in names {
        files.push(Fake {
            path: format!(".git/refs/heads/{name}").into(),
            kind: 'f',
            mode: 0o644,
            content: oid.clone(),
        });
    }
    files.push(Fake {
        path: b".git/refs/heads/sym".to_vec(),
        kind: 'f',
        mode: 0o644,
        content: b"ref: refs/heads/good\n".to_vec(),
    });
    files.push(Fake {
        path: b".git/refs/replace/x".to_vec(),
        kind: 'f',
        mode: 0o644,
        content: oid.clone(),
    });
    files.push(Fake {
        path: b".git/refs/banger/x".to_vec(),
        kind: 'f',
        mode: 0o644,
        content: oid.clone(),
    });
    let packed = |many: usize| {
        let oid = String::from_utf8(oid.clone()).unwrap();
        let lines: String = (0..many)
            .map(|n| format!("{} refs/heads/n{n}\n", oid.trim()))
            .collect::<Vec<_>>()
            .concat();
        Fake {
            path: b".git/packed-refs".to_vec(),
            kind: 'f',
            mode: 0o644,
            content: lines.into_bytes(),
        }
    };
    // Names that the agent must not say at all end it there.
    let (_, answer) = pulled(with(files.clone()));
    assert!(answer.unwrap_err().contains("the guest's agent answered"));
    files.retain(|f| !f.path.windows(3).any(|part| part == b"/.."));
    let (world, answer) = pulled(with(files.clone()));
    let answer = answer.unwrap();
    let names: Vec<&str> = answer.changed.iter().map(|c| c.name.as_str()).collect();
    assert!(names.contains(&"web/good") && names.contains(&"web/wip/HEAD"), "{names:?}");
    let refs = world.shell(&world.host(), "git for-each-ref --format='%(refname)'");
    for bad in ["web/HEAD\n", "/-f", ".lock", "..", "202e", "/sym", "replace", "refs/banger/x"] {
        assert!(!refs.contains(bad), "{bad}: {refs}");
    }
    files.push(packed(30_000));
    let (_, answer) = pulled(with(files));
    assert!(answer.unwrap_err().contains("references; 20000 may be brought"));
}

#[test]
fn a_pack_without_an_end_ends() {
    let mut files = made(&format!("{OTHER}; git repack -adq"));
    let (_, answer) = pulled(Plot { files: files.clone(), endless: true, ..Plot::default() });
    answer.unwrap_err();
    // Another repository's objects are not looked for.
    files.push(file(".git/objects/info/alternates", "/etc\n"));
    let is_pack = |f: &Fake| f.path.ends_with(b".pack");
    files.retain(|f| !is_pack(f));
    let (_, answer) = pulled(with(files));
    let answer = answer.unwrap();
    assert!(answer.changed.is_empty(), "{answer:?}");
    assert!(answer.notes.iter().any(|note| note.contains("of another one")), "{:?}", answer.notes);
}
