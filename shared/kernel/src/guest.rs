//! The guest program, and the part of the initramfs that is one VM's own.

use crate::{cpio, elf};
use banger_doc::{Context, Document, Error, Guest, Result};
use std::{env, fs::File, io::Write, os::unix::fs::FileExt, path::PathBuf};

/// Finds a program that runs in guests: in `$BANGER_GUEST_DIR`, else in `guest/` beside this
/// program, else in `../libexec/banger/`.
pub fn guest_program(name: &str) -> Result<PathBuf> {
    let given = env::var_os("BANGER_GUEST_DIR").filter(|value| !value.is_empty());
    let places: Vec<PathBuf> = if let Some(dir) = given {
        vec![PathBuf::from(dir)]
    } else {
        let exe = env::current_exe().context("cannot tell where this program lies")?;
        let dir = exe.parent().expect("because a program lies in a directory");
        vec![dir.join("guest"), dir.join("../libexec/banger")]
    };
    let found = places.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|dir| format!("'{}'", dir.display())).collect();
        Error::unavailable(format!("no guest program '{name}' in {}", places.join(" or ")))
            .hint("'cargo xtask build' makes it; BANGER_GUEST_DIR names another directory")
    })
}

/// Opens a guest program, once its first page says that it runs where there are no libraries.
fn open_program(name: &str) -> Result<File> {
    let path = guest_program(name)?;
    let failed = || format!("cannot read '{}'", path.display());
    let program = File::open(&path).with_context(failed)?;
    let mut head = [0; 4096];
    let length = program.read_at(&mut head, 0).with_context(failed)?;
    match elf::is_static(&head[..length]) {
        Some(true) => Ok(program),
        Some(false) => Err(Error::failed(format!(
            "'{}' needs shared libraries, which a guest may not have",
            path.display()
        ))
        .hint("'cargo xtask build' links it statically")),
        None => Err(Error::failed(format!("'{}' is no program", path.display()))),
    }
}

/// Writes the part of the initramfs that is one VM's own: `/init`, `/banger/guest.json` and `files`,
/// each a path inside the archive with its contents.
///
/// It follows the kernel's `initramfs.cpio`, padded to a multiple of four bytes. The program, which
/// is most of it, does not pass through this one's memory.
pub fn guest_archive(guest: &Guest, files: &[(String, Vec<u8>)], to: &mut File) -> Result<()> {
    let failed = "cannot write the VM's part of the initramfs";
    let mut archive = cpio::Writer::new();
    archive.copy("init", 0o755, &open_program("banger-guest-init")?, to).context(failed)?;
    archive.file("banger/guest.json", 0o600, guest.to_line().as_bytes());
    for (path, content) in files {
        archive.file(path, 0o600, content);
    }
    to.write_all(&archive.finish()).context(failed)
}
