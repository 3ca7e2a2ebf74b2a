//! Puts layers on top of each other, the lowest first.

use crate::limits::{Limits, over};
use crate::take::{Change, Taken, What};
use banger_doc::{Context, Error, Result};
use banger_ext4::{Body, Id, Meta, Text, Tree};
use banger_tar::shown;
use std::collections::HashSet;

/// More symbolic links than this on one path, and it leads nowhere.
const MAX_LINKS: u32 = 40;
/// The most bytes of paths that go through symbolic links, all entries together. An image with a
/// hundred thousand files in linked directories has some millions.
const MAX_LINK_BYTES: u64 = 256 << 20;

/// The tree of all layers so far.
pub(crate) struct Merge<'l> {
    limits: &'l Limits,
    tree: Tree,
    /// The directory that was found last, which is mostly the next one too.
    last: Option<(Vec<u8>, Id)>,
    /// Directories made because something lies in them that no layer has an entry for.
    made: u64,
    made_bytes: u64,
    /// Bytes of paths that went through symbolic links.
    link_bytes: u64,
}

fn too_winding() -> Error {
    Error::failed("too many of its paths go through symbolic links")
}

impl<'l> Merge<'l> {
    pub(crate) fn new(limits: &'l Limits) -> Self {
        Self { limits, tree: Tree::new(), last: None, made: 0, made_bytes: 0, link_bytes: 0 }
    }

    pub(crate) fn into_tree(self) -> Tree {
        self.tree
    }

    /// Puts one more layer on top.
    pub(crate) fn layer(&mut self, taken: Taken) -> Result<()> {
        let Taken { changes, markers, store, .. } = taken;
        let store = self.tree.adopt(store);
        self.last = None;
        // Markers act on the layers below and on nothing of their own, wherever they stand.
        if markers {
            let replaced = self.replaced(store, &changes);
            for change in changes.iter().flatten() {
                self.mark(store, change, &replaced);
            }
        }
        // A marker on a path that was not walked to its end did nothing.
        if self.link_bytes > MAX_LINK_BYTES {
            return Err(too_winding());
        }
        self.last = None;
        for chunk in changes {
            for change in &chunk {
                self.change(store, change).with_context(|| self.about(store, change))?;
            }
        }
        Ok(())
    }

    fn about(&self, store: u16, change: &Change) -> String {
        let parent = shown(self.tree.text(store, change.parent));
        let name = shown(self.tree.text(store, change.name));
        if change.parent == Text::default() {
            format!("the entry '{name}' cannot be used")
        } else {
            format!("the entry '{parent}/{name}' cannot be used")
        }
    }

    /// Returns the symbolic links that the layer replaces by something else: markers below them
    /// mean what is new there, which holds nothing of the lower layers.
    fn replaced(&mut self, store: u16, changes: &[Vec<Change>]) -> HashSet<Id> {
        let mut replaced = HashSet::new();
        for change in changes.iter().flatten() {
            if matches!(change.what, What::Put(_, Body::Symlink(_)) | What::Whiteout | What::Opaque)
            {
                continue;
            }
            let Some(directory) = self.directory(store, change.parent, None) else { continue };
            let name = self.tree.text(store, change.name);
            if let Some(id) = self.tree.child(directory, name)
                && self.tree.target(id).is_some()
            {
                replaced.insert(id);
            }
        }
        replaced
    }

    /// Does what a marker says.
    fn mark(&mut self, store: u16, change: &Change, replaced: &HashSet<Id>) {
        if !matches!(change.what, What::Whiteout | What::Opaque) {
            return;
        }
        let Some(directory) = self.directory(store, change.parent, Some(replaced)) else {
            return;
        };
        let removed = if matches!(change.what, What::Opaque) {
            self.tree.clear(directory)
        } else {
            let name = self.tree.text(store, change.name).to_vec();
            self.tree.remove(directory, &name)
        };
        if removed {
            self.last = None;
        }
    }

    /// Does what an entry that is no marker says.
    fn change(&mut self, store: u16, change: &Change) -> Result<()> {
        match change.what {
            What::Whiteout | What::Opaque => Ok(()),
            What::Put(meta, _) if change.name.is_empty() => {
                let root = self.tree.root();
                self.tree.change(root, store, meta);
                Ok(())
            }
            What::Put(meta, body) => {
                let directory = self.make(store, change.parent)?;
                let name = self.tree.text(store, change.name).to_vec();
                if let Some(id) = self.tree.child(directory, &name) {
                    if body == Body::Directory && self.tree.is_directory(id) {
                        self.tree.change(id, store, meta);
                        return Ok(());
                    }
                    self.tree.remove(directory, &name);
                    self.last = None;
                }
                self.tree.add(directory, store, change.name, meta, body);
                Ok(())
            }
            What::Link(target) => {
                let path = self.tree.text(store, target).to_vec();
                let id = self.target(&path)?.ok_or_else(|| {
                    Error::failed(format!("its target '{}' is not there", shown(&path)))
                })?;
                let directory = self.make(store, change.parent)?;
                let name = self.tree.text(store, change.name).to_vec();
                if let Some(there) = self.tree.child(directory, &name) {
                    if there == id {
                        return Ok(());
                    }
                    if self.tree.is_directory(id) {
                        return Err(Error::failed("a directory cannot have a second name"));
                    }
                    self.tree.remove(directory, &name);
                    self.last = None;
                }
                self.tree.link(directory, store, change.name, id)
            }
        }
    }

    /// Finds what a hard link points to. A symbolic link at the end is not followed.
    fn target(&mut self, path: &[u8]) -> Result<Option<Id>> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match split {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        let Some(directory) = self.walk(parent, None, false)? else { return Ok(None) };
        Ok(self.tree.child(directory, name))
    }

    /// Finds a directory, if it is there.
    fn directory(&mut self, store: u16, path: Text, replaced: Option<&HashSet<Id>>) -> Option<Id> {
        let path = self.tree.text(store, path);
        if let Some((last, id)) = &self.last
            && last == path
        {
            return Some(*id);
        }
        let path = path.to_vec();
        // A path that cannot be walked holds nothing for a marker.
        let found = self.walk(&path, replaced, false).unwrap_or_default();
        if let Some(id) = found {
            // What was found without regard to replaced links is not remembered.
            self.last = replaced.is_some().then_some((path, id));
        }
        found
    }

    /// Finds a directory, making what is missing of it.
    fn make(&mut self, store: u16, path: Text) -> Result<Id> {
        let path = self.tree.text(store, path);
        if let Some((last, id)) = &self.last
            && last == path
        {
            return Ok(*id);
        }
        let path = path.to_vec();
        let id = self.walk(&path, None, true)?.expect("because what is missing is made");
        self.last = Some((path, id));
        Ok(id)
    }

    /// Walks a path from the root, through symbolic links, never out of the tree.
    fn walk(
        &mut self,
        path: &[u8],
        replaced: Option<&HashSet<Id>>,
        make: bool,
    ) -> Result<Option<Id>> {
        let mut here = self.tree.root();
        let mut links = 0;
        // What is left to walk, and how far it has been.
        let mut rest = path.to_vec();
        let mut at = 0;
        while at < rest.len() {
            let end =
                rest[at..].iter().position(|byte| *byte == b'/').map_or(rest.len(), |n| at + n);
            let name = &rest[at..end];
            let next = end + 1;
            match name {
                b"" | b"." => {}
                b".." => {
                    here = self.tree.parent(here).expect("because only directories are walked");
                }
                name => match self.tree.child(here, name) {
                    Some(id) if self.tree.is_directory(id) => here = id,
                    Some(id) => {
                        let Some(target) = self.tree.target(id) else {
                            return Err(Error::failed(format!(
                                "'{}' on its path is not a directory",
                                shown(name)
                            )));
                        };
                        if replaced.is_some_and(|replaced| replaced.contains(&id)) {
                            return Ok(None);
                        }
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Error::failed(
                                "its path goes through too many symbolic links",
                            ));
                        }
                        if target.starts_with(b"/") {
                            here = self.tree.root();
                        }
                        let mut longer = target.to_vec();
                        longer.push(b'/');
                        longer.extend_from_slice(rest.get(next..).unwrap_or_default());
                        self.link_bytes += longer.len() as u64;
                        if self.link_bytes > MAX_LINK_BYTES {
                            return Err(too_winding());
                        }
                        rest = longer;
                        at = 0;
                        continue;
                    }
                    None if make => here = self.missing(here, name)?,
                    None => return Ok(None),
                },
            }
            at = next;
        }
        Ok(Some(here))
    }

    fn missing(&mut self, directory: Id, name: &[u8]) -> Result<Id> {
        if name.len() > 255 {
            return Err(Error::failed(
                "a symbolic link on its path has a name of more than 255 bytes",
            ));
        }
        self.made += 1;
        self.made_bytes += name.len() as u64;
        if self.made > self.limits.entries || self.made_bytes > self.limits.name_bytes {
            return Err(over(format!(
                "the image has more than {} directories without an entry",
                self.limits.entries
            )));
        }
        let (store, name) = self.tree.keep(name);
        let meta = Meta { mode: 0o755, ..Meta::default() };
        Ok(self.tree.add(directory, store, name, meta, Body::Directory))
    }
}
