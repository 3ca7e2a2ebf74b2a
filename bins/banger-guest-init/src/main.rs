//! PID 1 of the initramfs: loads modules, makes the root of the image's disk and the VM's own, says to
//! the guest who it is, starts the agent, and becomes the image's init.
//!
//! It goes by several names: `/init` in the initramfs, `@banger-guest-agent` as the agent,
//! `@banger-guest-keeper` beside it, `banger-first-boot` where an ssh server is missing,
//! `banger-booted` when the image's init is past its boot, `modprobe` for images that have none,
//! `/shutdown` when systemd has ended all else.
//! Reads `/banger/` of the initramfs; writes `/run/banger/`, and in the image's tree what
//! `docs/boot.md` lists. Nothing of the image runs before the image's init.

mod apply;
mod boot;
mod choose;
mod console;
mod copy;
mod disks;
mod firstboot;
mod grow;
mod hand;
mod home;
mod homes;
mod keeper;
mod mark;
mod minimal;
mod modprobe;
mod network;
mod nodes;
mod reach;
mod say;
mod units;

use banger_guest::place;
use std::{ffi::OsString, os::unix::ffi::OsStrExt, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(|word| word.as_bytes()).unwrap_or_default();
    let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let first = std::process::id() == 1;
    match name {
        b"@banger-guest-agent" => keeper::run_agent(None, None),
        b"@banger-guest-keeper" => keeper::run(),
        name if name == firstboot::NAME.as_bytes() => {
            firstboot::run(words.get(1).is_some_and(|word| word == place::SSH_ASKED));
            return ExitCode::SUCCESS;
        }
        name if name == mark::NAME.as_bytes() => {
            mark::run(words.get(1).and_then(|word| word.to_str()));
            return ExitCode::SUCCESS;
        }
        b"modprobe" => return modprobe::run(&words[1..]),
        b"shutdown" if first => shutdown(),
        b"--version" => {}
        _ if first => boot::run(),
        _ => {}
    }
    say::refuse(words.get(1).is_some_and(|word| word == "--version"))
}

/// The end of a guest under systemd, which has made a small root of its own by now and put the old one
/// below `/oldroot` (systemd-shutdown(8)).
fn shutdown() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    banger_guest::power::unmount_below("/oldroot");
    banger_guest::power::finish();
}
