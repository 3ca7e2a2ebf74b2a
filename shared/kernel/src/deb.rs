//! A Debian package: an `ar` archive with a compressed tar inside (deb(5), ar(5)).

use crate::{image::is_release, inflate, tree};
use banger_doc::{Context, Error, Result};
use std::{
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The most members the outer archive has; a package has three or four.
const MAX_MEMBERS: usize = 16;

/// Unpacks the kernel and the modules of a package below `root`: `root/kernel` and
/// `root/modules/RELEASE/...`. All else is passed over.
pub(crate) fn unpack(deb: &Path, root: &Path, budget: &mut tree::Budget) -> Result<()> {
    let what = format!("'{}'", deb.display());
    let file = File::open(deb).with_context(|| format!("cannot open {what}"))?;
    let data = data_member(BufReader::new(file), &what)?;
    // Padding and files that are passed over count too, so a small package cannot keep us busy.
    let plain = inflate::reader(data, &what)?.take(2 * tree::MAX_BYTES);
    let mut archive = tar::Archive::new(plain);
    let broken = || format!("cannot read the package {what}");
    for (count, entry) in archive.entries().with_context(broken)?.enumerate() {
        if count > tree::MAX_FILES {
            return Err(Error::failed(format!("{what} has more than {} entries", tree::MAX_FILES)));
        }
        let entry = entry.with_context(broken)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        if let Some(place) = place_of(&path) {
            let place: Vec<&str> = place.iter().map(String::as_str).collect();
            tree::put(root, &place, entry, budget, &what)?;
        }
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
    use std::{fs, io::Write};

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
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&tar.into_inner().unwrap()).unwrap();
        let data = xz.finish().unwrap();
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in [("debian-binary", &b"2.0\n1"[..]), ("data.tar.xz", &data)] {
            bytes.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, content.len()).bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), b'\n');
        }
        bytes
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
