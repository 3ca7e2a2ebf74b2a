//! Loading kernel modules by name, with what they need (modules.dep(5), modprobe(8)).

use banger_doc::{Context, Error, Result};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, delete_module, finit_module},
};
use std::{
    ffi::CString,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// `MODULE_INIT_COMPRESSED_FILE` (finit_module(2)): the kernel unpacks the file itself.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);
/// A name stands for at most this many modules.
const MAX_FOUND: usize = 64;

/// The modules of the running kernel.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
}

/// Loads a module by its name or alias, after what it needs. One that is loaded already, or built in,
/// is no failure.
pub fn load(name: &str) -> Result<()> {
    Modules::of_this_kernel()?.load(name, "")
}

impl Modules {
    /// Looks at `/lib/modules` for the running kernel.
    pub fn of_this_kernel() -> Result<Self> {
        let kernel = nix::sys::utsname::uname().context("cannot tell the running kernel")?;
        Ok(Self::at(Path::new("/lib/modules").join(kernel.release())))
    }

    /// Looks at a folder with the modules of one release.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Loads a module by its name or alias; `options` are for it alone, not for what it needs.
    pub fn load(&self, name: &str, options: &str) -> Result<()> {
        let found = self.find(name)?;
        for line in &found {
            let (path, needs) = line.split_once(':').unwrap_or((line, ""));
            // What is needed by others comes after them in the file.
            for need in needs.split_whitespace().rev() {
                insert(&self.dir.join(need), "")?;
            }
            insert(&self.dir.join(path), options)?;
        }
        if found.is_empty() && !self.is_builtin(name)? {
            return Err(Error::not_found(format!(
                "no module '{name}' in '{}'",
                self.dir.display()
            )));
        }
        Ok(())
    }

    /// Returns the files loading a module would load, in order.
    pub fn files(&self, name: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for line in self.find(name)? {
            let (path, needs) = line.split_once(':').unwrap_or((&line, ""));
            files.extend(needs.split_whitespace().rev().map(|need| self.dir.join(need)));
            files.push(self.dir.join(path));
        }
        Ok(files)
    }

    /// Returns the lines of `modules.dep` a name stands for.
    fn find(&self, name: &str) -> Result<Vec<String>> {
        let plain = name.replace('-', "_");
        let mut wanted = vec![plain.clone()];
        let mut found = self.lines(&wanted)?;
        if found.is_empty() {
            wanted.clear();
            each_line(&self.dir.join("modules.alias"), |line| {
                let mut words = line.split_whitespace().skip(1);
                if let (Some(pattern), Some(module)) = (words.next(), words.next())
                    && (glob(pattern, name) || glob(pattern, &plain))
                    && wanted.len() < MAX_FOUND
                    && !wanted.iter().any(|known| known == module)
                {
                    wanted.push(module.to_owned());
                }
            })?;
            found = self.lines(&wanted)?;
        }
        Ok(found)
    }

    fn lines(&self, wanted: &[String]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if !wanted.is_empty() {
            each_line(&self.dir.join("modules.dep"), |line| {
                let path = line.split(':').next().unwrap_or(line);
                if wanted.contains(&name_of(path)) {
                    found.push(line.to_owned());
                }
            })?;
        }
        Ok(found)
    }

    fn is_builtin(&self, name: &str) -> Result<bool> {
        let plain = name.replace('-', "_");
        let mut builtin = false;
        each_line(&self.dir.join("modules.builtin"), |line| builtin |= name_of(line) == plain)?;
        if !builtin {
            let infos = fs::read(self.dir.join("modules.builtin.modinfo")).unwrap_or_default();
            builtin = infos.split(|byte| *byte == 0).any(|text| {
                std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.split_once(".alias="))
                    .is_some_and(|(_, pattern)| glob(pattern, name) || glob(pattern, &plain))
            });
        }
        Ok(builtin)
    }
}

/// Loads one file; one that is loaded already is no failure.
pub fn insert(path: &Path, options: &str) -> Result<()> {
    let failed = || format!("cannot load the module '{}'", path.display());
    let file = File::open(path).with_context(failed)?;
    let options = CString::new(options).with_context(failed)?;
    let packed = path.extension().is_some_and(|end| end != "ko");
    let flags = if packed { COMPRESSED } else { ModuleInitFlags::empty() };
    match finit_module(&file, &options, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(failed),
    }
}

/// Unloads a module.
pub fn remove(name: &str) -> Result<()> {
    let failed = || format!("cannot unload the module '{name}'");
    let plain = CString::new(name.replace('-', "_")).with_context(failed)?;
    delete_module(&plain, nix::kmod::DeleteModuleFlags::O_NONBLOCK).with_context(failed)
}

fn each_line(path: &Path, mut act: impl FnMut(&str)) -> Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("cannot read '{}'", path.display())),
    };
    for line in BufReader::new(file).lines() {
        act(&line.with_context(|| format!("cannot read '{}'", path.display()))?);
    }
    Ok(())
}

fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Says whether a text fits a pattern of `*`, `?` and `[...]` (glob(7)). Takes time in proportion to
/// both lengths, whatever the pattern.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if t == text.len() {
            return pattern[p..].iter().all(|byte| *byte == b'*');
        } else if let Some(next) = fits_one(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
}

/// Returns where the pattern goes on if its next part fits one byte.
fn fits_one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let end = at + 1 + pattern[at + 1..].iter().position(|byte| *byte == b']')?;
            let mut set = &pattern[at + 1..end];
            let mut fits = false;
            while let Some(first) = set.first() {
                if let [low, b'-', high, ..] = set {
                    fits |= (low..=high).contains(&&byte);
                    set = &set[3..];
                } else {
                    fits |= *first == byte;
                    set = &set[1..];
                }
            }
            fits.then_some(end + 1)
        }
        literal => (literal == byte).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_an_alias_and_what_is_needed_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write(
            "modules.dep",
            "k/bridge.ko.xz: k/stp.ko.xz k/llc.ko.xz\nk/stp.ko.xz: k/llc.ko.xz\nk/llc.ko.xz:\n",
        );
        write(
            "modules.alias",
            "# comment\nalias rtnl_link_bridge bridge\nalias virtio:d0000000[1-3]v* stp\n",
        );
        write("modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        let modules = Modules::at(dir.path().to_owned());
        let files = |name: &str| {
            let files = modules.files(name).unwrap();
            files
                .iter()
                .map(|f| f.file_name().unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(files("bridge"), ["llc.ko.xz", "stp.ko.xz", "bridge.ko.xz"]);
        assert_eq!(files("rtnl-link-bridge"), files("bridge"));
        assert_eq!(files("virtio:d00000002v00001AF4"), ["llc.ko.xz", "stp.ko.xz"]);
        assert!(modules.load("ext4", "").is_ok());
        let error = modules.load("nothing", "").unwrap_err();
        assert!(error.to_string().contains("no module 'nothing'"), "{error}");
    }

    #[test]
    fn patterns_fit_as_a_shell_says() {
        for (pattern, text, fits) in [
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[ac]x", "bx", false),
            ("[a", "a", false),
            ("*", "", true),
            ("", "", true),
            ("*a*b*", "xxaxxbxx", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]-]{0,60}", text in "a{0,200}") {
            let _ = glob(&pattern, &text);
        }
    }
}
