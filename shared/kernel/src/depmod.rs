//! The index files beside modules, which a package makes only when it is installed (depmod(8)).
//!
//! Text files serve busybox and guest-init; the `.bin` files are what kmod reads, tries of keys with
//! values (kmod, `libkmod/libkmod-index.h`).

use crate::{
    elf,
    modules::{load, name_of},
};
use banger_doc::{Context, Error, Result};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Mutex, thread};

/// What a module says of itself.
#[derive(Debug, Default)]
struct Info {
    path: String,
    needs: Vec<String>,
    aliases: Vec<String>,
    soft: Vec<String>,
}

/// Writes `modules.dep`, `modules.alias`, `modules.softdep`, `modules.devname` and the binary ones
/// into a folder of modules, in place of what is there.
pub fn write(dir: &Path) -> Result<()> {
    let order = order_of(dir);
    let modules = read_all(dir)?;
    let (mut dep, mut alias, mut soft) = (String::new(), String::new(), String::new());
    let mut devname = String::from("# Device nodes to trigger on-demand module loading.\n");
    let (mut dep_bin, mut alias_bin) = (Trie::default(), Trie::default());
    for (name, info) in &modules {
        let mut line = format!("{}:", info.path);
        for need in closure(name, &modules) {
            line.push(' ');
            line.push_str(&modules[need].path);
        }
        let place = order.get(name).copied().unwrap_or(u32::MAX >> 1);
        dep_bin.add(name, &line, place);
        dep.push_str(&line);
        dep.push('\n');
        for pattern in info.aliases.iter().map(|alias| underscored(alias)) {
            let _ = writeln!(alias, "alias {pattern} {name}");
            alias_bin.add(&pattern, name, place);
        }
        for text in &info.soft {
            let _ = writeln!(soft, "softdep {name} {text}");
        }
        devname.push_str(&node_of(name, &info.aliases));
    }
    let builtin = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let mut builtin_bin = Trie::default();
    for name in builtin.lines().map(name_of) {
        builtin_bin.add(&name, "", 0);
    }
    let mut builtin_alias_bin = Trie::default();
    let infos = fs::read(dir.join("modules.builtin.modinfo")).unwrap_or_default();
    for text in infos.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()) {
        if let Some((name, alias)) = text.split_once(".alias=") {
            builtin_alias_bin.add(&underscored(alias), &name_of(name), 0);
        }
    }
    let files: [(&str, Vec<u8>); 8] = [
        ("modules.dep", dep.into_bytes()),
        ("modules.alias", alias.into_bytes()),
        ("modules.softdep", soft.into_bytes()),
        ("modules.devname", devname.into_bytes()),
        ("modules.dep.bin", dep_bin.into_bytes()),
        ("modules.alias.bin", alias_bin.into_bytes()),
        ("modules.builtin.bin", builtin_bin.into_bytes()),
        ("modules.builtin.alias.bin", builtin_alias_bin.into_bytes()),
    ];
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write '{}'", path.display()))?;
    }
    Ok(())
}

/// Returns what a module needs, directly or not; what is needed by others comes after them, which is
/// the order modules.dep(5) has.
fn closure<'a>(name: &'a str, modules: &'a BTreeMap<String, Info>) -> Vec<&'a str> {
    fn visit<'a>(
        name: &'a str,
        modules: &'a BTreeMap<String, Info>,
        seen: &mut Vec<&'a str>,
        done: &mut Vec<&'a str>,
    ) {
        if seen.contains(&name) {
            return;
        }
        seen.push(name);
        let Some(info) = modules.get(name) else { return };
        for need in &info.needs {
            visit(need, modules, seen, done);
        }
        done.push(name);
    }
    let mut done = Vec::new();
    visit(name, modules, &mut Vec::new(), &mut done);
    done.pop();
    done.reverse();
    done
}

/// Reads all modules below a folder, on all processors: unpacking them is the work here.
fn read_all(dir: &Path) -> Result<BTreeMap<String, Info>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let failed = || format!("cannot list '{}'", dir.display());
        for entry in fs::read_dir(&dir).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let kind = entry.file_type().with_context(failed)?;
            let name = entry.file_name();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && is_module(&name.to_string_lossy()) {
                files.push(entry.path());
            }
        }
    }
    let files = Mutex::new(files.into_iter());
    let modules = Mutex::new(BTreeMap::new());
    let work = || -> Result<()> {
        loop {
            let next = files.lock().map(|mut files| files.next());
            let Ok(Some(path)) = next else { return Ok(()) };
            let (name, info) = read_one(dir, &path)?;
            if let Ok(mut modules) = modules.lock() {
                keep_first(&mut modules, name, info);
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(8);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().unwrap_or_else(|_| Err(Error::failed("a thread panicked"))))
    })?;
    Ok(modules.into_inner().unwrap_or_default())
}

/// Adds a module. Of two of one name the one in `updates/` counts, as it does to depmod(8), else the
/// first by path: whichever of them was read first.
fn keep_first(modules: &mut BTreeMap<String, Info>, name: String, info: Info) {
    let rank = |info: &Info| (!info.path.starts_with("updates/"), info.path.clone());
    if modules.get(&name).is_none_or(|there| rank(&info) < rank(there)) {
        modules.insert(name, info);
    }
}

fn is_module(file: &str) -> bool {
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| file.ends_with(end))
}

fn read_one(dir: &Path, path: &Path) -> Result<(String, Info)> {
    let bytes = load(path)?;
    let inside = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
    let mut name = name_of(&inside);
    let mut info = Info { path: inside, ..Info::default() };
    for text in elf::section(&bytes, ".modinfo").unwrap_or_default().split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else { continue };
        match text.split_once('=') {
            Some(("name", value)) if !value.is_empty() && !value.contains('\n') => {
                name = name_of(value);
            }
            Some(("depends", value)) => {
                info.needs =
                    value.split(',').filter(|need| !need.is_empty()).map(name_of).collect();
            }
            Some(("alias", value)) if is_one_word(value) => info.aliases.push(value.to_owned()),
            Some(("softdep", value)) if !value.contains('\n') => info.soft.push(value.to_owned()),
            _ => {}
        }
    }
    Ok((name, info))
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// Writes an alias as kmod looks it up: `_` for `-`, but not inside brackets.
fn underscored(alias: &str) -> String {
    let mut inside = false;
    alias
        .chars()
        .map(|c| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ => {}
            }
            if c == '-' && !inside { '_' } else { c }
        })
        .collect()
}

/// Returns the line of `modules.devname` for a module that has a device node of its own.
fn node_of(name: &str, aliases: &[String]) -> String {
    let node = aliases.iter().find_map(|alias| alias.strip_prefix("devname:"));
    let number = aliases.iter().find_map(|alias| {
        let (kind, rest) = [("c", "char-major-"), ("b", "block-major-")]
            .iter()
            .find_map(|(kind, begin)| Some((kind, alias.strip_prefix(begin)?)))?;
        let (major, minor) = rest.split_once('-')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        (is_number(major) && is_number(minor)).then(|| format!("{kind}{major}:{minor}"))
    });
    match (node, number) {
        (Some(node), Some(number)) => format!("{name} {node} {number}\n"),
        _ => String::new(),
    }
}

/// Returns the place of each module in `modules.order`; of two that serve a device, the first wins.
fn order_of(dir: &Path) -> BTreeMap<String, u32> {
    let text = fs::read_to_string(dir.join("modules.order")).unwrap_or_default();
    text.lines().zip(0..).map(|(path, place)| (name_of(path), place)).collect()
}

/// A tree of keys, a byte a step, as kmod reads it from a file.
#[derive(Debug, Default)]
struct Trie {
    values: Vec<(u32, String)>,
    below: BTreeMap<u8, Trie>,
}

impl Trie {
    fn add(&mut self, key: &str, value: &str, place: u32) {
        // The format has 7 bits a byte; a key of other bytes would be one no kernel asks for.
        if !key.is_ascii() {
            return;
        }
        let node = key.bytes().fold(self, |node, byte| node.below.entry(byte).or_default());
        node.values.push((place, value.to_owned()));
    }

    fn into_bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xB007_F457_u32.to_be_bytes());
        bytes.extend(0x0002_0001_u32.to_be_bytes());
        bytes.extend([0; 4]);
        let root = self.write(&mut bytes);
        bytes[8..12].copy_from_slice(&root.to_be_bytes());
        bytes
    }

    /// Writes what is below, then the node itself, and returns where it lies and what it has.
    fn write(&mut self, bytes: &mut Vec<u8>) -> u32 {
        const PREFIX: u32 = 0x8000_0000;
        const VALUES: u32 = 0x4000_0000;
        const CHILDREN: u32 = 0x2000_0000;
        let mut prefix = Vec::new();
        // A run of steps without a choice is one string.
        while self.values.is_empty() && self.below.len() == 1 {
            let (byte, node) = self.below.pop_first().expect("because there is exactly one");
            prefix.push(byte);
            *self = node;
        }
        self.values.sort();
        let below: BTreeMap<u8, u32> =
            self.below.iter_mut().map(|(byte, node)| (*byte, node.write(bytes))).collect();
        let mut place = bytes.len() as u32;
        if !prefix.is_empty() {
            place |= PREFIX;
            bytes.extend(prefix);
            bytes.push(0);
        }
        if let (Some((first, _)), Some((last, _))) =
            (below.first_key_value(), below.last_key_value())
        {
            place |= CHILDREN;
            bytes.extend([*first, *last]);
            for byte in *first..=*last {
                bytes.extend(below.get(&byte).copied().unwrap_or(0).to_be_bytes());
            }
        }
        if !self.values.is_empty() {
            place |= VALUES;
            bytes.extend((self.values.len() as u32).to_be_bytes());
            for (order, value) in &self.values {
                bytes.extend(order.to_be_bytes());
                bytes.extend(value.bytes());
                bytes.push(0);
            }
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{elf::tests::module, modules::Modules};

    #[test]
    fn of_two_modules_of_one_name_the_same_one_counts_whichever_comes_first() {
        let wins = |paths: [&str; 2]| {
            let mut modules = BTreeMap::new();
            for path in paths {
                let info = Info { path: path.into(), ..Info::default() };
                keep_first(&mut modules, "e1000".into(), info);
            }
            modules["e1000"].path.clone()
        };
        for (first, second) in [
            ("updates/dkms/e1000.ko", "kernel/net/e1000.ko"),
            ("extra/e1000.ko", "kernel/net/e1000.ko"),
            ("kernel/net/e1000.ko", "kernel/net/e1000.ko.xz"),
        ] {
            assert_eq!(wins([first, second]), first);
            assert_eq!(wins([second, first]), first);
        }
    }

    #[test]
    fn a_tree_of_modules_gets_its_index_files() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("llc.ko"), module(b"name=llc\0depends=\0")).unwrap();
        fs::write(kernel.join("stp.ko"), module(b"name=stp\0depends=llc\0")).unwrap();
        let bridge = b"name=bridge\0depends=stp,llc\0alias=rtnl-link-bridge\0softdep=pre: stp\0";
        fs::write(kernel.join("bridge.ko"), module(bridge)).unwrap();
        let fuse = b"name=fuse\0alias=devname:fuse\0alias=char-major-10-229\0alias=fs-fuse\0";
        fs::write(kernel.join("fuse.ko"), module(fuse)).unwrap();
        fs::write(dir.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        fs::write(dir.path().join("modules.builtin.modinfo"), b"ext4.alias=fs-ext4\0").unwrap();
        write(dir.path()).unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(
            text("modules.dep")
                .contains("kernel/net/bridge.ko: kernel/net/stp.ko kernel/net/llc.ko\n"),
            "{}",
            text("modules.dep")
        );
        assert!(text("modules.alias").contains("alias rtnl_link_bridge bridge\n"));
        assert!(text("modules.devname").ends_with("fuse fuse c10:229\n"));
        assert_eq!(Modules::read(dir.path()).unwrap().order("bridge"), ["llc", "stp", "bridge"]);

        let root = dir.path().join("root/lib/modules");
        fs::create_dir_all(&root).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("6.1.0-test")).unwrap();
        for (wanted, found) in [
            ("bridge", "insmod"),
            ("rtnl-link-bridge", "bridge.ko"),
            ("ext4", "builtin"),
            ("fs-ext4", "builtin ext4"),
        ] {
            let output = std::process::Command::new("modprobe")
                .args(["--show-depends", "-S", "6.1.0-test", "-d"])
                .arg(dir.path().join("root"))
                .arg(wanted)
                .output();
            let Ok(output) = output else {
                assert!(std::env::var_os("CI").is_none(), "modprobe is not installed");
                return;
            };
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains(found), "{wanted}: {said}");
        }
    }
}
