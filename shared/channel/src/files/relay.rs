//! Passing a tar stream on byte by byte, after a look at every name in it.

use super::{is_inside, serve::plain_path};
use banger_doc::{Context, Error, Result};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{Read, Write},
    rc::Rc,
};

/// The most bytes that may describe one entry: long names, and where a file has its holes.
pub(super) const MAX_HEAD: u64 = 16 << 20;
/// tar's unit.
const BLOCK: u64 = 512;

/// What is read goes through here, is held back, and is let on once it was looked at.
struct Gate<'a> {
    from: &'a mut dyn Read,
    to: &'a mut dyn Write,
    held: Rc<RefCell<Vec<u8>>>,
    /// Bytes that may pass without a look: the content of a file.
    open: Rc<Cell<u64>>,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut held = self.held.borrow_mut();
        let open = self.open.get();
        if open > 0 {
            self.to.write_all(&held)?;
            held.clear();
            let most = buffer.len().min(usize::try_from(open).unwrap_or(usize::MAX));
            let count = self.from.read(&mut buffer[..most])?;
            self.to.write_all(&buffer[..count])?;
            self.open.set(open - count as u64);
            return Ok(count);
        }
        let count = self.from.read(buffer)?;
        held.extend_from_slice(&buffer[..count]);
        if held.len() as u64 > MAX_HEAD {
            return Err(std::io::Error::other("what describes an entry does not end"));
        }
        Ok(count)
    }
}

/// Copies a tar stream whose names all stay below the directory it will be unpacked in, and none of
/// which leads through a link of the stream. Returns how many entries it had. It is read to its
/// end, and what is written ends as tar wants it.
pub fn relay(from: &mut dyn Read, to: &mut dyn Write) -> Result<u64> {
    let held = Rc::new(RefCell::new(Vec::new()));
    let open = Rc::new(Cell::new(0));
    let gate = Gate { from: &mut *from, to: &mut *to, held: held.clone(), open: open.clone() };
    let mut archive = tar::Archive::new(gate);
    let mut links = HashSet::new();
    let mut count = 0;
    for entry in archive.entries().context("cannot read a tar stream")? {
        let mut entry = entry.context("cannot read a tar stream")?;
        if has_map(&mut entry) {
            return Err(Error::failed(format!(
                "'{}' in the tar stream says where its holes are in a way that is not understood",
                entry.path_bytes().escape_ascii()
            ))
            .hint("'tar --format=gnu' does it in one that is"));
        }
        let header = entry.header();
        let kind = header.entry_type();
        if !kind.is_pax_global_extensions() {
            check(&entry, &mut links)?;
            count += 1;
        }
        let content = if kind.is_gnu_sparse() { header.entry_size() } else { Ok(entry.size()) };
        let content = content.context("cannot read a tar stream")?;
        let padded = content.checked_next_multiple_of(BLOCK);
        open.set(padded.ok_or_else(|| Error::failed("a file in a tar stream has no end"))?);
    }
    drop(archive);
    // A stream may end without the two empty blocks; with two more of them it is whole.
    to.write_all(&held.borrow())
        .and_then(|()| to.write_all(&[0; 2 * BLOCK as usize]))
        .context("cannot pass a tar stream on")?;
    std::io::copy(from, &mut std::io::sink()).context("cannot read a tar stream to its end")?;
    Ok(count)
}

/// Says whether a file's content begins with a map of its holes.
fn has_map<R: Read>(entry: &mut tar::Entry<'_, R>) -> bool {
    let Ok(Some(mut extensions)) = entry.pax_extensions() else { return false };
    extensions.any(|e| e.is_ok_and(|e| e.key_bytes().starts_with(b"GNU.sparse.")))
}

fn check<R: Read>(entry: &tar::Entry<'_, R>, links: &mut HashSet<Vec<u8>>) -> Result<()> {
    let name = entry.path_bytes();
    let path = plain_path(&name);
    let through = |path: &[u8]| {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        ends.map(|(at, _)| &path[..at]).any(|above| links.contains(above))
    };
    let bad = |what: &str, path: &[u8]| {
        Error::failed(format!("'{}' in the tar stream {what}", path.escape_ascii()))
    };
    if path != b"." && !is_inside(path) {
        return Err(bad("leaves its directory", path));
    }
    if !links.is_empty() && through(path) {
        return Err(bad("leads through a link", path));
    }
    let kind = entry.header().entry_type();
    if kind.is_hard_link() {
        let target = entry.link_name_bytes().unwrap_or_default();
        let target = plain_path(&target);
        if !is_inside(target) || through(target) {
            return Err(bad("is a hard link that leaves its directory", path));
        }
    } else if kind.is_symlink() {
        links.insert(path.to_vec());
    } else {
        links.remove(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn header(path: &str, kind: tar::EntryType, link: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_link_name_literal(link).unwrap();
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        header
    }

    fn stream(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, link) in entries {
            builder.append(&header(path, *kind, link, 0), std::io::empty()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_tar_makes_passes_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a".repeat(120))).unwrap();
        fs::write(tree.join("a".repeat(120)).join("b".repeat(90)), "x".repeat(70_000)).unwrap();
        fs::write(tree.join("small"), "1").unwrap();
        fs::hard_link(tree.join("small"), tree.join("again")).unwrap();
        std::os::unix::fs::symlink("small", tree.join("link")).unwrap();
        let file = fs::File::create(tree.join("holes")).unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", 600_000).unwrap();
        for how in [["--format=gnu", "-S"], ["--format=pax", "--check-links"]] {
            let mut command = Command::new("tar");
            command.args(how).args(["-c", "-C"]).arg(dir.path());
            let made = command.arg("tree").output().unwrap().stdout;
            let mut passed = Vec::new();
            let count = relay(&mut made.as_slice(), &mut passed).unwrap();
            assert_eq!(count, 7, "{how:?}");
            assert!(made.starts_with(&passed[..passed.len() - 2048]), "{how:?}");
        }
        let mut command = Command::new("tar");
        let made = command.args(["--format=pax", "-cSC"]).arg(&tree).arg("holes").output().unwrap();
        let error = relay(&mut made.stdout.as_slice(), &mut Vec::new()).unwrap_err();
        assert!(error.chain().contains("holes"), "{}", error.chain());
    }

    #[test]
    fn a_name_that_leads_out_stops_the_stream_before_it() {
        use tar::EntryType::{Link, Regular, Symlink};
        for (entries, words) in [
            (vec![("ok", Regular, ""), ("../evil", Regular, "")], "leaves its directory"),
            (vec![("/evil", Regular, "")], "leaves its directory"),
            (vec![("a/../../evil", Regular, "")], "leaves its directory"),
            (vec![("way", Symlink, "/etc"), ("way/evil", Regular, "")], "through a link"),
            (vec![("hard", Link, "../../etc/passwd")], "hard link"),
            (vec![("hard", Link, "/etc/passwd")], "hard link"),
            (vec![("way", Symlink, "/etc"), ("hard", Link, "way/passwd")], "hard link"),
        ] {
            let mut passed = Vec::new();
            let error = relay(&mut stream(&entries).as_slice(), &mut passed).unwrap_err();
            assert!(error.chain().contains(words), "{}", error.chain());
            let passed = String::from_utf8_lossy(&passed);
            assert!(!passed.contains("evil") && !passed.contains("hard"), "{passed:?}");
        }
        // A link that a file took the place of leads nowhere.
        let again = [("way", Symlink, "/etc"), ("way", Regular, ""), ("./way/x", Regular, "")];
        relay(&mut stream(&again).as_slice(), &mut Vec::new()).unwrap();
    }

    #[test]
    fn a_stream_without_an_end_is_bounded() {
        let long = header("././@LongLink", tar::EntryType::GNULongName, "", 1 << 40);
        let mut endless = long.as_bytes().chain(std::io::repeat(b'a'));
        let error = relay(&mut endless, &mut Vec::new()).unwrap_err();
        assert!(error.chain().contains("does not end"), "{}", error.chain());
        let cut = stream(&[("a", tar::EntryType::Regular, "")]);
        assert!(relay(&mut &cut[..300], &mut Vec::new()).is_err());
        let mut cut = header("a", tar::EntryType::Regular, "", 5000).as_bytes().to_vec();
        cut.extend([b'x'; 100]);
        assert!(relay(&mut cut.as_slice(), &mut Vec::new()).is_err());
        assert!(relay(&mut &b"not a tar stream".repeat(100)[..], &mut Vec::new()).is_err());
    }
}
