//! What init and agent of a guest both do: modules, power, the places they share.
//!
//! Everything in a guest is the image's or the user's to change, so nothing here trusts a file of the
//! root file system, and a failure is said rather than died of.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

pub mod mark;
pub mod modules;
pub mod place;
pub mod power;
pub mod process;
pub mod systemd;
pub mod user;

/// Waits until guest-init has done all it does before the image's init: the agent answers earlier, but a
/// command is to find a network. At most `limit`; a boot that hangs is no reason not to look into it.
pub fn wait_prepared(limit: Duration) {
    let end = Instant::now() + limit;
    while !Path::new(place::PREPARED).exists() && Instant::now() < end {
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a file of the image, or of anybody who is root there. One that is larger than `most` bytes is an error,
/// as is what is no regular file: a pipe would be waited for, and a device may have no end.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let bytes = read_start(path, most.saturating_add(1))?;
    if bytes.len() as u64 > most {
        let words = format!("it is larger than {most} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, words));
    }
    Ok(bytes)
}

/// The same for what is not needed whole: more than `most` bytes are not read.
pub fn read_start(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_files_are_read_and_no_more_than_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"\xff234").unwrap();
        assert_eq!(read_file(&at("file"), 4).unwrap(), b"\xff234");
        assert_eq!(read_start(&at("file"), 2).unwrap(), b"\xff2");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        for (name, wanted) in [
            ("file", ErrorKind::FileTooLarge),
            ("pipe", ErrorKind::InvalidInput),
            ("endless", ErrorKind::InvalidInput),
            ("", ErrorKind::InvalidInput),
            ("none", ErrorKind::NotFound),
        ] {
            assert_eq!(read_file(&at(name), 3).unwrap_err().kind(), wanted, "{name}");
        }
    }
}
