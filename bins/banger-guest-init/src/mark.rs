//! The mark that the image's init is past what it does before logins: who sets it, for each sort of init.

use crate::say;
use banger_doc::{Booted, Context, Result};
use banger_guest::{mark, place, systemd};
use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::symlink,
    path::Path,
    time::Duration,
};

/// What the process that sets the mark is called.
pub(crate) const NAME: &str = "banger-booted";
/// Its argument where systemd has given up its way to the default target.
const RESCUE: &str = "rescue";
/// Where systemd looks for units that hold until the next boot (systemd.unit(5)).
const UNITS: &str = "/run/systemd/system";
/// How long systemd may take to say what failed.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// More units that failed are not named.
const MOST_NAMED: usize = 8;
/// busybox's table, and what it does where there is none (its `init/init.c`).
const INITTAB: &str = "/etc/inittab";
const USUAL: &str = "::sysinit:/etc/init.d/rcS\n::askfirst:-/bin/sh\n::ctrlaltdel:/sbin/reboot\n\
                     ::shutdown:/sbin/swapoff -a\n::shutdown:/bin/umount -a -r\n::restart:/sbin/init\n";
/// The first line of a table that is there until the mark is set.
const OURS: &str = "# banger: here until the start-up scripts are done";
/// No table is larger.
const MAX_TABLE: u64 = 1 << 20;

/// Has systemd set the mark when it is at `basic.target`, or in one of the modes that it falls back to.
pub(crate) fn for_systemd() -> Result<()> {
    let unit = |what: &str, after: &str, word: &str| {
        format!(
            "[Unit]\nDescription=banger: {what}\nDefaultDependencies=no\nAfter={after}\n\n\
             [Service]\nType=oneshot\nTimeoutStartSec=30\n\
             ExecStart=@{} {NAME} {word}\n",
            place::INIT
        )
    };
    let booted = unit("past the boot", "basic.target systemd-tmpfiles-setup.service", "");
    let rescue = unit("no way to the default target", "", RESCUE);
    let units = Path::new(UNITS);
    let make = || -> io::Result<()> {
        for (name, text, targets) in [
            ("banger-booted.service", booted, &["basic.target"][..]),
            ("banger-rescue.service", rescue, &["emergency.target", "rescue.target"]),
        ] {
            fs::create_dir_all(units)?;
            fs::write(units.join(name), text)?;
            for target in targets {
                let wants = units.join(format!("{target}.wants"));
                fs::create_dir_all(&wants)?;
                symlink(format!("../{name}"), wants.join(name))?;
            }
        }
        Ok(())
    };
    make().context("cannot have systemd say when it has booted")
}

/// Has busybox's init set the mark when the programs it waits for are done: by a line of its table,
/// which is there for only so long. The image's own table is not touched.
pub(crate) fn for_busybox() -> Result<()> {
    let table = format!("{}/inittab", place::RUN);
    let make = || -> io::Result<()> {
        symlink(place::INIT, Path::new(place::RUN).join(NAME))?;
        let Some(own) = own_table(Path::new(INITTAB))? else {
            return put_where_none_is(Path::new(INITTAB), &with_line(USUAL.as_bytes()));
        };
        fs::write(&table, with_line(&own))?;
        let none: Option<&str> = None;
        let bind = nix::mount::MsFlags::MS_BIND;
        Ok(nix::mount::mount(Some(table.as_str()), INITTAB, none, bind, none)?)
    };
    make().context("cannot have busybox say when it has booted")
}

/// Reads the image's table. One of ours that a killed guest left is none. What cannot be read is an error, so that it
/// is not taken for absent.
pub(crate) fn own_table(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match banger_guest::read_file(path, MAX_TABLE) {
        Ok(table) => Ok(Some(table).filter(|table| !table.starts_with(OURS.as_bytes()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a table that sets the mark too. Of the lines of one sort the order counts, and `once` comes after all
/// that is waited for.
fn with_line(table: &[u8]) -> Vec<u8> {
    let line = format!("\n::once:{}/{NAME}\n", place::RUN);
    [OURS.as_bytes(), b"\n", table, line.as_bytes()].concat()
}

/// Writes a table where there is none, or one of ours. A link to nowhere is the image's.
fn put_where_none_is(path: &Path, table: &[u8]) -> io::Result<()> {
    if is_ours(path) {
        fs::remove_file(path)?;
    }
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(table)
}

fn is_ours(path: &Path) -> bool {
    banger_guest::read_start(path, MAX_TABLE).is_ok_and(|table| table.starts_with(OURS.as_bytes()))
}

/// Sets the mark where banger does not know the init: nobody can tell.
pub(crate) fn for_another(path: &str) {
    say::warn(&format!(
        "'{path}' is an init that banger does not know: commands may come before it is done"
    ));
    set(Booted::Unknown);
}

/// Sets the mark.
pub(crate) fn set(booted: Booted) {
    say::or_warn(mark::set(booted));
}

/// Is the process that an init starts when its boot is past what it does before logins.
pub(crate) fn run(word: Option<&str>) {
    take_table_away(Path::new(INITTAB));
    let mut booted = Booted::Yes;
    if word == Some(RESCUE) {
        say::warn("systemd went no further than its emergency or rescue mode");
        booted = Booted::Degraded;
    }
    if fs::read_to_string(place::INIT_KIND).is_ok_and(|kind| kind.trim() == "systemd") {
        for unit in failed_units() {
            say::warn(&format!("the unit '{unit}' failed"));
            booted = Booted::Degraded;
        }
    }
    set(booted);
}

/// Takes away the table of [`for_busybox`], which init has read: whoever changes it now changes the
/// image's own.
fn take_table_away(path: &Path) {
    if !is_ours(path) {
        return;
    }
    if nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH).is_err() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                say::warn(&format!("cannot remove '{}': {error}", path.display()));
            }
            _ => {}
        }
    }
}

/// Asks systemd which units failed so far. Without an answer none is known.
fn failed_units() -> Vec<String> {
    let words = ["list-units", "--state=failed", "--plain", "--no-legend", "--full"];
    units(&systemd::ask(&words, ASK_LIMIT))
}

fn units(list: &str) -> Vec<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.take(MOST_NAMED).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_no_text_is_there_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inittab");
        assert_eq!(own_table(&path).unwrap(), None);
        put_where_none_is(&path, &with_line(USUAL.as_bytes())).unwrap();
        // A killed guest left it.
        assert_eq!(own_table(&path).unwrap(), None);
        put_where_none_is(&path, &with_line(USUAL.as_bytes())).unwrap();
        take_table_away(&path);
        assert!(!path.exists());
        let table = b"::sysinit:/etc/start # Stra\xdfe\n";
        fs::write(&path, table).unwrap();
        assert_eq!(own_table(&path).unwrap().unwrap(), table);
        assert!(put_where_none_is(&path, b"").is_err());
        take_table_away(&path);
        assert_eq!(fs::read(&path).unwrap(), table);
        let whole = with_line(table);
        assert!(whole.starts_with(OURS.as_bytes()) && whole.ends_with(b"/banger-booted\n"));
        assert!(whole.windows(table.len()).any(|part| part == table));
        // What cannot be read is neither absent nor ours; nor is a link to nowhere.
        fs::write(&path, vec![b'#'; MAX_TABLE as usize + 1]).unwrap();
        assert!(own_table(&path).is_err());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(own_table(&path).is_err());
        take_table_away(&path);
        fs::remove_file(&path).unwrap();
        symlink("nowhere", &path).unwrap();
        assert!(put_where_none_is(&path, b"").is_err());
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn units_that_failed_are_few_names() {
        let list = "a.service loaded failed failed A thing\nb.mount loaded failed failed /b\n";
        assert_eq!(units(list), ["a.service", "b.mount"]);
        assert_eq!(units(&"x.service loaded failed\n".repeat(100)).len(), MOST_NAMED);
    }
}
