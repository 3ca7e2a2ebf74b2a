//! Whether an archive is a root file system, as somebody says who gave it alone.

use banger_ext4::{Id, Tree};

/// What an archive turns out to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Top {
    /// A root file system, or nothing else that is known.
    Root,
    /// A root file system below this directory.
    Below(String),
    /// What `docker save` writes.
    Saved,
    /// An OCI image layout.
    Layout,
}

/// What a root has at least two of, the first two being where its programs are.
const PARTS: [&[u8]; 12] = [
    b"bin", b"usr", b"sbin", b"etc", b"lib", b"var", b"dev", b"proc", b"sys", b"root", b"home",
    b"tmp",
];
/// What a root has at least one of, where its name does not say that it is one.
const OF_A_MACHINE: [&[u8]; 2] = [b"etc", b"usr"];
/// Directories that can be alone in a root, and hold the like of one.
const OWN: [&[u8]; 9] = [b"usr", b"opt", b"var", b"home", b"srv", b"mnt", b"etc", b"nix", b"gnu"];
/// How many directories there may be around a root.
const DEPTH: usize = 4;

/// Says what is at the top of a tree, and which directory is the root then.
pub(crate) fn top(tree: &Tree) -> (Top, Id) {
    let root = tree.root();
    let is_file = |name: &[u8]| tree.child(root, name).is_some_and(|id| !tree.is_directory(id));
    if !PARTS[..4].iter().any(|part| tree.child(root, part).is_some()) {
        if is_file(b"manifest.json") && holds_layers(tree) {
            return (Top::Saved, root);
        }
        if is_file(b"oci-layout") && is_file(b"index.json") {
            return (Top::Layout, root);
        }
        if let Some((path, id)) = below(tree) {
            return (Top::Below(path), id);
        }
    }
    (Top::Root, root)
}

/// Says whether layers lie where `docker save` puts them.
fn holds_layers(tree: &Tree) -> bool {
    tree.children(tree.root()).any(|(name, id)| {
        name == b"blobs"
            || name == b"repositories"
            || name.ends_with(b".tar")
            || name.len() == 64 + b".json".len() && name.ends_with(b".json")
            || tree.is_directory(id) && tree.child(id, b"layer.tar").is_some()
    })
}

/// Finds a root that is the only thing in the directories around it, or named `rootfs` there.
fn below(tree: &Tree) -> Option<(String, Id)> {
    let has = |id: Id, part: &[u8]| tree.child(id, part).is_some();
    let is_root = |id: Id| {
        let parts = PARTS.iter().filter(|part| has(id, part)).count();
        parts >= 2 && PARTS[..3].iter().any(|part| has(id, part))
    };
    let mut here = tree.root();
    let mut path = String::new();
    for _ in 0..DEPTH {
        let named = tree.child(here, b"rootfs").filter(|id| is_root(*id));
        let mut all = tree.children(here);
        let (name, id) = match (named, all.next(), all.next()) {
            (Some(id), ..) => (&b"rootfs"[..], id),
            (None, Some((name, id)), None) if !OWN.contains(&name) => (name, id),
            _ => return None,
        };
        if !tree.is_directory(id) {
            return None;
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&banger_tar::shown(name));
        // A program's own directory has `bin` and `lib`, too; a root that is called otherwise than
        // `rootfs` shows in what only a machine has.
        if is_root(id) && (name == b"rootfs" || OF_A_MACHINE.iter().any(|part| has(id, part))) {
            return Some((path, id));
        }
        here = id;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_ext4::{Body, Meta};

    /// A tree of directories; what ends a path and has a dot in its name is something else.
    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            let mut here = tree.root();
            for name in path.split('/') {
                let found = tree.child(here, name.as_bytes());
                here = found.unwrap_or_else(|| {
                    let (store, text) = tree.keep(name.as_bytes());
                    let last = path.ends_with(&format!("/{name}")) || *path == name;
                    let file = last && (name.contains('.') || name == "oci-layout");
                    let body = if file { Body::Fifo } else { Body::Directory };
                    tree.add(here, store, text, Meta::default(), body)
                });
            }
        }
        tree
    }

    #[test]
    fn archives_are_told_apart_by_their_top() {
        let below = |path: &str| Top::Below(path.to_owned());
        let saved = format!("{}.json", "0".repeat(64));
        for (paths, want) in [
            (&["bin", "etc", "usr"][..], Top::Root),
            (&[], Top::Root),
            (&["app.bin"], Top::Root),
            (&["manifest.json", "blobs/sha256", "oci-layout", "index.json"], Top::Saved),
            (&["manifest.json", &saved, "abc/layer.tar"], Top::Saved),
            (&["manifest.json", "repositories", "x/layer.tar"], Top::Saved),
            (&["blobs", "oci-layout", "index.json"], Top::Layout),
            // A root in which somebody left such a file.
            (&["manifest.json", "blobs", "bin", "etc"], Top::Root),
            (&["manifest.json", "app.bin"], Top::Root),
            (&["root.x86_64/bin", "root.x86_64/etc", "root.x86_64/usr"], below("root.x86_64")),
            (&["root/bin", "root/etc"], below("root")),
            (&["x/usr", "x/var"], below("x")),
            (&["rootfs/bin", "rootfs/lib"], below("rootfs")),
            (&["x/rootfs/bin", "x/rootfs/lib"], below("x/rootfs")),
            // A program's directory is none, however it is called.
            (&["app/bin", "app/lib"], Top::Root),
            (&["jdk-21/bin", "jdk-21/lib", "jdk-21/legal"], Top::Root),
            (&["node/bin", "node/lib", "node/share"], Top::Root),
            (&["x/app/bin", "x/app/lib", "x/app/var"], Top::Root),
            (&["x/y/rootfs/usr", "x/y/rootfs/etc", "x/y/readme.md"], below("x/y/rootfs")),
            (&["metadata.yaml", "templates", "rootfs/usr", "rootfs/var"], below("rootfs")),
            // Parts of a root, each alone.
            (&["usr/bin", "usr/lib", "usr/etc"], Top::Root),
            (&["opt/app/bin", "opt/app/etc"], Top::Root),
            (&["nix/store/bin", "nix/store/etc"], Top::Root),
            (&["app/bin", "data"], Top::Root),
            (&["app/bin"], Top::Root),
            (&["a/b/c/d/e/bin", "a/b/c/d/e/etc"], Top::Root),
        ] {
            let paths: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
            assert_eq!(top(&tree(&paths)).0, want, "{paths:?}");
        }
    }

    #[test]
    fn a_directory_becomes_the_root_and_all_else_goes() {
        let mut tree = tree(&["x/bin/a.sh", "x/etc", "x/etc.d", "other/y.z"]);
        let (_, id) = top(&tree);
        assert_eq!(id, tree.root(), "there are two");
        let id = tree.child(tree.root(), b"x").unwrap();
        tree.make_root(id);
        let names: Vec<Vec<u8>> =
            tree.children(tree.root()).map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [&b"bin"[..], b"etc", b"etc.d"]);
        let bin = tree.child(tree.root(), b"bin").unwrap();
        assert_eq!(tree.parent(bin), Some(tree.root()));
        assert!(tree.child(bin, b"a.sh").is_some() && tree.child(tree.root(), b"other").is_none());
    }
}
