//! Handing over: becoming what was chosen.

use crate::{
    choose::{Choice, First, Kind},
    mark, minimal, say, units,
};
use banger_doc::{Booted, Context, Guest, Result};
use banger_guest::{place, process};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{SigHandler, Signal, signal},
};
use std::{ffi::CString, fs, path::Path};

/// What an init starts with; nothing of the kernel's command line.
const ENVIRONMENT: &[&str] =
    &["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"];

/// Notes what was chosen, while the host still listens.
pub(crate) fn announce(choice: &Choice) {
    note_kind(choice.inits.first().map_or("minimal", |first| first.kind.name()));
    if let Some(note) = &choice.note {
        say::warn(note);
    }
}

/// Becomes the image's init, or acts as one where the image has none.
pub(crate) fn over(guest: &Guest, choice: &Choice) -> Result<()> {
    own_modprobe();
    let mut done = Vec::new();
    for first in &choice.inits {
        note_kind(first.kind.name());
        for step in left(steps(first.kind), &mut done) {
            match step {
                Step::Systemd => {
                    say::or_warn(for_the_end());
                    known_by(mark::for_systemd());
                    say::or_warn(units::write(guest));
                }
                Step::Table => known_by(mark::for_busybox()),
                Step::Another => mark::for_another(&first.path),
                Step::Mounts => as_systemd_does(),
            }
        }
        let error = become_init(first, guest);
        let words = format!("cannot run the image's init '{}': {error}", first.path);
        say::console(&words);
        say::warn(&words);
    }
    note_kind("minimal");
    for _mounts in left(&[Step::Mounts], &mut done) {
        as_systemd_does();
    }
    minimal::run(guest)
}

/// What an init needs to find done. Done twice it fails, and hides why the first could not be run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Systemd,
    Table,
    Another,
    Mounts,
}

fn steps(kind: Kind) -> &'static [Step] {
    match kind {
        Kind::Systemd => &[Step::Systemd],
        Kind::OpenRc => &[],
        Kind::Busybox => &[Step::Table, Step::Mounts],
        Kind::Other | Kind::Own => &[Step::Another, Step::Mounts],
    }
}

/// Returns those that are not done yet, and counts them as done.
fn left(steps: &[Step], done: &mut Vec<Step>) -> Vec<Step> {
    let left: Vec<Step> = steps.iter().copied().filter(|step| !done.contains(step)).collect();
    done.extend(&left);
    left
}

/// Where an init cannot be told to set the mark, nobody can tell when it has booted.
fn known_by(told: Result<()>) {
    if say::or_warn(told).is_none() {
        mark::set(Booted::Unknown);
    }
}

fn note_kind(kind: &str) {
    say::or_warn(fs::write(place::INIT_KIND, kind).context("cannot note the init"));
}

/// Lets the kernel load modules by our `modprobe` where the image has none.
fn own_modprobe() {
    let there = ["/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"];
    if !there.iter().any(|path| Path::new(path).exists()) {
        say::or_warn(
            fs::write("/proc/sys/kernel/modprobe", place::MODPROBE)
                .context("cannot name 'modprobe' to the kernel"),
        );
    }
}

/// Leaves the program that ends the guest where systemd looks for it, in a small root that systemd moves
/// into.
fn for_the_end() -> Result<()> {
    let end = Path::new(place::RUN).join("end");
    let make = || -> std::io::Result<()> {
        for dir in ["proc", "sys", "dev", "run", "tmp", "oldroot"] {
            fs::create_dir_all(end.join(dir))?;
        }
        fs::hard_link(place::INIT, end.join("shutdown"))?;
        fs::hard_link(place::DEVICES, end.join("devices"))?;
        fs::create_dir_all(place::SHUTDOWN_ROOT)
    };
    make().context("cannot prepare the end of the guest")?;
    let none: Option<&str> = None;
    mount(Some(&end), place::SHUTDOWN_ROOT, none, MsFlags::MS_BIND, none)
        .context("cannot prepare the end of the guest")
}

/// Mounts the control groups, as systemd and OpenRC do by themselves, and has what is mounted in one mount
/// namespace appear in all: engines of containers count on it.
fn as_systemd_does() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    say::or_warn(
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), flags, Some("nsdelegate"))
            .context("cannot mount '/sys/fs/cgroup'"),
    );
    let none: Option<&str> = None;
    say::or_warn(
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)
            .context("cannot share the mounts"),
    );
}

/// Becomes another program; returns only why it could not.
fn become_init(first: &First, guest: &Guest) -> nix::errno::Errno {
    // Rust ignores SIGPIPE, and what is ignored stays so.
    // SAFETY: the default action needs no handler.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    process::keep_three();
    let mut environment: Vec<String> = ENVIRONMENT.iter().map(ToString::to_string).collect();
    if first.kind == Kind::Own {
        // One that believes itself in a container leaves to others what nobody does here.
        let own = guest.config.env.iter().filter(|entry| !entry.starts_with("container="));
        for entry in own {
            let name = entry.split_inclusive('=').next().unwrap_or_default();
            environment.retain(|old| !old.starts_with(name));
            environment.push(entry.clone());
        }
        let dir = guest.config.working_dir.as_deref().filter(|dir| !dir.is_empty());
        let _ = nix::unistd::chdir(dir.unwrap_or("/"));
    }
    let texts = |texts: &[String]| -> Option<Vec<CString>> {
        texts.iter().map(|text| CString::new(text.as_str()).ok()).collect()
    };
    let path = CString::new(first.path.as_str()).ok();
    let (Some(path), Some(words), Some(environment)) =
        (path, texts(&first.words), texts(&environment))
    else {
        return nix::errno::Errno::EINVAL;
    };
    match nix::unistd::execve(&path, &words, &environment) {
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_inits_need_is_done_once_however_many_are_tried() {
        let mut done = Vec::new();
        let kinds = [Kind::Own, Kind::Systemd, Kind::Busybox, Kind::Systemd, Kind::Other];
        let all: Vec<Step> = kinds.iter().flat_map(|kind| left(steps(*kind), &mut done)).collect();
        assert_eq!(all, [Step::Another, Step::Mounts, Step::Systemd, Step::Table]);
        assert_eq!(left(&[Step::Mounts], &mut done), []);
        assert_eq!(left(&[Step::Mounts], &mut Vec::new()), [Step::Mounts]);
    }
}
