//! The contract of `banger-vm-cp`: against the real agent, over the real channel, with this machine
//! in place of a guest; and against an agent that lies.
#![expect(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use banger_channel::bridge;
use banger_tests::{Answer, Running, Sandbox, have};
use serde_json::{Value, json};
use std::{
    fs::{self, File, Permissions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const CP: &str = env!("CARGO_BIN_EXE_banger-vm-cp");

/// A VM that runs as far as anybody can tell: its lock is held, its agent answers.
struct Guest {
    sandbox: Sandbox,
    _running: Running,
}

impl Guest {
    /// Starts one with the real agent.
    fn new() -> Self {
        Self::of("")
    }

    /// Starts one whose image names a user.
    fn of(user: &str) -> Self {
        let sandbox = Sandbox::new();
        let mut running = sandbox.plant_running("web", &json!({}));
        let bridge = |listener, device| drop(bridge::run(listener, bridge::Device::Port(device)));
        running.start_agent(&sandbox, &json!({ "user": user }), bridge);
        Self { sandbox, _running: running }
    }

    /// Starts one whose agent knows one directory, `/srv/tree`, and answers a request for it with
    /// these bytes, then with silence.
    fn lying(answer: Vec<u8>) -> Self {
        let sandbox = Sandbox::new();
        let running = sandbox.plant_running("web", &json!({}));
        running.answer(move |stream| lie(stream, &answer));
        Self { sandbox, _running: running }
    }

    fn cp(&self, args: &[&str]) -> Answer {
        let answer = self.sandbox.run(CP, args);
        // Whatever is refused, somebody is told what to do about it.
        assert!(answer.status == 0 || answer.stderr.contains("\nhint: "), "{}", answer.all());
        answer
    }

    /// Returns a directory of the guest.
    fn inside(&self) -> PathBuf {
        let dir = self.sandbox.dir().join("guest");
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Returns a directory of the host.
    fn outside(&self) -> PathBuf {
        let dir = self.sandbox.dir().join("host");
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

fn lie(reader: &mut BufReader<UnixStream>, answer: &[u8]) {
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let request: Value = serde_json::from_str(&line).unwrap();
    let mut list = vec![0; request["list_bytes"].as_u64().unwrap() as usize];
    reader.read_exact(&mut list).unwrap();
    let said = if request["op"] == "stat" {
        [b"d 755 0 0 0 1 ", &list[..list.len() - 1], b"\0end\0"].concat()
    } else {
        answer.to_vec()
    };
    let _ = reader.get_mut().write_all(&said);
    let _ = reader.read_to_end(&mut Vec::new());
}

fn at(vm: &str, path: &Path) -> String {
    format!("{vm}:{}", path.display())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A tree with what trees have.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("a/b/c")).unwrap();
    fs::create_dir(at.join("empty")).unwrap();
    fs::write(at.join("a/file"), "content\n").unwrap();
    fs::write(at.join("a/b/big"), vec![7; 3_000_000]).unwrap();
    fs::write(at.join("odd \n\t\\'\"*\u{e4}"), "odd").unwrap();
    fs::write(at.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), "odd").unwrap();
    let long = "n".repeat(200);
    fs::create_dir(at.join(&long)).unwrap();
    fs::write(at.join(&long).join(&long), "long").unwrap();
    fs::write(at.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("script"), Permissions::from_mode(0o751)).unwrap();
    fs::write(at.join("secret"), "s").unwrap();
    fs::set_permissions(at.join("secret"), Permissions::from_mode(0o400)).unwrap();
    fs::hard_link(at.join("a/file"), at.join("same")).unwrap();
    symlink("a/file", at.join("link")).unwrap();
    symlink(".././/a", at.join("a/up")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink(format!("{}/file", "a/.//".repeat(30)), at.join("long")).unwrap();
    let holes = File::create(at.join("holes")).unwrap();
    holes.set_len(1 << 30).unwrap();
    holes.write_all_at(b"in the middle", 300 << 20).unwrap();
    fs::set_permissions(at.join("a/b/c"), Permissions::from_mode(0o500)).unwrap();
    let touch = Command::new("touch")
        .args(["-h", "-d", "@1234567890"])
        .args([at.join("script"), at.join("link"), at.join("a/b"), at.to_owned()])
        .status();
    assert!(touch.unwrap().success());
}

/// Returns all that is to be kept of a tree, a line a thing.
fn listing(at: &Path) -> String {
    let found = Command::new("find")
        .arg(at)
        .args(["-printf", "%P %y %m %l %Ts"])
        .args(["(", "-type", "f", "-printf", " %s %n", ")", "-o", "-true"])
        .args(["-printf", "\n"])
        .output()
        .unwrap();
    let mut lines: Vec<String> =
        String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines.join("\n")
}

fn same(one: &Path, other: &Path) {
    assert_eq!(listing(one), listing(other));
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).output();
    let diff = diff.unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[test]
fn a_tree_goes_in_and_comes_back_as_it_is() {
    let guest = Guest::new();
    let (inside, outside) = (guest.inside(), guest.outside());
    let from = outside.join("tree");
    fs::create_dir(&from).unwrap();
    tree(&from);
    let answer = guest.cp(&[&text(&from), &at("web", &inside)]);
    let copy = answer.document();
    assert_eq!(copy["schema"], "banger.copy/1");
    assert_eq!(copy["to"], at("web", &inside.join("tree")));
    assert_eq!((&copy["entries"], &copy["skipped"]), (&19.into(), &0.into()), "{copy}");
    same(&from, &inside.join("tree"));
    let back = outside.join("back");
    let answer = guest.cp(&[&at("web", &inside.join("tree/")), &text(&back)]);
    assert_eq!(answer.document()["entries"], 19);
    same(&from, &back);
    for tree in [&inside.join("tree"), &back] {
        let meta = fs::metadata(tree.join("holes")).unwrap();
        assert!(meta.blocks() < 10_000, "{} blocks of a hole", meta.blocks());
        let files = (fs::metadata(tree.join("same")).unwrap(), fs::metadata(tree.join("a/file")));
        assert_eq!(files.0.ino(), files.1.unwrap().ino(), "one file of two names");
    }
    // What is there is merged with, and nothing of it goes.
    fs::write(back.join("a/mine"), "mine").unwrap();
    fs::write(back.join("a/file"), "changed").unwrap();
    guest.cp(&[&at("web", &inside.join("tree/.")), &text(&back)]).ok();
    assert_eq!(fs::read_to_string(back.join("a/mine")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(back.join("a/file")).unwrap(), "content\n");
    fs::remove_file(back.join("a/mine")).unwrap();
    guest.cp(&[&text(&from.join(".")), &at("web", &inside.join("tree"))]).ok();
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1, "nothing is left beside it");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 2, "nothing is left beside it");
}

#[test]
fn a_copy_lands_as_with_cp() {
    let guest = Guest::new();
    let (inside, outside) = (guest.inside(), guest.outside());
    let file = outside.join("file");
    fs::write(&file, "new").unwrap();
    fs::write(outside.join("other"), "other").unwrap();
    symlink("file", outside.join("link")).unwrap();
    let read = |path: &str| fs::read_to_string(inside.join(path)).unwrap();

    // Into a directory, under another name, over a file, several at once, through named links.
    guest.cp(&[&text(&file), &at("web", &inside)]).ok();
    guest.cp(&[&text(&file), &at("web", &inside.join("renamed"))]).ok();
    guest.cp(&[&text(&outside.join("other")), &at("web", &inside.join("renamed"))]).ok();
    assert_eq!((&*read("file"), &*read("renamed")), ("new", "other"));
    fs::create_dir(inside.join("dir")).unwrap();
    symlink("dir", inside.join("way")).unwrap();
    symlink("file", inside.join("to-file")).unwrap();
    let (link, other) = (text(&outside.join("link")), text(&outside.join("other")));
    let answer = guest.cp(&[&link, &other, &at("web", &inside.join("way"))]);
    assert_eq!(answer.ok().documents.len(), 2);
    assert_eq!((&*read("dir/link"), &*read("dir/other")), ("new", "other"));
    guest.cp(&[&other, &at("web", &inside.join("to-file"))]).ok();
    assert_eq!(read("file"), "other");
    assert!(inside.join("to-file").is_symlink(), "what a link leads to was written");
    let down = outside.join("down");
    guest.cp(&[&at("web", &inside.join("to-file")), &text(&down)]).ok();
    assert!(!down.is_symlink() && fs::read_to_string(&down).unwrap() == "other");

    // What cannot be is refused, and leaves all as it was.
    let missing = inside.join("no/such");
    guest.cp(&[&text(&file), &at("web", &missing)]).fails(3, "no directory").fails(3, "mkdir -p");
    guest.cp(&[&text(&file), &at("web", &inside.join("new/"))]).fails(3, "no directory");
    guest.cp(&[&text(&file), &other, &at("web", &inside.join("file"))]).fails(4, "no directory");
    guest.cp(&[&text(&outside), &at("web", &inside.join("file"))]).fails(4, "is no directory");
    fs::create_dir(inside.join("dir/file")).unwrap();
    guest.cp(&[&text(&file), &at("web", &inside.join("dir"))]).fails(4, "is a directory");
    guest.cp(&["no-such-file", &at("web", &inside)]).fails(3, "no 'no-such-file'");
    guest.cp(&[&at("web", &missing), "."]).fails(3, "no directory");
    guest.cp(&[&at("web", &inside.join("absent")), "."]).fails(3, "absent' in VM 'web'");
    guest
        .cp(&[&at("web", &inside.join("file")), "no/such/place"])
        .fails(3, "no directory 'no/such'");
    guest
        .cp(&[&at("web", &inside.join("file")), "/dev/null"])
        .fails(4, "neither file nor directory");
    guest.cp(&[&text(&file), "web:/dev/null"]).fails(4, "neither file nor directory");
    guest.cp(&["/dev/zero", &at("web", &inside)]).fails(4, "neither file nor directory");
    guest.cp(&["/dev/null", &at("web", &inside)]).fails(4, "neither file nor directory");
    assert!(!Path::new("/dev/null").is_file());
}

#[test]
fn wrong_words_say_what_to_type() {
    let guest = Guest::new();
    guest.cp(&["a", "b"]).fails(2, "no path is in a VM");
    guest.cp(&["web:/a", "db:/b"]).fails(2, "'banger vm cp web:/a - | banger vm cp - db:/b'");
    guest.cp(&["Web:/a", "."]).fails(2, "'./Web:/a' is the file");
    guest.cp(&["-", "a", "web:/tmp"]).fails(2, "stands alone");
    guest.cp(&["web:/tmp"]).fails(2, "");
    guest.cp(&["nobody:/tmp", "."]).fails(3, "no VM 'nobody'");
    guest.sandbox.raw(CP, &["nobody:/tmp", "-"]).fails(125, "no VM 'nobody'");
    let answer = guest.sandbox.raw(CP, &["a", "-", "--archive"]);
    assert!(answer.fails(2, "stands alone").stdout.is_empty());
    for user in ["dev", "root:dev", "1000"] {
        guest.cp(&["-a", "-u", user, "a", "web:/tmp"]).fails(2, "give one of them");
        guest.cp(&["-a", "-u", user, "-", "web:/tmp"]).fails(2, "'--archive' keeps owners");
    }
    guest.cp(&["-a", "-u", "0:root", "absent", "web:/tmp"]).fails(3, "no 'absent'");
    guest.cp(&["-a", "-u", "dev", "web:/absent", "."]).fails(3, "no '/absent'");
    guest.sandbox.plant_vm("db", "alpine", "generic-6.12");
    guest.cp(&["db:/tmp", "."]).fails(4, "VM 'db' has never run");
}

#[test]
fn streams_go_both_ways() {
    let guest = Guest::new();
    let (inside, outside) = (guest.inside(), guest.outside());
    let from = outside.join("tree");
    fs::create_dir(&from).unwrap();
    tree(&from);
    let made = Command::new("tar").arg("-cSC").arg(&from).arg(".").output().unwrap();
    assert!(made.status.success());
    let to = inside.join("tree");
    guest.sandbox.feed(CP, &["-", &at("web", &to)], &made.stdout).fails(3, "mkdir -p");
    fs::create_dir(&to).unwrap();
    let answer = guest.sandbox.feed(CP, &["-", &at("web", &to)], &made.stdout);
    assert!(answer.ok().text().contains(r#""from":"-""#), "{}", answer.all());
    // The directory was there: it keeps its own time.
    let touch = |dir: &Path| Command::new("touch").args(["-r"]).arg(&from).arg(dir).status();
    assert!(touch(&to).unwrap().success());
    same(&from, &to);

    let answer = guest.sandbox.raw(CP, &[&at("web", &to), "-"]);
    answer.ok();
    let back = outside.join("back");
    fs::create_dir(&back).unwrap();
    let untar = ["-xpC", &text(&back)];
    assert_eq!(guest.sandbox.feed("tar", &untar, &answer.stdout).ok().stderr, "");
    same(&from, &back.join("tree"));
    let contents = guest.sandbox.raw(CP, &[&at("web", &to.join(".")), "-"]);
    let list = guest.sandbox.feed("tar", &["-t"], &contents.ok().stdout);
    assert!(list.ok().text().starts_with(".\n"), "{}", list.all());

    let answer = guest.sandbox.raw(CP, &[&at("web", &inside.join("absent")), "-"]);
    assert!(answer.fails(125, "no '").stdout.is_empty());
    // A reader who goes away is no failure.
    let script =
        format!("'{CP}' '{}' - | head -c 1 | wc -c; echo ${{PIPESTATUS[0]}}", at("web", &to));
    assert_eq!(guest.sandbox.raw("/bin/bash", &["-c", &script]).ok().text(), "1\n0\n");
}

#[test]
fn a_stream_that_is_wrong_writes_nothing_outside() {
    let guest = Guest::new();
    let inside = guest.inside();
    let to = inside.join("to");
    fs::create_dir(&to).unwrap();
    let feed = |bytes: &[u8]| guest.sandbox.feed(CP, &["-", &at("web", &to)], bytes);
    for (path, link) in [("../evil", None), ("/evil", None), ("hard", Some("../../evil"))] {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(link.map_or(tar::EntryType::Regular, |_| tar::EntryType::Link));
        header.set_link_name_literal(link.unwrap_or_default()).unwrap();
        header.set_size(0);
        header.set_cksum();
        let answer = feed(header.as_bytes());
        assert_eq!(answer.status, 1, "{}", answer.all());
        assert!(answer.stderr.contains("leaves its directory"), "{}", answer.all());
    }
    let answer = feed(&[0x1f, 0x8b, 8, 0, 0]);
    assert!(answer.status == 1 && answer.stderr.contains("put 'gzip -d |'"), "{}", answer.all());
    assert_eq!(feed(b"these are not the bytes of a tar").status, 1);
    let mut cut = tar::Header::new_gnu();
    cut.set_path("half").unwrap();
    cut.set_size(1000);
    cut.set_mode(0o644);
    cut.set_cksum();
    assert_eq!(feed(&[cut.as_bytes().as_slice(), b"half"].concat()).status, 1);
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(&to).unwrap().count() > 0 {
        assert!(Instant::now() < end, "left behind: {:?}", fs::read_dir(&to).unwrap().next());
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 1);
}

#[test]
fn owners_and_setuid_bits_go_only_where_that_was_asked() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let guest = Guest::new();
    let (inside, outside) = (guest.inside(), guest.outside());
    let from = outside.join("tool");
    fs::write(&from, "x").unwrap();
    std::os::unix::fs::chown(&from, Some(1234), Some(1234)).unwrap();
    fs::set_permissions(&from, Permissions::from_mode(0o4755)).unwrap();
    let is = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.uid(), meta.mode() & 0o7777)
    };
    guest.cp(&[&text(&from), &at("web", &inside.join("plain"))]).ok();
    assert_eq!(is(&inside.join("plain")), (0, 0o755));
    guest.cp(&["-a", &text(&from), &at("web", &inside.join("tool"))]).ok();
    assert_eq!(is(&inside.join("tool")), (1234, 0o4755));
    symlink("/etc/passwd", inside.join("out")).unwrap();
    let answer = guest.cp(&[&at("web", &inside), &text(&outside.join("plain"))]);
    assert_eq!(answer.document()["skipped"], 1);
    assert!(answer.stderr.contains("'out' is a link that leads out; left out"), "{}", answer.all());
    assert_eq!(is(&outside.join("plain/tool")), (0, 0o755));
    guest.cp(&["--archive", &at("web", &inside), &text(&outside.join("all"))]).ok();
    assert_eq!(is(&outside.join("all/tool")), (1234, 0o4755));
    assert!(outside.join("all/out").is_symlink());
}

/// A tar stream in the pieces that an agent sends, without the end.
fn pieces(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_link_name_literal(link).unwrap();
        header.set_mode(0o4777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    [format!("{}\0", tar.len()).as_bytes(), &tar].concat()
}

#[test]
fn a_guest_that_lies_gets_nothing_written() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    for (entries, raw, words) in [
        (vec![("./", Directory, ""), ("../evil", Regular, "")], true, "was not asked for"),
        (vec![("/tmp/evil", Regular, "")], true, "was not asked for"),
        (vec![("a/../../evil", Regular, "")], true, "was not asked for"),
        (vec![("evil", Link, "../kept")], true, "was not asked for"),
        (vec![("evil", Link, "kept")], false, "hard link to what was not copied"),
    ] {
        let guest = Guest::lying([pieces(&entries), b"end\0".to_vec()].concat());
        let outside = guest.outside();
        fs::write(outside.join("kept"), "kept").unwrap();
        guest.cp(&["web:/srv/tree", "host/new"]).fails(1, words);
        guest.cp(&["web:/srv/tree/.", "host"]).fails(1, words);
        let names: Vec<_> =
            fs::read_dir(&outside).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"], "{entries:?}");
        assert_eq!(fs::metadata(outside.join("kept")).unwrap().nlink(), 1);
        assert!(!guest.sandbox.dir().join("evil").exists() && !Path::new("/tmp/evil").exists());
        if raw {
            let answer = guest.sandbox.raw(CP, &["web:/srv/tree/.", "-"]);
            answer.fails(125, "leaves its directory");
            assert!(!answer.text().contains("evil"), "{}", answer.all());
        }
    }
    // Through a link of its own, to what the user has.
    let evil = [("way", Symlink, "/"), ("way/tmp/evil", Regular, "")];
    let guest = Guest::lying([pieces(&evil), b"end\0".to_vec()].concat());
    guest.cp(&["--archive", "web:/srv/tree", "new"]).fails(1, "cannot write");
    guest.sandbox.raw(CP, &["web:/srv/tree", "-"]).fails(125, "through a link");
    assert!(!guest.sandbox.dir().join("new").exists());
    // The words of an agent are shown, without what moves a terminal.
    let guest = Guest::lying(b"error failed no \x1b[31mmore\0".to_vec());
    let answer = guest.cp(&["web:/srv/tree", "new"]);
    assert!(answer.fails(1, "the guest refuses: no ?[31mmore").stderr.find('\x1b').is_none());
    // More than there is room for.
    let guest = Guest::lying(b"18446744073709551615\0".to_vec());
    guest.cp(&["web:/srv/tree", "new"]).fails(1, "more bytes than there is room for");
}

#[test]
fn a_copy_that_is_interrupted_leaves_nothing() {
    let guest = Guest::lying(pieces(&[("./", tar::EntryType::Directory, "")]));
    let mut command = guest.sandbox.command(CP);
    let mut child = command.args(["web:/srv/tree", "new"]).stdout(Stdio::null()).spawn().unwrap();
    let count = || fs::read_dir(guest.sandbox.dir()).unwrap().count();
    let until = |what: &str, so: &mut dyn FnMut() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !so() {
            assert!(Instant::now() < end, "in vain: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    until("something is made", &mut || count() == 1);
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let mut status = None;
    until("it ends", &mut || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(2));
    assert_eq!(count(), 0);
}

#[test]
fn a_name_that_a_guest_chose_does_nothing_where_it_is_shown_or_typed() {
    let guest = Guest::new();
    let inside = guest.inside();
    for (link, target) in [
        ("shell", "/nowhere;touch$IFS/tmp/own;/x"),
        ("screen", "/nowhere\u{1b}]0;pwned\u{7}\u{202e}/x"),
    ] {
        symlink(target, inside.join(link)).unwrap();
    }
    let said = guest.cp(&[&at("web", &inside.join("shell")), "."]).fails(3, "no ").stderr.clone();
    assert!(said.contains(r"-- mkdir -p /nowhere\;touch\$IFS/tmp/own\;' makes it"), "{said}");
    let said = guest.cp(&[&at("web", &inside.join("screen")), "."]).fails(3, "no ").stderr.clone();
    assert!(
        said.contains(r"mkdir -p $'/nowhere\033\1350\073pwned\007\342\200\256'' makes it"),
        "{said}"
    );
    assert!(
        said.chars().all(|c| c == '\n' || !c.is_control()) && !said.contains('\u{202e}'),
        "{said}"
    );
    // What one typed oneself is quoted too.
    let odd = guest.outside().join("my $(files)");
    let said =
        guest.cp(&[&at("web", &inside), &format!("{}/x/", text(&odd))]).fails(3, "").stderr.clone();
    assert!(said.contains(r"/my\ \$\(files\)"), "{said}");
}

#[test]
fn progress_is_shown_to_who_watches() {
    if !have("script") {
        return;
    }
    let guest = Guest::new();
    let (inside, outside) = (guest.inside(), guest.outside());
    fs::write(outside.join("big"), vec![1; 64 << 20]).unwrap();
    let line = format!("'{CP}' '{}' '{}'", text(&outside.join("big")), at("web", &inside));
    let answer = guest.sandbox.raw_with("script", &["-qec", &line, "/dev/null"], |command| {
        command.env("TERM", "xterm");
    });
    let shown = answer.ok().text();
    assert!(shown.contains("of 64.00 MiB") && shown.contains("1 thing, 64.0 MiB, to"), "{shown}");
}

/// A directory to which nobody but root can change the way, with one of another user's in it.
fn others_home(uid: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/run").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path().join("home")).unwrap();
    fs::create_dir(dir.path().join("roots")).unwrap();
    std::os::unix::fs::chown(dir.path().join("home"), Some(uid), Some(uid)).unwrap();
    dir
}

#[test]
fn what_goes_in_is_the_guests_users_and_where_only_root_may_write_roots() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let guest = Guest::of("54321:54321");
    let world = others_home(54_321);
    let at = |path: &str| world.path().join(path);
    let to = |path: &str| format!("web:{}", at(path).display());
    let owner = |path: &str| fs::symlink_metadata(at(path)).unwrap().uid();
    fs::create_dir(guest.sandbox.dir().join("tree")).unwrap();
    fs::write(guest.sandbox.dir().join("tree/file"), "x\n").unwrap();
    fs::set_permissions(guest.sandbox.dir().join("tree/file"), Permissions::from_mode(0o4755))
        .unwrap();
    for (place, uid) in [("home", 54_321), ("roots", 0)] {
        guest.cp(&["tree", &to(place)]).ok();
        guest.cp(&["tree/file", &to(&format!("{place}/one"))]).ok();
        guest.cp(&["tree", &to(&format!("{place}/tree"))]).ok();
        for path in ["tree", "tree/file", "tree/tree/file", "one"] {
            assert_eq!(owner(&format!("{place}/{path}")), uid, "{place}/{path}");
        }
        let mode = fs::metadata(at(&format!("{place}/one"))).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
    // The user's own links lead root nowhere, as the last part of a path or on the way.
    symlink(at("roots"), at("home/evil")).unwrap();
    for path in ["home/evil", "home/evil/", "home/evil/tree", "home/evil/new"] {
        let answer = guest.cp(&["tree/file", &to(path)]);
        answer.fails(1, "denied");
    }
    guest.cp(&["tree", &to("home/evil")]).fails(1, "denied");
    assert_eq!(fs::read_dir(at("roots")).unwrap().count(), 2);
    // Who is named writes, and nobody else.
    guest.cp(&["-u", "root", "tree/file", &to("home/evil/by-root")]).ok();
    assert_eq!(owner("roots/by-root"), 0);
    guest.cp(&["--user", "54322", "tree/file", &to("home/other")]).fails(1, "denied");
    guest
        .cp(&["--user", "no-such-user", "tree/file", &to("home/x")])
        .fails(3, "no user 'no-such-user'");
    guest.cp(&["--user", "a b", "tree/file", &to("home/x")]).fails(2, "none of user");
    // All of it can be had back, whoever it belongs to.
    fs::set_permissions(at("home/one"), Permissions::from_mode(0o600)).unwrap();
    guest.cp(&[&to("home/one"), "back"]).ok();
}
