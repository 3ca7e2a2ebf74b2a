use super::*;
use crate::files::{Budget, Files, serve};
use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::{
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
        net::UnixStream,
    },
    process::Command,
    thread,
};
use tar::EntryType::{self, Block, Char, Directory, Fifo, Link, Regular, Symlink};

fn files() -> Files<'static> {
    Files::new(Budget::new(std::time::Duration::from_mins(5)), || {
        let (here, there) = UnixStream::pair().context("no pair")?;
        thread::spawn(move || serve(there));
        Ok(here)
    })
}

fn take<'a>(asked: &'a str, name: &'a str) -> Take<'a> {
    let (asked, name) = (asked.as_bytes(), name.as_bytes());
    let budget = Box::leak(Box::new(of(1000)));
    Take { asked, name, fresh: true, archive: false, budget, stop: Arc::default() }
}

/// A budget of so many entries.
fn of(entries: u64) -> Budget {
    Budget::of(std::time::Duration::from_mins(5), u64::MAX, 64 << 20, entries)
}

/// A stream with what the builder refuses to make.
fn stream(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let content = if kind.is_file() { *link } else { "" };
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_link_name_literal(if kind.is_file() { "" } else { *link }).unwrap();
        header.set_mode(0o6755);
        header.set_uid(12345);
        header.set_gid(12345);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_tree_comes_out_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, to) = (dir.path().join("tree"), dir.path().join("to"));
    fs::create_dir_all(tree.join("shut/deep")).unwrap();
    fs::write(tree.join("shut/deep/file"), "content").unwrap();
    fs::write(tree.join("shut/\u{1} odd\n\\name"), "").unwrap();
    let long = "x".repeat(200);
    fs::create_dir(tree.join(&long)).unwrap();
    fs::write(tree.join(&long).join(&long), "long").unwrap();
    fs::hard_link(tree.join("shut/deep/file"), tree.join("second")).unwrap();
    symlink("shut/./deep//file", tree.join("link")).unwrap();
    symlink("../link", tree.join("shut/up")).unwrap();
    let file = File::create(tree.join("holes")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"data", 5_000_000).unwrap();
    fs::set_permissions(tree.join("second"), Permissions::from_mode(0o751)).unwrap();
    for old in ["second", "shut"] {
        let old = tree.join(old);
        assert!(Command::new("touch").args(["-d", "@1000000000"]).arg(&old).status().is_ok());
    }
    fs::set_permissions(tree.join("shut"), Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(&tree, Permissions::from_mode(0o750)).unwrap();

    for (root, paths, asked) in
        [(&tree, &[][..], "."), (&dir.path().to_owned(), &[b"tree".as_slice()][..], "tree")]
    {
        fs::create_dir(&to).unwrap();
        let mut tar = files().tar(root.to_str().unwrap(), paths).unwrap();
        let taken = take(asked, ".").unpack(&mut tar, &to).unwrap();
        assert!(tar.failure().is_none());
        assert_eq!((taken.entries, taken.skipped), (11, 0), "{taken:?}");
        let compare = Command::new("diff").arg("-r").arg(&tree).arg(&to).output().unwrap();
        assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
        let meta = |path: &str| fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(
            (meta("second").mode() & 0o7777, meta("second").mtime()),
            (0o751, 1_000_000_000)
        );
        assert_eq!((meta("shut").mode() & 0o7777, meta("shut").mtime()), (0o555, 1_000_000_000));
        assert_eq!(meta("").mode() & 0o7777, 0o750);
        assert_eq!(meta("second").ino(), meta("shut/deep/file").ino());
        assert_eq!(fs::read_link(to.join("link")).unwrap().to_str(), Some("shut/./deep//file"));
        assert!(meta("holes").blocks() < 1000, "{} blocks", meta("holes").blocks());
        fs::set_permissions(to.join("shut"), Permissions::from_mode(0o755)).unwrap();
        fs::remove_dir_all(&to).unwrap();
    }
    fs::set_permissions(tree.join("shut"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn one_file_gets_the_name_it_is_to_have() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("here"), "mine").unwrap();
    let made = stream(&[("there", Regular, "new")]);
    take("there", "here").unpack(&mut made.as_slice(), dir.path()).unwrap();
    let meta = fs::metadata(dir.path().join("here")).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("here")).unwrap(), "new");
    assert_eq!(meta.mode() & 0o7777, 0o755, "setuid bits stay in the guest");
    assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn nothing_leaves_the_directory() {
    let evil: &[&[(&str, EntryType, &str)]] = &[
        &[("../evil", Regular, "x")],
        &[("/evil", Regular, "x")],
        &[("tree/../../evil", Regular, "x")],
        &[("treeevil", Regular, "x")],
        &[("other/evil", Regular, "x")],
        &[("tree", Symlink, ".."), ("tree/evil", Regular, "x")],
        &[("tree/way", Symlink, ".."), ("tree/way/evil", Regular, "x")],
        &[("tree/evil", Link, "../secret")],
        &[("tree/evil", Link, "tree/secret")],
        &[("tree/evil", Link, "/etc/passwd")],
        &[("tree/a", Regular, "x"), ("tree/a", Symlink, "b"), ("tree/evil", Link, "tree/a")],
        &[("tree", Regular, "x")],
        &[("tree/a", Regular, "x"), ("tree/a/evil", Regular, "x")],
    ];
    for entries in evil {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("secret"), "s").unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        let made = stream(entries);
        for archive in [false, true] {
            let take = Take { archive, ..take("tree", ".") };
            let done = take.unpack(&mut made.as_slice(), &root);
            let message = done.map_err(|error| error.chain());
            // A link that was left out is in nobody's way: a directory of its name is as good.
            assert!(message.is_err() || !archive, "{entries:?}: {message:?}");
        }
        let found: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(found.len(), 2, "{entries:?}: {found:?}");
        assert!(!root.join("evil").is_symlink());
        for secret in [root.join("secret"), dir.path().join("secret")] {
            assert_eq!(fs::metadata(secret).unwrap().nlink(), 1, "{entries:?}");
        }
    }
}

#[test]
fn a_link_said_twice_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = stream(&[("t/a", Regular, "new"), ("t/b", Link, "t/a"), ("t/b", Link, "t/a")]);
    take("t", ".").unpack(&mut made.as_slice(), dir.path()).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(fs::metadata(dir.path().join("b")).unwrap().nlink(), 2);
}

#[test]
fn a_link_of_the_host_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (dir.path().join("root"), dir.path().join("other"));
    fs::create_dir_all(&root).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "mine").unwrap();
    symlink(&other, root.join("way")).unwrap();
    symlink(other.join("file"), root.join("direct")).unwrap();
    let made = stream(&[("t/direct", Regular, "new"), ("t/way/file", Regular, "new")]);
    assert!(take("t", ".").unpack(&mut made.as_slice(), &root).is_err());
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "mine");
    assert!(!fs::symlink_metadata(root.join("direct")).unwrap().is_symlink(), "it was replaced");
    assert!(root.join("way").is_symlink(), "what is in the way of a directory stays");
}

#[test]
fn what_could_harm_is_left_out_and_said() {
    let made = stream(&[
        ("t", Directory, ""),
        ("t/pipe", Fifo, ""),
        ("t/null", Char, ""),
        ("t/disk", Block, ""),
        ("t/a", Directory, ""),
        ("t/a/inside", Symlink, "../a/x"),
        ("t/a/out", Symlink, "../../x"),
        ("t/absolute", Symlink, "/etc/passwd"),
        ("t/here", Symlink, "."),
        ("t/trick", Symlink, "here/../x"),
        ("t/file", Regular, "x"),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let taken = take("t", ".").unpack(&mut made.as_slice(), dir.path()).unwrap();
    let skipped: Vec<_> = taken
        .first_skipped
        .iter()
        .map(|skipped| std::str::from_utf8(&skipped.path).unwrap())
        .collect();
    assert_eq!(skipped, ["pipe", "null", "disk", "a/out", "absolute", "trick"]);
    assert_eq!((taken.entries, taken.skipped, taken.bytes), (5, 6, 1));
    assert!(dir.path().join("a/inside").is_symlink() && dir.path().join("here").is_symlink());

    let dir = tempfile::tempdir().unwrap();
    let take = Take { archive: true, ..take("t", ".") };
    let taken = take.unpack(&mut made.as_slice(), dir.path()).unwrap();
    assert_eq!(taken.skipped, 3, "devices are never made");
    assert!(dir.path().join("absolute").is_symlink());
}

#[test]
fn a_directory_that_is_there_keeps_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/mine"), "mine").unwrap();
    fs::set_permissions(dir.path().join("sub"), Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o710)).unwrap();
    let made = stream(&[("t", Directory, ""), ("t/sub", Directory, ""), ("t/sub/x", Regular, "x")]);
    let take = Take { fresh: false, ..take("t", ".") };
    take.unpack(&mut made.as_slice(), dir.path()).unwrap();
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o7777, 0o710);
    assert_eq!(fs::metadata(dir.path().join("sub")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read_to_string(dir.path().join("sub/mine")).unwrap(), "mine");
    assert!(dir.path().join("sub/x").exists());
}

#[test]
fn what_does_not_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = dir.path().join("fresh");
    let unpack = |from: &mut dyn Read| {
        let _ = fs::remove_dir_all(&fresh);
        fs::create_dir(&fresh).unwrap();
        take("t", ".").unpack(from, &fresh).unwrap_err().chain()
    };
    let many: Vec<_> = (0..2000).map(|_| ("t/a", Regular, "")).collect();
    assert!(unpack(&mut stream(&many).as_slice()).contains("more than 1000 entries"));
    // What is left out counts, and so does what the command took before.
    let left_out: Vec<_> = (0..2000).map(|_| ("t/a", Fifo, "")).collect();
    assert!(unpack(&mut stream(&left_out).as_slice()).contains("more than 1000 entries"));
    let shared = of(10);
    (0..9).for_each(|_| shared.take_entry().unwrap());
    let one = Take { budget: &shared, ..take("t", ".") };
    one.unpack(&mut stream(&many[..1]).as_slice(), &fresh).unwrap();
    assert!(one.unpack(&mut stream(&many[..1]).as_slice(), &fresh).is_err());

    let mut long = tar::Header::new_gnu();
    long.set_entry_type(EntryType::GNULongName);
    long.set_size(1 << 40);
    long.set_cksum();
    let mut endless = long.as_bytes().chain(std::io::repeat(b'a'));
    assert!(unpack(&mut endless).contains("more than the limit"));

    // Nothing but a hole, as large as a number can say.
    let mut hole = tar::Header::new_gnu();
    hole.as_old_mut().name[..3].copy_from_slice(b"t/h");
    hole.set_entry_type(EntryType::GNUSparse);
    hole.set_mode(0o644);
    hole.set_uid(0);
    hole.set_gid(0);
    hole.set_mtime(0);
    hole.set_size(0);
    let gnu = hole.as_gnu_mut().unwrap();
    let large = |field: &mut [u8; 12]| field[..11].copy_from_slice(b"77777777777");
    gnu.sparse[0].set_length(0);
    gnu.sparse[0].offset = *b"\x80\0\0\0\0\x04\0\0\0\0\0\0";
    gnu.realsize = gnu.sparse[0].offset;
    hole.set_cksum();
    let mut bytes = hole.as_bytes().to_vec();
    bytes.write_all(&[0; 1024]).unwrap();
    assert!(unpack(&mut bytes.as_slice()).contains("hold more than"));

    // A hole takes no time, however large; and who wants no more of a stream gets none.
    let gnu = hole.as_gnu_mut().unwrap();
    large(&mut gnu.sparse[0].offset);
    gnu.realsize = gnu.sparse[0].offset;
    hole.set_cksum();
    let bytes = [hole.as_bytes().as_slice(), &[0; 1024]].concat();
    let taken = take("t", ".").unpack(&mut bytes.as_slice(), &fresh).unwrap();
    assert_eq!(taken.bytes, fs::metadata(fresh.join("h")).unwrap().len());
    fs::remove_file(fresh.join("h")).unwrap();
    let stopped = Take { stop: Arc::new(AtomicBool::new(true)), ..take("t", ".") };
    let error = stopped.unpack(&mut bytes.as_slice(), &fresh).unwrap_err();
    assert!(error.chain().ends_with("interrupted"), "{}", error.chain());

    // Directories are remembered until the end; their names take no more than they may.
    let path = format!("t/{}", ["d"; 15].map(|name| name.repeat(250)).join("/"));
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let mut one = tar::Builder::new(Vec::new());
    one.append_data(&mut header, &path, std::io::empty()).unwrap();
    let one = one.get_ref().clone();
    let mut all: Box<dyn Read> = Box::new(std::io::empty());
    for _ in 0..20 {
        all = Box::new(all.chain(std::io::Cursor::new(one.repeat(1000))));
    }
    let budget = of(1_000_000);
    let many = Take { budget: &budget, ..take("t", ".") };
    let error = many.unpack(&mut all, &fresh).unwrap_err().chain();
    assert!(error.contains("more than 64 MiB of memory"), "{error}");
    fs::remove_dir_all(fresh.join("d".repeat(250))).unwrap();

    let cut = stream(&[("t/a", Regular, "0123456789")]);
    assert!(!unpack(&mut &cut[..515]).is_empty());
    assert_eq!(fs::read_dir(&fresh).unwrap().count(), 0, "a file is there whole or not at all");
}

#[test]
fn nobody_else_may_write_what_a_guest_made_writable_for_all() {
    // The mask is the whole process's, so each stands in one of its own.
    let Ok(expected) = std::env::var("BANGER_TEST_MODES") else {
        for (mask, modes) in [("022", "755 644"), ("077", "700 600"), ("002", "775 664")] {
            let output = Command::new("sh")
                .args(["-c", "umask $0; exec \"$@\"", mask])
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "files::take::tests::nobody_else_may_write_what_a_guest_made_writable_for_all",
                ])
                .env("BANGER_TEST_MODES", modes)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("1 passed"), "{mask}: {said}");
        }
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, mode) in [("tree", Directory, 0o777), ("tree/file", Regular, 0o4666)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    let stream = tar.into_inner().unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    take("tree", "plain").unpack(&mut stream.as_slice(), dir.path()).unwrap();
    assert_eq!(format!("{:o} {:o}", mode("plain"), mode("plain/file")), expected);
    // As with tar -p, for who asks for all of it.
    let all = Take { archive: true, ..take("tree", "archive") };
    all.unpack(&mut stream.as_slice(), dir.path()).unwrap();
    assert_eq!(mode("archive"), 0o777);
    assert_eq!(mode("archive/file"), 0o4666);
}
