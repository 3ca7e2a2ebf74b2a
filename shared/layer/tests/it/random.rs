//! Random stacks, and a model so simple that it is plainly right.
//!
//! The model keeps paths in a map and knows no links through directories: the stacks have symbolic
//! links, but nothing below them.

use crate::support::{Head, Image, Tar, built, old_sparse, record};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Command, Stdio};

/// What an entry does. Paths are numbers into a small set, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Make(usize, Thing, About),
    Hard(usize, usize),
    Whiteout(usize),
    Opaque(usize),
}

/// What an entry makes: a link with a target of this length, a device with this minor number.
#[derive(Clone, Debug)]
enum Thing {
    Directory,
    File(Form, Vec<Piece>),
    Symlink(usize),
    Device(u32),
    Fifo,
}

/// How an archive keeps a file: whole, or in one of the ways that leave out the holes.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    OldGnu,
    Pax00,
    Pax01,
    Pax10,
}

/// A stretch of a file: that many bytes of this value, or a hole.
type Piece = (usize, Option<u8>);

/// Offsets and lengths of what is no hole.
type Map = Vec<(u64, u64)>;

/// What an inode says, whatever it is the inode of.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct About {
    mode: u16,
    owner: (u32, u32),
    time: (i64, u32),
    attributes: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Node {
    kind: char,
    content: Vec<u8>,
    /// Which blocks of a file are on the disk.
    blocks: Vec<u64>,
    about: About,
}

/// What a node's inode says, as debugfs(8) shows it.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Inode {
    kind: char,
    links: u32,
    blocks: Vec<u64>,
    about: About,
}

const BLOCK: u64 = 4096;
static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
/// Fewer blocks of zeros than this between data are no hole.
const HOLE: u64 = 16;
const NAMES: [&str; 4] = ["a", "b", "\u{e9} \"x\"", "long-name-long-name-long-name-long-name"];
const ATTRIBUTES: [&str; 8] = [
    "user.a",
    "user.mark-with-a-name",
    "trusted.mark",
    "security.selinux",
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "trusted.long",
];

const TIMES: [&str; 4] = ["atime", "ctime", "mtime", "crtime"];

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    for depth in 0..2 {
        let above = paths.clone();
        let above = above.iter().filter(|path| path.matches('/').count() == depth);
        for path in above.collect::<Vec<_>>() {
            paths.extend(NAMES.iter().map(|name| format!("{path}/{name}")));
        }
    }
    paths
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..84usize;
    prop_oneof![
        12 => (path.clone(), thing(), about())
            .prop_map(|(path, thing, about)| Step::Make(path, thing, about)),
        2 => (path.clone(), path.clone()).prop_map(|(path, target)| Step::Hard(path, target)),
        2 => path.clone().prop_map(Step::Whiteout),
        1 => path.prop_map(Step::Opaque),
    ]
}

fn thing() -> impl Strategy<Value = Thing> {
    let forms = vec![Form::Whole, Form::OldGnu, Form::Pax00, Form::Pax01, Form::Pax10];
    let lengths = prop_oneof![
        1..200usize,
        4000..4200usize,
        (0..20usize).prop_map(|blocks| blocks * BLOCK as usize),
        60_000..140_000usize
    ];
    let pieces = prop_oneof![
        4 => prop::collection::vec((lengths, byte()), 0..5),
        // More than an inode has room for, and than a header of the old GNU kind.
        1 => prop::collection::vec((0..12_000usize, byte()), 20..40),
    ];
    // What a map tells of are whole blocks.
    let pieces = pieces.prop_map(|mut pieces: Vec<Piece>| {
        for (length, _) in pieces.iter_mut().filter(|(_, byte)| byte.is_some()) {
            *length = length.next_multiple_of(512);
        }
        pieces
    });
    prop_oneof![
        4 => Just(Thing::Directory),
        5 => (select(forms), pieces).prop_map(|(form, pieces)| Thing::File(form, pieces)),
        1 => (1..200usize).prop_map(Thing::Symlink),
        1 => (0..70_000u32).prop_map(Thing::Device),
        1 => Just(Thing::Fifo),
    ]
}

fn byte() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![Just(None), Just(Some(0)), any::<u8>().prop_map(Some)]
}

fn about() -> impl Strategy<Value = About> {
    let owner = (0..u32::MAX, 0..u32::MAX);
    let attributes = prop::collection::vec(attribute(), 0..6);
    (0..0o10_000u16, owner, time(), attributes).prop_map(|(mode, owner, time, attributes)| About {
        mode,
        owner,
        time,
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

/// From 1901 to 2446, often the first or last second of one of the ages that ext4 knows. From 2310
/// to 2378 there is nothing: e2fsck(8) takes that for faulty times before 1970.
fn time() -> impl Strategy<Value = (i64, u32)> {
    let age = select(vec![-1i64, 0, 1, 2, 3, 4, 6]);
    let second = prop_oneof![Just(0), Just(i64::from(i32::MAX)), 0..1i64 << 31];
    let nanos = prop_oneof![Just(0), Just(999_999_999), 0..1_000_000_000u32];
    (age, second, nanos).prop_map(|(age, second, nanos)| ((age << 31) + second, nanos))
}

/// All of them together fit into a block.
fn attribute() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    prop_oneof![
        4 => (select(&ATTRIBUTES[..4]), value(0..60)),
        2 => (Just(ATTRIBUTES[4]), value(20..25)),
        2 => (select(&ATTRIBUTES[5..7]), acl()),
        1 => (Just(ATTRIBUTES[7]), value(60..3500)),
    ]
}

fn value(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), lengths)
        .prop_map(|(first, length)| (0..length).map(|at| first.wrapping_add(at as u8)).collect())
}

/// An ACL as system calls know it, with as many users of their own as there are numbers.
fn acl() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u32>(), 0..4).prop_map(|users| {
        let users = users.into_iter().map(|user| (2u16, user));
        let entries = [(1, 0)].into_iter().chain(users).chain([(4, 0), (16, 0), (32, 0)]);
        let entries = entries.flat_map(|(tag, number)| {
            [&tag.to_le_bytes()[..], &5u16.to_le_bytes(), &number.to_le_bytes()].concat()
        });
        2u32.to_le_bytes().into_iter().chain(entries).collect()
    })
}

fn fill(pieces: &[Piece]) -> Vec<u8> {
    let mut content = Vec::new();
    for (length, byte) in pieces {
        content.resize(content.len() + length, byte.unwrap_or(0));
    }
    content
}

fn size(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|(length, _)| *length as u64).sum()
}

fn map(pieces: &[Piece]) -> Map {
    let mut at = 0;
    let mut map = Map::new();
    for (length, byte) in pieces {
        if byte.is_some() {
            map.push((at, *length as u64));
        }
        at += *length as u64;
    }
    map
}

/// Returns which blocks of a file are to be on the disk: what has data, and the zeros before it
/// that came as content and are too few for a hole.
fn blocks(content: &[u8], map: &Map) -> Vec<u64> {
    let mut blocks = Vec::new();
    let mut zeros = 0;
    for (block, bytes) in (0..).zip(content.chunks(BLOCK as usize)) {
        let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
        if *bytes != ZEROS[..bytes.len()] {
            blocks.extend(block - if zeros < HOLE { zeros } else { 0 }..=block);
            zeros = 0;
        } else if map.iter().any(|(at, length)| *length > 0 && *at < end && at + length > start) {
            zeros += 1;
        } else {
            zeros = 0;
        }
    }
    blocks
}

impl Form {
    fn map(self, pieces: &[Piece]) -> Map {
        match self {
            Self::Whole => vec![(0, size(pieces))],
            _ => map(pieces),
        }
    }

    /// Returns what an extended header says of the holes.
    fn records(self, path: &str, size: u64, map: &Map) -> Vec<u8> {
        let name = ("name", path.to_owned());
        let count = ("numblocks", map.len().to_string());
        let records = match self {
            Self::Whole | Self::OldGnu => Vec::new(),
            Self::Pax00 => {
                let pairs = map.iter().flat_map(|(offset, length)| {
                    [("offset", offset.to_string()), ("numbytes", length.to_string())]
                });
                [("size", size.to_string()), count].into_iter().chain(pairs).collect()
            }
            Self::Pax01 => {
                let pairs: Vec<_> =
                    map.iter().map(|(offset, length)| format!("{offset},{length}")).collect();
                vec![("size", size.to_string()), count, name, ("map", pairs.join(","))]
            }
            Self::Pax10 => {
                let one = ("major", "1".to_owned());
                vec![one, ("minor", "0".to_owned()), name, ("realsize", size.to_string())]
            }
        };
        let record =
            |(key, value): (&str, String)| record(&format!("GNU.sparse.{key}"), value.as_bytes());
        records.into_iter().flat_map(record).collect()
    }

    /// Returns what the archive has as the file's content.
    fn stored(self, pieces: &[Piece]) -> Vec<u8> {
        let data: Vec<Piece> = pieces.iter().filter(|piece| piece.1.is_some()).copied().collect();
        match self {
            Self::Whole => fill(pieces),
            Self::OldGnu | Self::Pax00 | Self::Pax01 => fill(&data),
            Self::Pax10 => {
                let map = map(pieces);
                let numbers = map.iter().flat_map(|(offset, length)| [*offset, *length]);
                let lines = [map.len() as u64].into_iter().chain(numbers);
                let lines: Vec<_> = lines.map(|number| format!("{number}\n")).collect();
                let mut stored = lines.concat().into_bytes();
                stored.resize(stored.len().next_multiple_of(512), 0);
                [stored, fill(&data)].concat()
            }
        }
    }
}

impl About {
    /// Returns the time as an extended header tells it: before 1970, the fraction goes backwards.
    fn moment(&self) -> String {
        let nanos = i128::from(self.time.0) * 1_000_000_000 + i128::from(self.time.1);
        let sign = if nanos < 0 { "-" } else { "" };
        let nanos = nanos.unsigned_abs();
        format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
    }

    fn records(&self) -> Vec<u8> {
        let mut body = record("mtime", self.moment().as_bytes());
        for (name, value) in &self.attributes {
            body.extend(record(&format!("SCHILY.xattr.{name}"), value));
        }
        body
    }
}

impl Thing {
    fn target(length: usize) -> String {
        "n/".repeat(length)[..length].to_owned()
    }

    fn node(&self, about: &About) -> Node {
        let (kind, content, blocks) = match self {
            Self::Directory => ('d', Vec::new(), Vec::new()),
            Self::File(form, pieces) => {
                let content = fill(pieces);
                let blocks = blocks(&content, &form.map(pieces));
                ('f', content, blocks)
            }
            Self::Symlink(length) => ('l', Self::target(*length).into_bytes(), Vec::new()),
            Self::Device(_) => ('b', Vec::new(), Vec::new()),
            Self::Fifo => ('p', Vec::new(), Vec::new()),
        };
        Node { kind, content, blocks, about: about.clone() }
    }

    /// Adds it as an entry of an archive.
    fn write(&self, tar: Tar, path: &str, about: &About) -> Tar {
        let mut body = about.records();
        // Other names are for programs that know no sparse files.
        let has_other_name = matches!(self, Self::File(Form::Pax01 | Form::Pax10, _));
        let name = if has_other_name { "GNUSparseFile.0/x" } else { path };
        body.extend(record("path", name.as_bytes()));
        let mut stored = Vec::new();
        let mut head = Head::new(b'0', "");
        (head.uid, head.gid) = about.owner;
        head.mode = u32::from(about.mode);
        match self {
            Self::Directory => head.kind = b'5',
            Self::Fifo => head.kind = b'6',
            Self::Device(minor) => (head.kind, head.device) = (b'4', (7, *minor)),
            Self::Symlink(length) => {
                head.kind = b'2';
                body.extend(record("linkpath", Self::target(*length).as_bytes()));
            }
            Self::File(form, pieces) => {
                stored = form.stored(pieces);
                head.size = stored.len() as u64;
                body.extend(form.records(path, size(pieces), &map(pieces)));
            }
        }
        let header = match self {
            Self::File(Form::OldGnu, pieces) => old_sparse(head, &map(pieces), size(pieces)),
            _ => head.encode().to_vec(),
        };
        tar.pax_raw(b'x', &body).bytes(&header).content(&stored)
    }
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

fn remove(tree: &mut BTreeMap<String, usize>, path: &str) {
    let below = format!("{path}/");
    tree.retain(|other, _| other != path && !other.starts_with(&below));
}

/// The model: paths stand for nodes, so that hard links share one.
#[derive(Default)]
struct Model {
    tree: BTreeMap<String, usize>,
    nodes: Vec<Node>,
}

impl Model {
    fn kind(&self, path: &str) -> Option<char> {
        self.tree.get(path).map(|node| self.nodes[*node].kind)
    }

    /// Says whether an entry at this path can be: nothing above it but directories.
    fn open(&self, path: &str) -> bool {
        let mut above = parent(path);
        while let Some(path) = above {
            if self.kind(path).is_some_and(|kind| kind != 'd') {
                return false;
            }
            above = parent(path);
        }
        true
    }

    fn make_parents(&mut self, path: &str) {
        if let Some(above) = parent(path)
            && !self.tree.contains_key(above)
        {
            self.make_parents(above);
            self.put(above, Thing::Directory.node(&About { mode: 0o755, ..About::default() }));
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        self.make_parents(path);
        if !(node.kind == 'd' && self.kind(path) == Some('d')) {
            remove(&mut self.tree, path);
        }
        self.nodes.push(node);
        self.tree.insert(path.to_owned(), self.nodes.len() - 1);
    }
}

/// Plays a stack to the model and writes it down as archives.
fn play(stack: &[Vec<Step>]) -> (Model, Vec<Vec<u8>>) {
    let paths = paths();
    let mut model = Model::default();
    let mut layers = Vec::new();
    for steps in stack {
        let mut tar = Tar::new();
        // Markers first, for the model; in the archive they stand where they stand.
        for step in steps {
            match step {
                Step::Whiteout(path) if model.open(&paths[*path]) => {
                    remove(&mut model.tree, &paths[*path]);
                }
                Step::Opaque(path)
                    if model.open(&paths[*path]) && model.kind(&paths[*path]) == Some('d') =>
                {
                    let below = format!("{}/", paths[*path]);
                    model.tree.retain(|other, _| !other.starts_with(&below));
                }
                _ => {}
            }
        }
        for step in steps {
            match step {
                Step::Whiteout(path) => {
                    let path = &paths[*path];
                    let name = path.rsplit('/').next().unwrap();
                    let above = parent(path).map(|above| format!("{above}/")).unwrap_or_default();
                    tar = tar.file(format!("{above}.wh.{name}"), "");
                }
                Step::Opaque(path) => tar = tar.file(format!("{}/.wh..wh..opq", paths[*path]), ""),
                Step::Make(path, thing, about) if model.open(&paths[*path]) => {
                    tar = thing.write(tar, &paths[*path], about);
                    model.put(&paths[*path], thing.node(about));
                }
                Step::Hard(path, target) => {
                    let (path, target) = (&paths[*path], &paths[*target]);
                    let same = model.tree.get(path) == model.tree.get(target);
                    if model.open(path)
                        && !same
                        && model.kind(target).is_some_and(|kind| kind != 'd')
                    {
                        tar = tar.hard(path, target);
                        let node = model.tree[target];
                        model.make_parents(path);
                        remove(&mut model.tree, path);
                        model.tree.insert(path.clone(), node);
                    }
                }
                Step::Make(..) => {}
            }
        }
        layers.push(tar.end());
    }
    (model, layers)
}

impl Model {
    /// Returns what all inodes but the root's say, sorted.
    fn inodes(&self) -> Vec<Inode> {
        let mut names: BTreeMap<usize, u32> = BTreeMap::new();
        for (path, node) in &self.tree {
            *names.entry(*node).or_default() += 1;
            if self.nodes[*node].kind == 'd' {
                // Its own dot; and the two dots of what lies in it.
                *names.entry(*node).or_default() += 1;
                if let Some(above) = parent(path) {
                    *names.entry(self.tree[above]).or_default() += 1;
                }
            }
        }
        let mut all: Vec<Inode> = names
            .into_iter()
            .map(|(node, links)| {
                let Node { kind, blocks, about, .. } = self.nodes[node].clone();
                Inode { kind, links, blocks, about }
            })
            .collect();
        all.sort();
        all
    }
}

/// Returns what debugfs(8) sees in all inodes but the root's, sorted.
///
/// It changes the times after that: the other reader takes no disk with some of them.
fn inodes(image: &Image) -> Vec<Inode> {
    // The first ten are reserved.
    let requests: String = (11..10 + image.summary.inodes).map(requests).collect();
    let script = image.path.with_extension("requests");
    std::fs::write(&script, requests).unwrap();
    // It writes byte after byte, for which a pipe would be slow.
    let said = image.path.with_extension("said");
    Command::new("timeout")
        .args(["60", "debugfs", "-w", "-f"])
        .args([&script, &image.path])
        .stdout(File::create(&said).unwrap())
        .stderr(Stdio::null())
        .status()
        .expect("debugfs runs");
    let said = std::fs::read(said).unwrap();
    let said = String::from_utf8_lossy(&said);
    let mut all: Vec<Inode> = said.split("debugfs: stat ").skip(1).map(inode).collect();
    all.sort();
    all
}

fn requests(number: u64) -> String {
    let values = ATTRIBUTES.map(|name| format!("ea_get -x <{number}> {name}\n"));
    let times = TIMES.map(|field| format!("set_inode_field <{number}> {field} @0\n"));
    format!("stat <{number}>\n{}{}", values.concat(), times.concat())
}

/// Reads what debugfs(8) says of one inode.
fn inode(said: &str) -> Inode {
    let word = |name: &str| {
        let rest = said.split_once(name).unwrap_or_else(|| panic!("{name}: {said}")).1;
        rest.split_whitespace().next().unwrap().to_owned()
    };
    // Numbers above 2^31 are shown as negative.
    let number = |name: &str| word(name).parse::<i64>().unwrap() as u32;
    let kind = match word("Type:").as_str() {
        "regular" => 'f',
        "directory" => 'd',
        "symlink" => 'l',
        "block" => 'b',
        "FIFO" => 'p',
        other => panic!("{other}"),
    };
    let times = TIMES.map(|field| word(&format!("{field}: 0x")));
    assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    let attributes: BTreeMap<_, _> = said.lines().filter_map(attribute_of).collect();
    // The list has two spaces before each.
    assert_eq!(said.lines().filter(|line| line.starts_with("  ")).count(), attributes.len());
    Inode {
        kind,
        links: number("Links:"),
        blocks: if kind == 'f' { blocks_of(said) } else { Vec::new() },
        about: About {
            mode: u16::from_str_radix(&word("Mode:"), 8).unwrap(),
            owner: (number("User:"), number("Group:")),
            time: time_of(&times[0]),
            attributes,
        },
    }
}

/// Reads the low seconds, and the nanoseconds with two more bits of seconds.
fn time_of(words: &str) -> (i64, u32) {
    let (low, extra) = words.split_once(':').expect("two words");
    let [low, extra] = [low, extra].map(|word| u32::from_str_radix(word, 16).expect("a number"));
    (i64::from(low as i32) + (i64::from(extra & 3) << 32), extra >> 2)
}

/// Reads a line such as `user.a (2) = 61 62`.
fn attribute_of(line: &str) -> Option<(String, Vec<u8>)> {
    let (name, rest) = line.split_once(" (")?;
    let name = ATTRIBUTES.iter().find(|known| **known == name)?;
    let bytes = rest.split_once(" = ").map_or("", |(_, bytes)| bytes).split_whitespace();
    let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
    Some(((*name).to_owned(), bytes.collect()))
}

/// Reads a line such as `(ETB0):9, (0-1):34-35, (7):36`; the first of these is the tree's own.
fn blocks_of(said: &str) -> Vec<u64> {
    let line = said.split_once("EXTENTS:\n").map_or("", |(_, rest)| rest.lines().next().unwrap());
    let extents = line.split(", ").filter_map(|extent| extent.strip_prefix('(')?.split_once(')'));
    let ranges = extents.map(|(range, _)| range).filter(|range| !range.starts_with("ETB"));
    let number = |digits: &str| digits.parse::<u64>().expect("a block");
    let blocks = ranges.flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        number(first)..=number(last)
    });
    blocks.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stack_is_what_the_model_says(stack in prop::collection::vec(prop::collection::vec(step(), 0..40), 1..6)) {
        let (model, layers) = play(&stack);
        let image = built(layers);
        let inodes: BTreeSet<_> = model.tree.values().collect();
        prop_assert_eq!(image.summary.inodes, inodes.len() as u64 + 1);
        prop_assert_eq!(self::inodes(&image), model.inodes());
        let found: BTreeMap<String, (char, u16, Vec<u8>)> = image
            .tree()
            .into_iter()
            .map(|(path, seen)| (String::from_utf8(path).unwrap(), (seen.kind, seen.mode, seen.content)))
            .collect();
        let expected: BTreeMap<String, (char, u16, Vec<u8>)> = model
            .tree
            .iter()
            .map(|(path, node)| {
                let node = &model.nodes[*node];
                (path.clone(), (node.kind, node.about.mode, node.content.clone()))
            })
            .collect();
        prop_assert!(found == expected, "{:?}\n{:?}", found.keys(), expected.keys());
    }

    #[test]
    fn a_directory_of_any_names_is_found_again(names in prop::collection::btree_set(prop::collection::vec(1..=255u8, 1..=255), 1..300)) {
        let names: Vec<_> = names
            .into_iter()
            .filter(|name| !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh."))
            .collect();
        let tar = names.iter().fold(Tar::new(), |tar, name| tar.file([b"d/", name.as_slice()].concat(), name));
        let tree = built(vec![tar.dir("d").end()]).tree();
        prop_assert_eq!(tree.len(), names.len() + 1);
        for name in names {
            prop_assert_eq!(&tree[&[b"d/", name.as_slice()].concat()].content, &name);
        }
    }
}
