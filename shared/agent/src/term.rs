//! Sorts of terminals: those of modern ones are not known everywhere.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Where programs look for terminals (terminfo(5)), below the root.
const PLACES: &[&str] = &[
    "etc/terminfo",
    "lib/terminfo",
    "usr/share/terminfo",
    "usr/lib/terminfo",
    "usr/local/share/terminfo",
    "run/current-system/sw/share/terminfo",
];
/// What stands for a terminal that is not known, the best first: all understand what xterm does.
const STAND_INS: &[&str] = &["xterm-256color", "xterm", "vt100"];

/// Returns the name of a terminal, or one that is known here if that one is not. `env` is the environment of
/// who asks, as `NAME=value`. Without any list of terminals nobody looks, and the name stays.
pub(crate) fn known(root: &Path, env: &[String], name: &str) -> String {
    let value = |wanted: &str| {
        let found = env.iter().rev().filter_map(|entry| entry.split_once('='));
        found.filter(|(name, _)| *name == wanted).map(|(_, value)| value).next()
    };
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let mut places: Vec<PathBuf> = PLACES.iter().map(|place| root.join(place)).collect();
    places.extend(value("TERMINFO").map(below));
    places.extend(value("HOME").map(|home| below(home).join(".terminfo")));
    let more = value("TERMINFO_DIRS").into_iter().flat_map(|list| list.split(':'));
    places.extend(more.filter(|dir| !dir.is_empty()).take(32).map(below));
    places.retain(|place| place.is_dir());
    let is_known = |name: &&str| {
        let Some(first) = name.bytes().next() else { return false };
        let letter = Path::new(OsStr::from_bytes(&[first])).join(name);
        // Where names differ in case alone, the letter is written as a number.
        let number = PathBuf::from(format!("{first:x}")).join(name);
        places.iter().any(|place| place.join(&letter).exists() || place.join(&number).exists())
    };
    let is_name = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && !name.starts_with('.')
        && (1..=64).contains(&name.len());
    if is_name && (places.is_empty() || is_known(&name)) {
        return name.to_owned();
    }
    (*STAND_INS.iter().find(|name| is_known(name)).unwrap_or(&"xterm")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_terminal_that_is_not_known_has_a_stand_in() {
        let root = tempfile::tempdir().expect("a directory");
        let add = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, "").expect("a file");
        };
        let env = ["HOME=/root".to_owned(), "TERMINFO_DIRS=:/opt/terms".to_owned()];
        let known = |name: &str| known(root.path(), &env, name);
        // Nobody looks there.
        assert_eq!(known("xterm-ghostty"), "xterm-ghostty");
        add("etc/terminfo/v/vt100");
        assert_eq!(known("xterm-ghostty"), "vt100");
        add("lib/terminfo/x/xterm");
        add("lib/terminfo/x/xterm-256color");
        assert_eq!(known("xterm-ghostty"), "xterm-256color");
        assert_eq!(known("xterm"), "xterm");
        for odd in ["", "../x/xterm", "x\ny", "a b", ".hidden"] {
            assert_eq!(known(odd), "xterm-256color", "{odd:?}");
        }
        for (path, name) in [
            ("root/.terminfo/x/xterm-ghostty", "xterm-ghostty"),
            ("opt/terms/x/xterm-kitty", "xterm-kitty"),
            ("usr/share/terminfo/61/alacritty", "alacritty"),
        ] {
            add(path);
            assert_eq!(known(name), name);
        }
    }

    #[test]
    fn without_any_stand_in_it_is_what_most_are() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("usr/share/terminfo")).expect("a directory");
        assert_eq!(known(root.path(), &[], "foot"), "xterm");
    }
}
