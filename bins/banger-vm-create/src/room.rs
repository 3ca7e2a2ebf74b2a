//! Whether what a first boot copies out of the image fits on the VM's disks. A guest that finds no room does
//! not come up, so it is refused before.

use banger_cli::human_bytes;
use banger_doc::{Error, Image, Result, Spec};
use banger_guest::{
    place::DIRECT,
    user::{self, Directory},
};
use ext4_view::{Ext4, FileType, Path as DiskPath};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

/// The blocks of banger's own disks.
const BLOCK: u64 = 4096;
/// An image with more below one of its directories, or that takes longer, is left to the guest, which says it
/// too.
const MOST_ENTRIES: u64 = 500_000;
const LIMIT: Duration = Duration::from_secs(10);
/// Longest list of users that is read.
const MAX_LIST: u64 = 4 << 20;
/// How much of the memory `/run` may take.
const RUN_PERCENT: u64 = 25;

/// Room on a disk, or the need of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Room {
    bytes: u64,
    inodes: u64,
}

impl Room {
    /// Reads what is free on a disk out of its superblock (Linux,
    /// `Documentation/filesystems/ext4/super.rst`).
    fn free(disk: &Path) -> Option<Self> {
        let mut block = [0; 1024];
        File::open(disk).ok()?.read_exact_at(&mut block, 1024).ok()?;
        let number = |at: usize| {
            Some(u64::from(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?)))
        };
        let high = if number(0x60)? & 0x80 == 0 { 0 } else { number(0x158)? };
        Some(Self { bytes: (high << 32 | number(0xc)?) * BLOCK, inodes: number(0x10)? })
    }

    fn holds(self, need: Self) -> bool {
        // Trees of blocks and directories take a little beside.
        self.bytes >= need.bytes.saturating_add(need.bytes / 64) && self.inodes >= need.inodes
    }

    /// Returns the size of a disk that has as much room, in round MiB.
    fn disk_mib(self) -> u64 {
        let for_bytes = self.bytes.saturating_add(24 << 20) / 100 * 106;
        // One inode for 16 KiB.
        let for_inodes = self.inodes * (16 << 10) / 100 * 102 + (24 << 20);
        (for_bytes.max(for_inodes) >> 20).next_multiple_of(16)
    }
}

/// Refuses disks that do not hold what the first boot puts there. `work` and `overlay` are the disks, empty
/// yet.
pub(crate) fn check(
    image: &Image,
    base: &Path,
    spec: &Spec,
    work: &Path,
    overlay: &Path,
) -> Result<()> {
    let (Some(on_work), Some(on_overlay)) = (Room::free(work), Room::free(overlay)) else {
        return Ok(());
    };
    let memory = Room { bytes: (spec.memory_mib << 20) / 100 * RUN_PERCENT, inodes: u64::MAX };
    let whole = Room { bytes: image.used_bytes, inodes: image.inodes };
    // Most images are smaller than each of the disks, and need no look there.
    let (fits_work, fits_overlay) = (on_work.holds(whole), on_overlay.holds(whole));
    if fits_work && fits_overlay && memory.holds(whole) {
        return Ok(());
    }
    // A disk that cannot be read is told of by the guest.
    let Ok(disk) = Ext4::load_from_path(base) else { return Ok(()) };
    let end = Instant::now() + LIMIT;
    let need = |path: &str| below(&disk, path, end).unwrap_or_default();
    let wanted = spec.user.as_deref().or(image.config.user.as_deref());
    let home = place_of(&disk, wanted.unwrap_or_default());
    if let Some(home) = home.filter(|_| !fits_work) {
        let need = need(&home);
        if !on_work.holds(need) {
            return Err(refused(&home, need, "work disk", on_work, "--disk-size"));
        }
    }
    if !fits_overlay {
        let needs: Vec<(&str, Room)> = DIRECT.iter().map(|path| (*path, need(path))).collect();
        let sum = needs.iter().fold(Room::default(), |sum, (_, one)| Room {
            bytes: sum.bytes.saturating_add(one.bytes),
            inodes: sum.inodes.saturating_add(one.inodes),
        });
        if let Some((path, _)) = needs.iter().max_by_key(|(_, one)| one.bytes)
            && !on_overlay.holds(sum)
        {
            return Err(refused(path, sum, "overlay disk", on_overlay, "--overlay-size"));
        }
    }
    let run = need("/run");
    if !memory.holds(run) {
        let mib = ((run.bytes / RUN_PERCENT * 100) >> 20).next_multiple_of(64) + 64;
        return Err(too_much("/run", run, "memory", memory)
            .hint(format!("'--memory {mib}M' makes the room: '/run' is a quarter of it")));
    }
    Ok(())
}

fn refused(path: &str, need: Room, disk: &str, room: Room, option: &str) -> Error {
    too_much(path, need, disk, room).hint(format!("'{option} {}M' makes the room", need.disk_mib()))
}

fn too_much(path: &str, need: Room, disk: &str, room: Room) -> Error {
    let (takes, has) = if need.bytes > room.bytes || need.inodes <= room.inodes {
        (human_bytes(need.bytes), human_bytes(room.bytes))
    } else {
        (format!("{} files", need.inodes), format!("{} files", room.inodes))
    };
    Error::usage(format!(
        "the image has {takes} in '{path}', which do not fit on the {disk}, with room for {has}"
    ))
}

/// Returns where the work disk will lie: where the guest finds the work of its user to be, by the same rules.
fn place_of(disk: &Ext4, wanted: &str) -> Option<String> {
    let list = |path: &str| {
        // A longer one is the guest's to read.
        let is_short = disk.metadata(path).is_ok_and(|meta| meta.len() <= MAX_LIST);
        let bytes = is_short.then(|| disk.read(path).ok()).flatten().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (passwd, groups) = (list("/etc/passwd"), list("/etc/group"));
    let find = |wanted: &str| user::find_in(&passwd, &groups, wanted);
    // As the guest does: nobody of that name is root.
    let user = find(wanted).or_else(|_| find("0")).ok()?;
    Some(user.place_in(|path| {
        let real = disk.canonicalize(DiskPath::try_from(&format!("/{path}")).ok()?).ok()?;
        let meta = disk.metadata(&real).ok().filter(ext4_view::Metadata::is_dir)?;
        let directory =
            Directory { uid: meta.uid(), gid: meta.gid(), mode: u32::from(meta.mode()) };
        Some((real.to_str().ok()?.to_owned(), directory))
    }))
}

/// Returns what a copy of all that is below a directory takes; nothing if there is none, or too much to look
/// at.
fn below(disk: &Ext4, path: &str, end: Instant) -> Option<Room> {
    let top = disk.canonicalize(DiskPath::try_from(path).ok()?).ok()?;
    let mut need = Room::default();
    let mut rest = vec![top];
    while let Some(dir) = rest.pop() {
        for entry in disk.read_dir(&dir).ok()? {
            let entry = entry.ok()?;
            let name = entry.file_name();
            if matches!(name.as_ref(), b"." | b"..") {
                continue;
            }
            need.inodes += 1;
            if need.inodes > MOST_ENTRIES || Instant::now() > end {
                return None;
            }
            match entry.file_type().ok()? {
                FileType::Directory => {
                    need.bytes = need.bytes.saturating_add(BLOCK);
                    rest.push(entry.path());
                }
                FileType::Regular => {
                    // A disk of somebody else's says what it likes.
                    let size = entry.metadata().ok()?.len().checked_next_multiple_of(BLOCK)?;
                    need.bytes = need.bytes.saturating_add(size);
                }
                _ => {}
            }
        }
    }
    Some(need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_doc::ImageConfig;
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    /// A disk with 3 MiB in root's home, 2 MiB in another's, and links as some images have them.
    fn base(dir: &Path) -> PathBuf {
        let tree = dir.join("tree");
        for below in [
            "var/roothome/deep",
            "home/app",
            "home/others",
            "workspace",
            "var/lib/docker",
            "run",
            "etc",
        ] {
            fs::create_dir_all(tree.join(below)).unwrap();
        }
        std::os::unix::fs::symlink("var/roothome", tree.join("root")).unwrap();
        fs::write(tree.join("var/roothome/deep/file"), vec![1; 3 << 20]).unwrap();
        fs::write(tree.join("home/app/file"), vec![2; 2 << 20]).unwrap();
        fs::write(tree.join("var/lib/docker/layer"), vec![3; 5 << 20]).unwrap();
        // Its user's to write to, whoever runs the test.
        fs::set_permissions(tree.join("home/app"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(tree.join("run/file"), vec![4; 1 << 20]).unwrap();
        fs::write(
            tree.join("etc/passwd"),
            "app:x:7:7::/home/app:\nguest:x:9:9::/home/others:\nsys:x:8:8::/var/lib/docker:\nshort:x\n",
        )
        .unwrap();
        let path = dir.join("base");
        let options = &mut File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        banger_ext4::from_directory(&tree, &file, "").unwrap();
        path
    }

    fn disk(dir: &Path, name: &str, mib: u64) -> PathBuf {
        let path = dir.join(name);
        let options = &mut File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        banger_ext4::write_empty(&file, mib << 20, [1; 16], name).unwrap();
        path
    }

    fn image(user: &str) -> Image {
        serde_json::from_value(serde_json::json!({
            "name": "x", "source": "x", "managed": true, "rootfs": "x", "size_bytes": 1_u64 << 40,
            "used_bytes": 1_u64 << 40, "inodes": 99, "architecture": "amd64", "created_unix_s": 0,
            "config": ImageConfig { user: Some(user.to_owned()), ..ImageConfig::default() },
        }))
        .unwrap()
    }

    #[test]
    fn what_a_first_boot_copies_has_to_fit_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let base = base(dir);
        let spec = |memory_mib: u64, user: Option<&str>| -> Spec {
            serde_json::from_value(serde_json::json!({
                "vcpu": 1, "memory_mib": memory_mib, "overlay_bytes": 0, "disk_bytes": 0, "user": user,
            }))
            .unwrap()
        };
        let small = disk(dir, "small", 16);
        let large = disk(dir, "large", 64);
        let try_it = |user: &str, memory_mib: u64, work: &Path, overlay: &Path| {
            check(&image(user), &base, &spec(memory_mib, None), work, overlay)
        };
        for user in ["", "root", "app", "7:7", "sys", "nobody", "short"] {
            try_it(user, 64, &large, &large).unwrap();
            try_it(user, 64, &small, &small).unwrap();
        }
        // Filled by nothing, so the same disks are too small for more.
        fs::write(dir.join("tree/home/app/more"), vec![5; 12 << 20]).unwrap();
        fs::write(dir.join("tree/workspace/file"), vec![6; 14 << 20]).unwrap();
        fs::write(dir.join("tree/home/others/file"), vec![7; 15 << 20]).unwrap();
        fs::remove_file(&base).unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(&base).unwrap();
        banger_ext4::from_directory(&dir.join("tree"), &file, "").unwrap();
        let error = try_it("app", 64, &small, &small).unwrap_err();
        assert!(error.to_string().starts_with("the image has 14.0 MiB in '/home/app'"), "{error}");
        let size = error.hint_text().and_then(|hint| hint.split(['M', ' ']).nth(1)).unwrap();
        let enough = disk(dir, "enough", size.parse().unwrap());
        try_it("app", 64, &enough, &small).unwrap();
        // The guest's user decides, also where the command line says it.
        let error = check(&image(""), &base, &spec(64, Some("7")), &small, &small).unwrap_err();
        assert!(error.to_string().contains("'/home/app'"), "{error}");
        check(&image("app"), &base, &spec(64, Some("root")), &small, &small).unwrap();
        // A home that is not its user's to write to, or is the system's, is no place; what stands in for it is.
        for user in ["guest", "sys", "12345"] {
            let error = try_it(user, 64, &small, &small).unwrap_err();
            assert!(error.to_string().contains("14.0 MiB in '/workspace'"), "{user}: {error}");
        }
        // Another's home is not copied.
        try_it("", 64, &small, &small).unwrap();
        let error = try_it("", 2, &small, &small).unwrap_err();
        assert!(error.to_string().contains("'/run'"), "{error}");
        // What cannot be read is the guest's to tell.
        check(&image(""), &dir.join("tree"), &spec(64, None), &small, &small).unwrap();
    }

    #[test]
    fn the_size_that_is_named_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        for mib in [1, 11, 40, 99, 1000, 5000] {
            for inodes in [10, 3000, 200_000] {
                let need = Room { bytes: mib << 20, inodes };
                let disk = disk(dir.path(), "disk", need.disk_mib());
                assert!(Room::free(&disk).unwrap().holds(need), "{need:?}: {}", need.disk_mib());
            }
        }
    }
}
