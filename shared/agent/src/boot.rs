//! How far the image's init is.

use banger_channel::control::Boot;
use banger_doc::Booted;
use banger_guest::{mark, place, systemd};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// No answer is waited for longer.
const MOST_WAIT: Duration = Duration::from_mins(1);
/// How often OpenRC is looked at, which tells nobody of a runlevel.
const LOOK: Duration = Duration::from_millis(250);
/// How long systemd may take to say what it is at.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// More of what a boot waits for is not told.
const MOST_NAMED: usize = 8;

/// Answers when the boot is over, at most after `limit`. Where there is no boot of a machine it is.
pub(crate) fn wait(limit: Duration, real: bool) -> Boot {
    if !real {
        return Boot { booted: Booted::Yes, notes: Vec::new(), waits_for: Vec::new() };
    }
    let end = Instant::now() + limit.min(MOST_WAIT);
    // Watched before it is looked at, so that nothing is missed between.
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
    if let Some(watch) = &watch {
        let _ = watch.add_watch(place::RUN, AddWatchFlags::IN_MOVED_TO);
    }
    loop {
        let booted = now();
        let left = end.saturating_duration_since(Instant::now());
        if booted.is_over() || left.is_zero() {
            let waits_for = if booted.is_over() { Vec::new() } else { waits_for() };
            return Boot { booted, notes: mark::notes(), waits_for };
        }
        let told = watch.as_ref().filter(|_| init() != "openrc");
        let Some(watch) = told else {
            thread::sleep(LOOK.min(left));
            continue;
        };
        // The sort of init may not be known yet.
        let pause = if init().is_empty() { LOOK.min(left) } else { left };
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout);
        let _ = watch.read_events();
    }
}

fn now() -> Booted {
    let booted = mark::get();
    if !booted.is_over() && init() == "openrc" && mark::openrc_is_past_boot(Path::new("/")) {
        let _ = mark::set(Booted::Yes);
        return Booted::Yes;
    }
    booted
}

fn init() -> String {
    fs::read_to_string(place::INIT_KIND).unwrap_or_default().trim().to_owned()
}

/// Returns what the boot waits for, as far as its init can be asked.
fn waits_for() -> Vec<String> {
    let mut names = match init().as_str() {
        "systemd" => {
            systemd_jobs(&systemd::ask(&["list-jobs", "--no-legend", "--plain"], ASK_LIMIT))
        }
        "openrc" => mark::openrc_starts(Path::new("/")),
        _ => scripts(),
    };
    names.truncate(MOST_NAMED);
    names
}

/// Reads the units of `systemctl list-jobs` that are at work; where none is, those that wait.
fn systemd_jobs(list: &str) -> Vec<String> {
    let jobs: Vec<(&str, &str)> = list
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?, words.nth(1)?))
        })
        .filter(|(unit, _)| !unit.starts_with("banger-"))
        .collect();
    let with = |state: &str| -> Vec<String> {
        let units = jobs.iter().filter(|(_, is)| *is == state);
        units.map(|(unit, _)| (*unit).to_owned()).collect()
    };
    let running = with("running");
    if running.is_empty() { with("waiting") } else { running }
}

/// Returns the programs that process 1 started and that are not banger's.
fn scripts() -> Vec<String> {
    let children = fs::read_to_string("/proc/1/task/1/children").unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.starts_with("@banger") && !name.starts_with("banger"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_is_at_is_named_before_what_waits_for_it() {
        let list = "1  graphical.target start waiting\n\
                    75 dev-vdz.device   start running\n\
                    76 banger-booted.service start waiting\n";
        assert_eq!(systemd_jobs(list), ["dev-vdz.device"]);
        assert_eq!(systemd_jobs("1 a.target start waiting\n"), ["a.target"]);
        assert_eq!(systemd_jobs("No jobs running.\n"), [""; 0]);
    }

    #[test]
    fn an_agent_without_a_machine_waits_for_no_boot() {
        let begun = Instant::now();
        assert_eq!(wait(MOST_WAIT, false).booted, Booted::Yes);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
