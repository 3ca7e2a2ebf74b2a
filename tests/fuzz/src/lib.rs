//! What is fed, and what must hold. See `README.md`.

mod disks;
pub mod mutate;
pub mod seeds;

pub use disks::offline;

use banger_channel::files::{Budget, MARK, Take, Whom, relay as pass};
use banger_layer::{Layer, Limits, Progress, build};
use banger_oci::{Platform, Reference, documents};
use banger_tar::Reader;
use std::fs::{self, File, Permissions};
use std::io::{Cursor, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Feeds an archive: as the only layer, or cut into two over a fixed one.
pub fn layer(input: &[u8]) {
    if input.len() / 512 % 2 == 0 {
        disk(&[input]);
    } else {
        let (first, second) = input.split_at(input.len() / 1024 * 512);
        disk(&[&BASE, first, second]);
    }
}

/// Feeds bytes of gzip and zstd.
pub fn packed(input: &[u8]) {
    disk(&[input]);
}

/// Feeds a manifest.
pub fn manifest(input: &[u8]) {
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    for told in [None, Some("application/vnd.oci.image.manifest.v1+json")] {
        if let Ok(documents::Manifest::Image(layers)) = documents::manifest(input, told, &platform) {
            assert!(layers.len() <= 512);
        }
    }
}

/// Feeds an index.
pub fn index(input: &[u8]) {
    for platform in ["linux/amd64", "linux/arm64/v8", "linux/arm/v7"] {
        let platform: Platform = platform.parse().expect("a platform");
        if let Ok(documents::Manifest::Index(Some(digest))) =
            documents::manifest(input, None, &platform)
        {
            let hex = digest.hex();
            assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
    }
}

/// Feeds an image's configuration: nothing in it may be what no process can be given.
pub fn config(input: &[u8]) {
    for layers in 0..3 {
        let Ok(config) = documents::configuration(input, layers) else { continue };
        let words = config.env.iter().chain(&config.entrypoint).chain(&config.cmd);
        let words = words.chain(&config.working_dir).chain(&config.user);
        assert!(words.clone().all(|word| !word.contains('\0')));
        assert!(words.map(String::len).sum::<usize>() <= 1 << 20);
        assert!(config.env.iter().all(|entry| !entry.is_empty() && !entry.starts_with('=')));
    }
}

/// Feeds the name of an image: what is understood is written so that it is understood the same.
pub fn reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    let written = reference.to_string();
    let again: Reference = written.parse().unwrap_or_else(|_| panic!("'{text}' is '{written}'"));
    assert_eq!(again, reference, "'{text}' is '{written}'");
    // Both become part of an address.
    for part in [reference.registry(), reference.repository()] {
        assert!(!part.contains("..") && part.bytes().all(|b| b.is_ascii_graphic() && b != b'%' && b != b'?'));
    }
    if let Some(name) = reference.default_name() {
        assert!(name.as_str().len() <= 63);
    }
}

/// Feeds a token server's answer, and the header that leads to it.
pub fn token(input: &[u8]) {
    if let Ok(token) = documents::token(input) {
        assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = documents::challenge(text);
    }
}

/// Feeds a guest's tar stream to what makes files of the host of it. Nothing is made or changed outside the
/// directory that was named, whatever is in there; and nothing is left that a copy does not bring.
pub fn take(input: &[u8]) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a directory");
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    for dir in [&root, &outside, &root.join("etc")] {
        fs::create_dir(dir).expect("a directory");
    }
    for file in [outside.join("file"), root.join("old")] {
        fs::write(file, "kept").expect("a file");
    }
    // What a guest would like to be followed.
    symlink("../outside", root.join("way")).expect("a link");
    symlink("../outside/file", root.join("x")).expect("a link");
    let (asked, name, archive): (&[u8], &[u8], bool) = match input.len() / 512 % 4 {
        0 => (b"usr", b"taken", false),
        1 => (b".", b".", true),
        _ => (b".", b".", false),
    };
    let fresh = asked == b"." && input.len() / 512 % 4 == 3;
    let stop = std::sync::Arc::default();
    let budget = Budget::of(Duration::from_hours(1), u64::MAX, 160 << 20, 5000);
    let take = Take { asked, name, fresh, archive, budget: &budget, stop };
    let done = take.unpack(&mut &*input, &root);

    let mut names: Vec<_> = fs::read_dir(dir.path()).expect("it").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["outside", "root"]);
    assert_eq!(fs::read_dir(&outside).expect("it").count(), 1);
    assert_eq!(fs::read(outside.join("file")).expect("it"), b"kept");
    let file = fs::metadata(outside.join("file")).expect("it");
    assert_eq!((file.nlink(), file.mode() & 0o7777), (1, 0o644 & file.mode()));
    walk(&root, &root, &|path, meta| {
        let said = path.display();
        let kind = meta.file_type();
        let special = kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket();
        assert!(!special, "'{said}' is no file");
        let name = path.file_name().expect("a name").as_encoded_bytes();
        // A guest may give a file of its own such a name, and then the stream has it.
        let is_theirs = || input.windows(name.len()).any(|bytes| bytes == name);
        let is_temporary = name.starts_with(MARK.as_bytes()) && !is_theirs();
        assert!(done.is_err() || !is_temporary, "'{said}' is left");
        let planted = path == root.join("way") || path == root.join("x");
        if archive || planted {
            return;
        }
        assert!(kind.is_symlink() || meta.mode() & 0o6000 == 0, "'{said}' has rights");
        if kind.is_symlink() {
            let target = fs::read_link(path).expect("a target");
            assert!(!leads_out(path.strip_prefix(&root).expect("below"), &target), "'{said}' leads out");
        }
    });
}

/// Feeds a tar stream to what passes it on. What comes out is read the same by another reader, is passed
/// on the same once more, and no name in it leaves its directory.
pub fn relay(input: &[u8]) {
    static PASSED: AtomicU64 = AtomicU64::new(0);
    for whom in [Whom::Agent, Whom::Anybody] {
        let mut out = Vec::new();
        let Ok(count) = pass(&mut &*input, &mut out, whom) else { continue };
        let mut again = Vec::new();
        assert_eq!(pass(&mut &*out, &mut again, whom).expect("it was passed before"), count);
        assert!(out == again, "what was passed on changes");
        let (mut names, mut has_holes) = (Vec::new(), false);
        let mut reader = Reader::new(out.as_slice());
        while reader.advance().expect("it was written here") {
            let entry = reader.entry();
            has_holes |= entry.pieces.is_some();
            let path = entry.path.as_slice();
            let parts = path.split(|byte| *byte == b'/');
            assert!(path == b"." || parts.clone().all(|part| !matches!(part, b"" | b"." | b"..")));
            names.push(path.to_vec());
        }
        // The other reader does not know how files with holes are written for anybody.
        if whom == Whom::Agent || !has_holes {
            let mut archive = tar::Archive::new(out.as_slice());
            let entries = archive.entries().expect("an archive");
            let read = entries.map(|entry| entry.expect("an entry").path_bytes().into_owned());
            assert_eq!(read.collect::<Vec<_>>(), names);
        }
        // Programs of other people take much longer.
        let is_text = names.iter().flatten().all(|byte| byte.is_ascii_graphic() && *byte != b'\\');
        if whom == Whom::Agent || !is_text || PASSED.fetch_add(1, Relaxed) % 50 != 0 {
            continue;
        }
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, &out).expect("a file");
        let list = |program: &str, args: &[&str]| {
            let output = Command::new(program).args(args).arg(file.path()).output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().map(|line| line.trim_end_matches('/').as_bytes().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(list("tar", &["-tf"]), names, "GNU tar");
        assert_eq!(list("bsdtar", &["-tf"]), names, "bsdtar");
        if !has_holes {
            assert_eq!(list("busybox", &["tar", "-tf"]), names, "busybox");
        }
        let script = "import sys, tarfile\nfor n in tarfile.open(sys.argv[1], 'r:').getnames(): print(n)";
        assert_eq!(list("python3", &["-c", script]), names, "Python");
    }
}

/// Feeds a `.git`: what is made of it is read as a repository that is to go in, and another that lies beside
/// it is not, whatever the first says.
pub fn repository(input: &[u8]) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a directory");
    let top = fs::canonicalize(dir.path()).expect("a path");
    let (root, outside) = (top.join("root"), top.join("outside"));
    for git in [root.join(".git"), outside.join(".git")] {
        for part in ["objects/info", "objects/pack", "refs/heads", "info", "worktrees/x"] {
            fs::create_dir_all(git.join(part)).expect("a directory");
        }
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").expect("a file");
        fs::write(git.join("refs/heads/main"), HERE).expect("a file");
    }
    for part in ["refs/heads/main", "HEAD", "packed-refs"] {
        fs::write(outside.join(".git").join(part), SECRET).expect("a file");
    }
    fs::write(root.join("a"), "a").expect("a file");
    fill(&root, input);
    let begin = std::time::Instant::now();
    let head = banger_workspace::head_of(&root, &[]);
    assert_ne!(head.as_deref(), Some(SECRET), "the other repository was read");
    // Git takes a thousand times as long as this program does.
    if input.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 64 == 0 {
        let wish = banger_workspace::Wish {
            include_untracked: true,
            include: vec!["*".into()],
            ..banger_workspace::Wish::of("fuzz", &root, "/root/repo")
        };
        if let Ok(plan) = banger_workspace::dry_run(&wish, None) {
            assert_ne!(plan.base_commit.as_deref(), Some(SECRET), "the other repository was read");
            let inside = |file: &String| !file.contains(".git/") && !file.contains("outside");
            assert!(plan.files.iter().all(inside), "{:?}", plan.files);
        }
    }
    assert!(begin.elapsed().as_secs() < 8, "it waited");
}

/// The commit of a repository, and of the one beside it.
pub(crate) const HERE: &str = "1111111111111111111111111111111111111111";
const SECRET: &str = "2222222222222222222222222222222222222222";
/// What of a `.git` is put in another's place.
pub(crate) const PARTS: [&str; 24] = [
    ".git", ".git/HEAD", ".git/config", ".git/index", ".git/refs", ".git/refs/heads", ".git/refs/heads/main",
    ".git/packed-refs", ".git/objects", ".git/objects/info", ".git/objects/info/alternates", ".git/objects/pack",
    ".git/objects/11", ".git/info", ".git/info/exclude", ".git/commondir", ".git/gitdir", ".git/shallow",
    ".git/config.worktree", ".git/MERGE_MSG", ".git/worktrees/x/HEAD", ".git/worktrees/x/gitdir",
    ".git/worktrees/x/commondir", ".gitignore",
];

/// Changes a repository as the input says: records that end in two zero bytes, of which the first byte names
/// a part, the second says what it becomes, and the rest is its content.
fn fill(root: &Path, input: &[u8]) {
    let mut rest = input;
    for _ in 0..16 {
        let end = rest.windows(2).position(|two| two == [0, 0]).unwrap_or(rest.len());
        let (record, more) = (&rest[..end], rest.get(end + 2..).unwrap_or_default());
        let [part, kind, content @ ..] = record else { break };
        rest = more;
        let path = root.join(PARTS[usize::from(*part) % PARTS.len()]);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
        let target = std::ffi::OsStr::from_bytes(content);
        match kind % 8 {
            0 => drop(symlink(target, &path)),
            // What somebody who knows the place would write.
            1 => drop(symlink(root.with_file_name("outside").join(PARTS[usize::from(*part) % PARTS.len()]), &path)),
            2 => drop(fs::create_dir(&path)),
            3 => drop(nix_pipe(&path)),
            4 => {
                let git = root.with_file_name("outside/.git");
                drop(fs::write(&path, [b"gitdir: ", git.as_os_str().as_bytes(), b"\n"].concat()));
            }
            5 => {
                let git = root.with_file_name("outside/.git");
                drop(fs::write(&path, [git.as_os_str().as_bytes(), content].concat()));
            }
            _ => drop(fs::write(&path, content)),
        }
    }
}

fn nix_pipe(path: &Path) -> std::io::Result<()> {
    let made = Command::new("mkfifo").arg(path).status()?;
    assert!(made.success() || path.exists() || !path.parent().is_some_and(Path::is_dir));
    Ok(())
}

/// Feeds an index: what is read of it takes no more memory than it may, and what is fitted is one again.
pub fn staged(input: &[u8]) {
    for oid_len in [20, 32] {
        let Some(checked) = banger_workspace::check_index(input, oid_len) else { continue };
        let count = checked.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert!(count <= input.len());
    }
}

/// Feeds references of a guest's, and what is to be pushed: no name leads elsewhere, and what is removed of them
/// takes nothing else along.
pub fn refs(input: &[u8]) {
    let count = banger_workspace::check_refs(input);
    let count = count.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(count <= input.len());
}

/// Says whether a link leads above the directory its path is relative to.
fn leads_out(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() as i64 - 1;
    target.components().any(|part| {
        depth += match part {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            Component::CurDir => 0,
            Component::RootDir | Component::Prefix(_) => return true,
        };
        depth < 0
    })
}

/// Looks at all below a directory, whatever modes there are.
fn walk(root: &Path, dir: &Path, look: &dyn Fn(&Path, &fs::Metadata)) {
    fs::set_permissions(dir, Permissions::from_mode(0o700)).expect("a mode");
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let meta = entry.metadata().expect("what is there");
        look(&entry.path(), &meta);
        if meta.is_dir() {
            walk(root, &entry.path(), look);
        }
    }
}

static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| seeds::archives().swap_remove(0));

/// Builds a disk of layers. Every disk that comes of it must be right.
fn disk(layers: &[&[u8]]) {
    static BUILT: AtomicU64 = AtomicU64::new(0);
    let limits = Limits {
        entries: 5000,
        bytes: 64 << 20,
        file_bytes: 1 << 32,
        extents: 100_000,
        ..Limits::default()
    };
    let one = || -> Option<File> {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile());
        let file = file.expect("a file");
        let layers = layers.iter().enumerate().map(|(number, bytes)| {
            let bytes = bytes.to_vec();
            Layer {
                name: format!("L{number}"),
                diff_id: None,
                size: Some(bytes.len() as u64),
                open: Box::new(move || Ok(Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>)),
            }
        });
        build(layers.collect(), &file, &limits, &Progress::default()).ok().map(|_| file)
    };
    let Some(file) = one() else { return };
    // The checker takes much longer than the build.
    if BUILT.fetch_add(1, Relaxed) % 20 != 0 {
        return;
    }
    let again = one().expect("the second build is as good as the first");
    let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let same = Command::new("cmp").args([path(&file), path(&again)]).status();
    assert!(same.expect("cmp").success(), "two builds differ");
    let output = Command::new("timeout")
        .args(["30", "e2fsck", "-fn", &path(&file)])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .expect("e2fsck");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
