//! Whatever the strict reader takes, GNU tar, bsdtar, busybox and Python list the same, and so they do
//! what the writer makes of it. Archives that some read otherwise are refused.

use banger_tar::{Buffered, Holes, Kind, Reader, Writer};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is listed of an archive: kind, size, path and target of each entry.
type List = Vec<String>;

/// Prints what Python finds in each archive that is named.
const PYTHON: &str = r#"
import sys, tarfile
for path in sys.argv[1:]:
    print("==")
    try:
        with tarfile.open(path, "r:", errorlevel=2) as archive:
            for one in archive:
                kind = ("h" if one.islnk() else "l" if one.issym() else "d" if one.isdir() else
                        "c" if one.ischr() else "b" if one.isblk() else "p" if one.isfifo() else
                        "-" if one.isreg() else one.type.decode())
                link = one.linkname if kind in "hl" else ""
                print(kind, one.size if kind == "-" else 0, one.name, link)
    except Exception as error:
        print("error", error)
"#;

fn ours(bytes: &[u8]) -> Result<(List, bool), String> {
    let mut reader = Reader::new(bytes);
    let (mut list, mut has_holes) = (List::new(), false);
    while reader.advance().map_err(|error| error.chain())? {
        let entry = reader.entry();
        has_holes |= entry.pieces.is_some();
        let kind = match entry.kind {
            Kind::File => '-',
            Kind::Hardlink => 'h',
            Kind::Symlink => 'l',
            Kind::Character => 'c',
            Kind::Block => 'b',
            Kind::Directory => 'd',
            Kind::Fifo => 'p',
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("letters");
        list.push(line(kind, entry.size, &text(&entry.path), &text(&entry.link)));
    }
    Ok((list, has_holes))
}

/// One line of a list, without what means nothing in a path.
fn line(kind: char, size: u64, path: &str, link: &str) -> String {
    let plain = |path: &str| {
        let mut path = path.to_owned();
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        let path = path.trim_end_matches('/');
        path.to_owned()
    };
    format!("{kind} {size} {} {}", plain(path), plain(link)).trim_end().to_owned()
}

/// Reads what `tar -tv` prints; the size is the word of that number, the path that of the other.
fn verbose(text: &str, size: usize, path: usize) -> List {
    let mut list = List::new();
    for said in text.lines() {
        let words: Vec<&str> = said.split_whitespace().collect();
        let kind = said.chars().next().unwrap_or('?');
        // busybox shows the size of a device as two words.
        let path =
            if words.get(size).is_some_and(|word| word.ends_with(',')) { path + 1 } else { path };
        let name = words.get(path).copied().unwrap_or_default();
        let rest = words.get(path + 1..).unwrap_or_default();
        let link = match rest {
            ["link", "to", link] | ["->", link] => link,
            _ => "",
        };
        let kind = if kind == 'C' { '-' } else { kind };
        let size = if kind == '-' { words[size].parse().unwrap_or(u64::MAX) } else { 0 };
        list.push(line(kind, size, name, link));
    }
    list
}

fn run(program: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new("timeout")
        .args(["20", program])
        .args(args)
        .arg(path)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout);
    // A warning is none: GNU tar misses half of the end, and knows nothing of letters.
    if output.status.success() { out.into_owned() } else { format!("{out}error {said}") }
}

/// Returns a line as busybox shows it: hard links as files, paths without what leads out.
fn stripped(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    if words[0] == "h" {
        words[0] = "-";
    }
    let path = words[2].rsplit("../").next().unwrap_or_default();
    words[2] = path.trim_start_matches('/');
    words.join(" ")
}

/// An archive on its way through all of them.
struct Case {
    path: PathBuf,
    list: List,
    /// busybox knows no sparse files.
    is_busybox_out: bool,
}

/// Asserts that all list what is expected.
fn compare(cases: &[Case]) {
    let mut python = Vec::new();
    for part in cases.chunks(200) {
        let output = Command::new("timeout")
            .args(["60", "python3", "-c", PYTHON])
            .args(part.iter().map(|case| &case.path))
            .env("PYTHONIOENCODING", "utf-8:surrogateescape")
            .output()
            .expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("letters");
        python.extend(text.split("==\n").skip(1).map(|text| {
            let lines = text.lines().map(|said| {
                let words: Vec<&str> = said.split(' ').collect();
                match words[..] {
                    [kind, size, path, link] if kind.len() == 1 => line(
                        kind.chars().next().unwrap_or('?'),
                        size.parse().unwrap_or(u64::MAX),
                        path,
                        link,
                    ),
                    _ => said.to_owned(),
                }
            });
            lines.collect::<List>()
        }));
    }
    assert_eq!(python.len(), cases.len());
    let mut complaints = String::new();
    for (case, python) in cases.iter().zip(python) {
        let path = &case.path;
        let gnu = run("tar", &["--numeric-owner", "--full-time", "-P", "-tvf"], path);
        let bsd = run("bsdtar", &["--numeric-owner", "-P", "-tvf"], path);
        let mut all = vec![
            ("GNU tar", verbose(&gnu, 2, 5)),
            ("bsdtar", verbose(&bsd, 4, 8)),
            ("Python", python),
        ];
        let for_busybox: List = case.list.iter().map(|line| stripped(line)).collect();
        if !case.is_busybox_out {
            let said = run("busybox", &["tar", "-tvf"], path);
            let mut list = verbose(&said, 2, 5);
            // It gives up at headers of before POSIX, in so many words.
            if said.contains("invalid tar magic") {
                list.retain(|line| !line.starts_with(['e', 't']));
                list.extend(for_busybox.iter().skip(list.len()).cloned());
            }
            all.push(("busybox", list));
        }
        for (who, list) in all {
            let expected = if who == "busybox" { &for_busybox } else { &case.list };
            if list != *expected {
                let _ = writeln!(
                    complaints,
                    "{}: {who}: {list:#?}\nours: {:#?}",
                    path.display(),
                    expected
                );
            }
        }
    }
    assert!(complaints.is_empty(), "{complaints}");
}

/// Writes anew what an archive holds.
fn anew(bytes: &[u8], holes: Holes) -> Vec<u8> {
    let mut reader = Reader::new(Buffered::new(bytes));
    let mut writer = Writer::new(Vec::new(), holes);
    while reader.advance().expect("it was read before") {
        let entry = reader.entry();
        writer.entry(&entry.path, &entry.link, entry).expect("it can be written");
        reader.content(|bytes| writer.content(bytes)).expect("it was read before");
    }
    writer.finish().expect("memory takes everything")
}

/// Has all of them list an archive and what the writer makes of it.
fn cases(dir: &Path, number: usize, bytes: &[u8]) -> Vec<Case> {
    let Ok((list, has_holes)) = ours(bytes) else { return Vec::new() };
    let mut cases = Vec::new();
    let mut add = |name: &str, bytes: &[u8], is_busybox_out| {
        let path = dir.join(format!("{number}-{name}.tar"));
        fs::write(&path, bytes).expect("a file");
        cases.push(Case { path, list: list.clone(), is_busybox_out });
    };
    add("given", bytes, has_holes);
    let posix = anew(bytes, Holes::Posix);
    let again = ours(&posix).expect("what was written is read");
    assert_eq!(again.0, list, "{number}");
    assert_eq!(anew(&posix, Holes::Posix), posix, "{number}: written again it is the same");
    add("anew", &posix, has_holes);
    if has_holes {
        let gnu = anew(bytes, Holes::Gnu);
        assert_eq!(anew(&gnu, Holes::Posix), posix, "{number}");
        add("gnu", &gnu, true);
    }
    cases
}

/// A header with anything in it.
#[derive(Clone)]
struct Head {
    name: Vec<u8>,
    kind: u8,
    size: u64,
    link: Vec<u8>,
    prefix: Vec<u8>,
    magic: [u8; 8],
}

const POSIX: [u8; 8] = *b"ustar\x0000";
const GNU: [u8; 8] = *b"ustar  \0";

impl Head {
    fn new(kind: u8, name: &str, magic: [u8; 8]) -> Self {
        let name = name.as_bytes().to_vec();
        Self { name, kind, size: 0, link: Vec::new(), prefix: Vec::new(), magic }
    }

    fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; 512];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{:011o}\x0007346545000\0", self.size).as_bytes());
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, &self.magic);
        put(329, b"0000001\x000000003\0");
        put(345, &self.prefix);
        summed(b)
    }
}

fn summed(mut b: Vec<u8>) -> Vec<u8> {
    b[148..156].fill(b' ');
    let sum: u32 = b[..512].iter().map(|byte| u32::from(*byte)).sum();
    b[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    b
}

fn padded(tar: &mut Vec<u8>, content: &[u8]) {
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn announced(tar: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let magic = if matches!(kind, b'L' | b'K') { GNU } else { POSIX };
    let head = Head { size: body.len() as u64, ..Head::new(kind, "././@Announced", magic) };
    tar.extend(head.encode());
    padded(tar, body);
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length += 1;
    }
    format!("{length} {key}={value}\n").into_bytes()
}

fn entry(tar: &mut Vec<u8>, head: Head, content: &[u8]) {
    tar.extend(Head { size: content.len() as u64, ..head }.encode());
    padded(tar, content);
}

fn end(mut tar: Vec<u8>) -> Vec<u8> {
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// Content that is an entry to whoever takes it for one.
fn hidden(name: &str) -> Vec<u8> {
    let mut tar = Vec::new();
    entry(&mut tar, Head::new(b'0', name, POSIX), b"");
    tar
}

#[test]
fn what_some_read_otherwise_is_refused() {
    let good = |kind, magic| Head::new(kind, "good", magic);
    let with = |announcements: &[(u8, Vec<u8>)], head: Head, content: &[u8]| {
        let mut tar = Vec::new();
        for (kind, body) in announcements {
            announced(&mut tar, *kind, body);
        }
        entry(&mut tar, head, content);
        end(tar)
    };
    let path = |path: &str| record("path", path);
    let linked = |kind| Head { link: b"good".to_vec(), ..good(kind, POSIX) };
    let size_of = |size: usize| record("size", &size.to_string());
    let archives = [
        (
            "a path for all",
            "an extended header sets 'path' for all entries",
            with(&[(b'g', path("../evil"))], good(b'0', POSIX), b""),
        ),
        (
            "a size for all",
            "an extended header sets 'size' for all entries",
            with(&[(b'g', size_of(512))], good(b'0', POSIX), b""),
        ),
        (
            "two paths",
            "the extended header's 'path' is wrong: it is told twice",
            with(&[(b'x', [path("good"), path("../evil")].concat())], good(b'0', POSIX), b""),
        ),
        (
            "a long name and a path",
            "an entry has two names",
            with(&[(b'L', b"../evil\0".to_vec()), (b'x', path("good"))], good(b'0', GNU), b""),
        ),
        (
            "a path and a long name",
            "an entry has two names",
            with(&[(b'x', path("good")), (b'L', b"../evil\0".to_vec())], good(b'0', GNU), b""),
        ),
        (
            "a hard link with content",
            "it tells a size, but only files have content",
            with(&[], linked(b'1'), &hidden("../evil")),
        ),
        (
            "a link with content",
            "it tells a size, but only files have content",
            with(&[], linked(b'2'), &hidden("../evil")),
        ),
        (
            "a directory with content",
            "it tells a size, but only files have content",
            with(&[], good(b'5', POSIX), &hidden("../evil")),
        ),
        (
            "a pipe with content",
            "it tells a size, but only files have content",
            with(&[], good(b'6', POSIX), &hidden("../evil")),
        ),
        (
            "a device with content",
            "it tells a size, but only files have content",
            with(&[], good(b'3', POSIX), &hidden("../evil")),
        ),
        (
            "a size that the header has not",
            "an entry has two sizes",
            with(&[(b'x', size_of(0))], good(b'0', POSIX), &hidden("../evil")),
        ),
        (
            "a prefix in a GNU header",
            "a header has what is a prefix to some and none to others",
            with(&[], Head { prefix: b"..".to_vec(), ..good(b'0', GNU) }, b""),
        ),
        (
            "a prefix in an old header",
            "a header has what is a prefix to some and none to others",
            with(&[], Head { prefix: b"..".to_vec(), ..good(b'0', [0; 8]) }, b""),
        ),
        (
            "a header of no kind",
            "a header is of a kind that is not known",
            with(&[], good(b'0', *b"ustarXYZ"), b""),
        ),
        (
            "a file with a slash",
            "a file's name ends with a slash",
            with(&[], Head::new(b'0', "good/", POSIX), b""),
        ),
        ("a volume", "its type 'V' is not known", with(&[], good(b'V', GNU), b"")),
        (
            "sparse in POSIX",
            "it is sparse in a way that is not known to all",
            with(&[], good(b'S', POSIX), b""),
        ),
        (
            "a key after a space",
            "an extended header has a record with a space in its key",
            with(&[(b'x', record(" path", "../evil"))], good(b'0', POSIX), b""),
        ),
        (
            "a target in a file's header",
            "it has a link's target and is none",
            with(&[], linked(b'0'), b"x"),
        ),
        (
            "a target for a file",
            "it has a link's target and is none",
            with(&[(b'x', record("linkpath", "x"))], good(b'0', POSIX), b""),
        ),
        (
            "a star size",
            "the extended header's 'SCHILY.realsize' is wrong: not all know what it means",
            with(&[(b'x', record("SCHILY.realsize", "5"))], good(b'0', POSIX), b""),
        ),
        (
            "a size beyond all",
            "its size is more than any file's",
            with(&[(b'x', record("size", &u64::MAX.to_string()))], good(b'0', POSIX), b""),
        ),
    ];
    for (what, why, bytes) in archives {
        assert_eq!(ours(&bytes).unwrap_err(), why, "{what}");
    }
    // What they are made of is taken where nothing is wrong with it.
    let long = with(&[(b'L', b"good\0".to_vec())], good(b'0', GNU), b"x");
    let told = [path("good"), size_of(1)].concat();
    for taken in [
        with(&[], good(b'0', POSIX), b"x"),
        with(&[], good(b'0', [0; 8]), b"x"),
        with(&[(b'x', told)], good(b'0', POSIX), b"x"),
        long,
    ] {
        assert_eq!(ours(&taken).unwrap().0, [line('-', 1, "good", "")]);
    }
}

/// Numbers of no pattern, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// An archive with anything in it, most of it right.
fn archive(random: &mut Random) -> Vec<u8> {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(80));
    let hundred = "h".repeat(100);
    let names =
        ["a", "b/c", "./d", "e/", "../evil", "/abs", "a//b", ".", "x/../y", &long, &hundred];
    let mut tar = Vec::new();
    for _ in 0..=random.below(5) {
        let magic = random.of(&[POSIX, POSIX, GNU, GNU, [0; 8]]);
        let kind = random.of(b"00000001122345567S\0\0");
        let mut head = Head::new(kind, random.of::<&str>(&names), magic);
        if matches!(kind, b'1' | b'2') || random.one_in(10) {
            head.link = random.of::<&str>(&names).as_bytes().to_vec();
        }
        if random.one_in(8) {
            head.prefix = random.of::<&str>(&names).as_bytes().to_vec();
            head.prefix.truncate(100);
        }
        let mut content = Vec::new();
        if matches!(kind, b'0' | b'7' | 0) && random.one_in(2) || random.one_in(12) {
            content = match random.below(3) {
                0 => hidden("../evil"),
                _ => vec![b'x'; random.below(1500) as usize],
            };
        }
        for _ in 0..2 {
            if random.one_in(6) {
                let body = [random.of::<&str>(&names).as_bytes(), b"\0"].concat();
                announced(&mut tar, random.of(b"LLK"), &body);
            }
            if random.one_in(5) {
                let mut body = Vec::new();
                for _ in 0..=random.below(2) {
                    let size = content.len().to_string();
                    let name = random.of::<&str>(&names);
                    let records = [
                        ("path", name),
                        ("path", name),
                        ("linkpath", name),
                        ("size", size.as_str()),
                        ("mtime", "1234567890.5"),
                        ("uid", "70000"),
                        ("comment", "x"),
                        ("SCHILY.xattr.user.a", "b"),
                        ("size", "700"),
                        ("GNU.sparse.name", name),
                        ("hdrcharset", "BINARY"),
                    ];
                    let (key, value) = random.of(&records);
                    body.extend(record(key, value));
                }
                announced(&mut tar, random.of(b"xxxxg"), &body);
            }
        }
        if kind == b'S' && magic == GNU || magic == POSIX && random.one_in(12) {
            sparse(random, &mut tar, head);
            continue;
        }
        if random.one_in(25) {
            head.size = random.below(600);
            tar.extend(head.encode());
            padded(&mut tar, &content);
        } else {
            head.size = content.len() as u64;
            let mut bytes = head.encode();
            if random.one_in(6) {
                spelled(random, &mut bytes, head.size);
            }
            tar.extend(bytes);
            padded(&mut tar, &content);
        }
        if random.one_in(60) {
            let at = tar.len() - 1 - random.below(tar.len().min(900) as u64) as usize;
            tar[at] ^= 1 << random.below(8);
        }
        if random.one_in(60) {
            tar.resize(tar.len() + 512, 0);
        }
    }
    end(tar)
}

/// Writes a number of a header in another way.
fn spelled(random: &mut Random, head: &mut [u8], size: u64) {
    let (at, room) = random.of(&[(100, 8), (108, 8), (116, 8), (124, 12), (124, 12), (136, 12)]);
    let value = if at == 124 { size } else { random.below(512) };
    let octal = match random.below(10) {
        0 => format!("{value:o}"),
        1 => format!("{value:o} "),
        2 => format!("{value:>width$o}\0", width = room - 1),
        3 => format!("{value:0room$o}"),
        4 => format!("\0{value:o}"),
        5 => format!("{value:o} 7"),
        6 => format!("{value:o}\07"),
        7 => " ".repeat(room),
        8 => "\0".repeat(room),
        _ => {
            head[at..at + room].fill(0);
            head[at + room - 8..at + room].copy_from_slice(&value.to_be_bytes());
            head[at] = random.of(&[0x80, 0x80, 0x81, 0xff, 0xc0]);
            String::new()
        }
    };
    let octal = octal.as_bytes();
    if !octal.is_empty() && octal.len() <= room {
        head[at..at + room].fill(0);
        head[at..at + octal.len()].copy_from_slice(octal);
    }
    let whole = summed(head.to_vec());
    head.copy_from_slice(&whole);
}

/// Adds a file with holes.
fn sparse(random: &mut Random, tar: &mut Vec<u8>, head: Head) {
    let (mut at, mut map) = (0, Vec::new());
    for _ in 0..random.below(9) {
        at += random.below(20) * 512;
        let length = random.below(5) * 512;
        map.push((at, length));
        at += length;
    }
    let size = at + random.below(2) * 700;
    map.push((size, 0));
    let stored: u64 = map.iter().map(|(_, length)| length).sum();
    let content = vec![b'x'; stored as usize];
    if head.kind == b'S' {
        let octal = |value: u64| format!("{value:011o}\0").into_bytes();
        let mut bytes = Head { size: stored, prefix: Vec::new(), ..head }.encode();
        for (slot, (offset, length)) in map.iter().take(4).enumerate() {
            let piece = [octal(*offset), octal(*length)].concat();
            bytes[386 + 24 * slot..][..24].copy_from_slice(&piece);
        }
        bytes[482] = u8::from(map.len() > 4);
        bytes[483..495].copy_from_slice(&octal(size));
        tar.extend(summed(bytes));
        if map.len() > 4 {
            let mut block = vec![0; 512];
            for (slot, (offset, length)) in map[4..].iter().enumerate() {
                let piece = [octal(*offset), octal(*length)].concat();
                block[24 * slot..][..24].copy_from_slice(&piece);
            }
            tar.extend(block);
        }
        padded(tar, &content);
        return;
    }
    let mut body = Vec::new();
    if random.one_in(3) {
        body.extend(record("path", "GNUSparseFile.0/holes"));
    }
    let records = [
        record("GNU.sparse.major", "1"),
        record("GNU.sparse.minor", "0"),
        record("GNU.sparse.name", "holes"),
        record("GNU.sparse.realsize", &size.to_string()),
    ];
    body.extend(records.concat());
    announced(tar, b'x', &body);
    let mut stored = format!("{}\n", map.len());
    for (offset, length) in &map {
        let _ = write!(stored, "{offset}\n{length}\n");
    }
    let mut stored = stored.into_bytes();
    padded(&mut stored, b"");
    stored.extend(content);
    entry(tar, Head { kind: b'0', ..head }, &stored);
}

/// Writes a tree as Python does in each of its formats.
const PYTHON_WRITES: &str = r#"
import sys, tarfile
tree, path, form = sys.argv[1:]
with tarfile.open(path, "w", format=int(form)) as archive:
    archive.add(tree, "tree")
"#;

#[test]
fn what_people_s_programs_write_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    let deep = tree.join("d".repeat(90)).join("e".repeat(90));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("n".repeat(60)), "long").unwrap();
    fs::write(tree.join("x".repeat(180)), "longer").unwrap();
    fs::write(tree.join("grüße"), vec![1; 70_000]).unwrap();
    fs::write(tree.join("first"), "1").unwrap();
    fs::hard_link(tree.join("first"), tree.join("second")).unwrap();
    std::os::unix::fs::symlink("first", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), tree.join("long-link")).unwrap();
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    for at in [4096, 100 << 10, 300 << 10, 500 << 10, 700 << 10] {
        std::os::unix::fs::FileExt::write_all_at(&holes, &[7; 4096], at).unwrap();
    }
    let mut all = Vec::new();
    let mut write = |number: usize, program: &str, args: &[&str], count: usize| {
        let path = dir.path().join(format!("{number}.tar"));
        let output = Command::new(program)
            .args(args)
            .arg(format!("-cf{}", path.display()))
            .args(["-C", dir.path().to_str().unwrap(), "tree"])
            .output()
            .expect("it runs");
        let bytes = fs::read(&path).unwrap();
        let said = ours(&bytes).unwrap_or_else(|error| panic!("{program} {args:?}: {error}"));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.0.len() >= count, "{program} {args:?}: {words}");
        all.extend(cases(dir.path(), number, &bytes));
    };
    // The old ones have no room for long names.
    write(0, "tar", &["--format=v7"], 7);
    write(1, "tar", &["--format=ustar"], 7);
    write(2, "tar", &["--format=gnu"], 11);
    write(3, "tar", &["--format=oldgnu", "-S"], 11);
    write(4, "tar", &["--format=gnu", "-S"], 11);
    write(5, "tar", &["--format=pax"], 11);
    write(6, "tar", &["--format=pax", "-S"], 11);
    write(7, "tar", &["--format=pax", "-S", "--sparse-version=0.1"], 11);
    write(8, "tar", &["--format=pax", "-S", "--sparse-version=0.0"], 11);
    write(9, "bsdtar", &["--format=pax"], 11);
    write(10, "bsdtar", &["--format=gnutar"], 11);
    write(11, "bsdtar", &["--format=ustar"], 7);
    write(12, "busybox", &["tar"], 11);
    // Its third has no room for long names, and it refuses to write them.
    for (number, form) in [(14, "1"), (15, "2")] {
        let path = dir.path().join(format!("{number}.tar"));
        let (from, to) = (tree.to_str().unwrap(), path.to_str().unwrap());
        let output = Command::new("python3").args(["-c", PYTHON_WRITES, from, to, form]).output();
        let output = output.expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = fs::read(&path).unwrap();
        assert_eq!(ours(&bytes).expect("it is taken").0.len(), 11);
        all.extend(cases(dir.path(), number, &bytes));
    }
    compare(&all);
}

#[test]
fn what_is_taken_everybody_lists_the_same() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (seed, count): (u64, u64) = (number("BANGER_SEED", 1), number("BANGER_CASES", 600));
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    let mut taken = 0;
    for n in 0..count {
        let mut random = Random((seed * 1_000_003 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let bytes = archive(&mut random);
        let cases = cases(dir.path(), n as usize, &bytes);
        taken += u64::from(!cases.is_empty());
        all.extend(cases);
    }
    if std::env::var_os("BANGER_KEEP").is_some() {
        println!("{}", dir.keep().display());
    }
    assert!(taken > count / 8, "only {taken} of {count} are taken: nothing is compared");
    compare(&all);
}
