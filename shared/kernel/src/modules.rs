//! Which modules there are, what each needs, and which ones a guest boots with.

use crate::inflate;
use banger_doc::{Context, Error, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module is at most this large, unpacked.
pub(crate) const MAX_MODULE: u64 = 256 << 20;
/// An index file is at most this large.
const MAX_INDEX: u64 = 64 << 20;

/// A group of modules: when guest-init loads it, the modules, and whether it boots without.
struct Group {
    name: &'static str,
    modules: &'static [&'static str],
    essential: bool,
}

/// What a guest needs before its own root is there. The groups are loaded by guest-init:
/// `pci` or `mmio` as the machine is, `channel` or `vsock` as the channel is, `disk` when the agent runs, `net` when
/// there is an interface, `late` when all else is done.
const GROUPS: &[Group] = &[
    Group { name: "pci", modules: &["virtio_pci"], essential: false },
    Group { name: "mmio", modules: &["virtio_mmio"], essential: false },
    Group { name: "channel", modules: &["virtio_console"], essential: false },
    Group { name: "vsock", modules: &["vmw_vsock_virtio_transport"], essential: false },
    Group { name: "disk", modules: &["virtio_blk", "ext4", "overlay"], essential: true },
    Group { name: "net", modules: &["virtio_net"], essential: false },
    Group { name: "late", modules: &["virtio_rng", "ptp_kvm", "virtio_balloon"], essential: false },
];

/// At least one of each pair has to be there: a way to devices, a way to the host.
const EITHER: &[(&str, &str)] =
    &[("virtio_pci", "virtio_mmio"), ("virtio_console", "vmw_vsock_virtio_transport")];

/// A module of the initramfs.
#[derive(Debug)]
pub struct BootModule {
    /// When it is loaded: `pci`, `mmio`, `channel`, `vsock`, `disk`, `net` or `late`.
    pub group: &'static str,
    /// Its name.
    pub name: String,
    /// The module, unpacked.
    pub bytes: Vec<u8>,
}

/// The modules of one kernel, as the index files beside them say (depmod(8), modules.dep(5)).
#[derive(Debug, Default)]
pub struct Modules {
    dir: PathBuf,
    paths: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
    before: BTreeMap<String, Vec<String>>,
    aliases: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads the index files of `/lib/modules/RELEASE` or a folder like it.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut modules = Self { dir: dir.to_owned(), ..Self::default() };
        for line in index(dir, "modules.dep")?.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let name = name_of(path);
            modules.needs.insert(name.clone(), needs.split_whitespace().map(name_of).collect());
            modules.paths.insert(name, path.to_owned());
        }
        modules.builtin = index(dir, "modules.builtin")?.lines().map(name_of).collect();
        for line in index(dir, "modules.softdep")?.lines() {
            let mut words = line.split_whitespace().skip(1);
            let Some(name) = words.next().map(name_of) else { continue };
            let before = words.skip_while(|w| *w != "pre:").skip(1).take_while(|w| *w != "post:");
            modules.before.entry(name).or_default().extend(before.map(str::to_owned));
        }
        for line in index(dir, "modules.alias")?.lines() {
            if let ["alias", alias, name] = line.split_whitespace().collect::<Vec<_>>()[..] {
                modules.aliases.entry(alias.to_owned()).or_default().push(name_of(name));
            }
        }
        Ok(modules)
    }

    /// Says whether a module is there, by itself or in the kernel.
    pub fn has(&self, name: &str) -> bool {
        self.paths.contains_key(name) || self.builtin.contains(name)
    }

    /// Returns a module and what it needs, each after what it needs itself. What is in the kernel is
    /// left out.
    pub fn order(&self, name: &str) -> Vec<String> {
        let mut done = Vec::new();
        self.visit(name, &mut done, &mut BTreeSet::new());
        done
    }

    fn visit(&self, name: &str, done: &mut Vec<String>, seen: &mut BTreeSet<String>) {
        if !self.paths.contains_key(name) || !seen.insert(name.to_owned()) {
            return;
        }
        for soft in self.before.get(name).into_iter().flatten() {
            // A soft dependency names a module or something several modules are able to do.
            self.visit(&name_of(soft), done, seen);
            for able in self.aliases.get(soft).into_iter().flatten() {
                self.visit(able, done, seen);
            }
        }
        for need in self.needs.get(name).into_iter().flatten() {
            self.visit(need, done, seen);
        }
        done.push(name.to_owned());
    }

    /// Returns the modules a guest boots with, in the order they are loaded in. Fails with the name
    /// of what is missing.
    pub fn boot(&self) -> Result<Vec<BootModule>> {
        let missing = |name: &str| {
            Error::failed(format!("the kernel's modules lack '{name}', which a guest boots with"))
                .hint("take a kernel that is made for virtual machines, such as 'generic-6.12'")
        };
        for (one, other) in EITHER {
            if !self.has(one) && !self.has(other) {
                return Err(missing(one));
            }
        }
        let mut boot: Vec<BootModule> = Vec::new();
        for group in GROUPS {
            for wanted in group.modules {
                if group.essential && !self.has(wanted) {
                    return Err(missing(wanted));
                }
                for name in self.order(wanted) {
                    if !boot
                        .iter()
                        .any(|m| m.name == name && ["disk", group.name].contains(&m.group))
                    {
                        boot.push(BootModule { group: group.name, bytes: self.load(&name)?, name });
                    }
                }
            }
        }
        Ok(boot)
    }

    fn load(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(&self.paths[name]);
        load(&path)
    }
}

/// Reads a module, unpacked.
pub(crate) fn load(path: &Path) -> Result<Vec<u8>> {
    let what = format!("'{}'", path.display());
    let bytes = fs::read(path).with_context(|| format!("cannot read {what}"))?;
    let plain = inflate::inflate(&bytes, MAX_MODULE, &what)?;
    if plain.starts_with(b"\x7fELF") {
        Ok(plain)
    } else {
        Err(Error::failed(format!("{what} is no kernel module")))
    }
}

/// Returns a module's name from its path or from a way to write it.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Reads an index file; an absent one is empty. Lines that could lead out of the folder are left out.
fn index(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Ok(found) if found.len() > MAX_INDEX => {
            return Err(Error::failed(format!("'{}' is too large", path.display())));
        }
        _ => {}
    }
    let bytes = fs::read(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let inside = |line: &&str| !line.starts_with(['/', '#']) && !line.contains("..");
    Ok(text.lines().filter(inside).fold(String::new(), |all, line| all + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::module;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::write(dir.path().join(path), text).unwrap();
        }
        fs::create_dir(dir.path().join("k")).unwrap();
        for name in ["a", "b-c", "virtio_blk", "ext4", "overlay", "virtio_net", "failover"] {
            fs::write(dir.path().join(format!("k/{name}.ko")), module(b"")).unwrap();
        }
        dir
    }

    const DEP: &str = "k/a.ko:\nk/b-c.ko: k/a.ko\nk/virtio_blk.ko:\nk/ext4.ko: k/b-c.ko k/a.ko\n\
        k/overlay.ko:\nk/virtio_net.ko: k/failover.ko\nk/failover.ko:\n/etc/evil.ko:\nk/../../evil2.ko:\n";
    const BUILTIN: &str = "kernel/drivers/virtio/virtio_pci.ko\nkernel/x/virtio_console.ko\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = tree(&[("modules.dep", DEP), ("modules.builtin", BUILTIN)]);
        let boot = Modules::read(dir.path()).unwrap().boot().unwrap();
        let names: Vec<_> = boot.iter().map(|m| format!("{} {}", m.group, m.name)).collect();
        assert_eq!(
            names,
            [
                "disk virtio_blk",
                "disk a",
                "disk b_c",
                "disk ext4",
                "disk overlay",
                "net failover",
                "net virtio_net"
            ]
        );
    }

    #[test]
    fn soft_dependencies_may_be_aliases_and_circles_end() {
        let dir = tree(&[
            ("modules.dep", "k/a.ko: k/b-c.ko\nk/b-c.ko: k/a.ko\nk/ext4.ko:\n"),
            ("modules.softdep", "softdep ext4 pre: crc32c post: x\n"),
            ("modules.alias", "alias crc32c a\nalias other b_c\n"),
        ]);
        let modules = Modules::read(dir.path()).unwrap();
        assert_eq!(modules.order("ext4"), ["b_c", "a", "ext4"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = DEP.replace("k/overlay.ko:\n", "");
        let dir = tree(&[("modules.dep", &without), ("modules.builtin", BUILTIN)]);
        let error = Modules::read(dir.path()).unwrap().boot().unwrap_err();
        assert!(error.to_string().contains("'overlay'"), "{error}");
        let dir = tree(&[("modules.dep", DEP)]);
        let error = Modules::read(dir.path()).unwrap().boot().unwrap_err();
        assert!(error.to_string().contains("'virtio_pci'"), "{error}");
    }

    #[test]
    fn paths_out_of_the_folder_are_no_modules() {
        let dir = tree(&[("modules.dep", DEP)]);
        let modules = Modules::read(dir.path()).unwrap();
        assert!(!modules.has("evil") && !modules.has("evil2") && modules.has("a"));
    }
}
