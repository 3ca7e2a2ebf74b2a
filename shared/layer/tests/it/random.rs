//! Random stacks, and a model so simple that it is plainly right.
//!
//! The model keeps paths in a map and knows no links through directories: the stacks have symbolic
//! links, but nothing below them.

use crate::support::{Head, Image, Tar, built, record};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::process::Command;

/// What an entry does. Paths are numbers into a small set, so that they meet often.
#[derive(Clone, Debug)]
enum Step {
    Directory(usize, u32),
    File(usize, u32, Vec<Piece>),
    Symlink(usize, usize),
    Device(usize, u32),
    Fifo(usize),
    Hard(usize, usize),
    Whiteout(usize),
    Opaque(usize),
}

/// A stretch of a file: that many bytes of this value.
type Piece = (usize, u8);

#[derive(Clone, Debug, PartialEq)]
struct Node {
    kind: char,
    mode: u16,
    content: Vec<u8>,
    /// What owner, time and attribute are made of; nothing for a directory that no entry made.
    mark: Option<u32>,
}

impl Node {
    fn owner(&self) -> (u32, u32) {
        self.mark.map_or((0, 0), |mark| (mark * 1_000_003, mark % 7))
    }

    /// From 1970 on, in each of the ages that ext4 knows. `ext4-view` reads no earlier ones.
    fn time(&self) -> (i64, u32) {
        self.mark.map_or((0, 0), |mark| {
            ((i64::from(mark % 4) << 32) + i64::from(mark) * 500_003, mark * 244_140)
        })
    }

    fn attribute(&self) -> Option<String> {
        let mark = self.mark.filter(|mark| mark % 3 == 0)?;
        Some(format!("m{mark}-").repeat(1 + mark as usize % 60))
    }

    /// Adds the node as an entry of an archive.
    fn write(&self, tar: Tar, mut head: Head) -> Tar {
        let (seconds, nanos) = self.time();
        let time = format!("{seconds}.{nanos:09}");
        let mut body = record("mtime", time.as_bytes());
        if let Some(value) = self.attribute() {
            body.extend(record("SCHILY.xattr.trusted.mark", value.as_bytes()));
        }
        body.extend(record("path", &std::mem::take(&mut head.name)));
        body.extend(record("linkpath", &std::mem::take(&mut head.link)));
        (head.uid, head.gid) = self.owner();
        head.mode = u32::from(self.mode);
        let content = if self.kind == 'f' { self.content.as_slice() } else { b"" };
        head.size = content.len() as u64;
        tar.pax_raw(b'x', &body).raw(&head, content)
    }
}

/// What a node's inode says, as debugfs(8) shows it; of an attribute, how long it is.
type Inode = (char, u16, (u32, u32), u32, (i64, u32), Option<usize>);

const NAMES: [&str; 4] = ["a", "b", "\u{e9} \"x\"", "long-name-long-name-long-name-long-name"];

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
    let mode = 0..0o10_000u32;
    let piece = (
        prop_oneof![1..200usize, 4000..4200usize, 60_000..140_000usize],
        prop_oneof![Just(0u8), any::<u8>()],
    );
    let pieces = prop::collection::vec(piece, 0..5);
    prop_oneof![
        4 => (path.clone(), mode.clone()).prop_map(|(path, mode)| Step::Directory(path, mode)),
        5 => (path.clone(), mode, pieces).prop_map(|(path, mode, pieces)| Step::File(path, mode, pieces)),
        1 => (path.clone(), 1..200usize).prop_map(|(path, length)| Step::Symlink(path, length)),
        1 => (path.clone(), 0..70_000u32).prop_map(|(path, minor)| Step::Device(path, minor)),
        1 => path.clone().prop_map(Step::Fifo),
        2 => (path.clone(), path.clone()).prop_map(|(path, target)| Step::Hard(path, target)),
        2 => path.clone().prop_map(Step::Whiteout),
        1 => path.prop_map(Step::Opaque),
    ]
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
            self.put(above, Node { kind: 'd', mode: 0o755, content: Vec::new(), mark: None });
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
            let node = |kind, mode: u32, content| Node {
                kind,
                mode: mode as u16,
                content,
                mark: Some(mode),
            };
            match step {
                Step::Whiteout(path) => {
                    let path = &paths[*path];
                    let name = path.rsplit('/').next().unwrap();
                    let above = parent(path).map(|above| format!("{above}/")).unwrap_or_default();
                    tar = tar.file(format!("{above}.wh.{name}"), "");
                }
                Step::Opaque(path) => tar = tar.file(format!("{}/.wh..wh..opq", paths[*path]), ""),
                Step::Directory(path, mode) if model.open(&paths[*path]) => {
                    let node = node('d', *mode, Vec::new());
                    tar = node.write(tar, Head::new(b'5', &paths[*path]));
                    model.put(&paths[*path], node);
                }
                Step::File(path, mode, pieces) if model.open(&paths[*path]) => {
                    let content: Vec<u8> =
                        pieces.iter().flat_map(|(length, byte)| vec![*byte; *length]).collect();
                    let node = node('f', *mode, content);
                    tar = node.write(tar, Head::new(b'0', &paths[*path]));
                    model.put(&paths[*path], node);
                }
                Step::Symlink(path, length) if model.open(&paths[*path]) => {
                    let target = "n/".repeat(*length)[..*length].to_owned();
                    let head = Head::new(b'2', &paths[*path]).link(&target);
                    let node = node('l', *length as u32, target.into_bytes());
                    tar = node.write(tar, head);
                    model.put(&paths[*path], node);
                }
                Step::Device(path, minor) if model.open(&paths[*path]) => {
                    let head = Head { device: (7, *minor), ..Head::new(b'4', &paths[*path]) };
                    let node = node('b', minor % 0o10_000, Vec::new());
                    tar = node.write(tar, head);
                    model.put(&paths[*path], node);
                }
                Step::Fifo(path) if model.open(&paths[*path]) => {
                    let node = node('p', 0o604, Vec::new());
                    tar = node.write(tar, Head::new(b'6', &paths[*path]));
                    model.put(&paths[*path], node);
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
                _ => {}
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
                let node = &self.nodes[node];
                (
                    node.kind,
                    node.mode,
                    node.owner(),
                    links,
                    node.time(),
                    node.attribute().map(|value| value.len()),
                )
            })
            .collect();
        all.sort();
        all
    }
}

/// Returns what debugfs(8) sees in all inodes but the root's, sorted.
fn inodes(image: &Image) -> Vec<Inode> {
    // The first ten are reserved.
    let requests: Vec<String> =
        (11..10 + image.summary.inodes).map(|number| format!("stat <{number}>\n")).collect();
    let script = image.path.with_extension("requests");
    std::fs::write(&script, requests.concat()).unwrap();
    let output = Command::new("timeout")
        .args(["60", "debugfs", "-f"])
        .args([&script, &image.path])
        .output()
        .expect("debugfs runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut all: Vec<Inode> = said.split("debugfs: ").skip(1).map(inode).collect();
    all.sort();
    all
}

/// Reads what `stat` of debugfs(8) prints.
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
    let time = word("mtime: 0x");
    let (low, extra) = time.split_once(':').unwrap();
    let (low, extra) =
        (u32::from_str_radix(low, 16).unwrap(), u32::from_str_radix(extra, 16).unwrap());
    let attribute = said
        .split_once("trusted.mark (")
        .map(|(_, rest)| rest.split_once(')').expect("a length").0.parse().expect("a length"));
    (
        kind,
        u16::from_str_radix(&word("Mode:"), 8).unwrap(),
        (number("User:"), number("Group:")),
        number("Links:"),
        (i64::from(low as i32) + (i64::from(extra & 3) << 32), extra >> 2),
        attribute,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stack_is_what_the_model_says(stack in prop::collection::vec(prop::collection::vec(step(), 0..40), 1..6)) {
        let (model, layers) = play(&stack);
        let image = built(layers);
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
                (path.clone(), (node.kind, node.mode, node.content.clone()))
            })
            .collect();
        prop_assert!(found == expected, "{:?}\n{:?}", found.keys(), expected.keys());
        let inodes: std::collections::BTreeSet<_> = model.tree.values().collect();
        prop_assert_eq!(image.summary.inodes, inodes.len() as u64 + 1);
        prop_assert_eq!(self::inodes(&image), model.inodes());
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
