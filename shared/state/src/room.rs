//! The room that files take on disk.

use crate::{State, place};
use banger_doc::Vm;
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

/// What the files of a tree take and claim; disks are sparse.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Room {
    /// Bytes they take.
    pub allocated: u64,
    /// Bytes they claim to have.
    pub apparent: u64,
}

impl Room {
    /// Adds up a file or a tree. Links are not followed, a file with several names counts once,
    /// what vanishes meanwhile takes none.
    pub fn of(path: &Path) -> Self {
        let mut room = Self::default();
        room.add(path, &mut BTreeSet::new());
        room
    }

    fn add(&mut self, path: &Path, seen: &mut BTreeSet<(u64, u64)>) {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        if meta.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| self.add(&entry.path(), seen));
        } else if meta.nlink() > 1 && !seen.insert((meta.dev(), meta.ino())) {
            return;
        } else {
            self.apparent += meta.len();
        }
        self.allocated += meta.blocks() * 512;
    }
}

impl State {
    /// Returns the bytes on disk that a VM uses and other objects own: its image's base disk and
    /// its kernel's modules disk.
    pub fn shared_bytes(&self, vm: &Vm) -> u64 {
        let base = self.images().get(&vm.image).map(|image| self.base_disk(&image));
        let modules = self.kernels().folder(&vm.kernel).join(place::KERNEL_MODULES);
        base.map_or(0, |path| Room::of(&path).allocated) + Room::of(&modules).allocated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn holes_take_no_room_and_names_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        File::create(&file).unwrap().set_len(1 << 30).unwrap();
        fs::hard_link(&file, dir.path().join("another-name")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("elsewhere")).unwrap();
        let room = Room::of(dir.path());
        assert!(room.allocated < 1 << 20, "{room:?}");
        assert_eq!(room.apparent, (1 << 30) + 4);
        assert_eq!(Room::of(&dir.path().join("absent")), Room::default());
    }
}
