//! Device nodes of modules that are not loaded: to open one loads its module (kmod's `modules.devname`). With udev
//! they are there at each boot; many images have none.

use crate::{apply, reach, say};
use banger_doc::{Context, Result};
use nix::{
    errno::Errno,
    sys::stat::{SFlag, makedev, mknod},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path},
};

/// Devices that everybody may open, as udev has them.
const FOR_ALL: &[&str] = &["net/tun", "fuse"];

/// Makes the nodes that the running kernel's modules name.
pub(crate) fn make() {
    let release = nix::sys::utsname::uname().map(|kernel| kernel.release().to_owned());
    let list = Path::new("/lib/modules").join(release.unwrap_or_default()).join("modules.devname");
    let list = say::or_warn(apply::text_of(&list)).flatten().unwrap_or_default();
    for node in list.lines().filter_map(read) {
        say::or_warn(
            put(&node).with_context(|| format!("cannot make the device '/dev/{}'", node.name)),
        );
    }
    for name in FOR_ALL {
        // Of a driver that the kernel has built in, it is there without a module.
        let path = Path::new("/dev").join(name);
        if path.exists() {
            say::or_warn(
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
                    .with_context(|| format!("cannot open '{}' to all", path.display())),
            );
        }
    }
}

/// A device, and where it is below `/dev`.
#[derive(Debug, Eq, PartialEq)]
struct Node<'a> {
    name: &'a str,
    kind: SFlag,
    major: u64,
    minor: u64,
}

/// Reads a line: a module, its device's name, `c` or `b`, and two numbers.
fn read(line: &str) -> Option<Node<'_>> {
    let mut words = line.split_whitespace();
    let (module, name, device) = (words.next()?, words.next()?, words.next()?);
    let kind = match device.get(..1)? {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => return None,
    };
    let (major, minor) = device[1..].split_once(':')?;
    let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let node = Node { name, kind, major: major.parse().ok()?, minor: minor.parse().ok()? };
    (!module.starts_with('#') && is_plain).then_some(node)
}

fn put(node: &Node<'_>) -> Result<()> {
    let path = Path::new("/dev").join(node.name);
    if let Some(parent) = path.parent() {
        reach::directory(Path::new("/"), &parent.to_string_lossy(), 0o755)?;
    }
    let closed = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    match mknod(&path, node.kind, closed, makedev(node.major, node.minor)) {
        // The kernel has made it, with its own notion of who may open it.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).context("the kernel refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_devices_is_read_and_leads_nowhere_else() {
        let node = |name, kind, major, minor| Some(Node { name, kind, major, minor });
        assert_eq!(read("tun net/tun c10:200"), node("net/tun", SFlag::S_IFCHR, 10, 200));
        assert_eq!(read("loop loop-control b7:1"), node("loop-control", SFlag::S_IFBLK, 7, 1));
        for bad in [
            "# Device nodes to trigger on-demand module loading.",
            "x ../etc/passwd c1:3",
            "x /etc/passwd c1:3",
            "x a c1",
            "x a d1:3",
            "x a cé:3",
            "x a c-1:3",
            "",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
