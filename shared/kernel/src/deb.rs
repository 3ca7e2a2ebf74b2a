//! A Debian package: an `ar` archive with a compressed tar inside (deb(5), ar(5)).

use crate::{image::is_release, inflate, tree};
use banger_doc::{Context, Error, Result};
use banger_tar::{Buffered, Input, Kind, Reader};
use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The most members the outer archive has; a package has three or four.
const MAX_MEMBERS: usize = 16;
/// What a package may unpack to before the ratio to what it came as is looked at.
const FREE: u64 = 256 << 20;
/// How many bytes a package may unpack to for each byte it came as.
const RATIO: u64 = 100;

/// Unpacks the kernel and the modules of a package below `root`: `root/kernel` and
/// `root/modules/RELEASE/...`. All else is passed over.
pub(crate) fn unpack(deb: &Path, root: &Path, budget: &mut tree::Budget) -> Result<()> {
    let what = format!("'{}'", deb.display());
    let file = File::open(deb).with_context(|| format!("cannot open {what}"))?;
    let came = file.metadata().with_context(|| format!("cannot read {what}"))?.len();
    let data = data_member(BufReader::new(file), &what)?;
    // Padding and files that are passed over count too, so a small package cannot keep us busy.
    let most = budget.plain.min(FREE.max(came.saturating_mul(RATIO)));
    let plain = Inflated { from: inflate::reader(data, &what)?, left: most, most };
    let mut reader = Reader::new(Buffered::new(plain));
    let done = take(&mut reader, root, budget, &what);
    budget.plain = budget.plain.saturating_sub(most - reader.input().get_ref().left);
    done
}

/// Bytes of a package, so many and no more.
struct Inflated<R> {
    from: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(out)?;
        let over = || std::io::Error::other(format!("it unpacks to more than {} bytes", self.most));
        self.left = self.left.checked_sub(count as u64).ok_or_else(over)?;
        Ok(count)
    }
}

/// Writes what is wanted of an archive.
fn take<I: Input>(
    reader: &mut Reader<I>,
    root: &Path,
    budget: &mut tree::Budget,
    what: &str,
) -> Result<()> {
    let broken = || format!("cannot read the package {what}");
    while reader.advance().with_context(broken)? {
        budget.entries = budget.entries.checked_sub(1).ok_or_else(|| {
            Error::failed(format!("{what} has more than {} entries", tree::MAX_FILES))
        })?;
        let entry = reader.entry();
        if entry.kind != Kind::File {
            continue;
        }
        let Some(place) = place_of(&entry.path) else { continue };
        if entry.pieces.is_some() {
            return Err(Error::failed("a file in it is stored as a sparse one")
                .hint("dpkg-deb makes no such package: take one that a distribution made"))
            .with_context(broken);
        }
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        let size = entry.size;
        tree::fill(root, &place, size, budget, what, |file| {
            let write = |bytes: &[u8]| {
                file.write_all(bytes).with_context(|| format!("cannot unpack {what}"))
            };
            reader.content(write).with_context(broken)?;
            Ok(size)
        })?;
    }
    Ok(())
}

/// Returns where a file of a package goes, below the folder it is unpacked into.
fn place_of(path: &[u8]) -> Option<Vec<String>> {
    let names = tree::plain(path)?;
    let names = names.strip_prefix(&["usr"]).unwrap_or(&names);
    match names {
        ["boot", file]
            if file
                .strip_prefix("vmlinuz-")
                .or(file.strip_prefix("vmlinux-"))
                .is_some_and(is_release) =>
        {
            Some(vec!["kernel".into()])
        }
        ["lib", "modules", release, rest @ ..] if is_release(release) && !rest.is_empty() => {
            let place = ["modules", release].into_iter().chain(rest.iter().copied());
            Some(place.map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// Returns the one unpacked below `root`: the kernel file and the folder of its modules.
pub(crate) fn found(root: &Path) -> Result<(Option<PathBuf>, Option<PathBuf>)> {
    let kernel = Some(root.join("kernel")).filter(|path| path.is_file());
    let modules = root.join("modules");
    let mut releases = Vec::new();
    if modules.is_dir() {
        let list = || format!("cannot list '{}'", modules.display());
        for entry in std::fs::read_dir(&modules).with_context(list)? {
            releases.push(entry.with_context(list)?.path());
        }
    }
    if releases.len() > 1 {
        return Err(Error::failed("the packages have modules of several releases")
            .hint("give the packages of one kernel only"));
    }
    Ok((kernel, releases.pop()))
}

/// Finds `data.tar.*`.
fn data_member<R: Read + Seek>(mut input: R, what: &str) -> Result<impl Read> {
    let broken = || format!("cannot read the package {what}");
    let mut magic = [0; 8];
    input.read_exact(&mut magic).with_context(broken)?;
    if &magic != b"!<arch>\n" {
        return Err(Error::failed(format!("{what} is no Debian package")));
    }
    for _ in 0..MAX_MEMBERS {
        let mut header = [0; 60];
        input.read_exact(&mut header).with_context(broken)?;
        let size =
            std::str::from_utf8(&header[48..58]).ok().and_then(|s| s.trim_end().parse().ok());
        let (Some(size), b"`\n") = (size, &header[58..]) else { break };
        if header.starts_with(b"data.tar") {
            return Ok(input.take(size));
        }
        // Members begin at even places; the size has ten digits, so this cannot overflow.
        let skip = size + size % 2;
        input.seek(SeekFrom::Current(skip as i64)).with_context(broken)?;
    }
    Err(Error::failed(format!("{what} has no 'data.tar', so it is no Debian package")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, time::Instant};

    /// A package of this archive.
    fn packed(tar: impl Read) -> Vec<u8> {
        let mut data = Vec::new();
        let mut xz = liblzma::read::XzEncoder::new(tar, 0);
        xz.read_to_end(&mut data).unwrap();
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0\n1"[..]), ("data.tar.xz", &data)] {
            bytes.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, content.len()).bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
    }

    fn deb(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            // Set by hand: the library refuses to write the paths a hostile package has.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        packed(&*tar.into_inner().unwrap())
    }

    #[test]
    fn a_long_name_takes_no_memory_and_a_bomb_ends_soon() {
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(1 << 30);
        long.set_cksum();
        let name = long.as_bytes().chain(std::io::repeat(b'a').take(4 << 20));
        let error = unpacked(&packed(name)).1.unwrap_err().chain();
        assert!(error.contains("more than the limit of 1048576"), "{error}");

        let mut bomb = tar::Header::new_gnu();
        bomb.set_path("usr/share/doc/zeros").unwrap();
        bomb.set_size(2 << 30);
        bomb.set_mode(0o644);
        bomb.set_uid(0);
        bomb.set_gid(0);
        bomb.set_mtime(0);
        bomb.set_cksum();
        let zeros = bomb.as_bytes().chain(std::io::repeat(0).take(300 << 20));
        let begin = Instant::now();
        let error = unpacked(&packed(zeros)).1.unwrap_err().chain();
        assert!(error.contains("it unpacks to more than 268435456 bytes"), "{error}");
        assert!(begin.elapsed().as_secs() < 60);
    }

    #[test]
    fn packages_share_what_they_may_unpack_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.deb"), deb(&[("etc/x", &[7; 5000])])).unwrap();
        let mut budget = tree::Budget::new();
        budget.plain = 10_000;
        let mut unpack = || unpack(&dir.path().join("x.deb"), dir.path(), &mut budget);
        unpack().unwrap();
        assert!(unpack().unwrap_err().chain().contains("unpacks to more than"));
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let package = dir.path().join("x.deb");
        let files: &[(&str, &[u8])] =
            &[("boot/vmlinuz-6.12.1-x", &[7; 4000]), ("lib/modules/6.12.1-x/a.ko", &[7; 4001])];
        fs::write(&package, deb(files)).unwrap();
        let mut budget = tree::Budget::new();
        budget.bytes = 8000;
        let error = unpack(&package, dir.path(), &mut budget).unwrap_err().chain();
        assert!(error.contains("has more than 4 GiB of files"), "{error}");
        assert_eq!(fs::metadata(dir.path().join("kernel")).unwrap().len(), 4000);
        assert!(!dir.path().join("modules").exists());
    }

    #[test]
    fn a_sparse_file_is_refused_with_a_hint() {
        let mut header = tar::Header::new_gnu();
        header.set_path("boot/vmlinuz-6.12.1-x").unwrap();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.realsize[..11].copy_from_slice(b"00000001000");
        gnu.sparse[0].offset[..11].copy_from_slice(b"00000001000");
        gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
        header.set_cksum();
        let tar = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let error = unpacked(&packed(&*tar)).1.unwrap_err();
        assert!(error.chain().contains("stored as a sparse one"), "{}", error.chain());
        assert!(error.hint_text().unwrap().contains("dpkg-deb"));
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.deb"), bytes).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        let result =
            unpack(&dir.path().join("x.deb"), &dir.path().join("out"), &mut tree::Budget::new());
        (dir, result)
    }

    #[test]
    fn kernel_and_modules_are_found_and_nothing_leaves_the_folder() {
        let (dir, result) = unpacked(&deb(&[
            ("./boot/vmlinuz-6.12.1-x", b"kernel"),
            ("./lib/modules/6.12.1-x/kernel/a.ko", b"module"),
            ("./lib/modules/6.12.1-x/../../../../escaped", b"bad"),
            ("/lib/modules/../../escaped", b"bad"),
            ("./etc/passwd", b"bad"),
        ]));
        result.unwrap();
        let (kernel, modules) = found(&dir.path().join("out")).unwrap();
        assert_eq!(fs::read(kernel.unwrap()).unwrap(), b"kernel");
        assert_eq!(fs::read(modules.unwrap().join("kernel/a.ko")).unwrap(), b"module");
        assert!(!dir.path().join("escaped").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_given_twice_and_a_cut_package_are_refused() {
        let twice: &[(&str, &[u8])] =
            &[("boot/vmlinuz-6.12.1-x", b"1"), ("boot/vmlinuz-6.12.1-x", b"2")];
        assert!(unpacked(&deb(twice)).1.is_err());
        let good = deb(&[("boot/vmlinuz-6.12.1-x", &[7; 5000])]);
        for end in [0, 7, 30, 100, good.len() - 40] {
            assert!(unpacked(&good[..end]).1.is_err(), "{end}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_end(at in 0..200usize, bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let mut package = deb(&[("boot/vmlinuz-6.12.1-x", b"1")]);
            let end = (at + bytes.len()).min(package.len());
            let at = at.min(end);
            package[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = unpacked(&package).1;
        }
    }
}
