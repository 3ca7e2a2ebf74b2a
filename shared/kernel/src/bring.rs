//! From files to a kernel's folder.

use crate::{
    ARCHITECTURE, cpio, deb, depmod,
    image::{is_release, unpack},
    modules::{BootModule, Modules},
    tree,
};
use banger_doc::{Context, Error, Format, Result};
use banger_tree::remove_tree;
use sha2::{Digest, Sha256};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

/// A kernel file is at most this large.
const MAX_FILE: u64 = 1 << 30;

/// Where a kernel is taken from.
#[derive(Debug)]
pub enum Source {
    /// Debian packages; together they have a kernel and its modules.
    Debs(Vec<PathBuf>),
    /// A kernel file, and the folder of its modules unless everything is built in.
    Files {
        /// The kernel, as a boot loader or a VMM takes it.
        kernel: PathBuf,
        /// `/lib/modules/RELEASE`, or a folder that has it below.
        modules: Option<PathBuf>,
    },
}

/// What is in the folder now.
#[derive(Debug)]
pub struct Brought {
    /// What `uname -r` says.
    pub release: String,
    /// How `vmlinux` is made.
    pub format: Format,
    /// SHA-256 of `vmlinux`, in hexadecimal.
    pub sha256: String,
    /// Size of `vmlinux`, in bytes.
    pub size_bytes: u64,
    /// Whether `modules.ext4` is there.
    pub has_modules: bool,
    /// Modules of the initramfs, in order.
    pub boot_modules: Vec<String>,
}

impl Source {
    /// Finds a kernel in a folder: `vmlinux`, `bzImage`, `vmlinuz` or `Image`, or one `vmlinuz-*`, there
    /// or in its `boot/`; its modules in `modules/` or `lib/modules/`.
    pub fn directory(dir: &Path) -> Result<Self> {
        let mut found = Vec::new();
        for place in [dir.to_owned(), dir.join("boot"), dir.join("arch/x86/boot")] {
            let named = ["vmlinux", "bzImage", "vmlinuz", "Image"].map(|name| place.join(name));
            if let Some(kernel) = named.into_iter().find(|path| path.is_file()) {
                found = vec![kernel];
                break;
            }
            let Ok(entries) = fs::read_dir(&place) else { continue };
            found.extend(entries.filter_map(|entry| {
                let path = entry.ok()?.path();
                path.file_name()?.to_str()?.starts_with("vmlinuz-").then_some(path)
            }));
        }
        let modules = ["modules", "lib/modules", "usr/lib/modules"];
        let modules = modules.iter().map(|name| dir.join(name)).find(|path| path.is_dir());
        match (found.len(), found.pop()) {
            (1, Some(kernel)) => Ok(Self::Files { kernel, modules }),
            (0, _) => Err(Error::not_found(format!("no kernel in '{}'", dir.display())).hint(
                "it is looked for as 'vmlinux', 'bzImage', 'vmlinuz', 'Image' or 'vmlinuz-RELEASE'",
            )),
            _ => Err(Error::usage(format!("several kernels in '{}'", dir.display()))
                .hint("name one with '--vmlinuz' and its modules with '--modules'")),
        }
    }

    /// Takes a kernel this host has installed; the running one if none is named.
    pub fn host(release: Option<&str>) -> Result<Self> {
        let running = nix::sys::utsname::uname().context("cannot tell the running kernel")?;
        let running = running.release().to_string_lossy();
        let release = release.unwrap_or(&running);
        if !is_release(release) {
            return Err(Error::usage(format!("'{release}' is no kernel's release"))
                .hint("'ls /lib/modules' shows the releases this host has"));
        }
        let modules = PathBuf::from("/lib/modules").join(release);
        let kernels =
            [format!("/boot/vmlinuz-{release}"), format!("/lib/modules/{release}/vmlinuz")];
        let kernel = kernels.iter().map(PathBuf::from).find(|path| path.is_file());
        let kernel = kernel.ok_or_else(|| {
            Error::not_found(format!("this host has no kernel '{release}' in /boot")).hint(
                "name one with '--release', '--deb' or '--vmlinuz', or 'banger kernel pull generic-6.12'",
            )
        })?;
        Ok(Self::Files { kernel, modules: Some(modules).filter(|dir| dir.is_dir()) })
    }
}

/// Fills a kernel's empty folder.
pub fn bring(source: &Source, folder: &Path) -> Result<Brought> {
    let work = folder.join("work");
    fs::create_dir(&work).with_context(|| format!("cannot make '{}'", work.display()))?;
    let (kernel, modules) = match source {
        Source::Debs(debs) => from_debs(debs, &work)?,
        Source::Files { kernel, modules } => (kernel.clone(), modules.clone()),
    };
    let what = match source {
        Source::Debs(debs) => format!("the kernel in '{}'", debs[0].display()),
        Source::Files { kernel, .. } => format!("'{}'", kernel.display()),
    };
    let unpacked = unpack(read(&kernel, &what)?, &what)?;
    if unpacked.architecture != ARCHITECTURE {
        return Err(Error::failed(format!(
            "{what} is for {}, this host is {ARCHITECTURE}",
            unpacked.architecture
        )));
    }
    let modules = match &modules {
        Some(dir) => Some(modules_of(dir, unpacked.release.as_deref())?),
        None => None,
    };
    let named = modules.as_ref().and_then(|dir| dir.file_name()?.to_str().map(str::to_owned));
    let release = unpacked
        .release
        .or_else(|| named.filter(|name| is_release(name)))
        .ok_or_else(|| Error::failed(format!("{what} does not tell its release")))?;

    store(folder, "vmlinux", &unpacked.bytes)?;
    let boot = match &modules {
        Some(dir) => with_modules(dir, folder, &work)?,
        None => Vec::new(),
    };
    store(folder, "initramfs.cpio", &initramfs(&boot))?;
    remove_tree(&work).with_context(|| format!("cannot remove '{}'", work.display()))?;
    Ok(Brought {
        release,
        format: unpacked.format,
        sha256: hex(&Sha256::digest(&unpacked.bytes)),
        size_bytes: unpacked.bytes.len() as u64,
        has_modules: modules.is_some(),
        boot_modules: boot.into_iter().map(|module| module.name).collect(),
    })
}

fn from_debs(debs: &[PathBuf], work: &Path) -> Result<(PathBuf, Option<PathBuf>)> {
    let mut budget = tree::Budget::new();
    let root = work.join("deb");
    fs::create_dir(&root).with_context(|| format!("cannot make '{}'", root.display()))?;
    for deb in debs {
        deb::unpack(deb, &root, &mut budget)?;
    }
    let (kernel, modules) = deb::found(&root)?;
    let names: Vec<String> = debs.iter().map(|deb| format!("'{}'", deb.display())).collect();
    let names = names.join(", ");
    let kernel = kernel.ok_or_else(|| {
        Error::failed(format!("no kernel in {names}"))
            .hint("a meta-package has none: take the package it depends on")
    })?;
    let modules = modules.ok_or_else(|| {
        Error::failed(format!("no modules in {names}"))
            .hint("where modules come in a package of their own, give both with '--deb'")
    })?;
    Ok((kernel, Some(modules)))
}

/// Finds the folder of a release's modules in a folder the user named.
fn modules_of(dir: &Path, release: Option<&str>) -> Result<PathBuf> {
    let is_one = |dir: &Path| {
        ["modules.dep", "modules.order", "modules.builtin", "kernel"]
            .iter()
            .any(|name| dir.join(name).exists())
    };
    if is_one(dir) {
        let name = dir.file_name().and_then(|name| name.to_str()).filter(|name| is_release(name));
        if let (Some(name), Some(release)) = (name, release)
            && name != release
        {
            return Err(Error::failed(format!(
                "the kernel is '{release}', its modules are of '{name}'"
            ))
            .hint("'--vmlinuz' and '--modules' name a kernel and its own modules"));
        }
        return Ok(dir.to_owned());
    }
    let places = release.into_iter().flat_map(|release| {
        [
            dir.join(release),
            dir.join("lib/modules").join(release),
            dir.join("usr/lib/modules").join(release),
        ]
    });
    places.into_iter().find(|dir| is_one(dir)).ok_or_else(|| {
        Error::not_found(format!(
            "no modules{} in '{}'",
            release.map(|release| format!(" of '{release}'")).unwrap_or_default(),
            dir.display()
        ))
        .hint("'make modules_install INSTALL_MOD_PATH=DIR' makes such a folder")
    })
}

/// Writes `modules.ext4` and returns the modules the guest boots with.
fn with_modules(dir: &Path, folder: &Path, work: &Path) -> Result<Vec<BootModule>> {
    let own = if dir.starts_with(work) {
        dir.to_owned()
    } else {
        let own = work.join("tree");
        tree::copy(dir, &own)?;
        own
    };
    if !own.join("modules.dep").exists() || !own.join("modules.dep.bin").exists() {
        depmod::write(&own)?;
    }
    let boot = Modules::read(&own)?.boot()?;
    let path = folder.join("modules.ext4");
    let failed = || format!("cannot write '{}'", path.display());
    let disk =
        File::options().read(true).write(true).create_new(true).open(&path).with_context(failed)?;
    banger_ext4::from_directory(&own, &disk, "modules").with_context(failed)?;
    disk.sync_data().with_context(failed)?;
    Ok(boot)
}

/// Makes the part of the initramfs that every VM of the kernel has: the modules, and the list of
/// them that guest-init follows, a group and a file a line.
fn initramfs(boot: &[BootModule]) -> Vec<u8> {
    let mut archive = cpio::Writer::new();
    let mut list = String::new();
    let mut written = Vec::new();
    for module in boot {
        let _ = writeln!(list, "{} {}.ko", module.group, module.name);
        if !written.contains(&&module.name) {
            archive.file(&format!("banger/ko/{}.ko", module.name), 0o644, &module.bytes);
            written.push(&module.name);
        }
    }
    archive.file("banger/modules", 0o644, list.as_bytes());
    archive.finish()
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    let failed = || format!("cannot read {what}");
    let file = File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::failed(format!("{what} is larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

fn store(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    File::create_new(&path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .with_context(|| format!("cannot write '{}'", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
