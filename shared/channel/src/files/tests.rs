use super::*;
use banger_tree::MAX_DEPTH;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    thread,
};

fn files() -> Files<'static> {
    Files::new(Budget::new(Duration::from_mins(5)), || {
        let (here, there) = UnixStream::pair().context("no pair")?;
        thread::spawn(move || serve(there));
        Ok(here)
    })
}

/// Answers every request with the same bytes.
fn liar(bytes: &'static [u8]) -> Files<'static> {
    Files::new(Budget::of(Duration::from_secs(20), 1000, 1 << 20, 10), move || {
        let (here, mut there) = UnixStream::pair().context("no pair")?;
        thread::spawn(move || {
            let _ = there.write_all(bytes);
            let _ = std::io::copy(&mut there, &mut std::io::sink());
        });
        Ok(here)
    })
}

fn scan(files: &Files<'_>, root: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    files
        .scan(root, |entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn put(files: &Files<'_>, root: &str, how: Put, entries: &[(&str, &str)]) -> Result<()> {
    files.put(root, how, |writer| {
        let mut builder = tar::Builder::new(writer);
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(nix::unistd::geteuid().as_raw().into());
            header.set_gid(nix::unistd::getegid().as_raw().into());
            header.set_mtime(1_000_000_000);
            if let Some(target) = content.strip_prefix("-> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            } else {
                header.set_size(content.len() as u64);
                // The builder refuses what these tests want to send.
                let name = header.as_old_mut();
                name.name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            }
        }
        builder.finish().context("cannot write")
    })
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_tree_appears_whole_and_is_seen_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/repo");
    let name = root.to_str().unwrap();
    let files = files();
    put(&files, name, Put::Fresh, &[("a/b", "hello"), ("l", "-> a/b"), (".git/HEAD", "x")])
        .unwrap();
    assert_eq!(text(&root.join("a/b")), "hello");
    assert_eq!(fs::read_link(root.join("l")).unwrap(), Path::new("a/b"));
    let entries = scan(&files, name);
    let paths: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.path)).collect();
    assert_eq!(paths, [".git", "a", "a/b", "l"], "what '.git' holds is left out");
    let file = &entries[2];
    let meta = fs::metadata(root.join("a/b")).unwrap();
    assert_eq!((file.what, file.mode, file.size), (What::File, 0o644, 5));
    assert_eq!((file.mtime_ns, file.ino), (1_000_000_000_000_000_000, meta.ino()));
    assert_eq!(entries[3].target, b"a/b");
    assert_eq!(scan(&files, &format!("{name}/.git"))[0].path, b"HEAD");

    let again = put(&files, name, Put::Fresh, &[("new", "")]).unwrap_err();
    assert_eq!(again.kind(), Kind::Conflict, "{}", again.chain());
    put(&files, name, Put::Aside, &[("new", "")]).unwrap();
    assert_eq!(text(&dir.path().join("deep/repo.before-1/a/b")), "hello");
    assert!(!root.join("a").exists());
    assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn files_are_read_hashed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().to_str().unwrap();
    fs::create_dir_all(dir.path().join("x/y")).unwrap();
    fs::write(dir.path().join("x/y/z"), "content").unwrap();
    fs::write(dir.path().join("keep"), "").unwrap();
    fs::set_permissions(dir.path().join("keep"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    symlink("x", dir.path().join("way")).unwrap();
    let files = files();
    let asked: [&[u8]; 5] = [b"x/y/z", b"link", b"gone", b"way/y/z", b"keep"];
    let mut seen = Vec::new();
    files
        .get(name, &asked, |_, got| {
            seen.push(match got {
                Got::File { mode, content, .. } => {
                    let mut text = String::new();
                    content.read_to_string(&mut text).unwrap();
                    format!("{mode:o} {text}")
                }
                Got::Link(target) => format!("-> {}", String::from_utf8_lossy(&target)),
                Got::Missing => "missing".into(),
            });
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, ["644 content", "-> /etc/passwd", "missing", "missing", "755 "]);

    let entries = files.stat(name, &asked).unwrap();
    let sorts: Vec<_> = entries.iter().map(|e| e.as_ref().map(|e| e.what)).collect();
    let file = Some(What::File);
    assert_eq!(sorts, [file, Some(What::Link), None, None, file]);
    assert_eq!(entries[1].as_ref().unwrap().target, b"/etc/passwd");

    let sums = files.hash(name, &asked).unwrap();
    assert_eq!(sums[0].unwrap()[..4], [0xed, 0x70, 0x02, 0xb4]);
    assert_eq!(
        sums.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false, false, false, true]
    );

    files.remove(name, &[b"x/y/z", b"gone/too", b"way/y"]).unwrap();
    assert!(!dir.path().join("x").exists(), "empty directories go too");
    assert!(dir.path().join("keep").exists() && dir.path().join("link").is_symlink());
}

#[test]
fn the_sum_of_a_large_file_is_on_its_way_at_once() {
    let sent = |size: usize| {
        let mut output = BufWriter::with_capacity(64 << 10, Vec::new());
        serve::write_sum(vec![7; size].as_slice(), &mut output).unwrap();
        (output.buffer().len(), output.get_ref().len())
    };
    assert_eq!(sent(10), (65, 0));
    assert_eq!(sent(1 << 20), (0, 65));
}

#[test]
fn writing_within_follows_no_link_and_replaces_what_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    let root = dir.path().join("root");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.join("other"), "stays").unwrap();
    symlink(&outside, root.join("dir")).unwrap();
    let name = root.to_str().unwrap();
    put(&files(), name, Put::Within, &[("dir/file", "1"), ("other/x", "2"), ("empty", "3")])
        .unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(text(&root.join("dir/file")), "1");
    assert_eq!(text(&root.join("other/x")), "2");
    assert_eq!(text(&root.join("empty")), "3");
}

#[test]
fn nothing_leaves_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let name = root.to_str().unwrap();
    for bad in ["../evil", "/evil", "a/../../evil"] {
        let error = put(&files(), name, Put::Fresh, &[("ok", "x"), (bad, "x")]).unwrap_err();
        assert!(
            error.chain().contains("leaves the root, or has more than 255 names"),
            "{}",
            error.chain()
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
    let deep = vec!["a"; MAX_DEPTH + 1].join("/");
    for bad in ["../etc/passwd", &deep] {
        let error = files().hash("/", &[bad.as_bytes()]).unwrap_err().chain();
        assert!(error.contains("leaves the root, or has more than 255 names"), "{error}");
    }
}

#[test]
fn a_tar_of_a_directory_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/e")).unwrap();
    fs::write(dir.path().join("d/e/f"), "x".repeat(200_000)).unwrap();
    symlink("nowhere", dir.path().join("d/l")).unwrap();
    let mut bytes = Vec::new();
    let name = dir.path().to_str().unwrap();
    let mut tar = files().tar(name, &[b"d"]).unwrap();
    tar.read_to_end(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut paths: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    paths.sort();
    assert_eq!(paths, ["d", "d/e", "d/e/f", "d/l"]);
}

#[test]
fn a_hostile_guest_gets_one_clear_error() {
    let scan = |bytes| liar(bytes).scan("/x", |_| Ok(())).unwrap_err().chain();
    assert!(scan(b"f 644 1 1 1 1 ../x\0end\0").contains("the guest's agent answered"));
    assert!(scan(b"f 644 1 1 1 1 /x\0end\0").contains("the guest's agent answered"));
    assert!(scan(b"f 644 -1 1 1 1 x\0end\0").contains("the guest's agent answered"));
    assert!(scan(b"q\0end\0").contains("the guest's agent answered"));
    assert!(scan("x".repeat(100_000).leak().as_bytes()).contains("does not end"));
    assert!(scan(b"error conflict no\x1b[31m\0").contains("no?[31m"));
    let many: &[u8] = b"f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0f 644 1 1 1 1 x\0end\0";
    assert!(scan(many).contains("more than 10 entries"));

    let get = |bytes| liar(bytes).get("/x", &[b"a"], |_, _| Ok(())).unwrap_err().chain();
    assert!(get(b"f 644 99999999999\0").contains("more than 1000 bytes"));
    assert!(get(b"f 644 1\0xchanged\0end\0").contains("changed while"));
    assert!(get(b"f 644 1\0xok\0f 644 1\0xok\0end\0").contains("more than was asked"));
    assert!(get(b"end\0").contains("early end"));
    assert!(liar(b"zz\0end\0").hash("/x", &[b"a"]).is_err());

    let hasty = liar(b"l 0 999\0").within(|budget| budget.time(Duration::from_secs(1)));
    let error = hasty.get("/x", &[b"a"], |_, _| Ok(())).unwrap_err().chain();
    assert!(error.contains("took too long"), "a wait ends: {error}");
}

#[test]
fn what_a_guest_tells_takes_bounded_memory() {
    let long =
        |length: usize| format!("l 777 1 1 1 1 x\0{}\0end\0", "t".repeat(length)).leak().as_bytes();
    assert!(liar(long(4096)).scan("/x", |_| Ok(())).is_ok());
    let error = liar(long(4097)).scan("/x", |_| Ok(())).unwrap_err().chain();
    assert!(error.contains("target that is too long"), "{error}");
    let deep = format!("f 644 1 1 1 1 {}x\0end\0", "d/".repeat(255)).leak().as_bytes();
    let error = liar(deep).scan("/x", |_| Ok(())).unwrap_err().chain();
    assert!(error.contains("the guest's agent answered"), "{error}");
    let names = liar(b"").budget().clone();
    names.take_names(10, 1 << 19).unwrap();
    let error = names.take_name(1 << 19).unwrap_err().chain();
    assert!(error.contains("more than 1 MiB of memory"), "{error}");
}

/// A guest that takes a little of what is written to it now and then.
#[test]
fn a_write_ends_however_slowly_the_guest_takes_it() {
    let budget = Budget::new(Duration::from_secs(2));
    let files = Files::new(budget, || {
        let (here, mut there) = UnixStream::pair().context("no pair")?;
        thread::spawn(move || {
            while there.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(200));
            }
        });
        Ok(here)
    });
    let begin = Instant::now();
    let error = files
        .put("/x", Put::Fresh, |writer| {
            std::io::copy(&mut std::io::repeat(1).take(1 << 30), writer).context("cannot write")?;
            Ok(())
        })
        .unwrap_err();
    assert!(error.chain().contains("took too long"), "{}", error.chain());
    let names = vec![&[b'x'; 200][..]; 100_000];
    assert!(files.remove("/x", &names).is_err(), "the time is that of all operations together");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_hostile_stream_says_what_is_wrong_with_it() {
    let within = |seconds: u64, bytes: &'static [u8]| {
        let files = liar(bytes).within(|budget| budget.time(Duration::from_secs(seconds)));
        let mut tar = files.tar("/x", &[]).unwrap();
        let mut read = Vec::new();
        let result = tar.read_to_end(&mut read);
        let failure = tar.failure().map(|error| error.chain());
        (read, failure.unwrap_or_else(|| result.map_or_else(|e| e.to_string(), |_| "ok".into())))
    };
    let tar = |bytes: &'static [u8]| within(20, bytes);
    assert_eq!(tar(b"3\0abc2\0deend\0"), (b"abcde".to_vec(), "ok".into()));
    assert!(tar(b"1001\0").1.contains("more bytes than there is room"));
    assert!(tar(b"-1\0").1.contains("without a size"));
    let (read, failure) = tar(b"3\0abcerror conflict no\0");
    assert!(read == b"abc" && failure.contains("the guest refuses: no"), "{failure}");
    let (_, failure) = within(1, b"9\0abc");
    assert!(failure.contains("took too long"), "a wait ends: {failure}");
}

#[test]
fn what_is_written_plain_belongs_to_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("new");
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o6755);
    header.set_uid(12345);
    header.set_gid(12345);
    header.set_mtime(1_000_000_000);
    let fill = |writer: &mut dyn Write| {
        let mut builder = tar::Builder::new(writer);
        for (path, kind) in [
            ("./", tar::EntryType::Directory),
            ("./d/", tar::EntryType::Directory),
            ("././d/file", tar::EntryType::Regular),
            ("global", tar::EntryType::XGlobalHeader),
        ] {
            let mut header = header.clone();
            header.set_entry_type(kind);
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        }
        builder.finish().context("cannot write")
    };
    let name = name.to_str().unwrap();
    files().put_as(name, Put::Fresh, true, fill).unwrap();
    let me = nix::unistd::geteuid().as_raw();
    for path in ["", "d", "d/file"] {
        let meta = fs::metadata(Path::new(name).join(path)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.mtime()), (0o755, me, 1_000_000_000));
    }
}

/// Puts files with the given times and returns the seconds that they then have.
fn times(given: &[u64]) -> Vec<i64> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    files()
        .put(root.to_str().unwrap(), Put::Fresh, |writer| {
            let mut builder = tar::Builder::new(writer);
            for (n, time) in given.iter().enumerate() {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                header.set_uid(nix::unistd::geteuid().as_raw().into());
                header.set_gid(nix::unistd::getegid().as_raw().into());
                header.set_size(0);
                header.set_mtime(*time);
                builder.append_data(&mut header, n.to_string(), std::io::empty()).unwrap();
            }
            builder.into_inner().unwrap();
            Ok(())
        })
        .unwrap();
    let meta = |n: usize| fs::metadata(root.join(n.to_string())).unwrap();
    let all = (0..given.len()).map(meta);
    all.inspect(|meta| assert_eq!(meta.mtime_nsec(), 0)).map(|meta| meta.mtime()).collect()
}

#[test]
fn the_present_is_after_what_came_before() {
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() as i64
    };
    for ahead in [0, 1] {
        let young = now() + ahead;
        let set = times(&[young as u64, PRESENT, PRESENT]);
        assert_eq!(set[0], young);
        assert!(set[1] > young && set[2] >= set[1] && set[2] <= now(), "{set:?}");
    }
    // Nothing waits for what is far from now.
    let begin = now();
    let set = times(&[7, begin as u64 + 1000, PRESENT]);
    assert!(set[2] >= begin && set[2] <= now(), "{set:?}");
}

#[test]
fn who_begins_again_waits_for_what_a_killed_host_began() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("r");
    let name = root.to_str().unwrap();
    let mut begun = (files().open)().unwrap();
    let mut tape = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_000_000_000);
    header.set_size(1 << 20);
    tape.append_data(&mut header, "half", std::io::repeat(1).take(1 << 20)).unwrap();
    let mut request = format!("{{\"op\":\"put-fresh\",\"root\":{name:?}}}\n").into_bytes();
    request.extend(tape.get_ref());
    // All but a part of the file, so that it is at work.
    begun.write_all(&request[..request.len() - 5000]).unwrap();
    let again = thread::spawn({
        let name = name.to_owned();
        move || put(&files(), &name, Put::Fresh, &[("whole", "x")])
    });
    thread::sleep(Duration::from_millis(100));
    assert!(!root.exists() && !again.is_finished());
    drop(begun);
    again.join().unwrap().unwrap();
    let names: Vec<_> = scan(&files(), name).into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, [b"whole"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_reason_at_the_end_of_a_long_sentence_stays() {
    let long = format!("'{}' is too \u{1b}deep", "d/".repeat(2000));
    let short = shortened(&long);
    assert!(short.starts_with("'d/d/") && short.ends_with("is too ?deep"), "{short}");
    assert!(short.chars().count() <= 500);
}

#[test]
fn silence_ends_a_wait_before_the_time_is_over() {
    let (short, long) = (Duration::from_millis(100), Duration::from_mins(1));
    for (silence, time, words) in
        [(short, long, "the guest fell silent"), (long, short, "the guest took too long")]
    {
        let (here, mut there) = UnixStream::pair().unwrap();
        let mut stream = Timed { stream: here, end: Instant::now() + time, silence };
        there.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        let begin = Instant::now();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (std::io::ErrorKind::TimedOut, words));
        // More than is taken of it: nobody reads.
        stream.end = Instant::now() + time;
        let error = stream.write_all(&vec![0; 64 << 20]).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (std::io::ErrorKind::TimedOut, words));
        let took = begin.elapsed();
        assert!(took >= short && took < Duration::from_secs(20), "{took:?}");
    }
}
