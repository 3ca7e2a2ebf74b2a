//! Passing a tar stream on: read strictly, looked at name by name, and written anew.

use super::{is_inside, take::Made, tree::plain_path};
use banger_doc::{Context, Error, Result};
use banger_tar::{Buffered, Entry, Holes, Kind, Reader, Writer, shown};
use banger_tree::MAX_DEPTH;
use std::io::{Read, Write};

/// The most links of one stream: they are remembered.
const MOST_LINKS: u64 = 4_000_000;

/// Who reads what is passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whom {
    /// The guest's agent, which follows no link.
    Agent,
    /// Any program, which may follow the links that it has made.
    Anybody,
}

/// Copies a tar stream whose names all stay below the directory it will be unpacked in, and none of
/// which leads through a link of the stream. What comes out has the same entries, in headers that
/// every program reads the same; times of whole seconds; no names of owners, and no attributes.
/// Returns how many entries there were. It is read to its end.
pub fn relay(from: &mut dyn Read, to: &mut dyn Write, whom: Whom) -> Result<u64> {
    let holes = match whom {
        Whom::Agent => Holes::Gnu,
        Whom::Anybody => Holes::Posix,
    };
    let mut reader = Reader::new(Buffered::new(&mut *from));
    let mut writer = Writer::new(to, holes);
    let mut links = Links { made: Made::default(), count: 0, whom };
    let mut count = 0;
    let mut last = Vec::new();
    let after = |last: &[u8]| match last {
        [] => "cannot read a tar stream".to_owned(),
        last => format!("cannot read a tar stream after the entry '{}'", shown(last)),
    };
    while reader.advance().with_context(|| after(&last))? {
        let entry = reader.entry();
        let (path, link) = links.checked(entry)?;
        writer.entry(path, link, entry).context("cannot pass a tar stream on")?;
        last.clear();
        last.extend_from_slice(path);
        reader.content(|bytes| writer.content(bytes)).with_context(|| after(&last))?;
        count += 1;
    }
    writer.finish().context("cannot pass a tar stream on")?;
    drop(reader);
    std::io::copy(from, &mut std::io::sink()).context("cannot read a tar stream to its end")?;
    Ok(count)
}

/// The links of a stream.
struct Links {
    made: Made,
    count: u64,
    whom: Whom,
}

impl Links {
    /// Looks at an entry's names; returns them without what means nothing in them.
    fn checked<'e>(&mut self, entry: &'e Entry) -> Result<(&'e [u8], &'e [u8])> {
        let path = plain_path(&entry.path);
        let bad = |what: &str| Error::failed(format!("'{}' in the tar stream {what}", shown(path)));
        if path != b"." && !is_inside(path) {
            return Err(bad(&format!("leaves its directory, or has more than {MAX_DEPTH} names")));
        }
        // Some programs write through a link where a file of its name comes later.
        let is_link = |path: &[u8]| self.count > 0 && self.made.has(path);
        if self.through(path) || self.whom == Whom::Anybody && is_link(path) {
            return Err(bad("leads through a link"));
        }
        let link = match entry.kind {
            Kind::Hardlink => {
                let target = plain_path(&entry.link);
                if !is_inside(target) || self.through(target) {
                    return Err(bad(&format!(
                        "is a hard link that leaves its directory, or has more than {MAX_DEPTH} names"
                    )));
                }
                target
            }
            _ => entry.link.as_slice(),
        };
        match entry.kind {
            Kind::Symlink => self.note(path)?,
            // One more name of a link is a link.
            Kind::Hardlink if is_link(link) => self.note(path)?,
            // There are programs that take a link to a directory for one.
            Kind::Directory => {}
            _ if self.count > 0 => self.made.forget(path),
            _ => {}
        }
        Ok((path, link))
    }

    /// Says whether a link is above a path.
    fn through(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        self.count > 0 && ends.map(|(at, _)| &path[..at]).any(|above| self.made.has(above))
    }

    fn note(&mut self, path: &[u8]) -> Result<()> {
        self.count += 1;
        if self.count > MOST_LINKS {
            return Err(Error::failed(format!("the tar stream has more than {MOST_LINKS} links")));
        }
        self.made.note(path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::MetadataExt,
        process::{Command, Stdio},
    };

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
    fn what_tar_makes_passes_and_means_the_same() {
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
        for how in [["--format=gnu", "-S"], ["--format=pax", "-S"]] {
            let mut command = Command::new("tar");
            command.args(how).args(["-c", "-C"]).arg(dir.path());
            let made = command.arg("tree").output().unwrap().stdout;
            for whom in [Whom::Agent, Whom::Anybody] {
                let mut passed = Vec::new();
                let count = relay(&mut made.as_slice(), &mut passed, whom).unwrap();
                assert_eq!(count, 7, "{how:?}");
                let to = tempfile::tempdir().unwrap();
                let mut tar = Command::new("tar")
                    .args(["-xpC"])
                    .arg(to.path())
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                tar.stdin.take().unwrap().write_all(&passed).unwrap();
                assert!(tar.wait().unwrap().success(), "{how:?}");
                let to = to.path().join("tree");
                let compare = Command::new("diff")
                    .args(["-r", "--no-dereference"])
                    .arg(&tree)
                    .arg(&to)
                    .output()
                    .unwrap();
                assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
                let meta = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
                assert_eq!(meta("small").ino(), meta("again").ino());
                assert!(meta("holes").blocks() < 100, "{how:?} {}", meta("holes").blocks());
                assert!(passed.len() < 100_000, "{how:?}: {}", passed.len());
            }
        }
    }

    #[test]
    fn a_name_that_leads_out_stops_the_stream_before_it() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        for (entries, words) in [
            (vec![("ok", Regular, ""), ("../evil", Regular, "")], "leaves its directory"),
            (vec![("/evil", Regular, "")], "leaves its directory"),
            (vec![("a/../../evil", Regular, "")], "leaves its directory"),
            (vec![("way", Symlink, "/etc"), ("way/evil", Regular, "")], "through a link"),
            (vec![("hard", Link, "../../etc/passwd")], "hard link"),
            (vec![("hard", Link, "/etc/passwd")], "hard link"),
            (vec![("way", Symlink, "/etc"), ("hard", Link, "way/passwd")], "hard link"),
            (
                vec![("way", Symlink, "/"), ("same", Link, "way"), ("same/evil", Regular, "")],
                "through a link",
            ),
            (
                vec![("way", Symlink, "/"), ("way", Directory, ""), ("way/evil", Regular, "")],
                "through a link",
            ),
        ] {
            for whom in [Whom::Agent, Whom::Anybody] {
                let mut passed = Vec::new();
                let error = relay(&mut stream(&entries).as_slice(), &mut passed, whom).unwrap_err();
                assert!(error.chain().contains(words), "{}", error.chain());
                let passed = String::from_utf8_lossy(&passed);
                assert!(!passed.contains("evil"), "{passed:?}");
            }
        }
        // A link that a file took the place of leads nowhere; but some programs write to where it led.
        let again =
            stream(&[("way", Symlink, "/etc"), ("way", Regular, ""), ("./way/x", Regular, "")]);
        relay(&mut again.as_slice(), &mut Vec::new(), Whom::Agent).unwrap();
        let error = relay(&mut again.as_slice(), &mut Vec::new(), Whom::Anybody).unwrap_err();
        assert!(error.chain().contains("through a link"), "{}", error.chain());
    }

    /// A header and what follows it, in whole blocks.
    fn block(path: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
        let header = header(path, kind, link, content.len() as u64);
        let mut bytes = [header.as_bytes(), content].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn what_other_programs_read_otherwise_does_not_pass() {
        use tar::EntryType::{
            Directory, GNULongName, Link, Regular, Symlink, XGlobalHeader, XHeader,
        };
        let file = block("good", Regular, "", b"");
        let evil = block("../evil", Regular, "", b"");
        let all = |body: &[u8]| [block("g", XGlobalHeader, "", body), file.clone()].concat();
        let own = |body: &[u8]| block("x", XHeader, "", body);
        let long = |name: &[u8]| block("././@LongLink", GNULongName, "", name);
        for (what, bytes) in [
            ("a path for all", all(b"16 path=../evil\n")),
            ("a size for all", all(b"12 size=512\n")),
            ("two paths", [own(b"13 path=good\n16 path=../evil\n"), file.clone()].concat()),
            ("two names", [long(b"../evil\0"), own(b"13 path=good\n"), file.clone()].concat()),
            ("a hard link's content", [file.clone(), block("h", Link, "good", &evil)].concat()),
            ("a directory's content", block("d", Directory, "", &evil)),
            ("a link's content", block("l", Symlink, "good", &evil)),
        ] {
            for whom in [Whom::Agent, Whom::Anybody] {
                let mut passed = Vec::new();
                let done = relay(
                    &mut [bytes.as_slice(), &[0; 1024]].concat().as_slice(),
                    &mut passed,
                    whom,
                );
                assert!(done.is_err(), "{what} passed");
                assert!(!String::from_utf8_lossy(&passed).contains("evil"), "{what}");
            }
        }
    }

    #[test]
    fn a_name_that_is_too_deep_is_said_so() {
        let passes = |depth: usize| {
            let name = vec!["a"; depth].join("/") + "\0";
            let long = block("././@LongLink", tar::EntryType::GNULongName, "", name.as_bytes());
            let bytes =
                [long, block("a", tar::EntryType::Regular, "", b""), vec![0; 1024]].concat();
            relay(&mut bytes.as_slice(), &mut Vec::new(), Whom::Agent)
        };
        passes(MAX_DEPTH).unwrap();
        let error = passes(MAX_DEPTH + 1).unwrap_err().chain();
        assert!(error.contains("leaves its directory, or has more than 255 names"), "{error}");
    }

    #[test]
    fn a_stream_without_an_end_is_bounded() {
        let long = header("././@LongLink", tar::EntryType::GNULongName, "", 1 << 40);
        let mut endless = long.as_bytes().chain(std::io::repeat(b'a'));
        let read = |mut from: &mut dyn Read| {
            let error = relay(&mut from, &mut Vec::new(), Whom::Agent).unwrap_err();
            error.chain()
        };
        assert!(read(&mut endless).contains("more than the limit"));
        let cut = stream(&[("a", tar::EntryType::Regular, "")]);
        assert!(read(&mut &cut[..300]).contains("ends within a header"));
        let mut cut = header("a", tar::EntryType::Regular, "", 5000).as_bytes().to_vec();
        cut.extend([b'x'; 100]);
        assert!(read(&mut cut.as_slice()).contains("after the entry 'a'"));
        assert!(read(&mut &b"not a tar stream".repeat(100)[..]).contains("wrong checksum"));
    }
}
