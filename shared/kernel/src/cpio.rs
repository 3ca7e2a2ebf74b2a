//! The archive format of an initramfs: cpio "newc" (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
};

/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Writes one archive, into memory but for what is copied. Parent directories are added by themselves.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    /// How many bytes of the archive are not in memory.
    gone: usize,
    dirs: BTreeSet<String>,
    inode: u32,
}

impl Writer {
    /// Begins an empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file; a `/` at the front of its path is left out.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.parents(path);
        self.entry(path, 0o100_000 | (permissions & 0o7777), content);
    }

    /// Adds a regular file that the kernel copies from another into the archive's. What is in memory
    /// goes there before it.
    pub fn copy(
        &mut self,
        path: &str,
        permissions: u32,
        from: &File,
        archive: &mut File,
    ) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let length = u32::try_from(from.metadata()?.len()).map_err(too_large)?;
        self.parents(path);
        self.head(path, 0o100_000 | (permissions & 0o7777), length);
        archive.write_all(&self.bytes)?;
        if io::copy(&mut from.take(length.into()), archive)? != u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.gone += self.bytes.len() + length as usize;
        self.bytes.clear();
        self.pad();
        Ok(())
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        self.parents(path);
        if self.dirs.insert(path.to_owned()) {
            self.entry(path, 0o040_755, &[]);
        }
    }

    /// Ends the archive and returns what of it is in memory. Its length is a multiple of four, so that
    /// another archive may follow.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry(TRAILER, 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let dir = &path[..end];
            if !dir.is_empty() && self.dirs.insert(dir.to_owned()) {
                self.entry(dir, 0o040_755, &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.head(path, mode, content.len() as u32);
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn head(&mut self, path: &str, mode: u32, length: u32) {
        let inode = if path == TRAILER { 0 } else { self.inode + 1 };
        self.inode = inode;
        let fields = [
            inode,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time: nothing in a guest asks for it, and equal input gives equal bytes
            length,
            0, // device, major
            0, // device, minor
            0, // device a node stands for, major
            0, // device a node stands for, minor
            path.len() as u32 + 1,
            0, // checksum, of another variant of the format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        let whole = (self.gone + self.bytes.len()).next_multiple_of(4);
        self.bytes.resize(whole - self.gone, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn an_archive_has_parents_first_and_ends_aligned() {
        let mut writer = Writer::new();
        writer.file("/a/b/c", 0o755, b"hello");
        writer.file("a/b/d", 0o600, b"");
        let bytes = writer.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<_> = ["\0a\0", "a/b\0", "a/b/c\0", "a/b/d\0", "TRAILER!!!\0"]
            .iter()
            .map(|n| text.find(n))
            .collect();
        assert!(places[1..].is_sorted() && places[1..].iter().all(Option::is_some), "{places:?}");
        assert_eq!(text.matches("070701").count(), 5);
    }

    #[test]
    fn a_copied_file_is_as_one_from_memory() {
        for content in [&b"12345"[..], b"1234", b""] {
            let (mut plain, mut copied) = (Writer::new(), Writer::new());
            for writer in [&mut plain, &mut copied] {
                writer.file("first", 0o600, b"abc");
            }
            plain.file("a/b", 0o755, content);
            let mut from = tempfile::tempfile().unwrap();
            from.write_all(content).unwrap();
            io::Seek::rewind(&mut from).unwrap();
            let mut archive = tempfile::tempfile().unwrap();
            copied.copy("a/b", 0o755, &from, &mut archive).unwrap();
            for writer in [&mut plain, &mut copied] {
                writer.file("a/last", 0o600, b"x");
            }
            archive.write_all(&copied.finish()).unwrap();
            io::Seek::rewind(&mut archive).unwrap();
            let mut bytes = Vec::new();
            archive.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, plain.finish());
        }
    }

    #[test]
    fn cpio_reads_what_is_written() {
        let mut writer = Writer::new();
        writer.file("/banger/x", 0o640, b"1234567");
        writer.directory("/empty");
        let bytes = writer.finish();
        let Ok(mut child) = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            assert!(std::env::var_os("CI").is_none(), "cpio is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(text.contains("-rw-r-----") && text.contains("banger/x"), "{text}");
        assert!(text.contains("drwxr-xr-x") && text.contains("empty"), "{text}");
    }
}
