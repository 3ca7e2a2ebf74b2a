//! Random stacks, and a model so simple that it is plainly right.
//!
//! The model keeps paths in a map and knows no links through directories: the stacks have symbolic
//! links, but nothing below them.

use crate::support::{Head, Tar, built};
use proptest::prelude::*;
use std::collections::BTreeMap;

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
    /// The layer that put it there, for markers.
    layer: usize,
}

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

    fn make_parents(&mut self, path: &str, layer: usize) {
        if let Some(above) = parent(path)
            && !self.tree.contains_key(above)
        {
            self.make_parents(above, layer);
            self.put(above, Node { kind: 'd', mode: 0o755, content: Vec::new(), layer });
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        self.make_parents(path, node.layer);
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
    for (layer, steps) in stack.iter().enumerate() {
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
            let node = |kind, mode: u32, content| Node { kind, mode: mode as u16, content, layer };
            match step {
                Step::Whiteout(path) => {
                    let path = &paths[*path];
                    let name = path.rsplit('/').next().unwrap();
                    let above = parent(path).map(|above| format!("{above}/")).unwrap_or_default();
                    tar = tar.file(format!("{above}.wh.{name}"), "");
                }
                Step::Opaque(path) => tar = tar.file(format!("{}/.wh..wh..opq", paths[*path]), ""),
                Step::Directory(path, mode) if model.open(&paths[*path]) => {
                    model.put(&paths[*path], node('d', *mode, Vec::new()));
                    tar = tar.dir_mode(&paths[*path], *mode);
                }
                Step::File(path, mode, pieces) if model.open(&paths[*path]) => {
                    let content: Vec<u8> =
                        pieces.iter().flat_map(|(length, byte)| vec![*byte; *length]).collect();
                    let head = Head { mode: *mode, ..Head::new(b'0', &paths[*path]) };
                    tar = tar.entry(head, &content);
                    model.put(&paths[*path], node('f', *mode, content));
                }
                Step::Symlink(path, length) if model.open(&paths[*path]) => {
                    let target = "n/".repeat(*length)[..*length].to_owned();
                    tar = tar.symlink(&paths[*path], &target);
                    model.put(&paths[*path], node('l', 0o644, target.into_bytes()));
                }
                Step::Device(path, minor) if model.open(&paths[*path]) => {
                    let head = Head { device: (7, *minor), ..Head::new(b'4', &paths[*path]) };
                    tar = tar.entry(head, b"");
                    model.put(&paths[*path], node('b', 0o644, Vec::new()));
                }
                Step::Fifo(path) if model.open(&paths[*path]) => {
                    tar = tar.entry(Head::new(b'6', &paths[*path]), b"");
                    model.put(&paths[*path], node('p', 0o644, Vec::new()));
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
                        model.make_parents(path, layer);
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
