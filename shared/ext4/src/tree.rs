//! The tree of everything on the disk, while it is put together.

use crate::inode::Time;
use crate::layout::MAX_LINKS;
use crate::source::{Attributes, Body, Span, Store, Text, Xattrs};
use banger_doc::{Error, Result};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No node, or no entry.
const NONE: u32 = u32::MAX;

/// What every file, directory or other has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Meta {
    /// Permissions, setuid and the like: the low 12 bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed last; stands for its other times too.
    pub time: Time,
    /// Its extended attributes, in the same store as the rest.
    pub xattrs: Xattrs,
}

/// What a node is, and what the tree keeps with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    /// Its first and last entry, and the directory it is in. When it has been written: its first
    /// block, how many, and the directory still.
    Directory {
        first: u32,
        last: u32,
        parent: u32,
    },
    File {
        size: u64,
        span: Span,
    },
    /// A target too long for the inode is in a block, once that is written.
    Symlink {
        target: Text,
        block: u32,
    },
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) meta: Meta,
    pub(crate) content: Content,
    pub(crate) store: u16,
    /// Names of it; of a directory, the subdirectories in it.
    pub(crate) links: u32,
    /// Its inode, once it has one.
    pub(crate) number: u32,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) node: u32,
    directory: u32,
    name: u32,
    store: u16,
    length: u16,
    before: u32,
    pub(crate) after: u32,
}

/// Something in a [`Tree`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id(pub(crate) u32);

/// A tree of directories and what is in them.
pub struct Tree {
    stores: Vec<Store>,
    pub(crate) nodes: Vec<Node>,
    entries: Vec<Entry>,
    names: HashTable<u32>,
    hasher: RandomState,
}

impl Default for Tree {
    fn default() -> Self {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        let content = Content::Directory { first: NONE, last: NONE, parent: 0 };
        Self {
            stores: vec![Store::default()],
            nodes: vec![Node { meta, content, store: 0, links: 0, number: 0 }],
            entries: Vec::new(),
            names: HashTable::new(),
            hasher: RandomState::new(),
        }
    }
}

impl Tree {
    /// Returns a tree with an empty root directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what a source brought; the number names it from now on.
    pub fn adopt(&mut self, store: Store) -> u16 {
        self.stores.push(store);
        (self.stores.len() - 1) as u16
    }

    /// Keeps a string of the tree's own; returns its store and the string.
    pub fn keep(&mut self, text: &[u8]) -> (u16, Text) {
        (0, self.stores[0].keep(text))
    }

    /// Returns the root directory.
    pub fn root(&self) -> Id {
        Id(0)
    }

    /// Returns what has this name in a directory.
    pub fn child(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.find(directory.0, name).map(|entry| Id(self.entries[entry as usize].node))
    }

    /// Returns the directory that a directory is in; the root is in itself.
    pub fn parent(&self, directory: Id) -> Option<Id> {
        match self.nodes[directory.0 as usize].content {
            Content::Directory { parent, .. } => Some(Id(parent)),
            _ => None,
        }
    }

    /// Says whether it is a directory.
    pub fn is_directory(&self, id: Id) -> bool {
        matches!(self.nodes[id.0 as usize].content, Content::Directory { .. })
    }

    /// Returns where a symbolic link points; nothing for anything else.
    pub fn target(&self, id: Id) -> Option<&[u8]> {
        let node = &self.nodes[id.0 as usize];
        match node.content {
            Content::Symlink { target, .. } => Some(self.text(node.store, target)),
            _ => None,
        }
    }

    /// Returns a string of a store.
    pub fn text(&self, store: u16, text: Text) -> &[u8] {
        self.stores[store as usize].text(text)
    }

    /// Puts something new into a directory, under a name that is free there.
    pub fn add(&mut self, directory: Id, store: u16, name: Text, meta: Meta, body: Body) -> Id {
        let content = match body {
            Body::Directory => {
                self.nodes[directory.0 as usize].links += 1;
                Content::Directory { first: NONE, last: NONE, parent: directory.0 }
            }
            Body::File { size, span } => Content::File { size, span },
            Body::Symlink(target) => Content::Symlink { target, block: 0 },
            Body::Character(major, minor) => Content::Character(major, minor),
            Body::Block(major, minor) => Content::Block(major, minor),
            Body::Fifo => Content::Fifo,
            Body::Socket => Content::Socket,
        };
        let links = u32::from(body != Body::Directory);
        let node = self.nodes.len() as u32;
        self.nodes.push(Node { meta, content, store, links, number: 0 });
        self.enter(directory.0, store, name, node);
        Id(node)
    }

    /// Gives something that is not a directory one more name, which is free in that directory.
    pub fn link(&mut self, directory: Id, store: u16, name: Text, id: Id) -> Result<()> {
        let node = &mut self.nodes[id.0 as usize];
        if matches!(node.content, Content::Directory { .. }) {
            return Err(Error::failed("a directory cannot have a second name"));
        }
        if node.links == MAX_LINKS {
            return Err(Error::failed(format!("a file cannot have more than {MAX_LINKS} names")));
        }
        node.links += 1;
        self.enter(directory.0, store, name, id.0);
        Ok(())
    }

    /// Gives something that is there other owners, permissions, times and attributes.
    pub fn change(&mut self, id: Id, store: u16, meta: Meta) {
        let node = &mut self.nodes[id.0 as usize];
        // The store of anything but a directory holds its content too.
        debug_assert!(matches!(node.content, Content::Directory { .. }));
        node.meta = meta;
        node.store = store;
    }

    /// Takes a name out of a directory, with everything below it. Says whether it was there.
    pub fn remove(&mut self, directory: Id, name: &[u8]) -> bool {
        let Some(entry) = self.find(directory.0, name) else { return false };
        self.unlink(entry);
        true
    }

    /// Takes everything out of a directory. Says whether anything was there.
    pub fn clear(&mut self, directory: Id) -> bool {
        let mut any = false;
        while let Some(entry) = self.first(directory.0) {
            self.unlink(entry);
            any = true;
        }
        any
    }

    /// Returns the names in a directory and what they are of, in the order they came.
    pub fn children(&self, directory: Id) -> impl Iterator<Item = (&[u8], Id)> {
        self.entries(directory.0).map(|(_, entry)| (self.name(entry), Id(entry.node)))
    }

    /// Makes a directory the root, with all that is in it. Everything else is gone.
    pub fn make_root(&mut self, directory: Id) {
        if directory == self.root() {
            return;
        }
        let Node { meta, store, content, .. } = self.nodes[directory.0 as usize];
        let Content::Directory { first: begin, last: end, .. } = content else {
            unreachable!("because only directories are made the root")
        };
        // It goes with the rest, but not what was in it.
        self.nodes[directory.0 as usize].content =
            Content::Directory { first: NONE, last: NONE, parent: 0 };
        self.clear(self.root());
        self.change(self.root(), store, meta);
        self.nodes[0].content = Content::Directory { first: begin, last: end, parent: 0 };
        let mut next = begin;
        while next != NONE {
            let entry = self.entries[next as usize];
            let hash = self.hash(entry.directory, self.name(&entry));
            if let Ok(found) = self.names.find_entry(hash, |other| *other == next) {
                found.remove();
            }
            if let Content::Directory { parent, .. } = &mut self.nodes[entry.node as usize].content
            {
                *parent = 0;
                self.nodes[0].links += 1;
            }
            self.entries[next as usize].directory = 0;
            self.index(next);
            next = entry.after;
        }
    }

    pub(crate) fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Returns the entries of a directory that is not written yet, in the order they came.
    pub(crate) fn entries(&self, directory: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let mut next = self.first(directory);
        std::iter::from_fn(move || {
            let number = next?;
            let entry = &self.entries[number as usize];
            next = (entry.after != NONE).then_some(entry.after);
            Some((number, entry))
        })
    }

    pub(crate) fn entry(&self, entry: u32) -> &Entry {
        &self.entries[entry as usize]
    }

    /// Returns the first entry of a directory.
    pub(crate) fn first(&self, directory: u32) -> Option<u32> {
        match self.nodes[directory as usize].content {
            Content::Directory { first, .. } if first != NONE => Some(first),
            _ => None,
        }
    }

    /// Returns the entry after this one.
    pub(crate) fn after(&self, entry: u32) -> Option<u32> {
        let after = self.entries[entry as usize].after;
        (after != NONE).then_some(after)
    }

    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        let text = Text { offset: entry.name, length: u32::from(entry.length) };
        self.stores[entry.store as usize].text(text)
    }

    pub(crate) fn attributes(&self, node: &Node) -> Option<&Attributes> {
        self.stores[node.store as usize].attributes(node.meta.xattrs)
    }

    /// Forgets which names there are, to have the memory for what follows.
    pub(crate) fn settle(&mut self) {
        self.names = HashTable::new();
    }

    fn hash(&self, directory: u32, name: &[u8]) -> u64 {
        self.hasher.hash_one((directory, name))
    }

    fn find(&self, directory: u32, name: &[u8]) -> Option<u32> {
        let same = |entry: &u32| {
            let entry = &self.entries[*entry as usize];
            entry.directory == directory && self.name(entry) == name
        };
        self.names.find(self.hash(directory, name), same).copied()
    }

    fn enter(&mut self, directory: u32, store: u16, name: Text, node: u32) {
        let number = self.entries.len() as u32;
        let Content::Directory { first, last, .. } = &mut self.nodes[directory as usize].content
        else {
            unreachable!("because only directories are entered")
        };
        let before = *last;
        *last = number;
        if *first == NONE {
            *first = number;
        }
        if before != NONE {
            self.entries[before as usize].after = number;
        }
        self.entries.push(Entry {
            node,
            directory,
            name: name.offset,
            store,
            length: name.length as u16,
            before,
            after: NONE,
        });
        self.index(number);
    }

    /// Lets an entry be found by its name.
    fn index(&mut self, number: u32) {
        let entry = &self.entries[number as usize];
        let hash = self.hash(entry.directory, self.name(entry));
        let Self { names, entries, stores, hasher, .. } = self;
        names.insert_unique(hash, number, |entry| {
            let entry = &entries[*entry as usize];
            let text = Text { offset: entry.name, length: u32::from(entry.length) };
            hasher.hash_one((entry.directory, stores[entry.store as usize].text(text)))
        });
    }

    /// Takes an entry out, and everything that is then below nothing.
    fn unlink(&mut self, entry: u32) {
        let mut doomed = vec![entry];
        while let Some(number) = doomed.pop() {
            let entry = self.entries[number as usize];
            let hash = self.hash(entry.directory, self.name(&entry));
            if let Ok(found) = self.names.find_entry(hash, |other| *other == number) {
                found.remove();
            }
            if entry.before != NONE {
                self.entries[entry.before as usize].after = entry.after;
            }
            if entry.after != NONE {
                self.entries[entry.after as usize].before = entry.before;
            }
            let holder = &mut self.nodes[entry.directory as usize];
            if let Content::Directory { first, last, .. } = &mut holder.content {
                if *first == number {
                    *first = entry.after;
                }
                if *last == number {
                    *last = entry.before;
                }
            }
            if self.is_directory(Id(entry.node)) {
                self.nodes[entry.directory as usize].links -= 1;
                doomed.extend(self.entries(entry.node).map(|(number, _)| number));
            } else {
                self.nodes[entry.node as usize].links -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_new_root_is_moved_not_doubled() {
        let mut tree = Tree::new();
        let make = |tree: &mut Tree, directory: Id, name: &str, body: Body| {
            let (store, name) = tree.keep(name.as_bytes());
            tree.add(directory, store, name, Meta::default(), body)
        };
        let root = tree.root();
        let top = make(&mut tree, root, "top", Body::Directory);
        make(&mut tree, root, "beside", Body::Fifo);
        for number in 0..100 {
            make(&mut tree, top, &format!("file{number}"), Body::Fifo);
        }
        let etc = make(&mut tree, top, "etc", Body::Directory);
        let inner = make(&mut tree, etc, "top", Body::Fifo);
        let before = (tree.entries.len(), tree.names.len());
        tree.make_root(top);
        assert_eq!(tree.entries.len(), before.0);
        assert_eq!(tree.names.len(), before.1 - 2);
        assert_eq!(tree.children(root).count(), 101);
        assert_eq!(tree.nodes[0].links, 1);
        assert_eq!((tree.child(root, b"etc"), tree.child(etc, b"top")), (Some(etc), Some(inner)));
        assert_eq!((tree.parent(etc), tree.child(root, b"beside")), (Some(root), None));
        // Names in it can be taken and given as in any directory.
        assert!(tree.remove(root, b"file0") && !tree.remove(root, b"file0"));
        assert!(tree.remove(root, b"etc") && tree.child(root, b"etc").is_none());
        let again = make(&mut tree, root, "file0", Body::Fifo);
        assert_eq!(tree.child(root, b"file0"), Some(again));
        assert_eq!((tree.children(root).count(), tree.nodes[0].links), (100, 0));
    }
}
