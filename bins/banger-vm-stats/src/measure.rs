//! One look at one VM.

use banger_channel::control;
use banger_doc::{
    DiskUse, GuestDisk, GuestUse, HostUse, Name, NetworkUse, Process, Result, Running, Stats,
    Status, shows,
};
use banger_state::{Room, State, VmFolder, clock_ms, place, process_of};
use nix::unistd::{SysconfVar, sysconf};
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long an agent may take to answer.
const LIMIT: Duration = Duration::from_secs(3);
/// A guest tells of two file systems; more are not listened to.
const MOST_DISKS: usize = 8;
/// Longest path of one that is shown.
const PATH_CHARS: usize = 64;

/// What was seen of a VM at one moment.
pub(crate) struct Sample {
    at: Instant,
    stats: Stats,
    /// How long the guest's processors have been busy.
    guest_busy_ms: Option<u64>,
}

/// Looks at one VM.
pub(crate) fn take(state: &State, name: &Name) -> Result<Sample> {
    let folder = state.vm(name)?;
    let vm = folder.vm()?;
    let status = folder.status()?;
    let running = if status.is_live() { folder.running().unwrap_or(None) } else { None };
    let said = match status {
        Status::Running => ask(&folder),
        _ => None,
    };
    let room = Room::of(folder.path());
    let given = folder.spec().map_or(0, |spec| spec.memory_mib << 20);
    let stats = Stats {
        vm: name.clone(),
        status,
        taken_unix_ms: clock_ms(),
        host: running.as_ref().map(|running| host(running, given)),
        network: said.as_ref().map(|said| NetworkUse {
            received_bytes: said.received_bytes,
            sent_bytes: said.sent_bytes,
        }),
        guest: said.as_ref().map(guest),
        disk: DiskUse {
            exclusive_bytes: room.allocated,
            shared_bytes: state.shared_bytes(&vm),
            apparent_bytes: room.apparent,
        },
    };
    let guest_busy_ms = said.map(|said| said.cpu_busy_ms);
    Ok(Sample { at: Instant::now(), stats, guest_busy_ms })
}

impl Sample {
    /// Returns what was seen, with the shares of processor time since an earlier sample.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Stats {
        let mut stats = self.stats.clone();
        let Some(earlier) = earlier else { return stats };
        let took_ms = self.at.saturating_duration_since(earlier.at).as_millis().max(1) as f64;
        let percent = |now: u64, before: u64| {
            (now.saturating_sub(before) as f64 / took_ms * 1000.0).round() / 10.0
        };
        if let (Some(host), Some(before)) = (&mut stats.host, &earlier.stats.host) {
            host.cpu_percent = percent(host.cpu_ms, before.cpu_ms);
        }
        if let (Some(guest), Some(busy), Some(before)) =
            (&mut stats.guest, self.guest_busy_ms, earlier.guest_busy_ms)
        {
            guest.cpu_percent = percent(busy, before);
        }
        stats
    }
}

/// A guest that does not answer has no figures; that it does not is seen.
fn ask(folder: &VmFolder) -> Option<control::Stats> {
    let (_dir, channel) = folder.short_path(place::VM_CHANNEL).ok()?;
    control::stats(&channel, LIMIT).ok()
}

/// What a guest says is cut to what can be shown.
fn guest(said: &control::Stats) -> GuestUse {
    let disks = said.disks.iter().take(MOST_DISKS).map(|disk| GuestDisk {
        path: disk.path.chars().filter(|c| shows(*c)).take(PATH_CHARS).collect(),
        total_bytes: disk.total_bytes,
        used_bytes: disk.total_bytes.saturating_sub(disk.free_bytes),
    });
    GuestUse {
        cpu_percent: 0.0,
        memory_total_bytes: said.memory_total_bytes,
        memory_used_bytes: said.memory_total_bytes.saturating_sub(said.memory_available_bytes),
        load1: said.load1,
        processes: said.processes,
        disks: disks.collect(),
    }
}

fn host(running: &Running, given_memory_bytes: u64) -> HostUse {
    let vmm = running.vmm_process.as_ref().filter(|vmm| is_still(vmm));
    let supervisor = Some(&running.supervisor).filter(|supervisor| is_still(supervisor));
    let sum = |of: fn(u32) -> u64| {
        vmm.map_or(0, |vmm| of(vmm.pid)) + supervisor.map_or(0, |supervisor| of(supervisor.pid))
    };
    HostUse {
        cpu_ms: sum(cpu_ms),
        cpu_percent: 0.0,
        vmm_memory_bytes: vmm.map_or(0, |vmm| resident(vmm.pid)),
        given_memory_bytes,
        supervisor_memory_bytes: supervisor.map_or(0, |process| resident(process.pid)),
    }
}

fn is_still(process: &Process) -> bool {
    process_of(process.pid).as_ref() == Some(process)
}

/// Processor time of a process so far: fields 14 and 15 of its `stat` (proc_pid_stat(5)).
fn cpu_ms(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100, |hertz| hertz.max(1));
    ticks * 1000 / hertz as u64
}

/// Resident memory of a process (proc_pid_status(5)).
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
